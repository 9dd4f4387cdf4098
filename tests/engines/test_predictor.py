"""`BatchPredictor`: the answers of `predict`, to the bit, whatever comes with a picture; bad pictures are answers."""

import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import diffmiczoo
from diffmiczoo.engines import BatchPredictor
from diffmiczoo.hub.companions import weights_digest

pytestmark = pytest.mark.filterwarnings("ignore:this model is not trained")


@pytest.fixture(scope="module")
def predictor(weights: str) -> BatchPredictor:
    return BatchPredictor(weights, device="cpu", batch_size=4)


@pytest.fixture(scope="module")
def contents() -> list[bytes]:
    """Seven pictures of all kinds: RGB and grey, 8 and 16 bits, JPEG, PNG and TIFF."""
    rng, found = np.random.default_rng(0), []
    for number in range(7):
        pixels = rng.integers(0, 256, (40 + 9 * number, 90, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((300, 200 + number))
        if number == 3:
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 200)
        buffer = io.BytesIO()
        image.save(buffer, format=("PNG", "JPEG", "TIFF", "PNG")[number % 4])
        found.append(buffer.getvalue())
    return found


def column(values: list) -> np.ndarray:
    cells = np.empty(len(values), dtype=object)
    cells[:] = values
    return cells


def test_answers_are_those_of_predict_to_the_bit(predictor, contents) -> None:
    given = contents[:4]
    found, expected = predictor({"bytes": column(given)}), predictor.model.predict(given, batch_size=4)
    assert np.array_equal(found["probs"], expected.probs.numpy())
    assert np.array_equal(found["uncertainty"], expected.uncertainty.numpy())
    assert list(found["label"]) == expected.labels
    assert list(found["sha256"]) == [hashlib.sha256(content).hexdigest() for content in given]
    assert set(found["weights_sha256"]) == {weights_digest(predictor.model)}
    assert set(found["version"]) == {diffmiczoo.__version__}


def test_runs_of_the_sampler_have_a_spread(predictor, weights, contents) -> None:
    runs = BatchPredictor(weights, device="cpu", batch_size=4, num_samples=3)
    found = runs({"bytes": column([*contents[:4], b"no picture"])})
    expected = runs.model.predict(contents[:4], batch_size=4, num_samples=3).spread
    assert np.array_equal(found["spread"][:4], expected.numpy()) and np.isnan(found["spread"][4]).all()
    assert np.isnan(predictor({"bytes": column(contents[:1])})["spread"]).all()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_answers_do_not_depend_on_the_batch(predictor, contents, size: int) -> None:
    whole = predictor({"bytes": column(contents)})["probs"]
    order = np.random.default_rng(size).permutation(len(contents))
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    for part in parts:
        assert np.array_equal(predictor({"bytes": column([contents[row] for row in part])})["probs"], whole[part])


def test_shipped_weights_answer_the_same_in_any_batch(contents) -> None:
    predictor = BatchPredictor("diffmicv2_busi", device="cpu", batch_size=3, threads=torch.get_num_threads())
    whole = predictor({"bytes": column(contents[:4])})
    one = predictor({"bytes": column(contents[3:4])})
    for name in ("probs", "ood_score", "uncertainty"):
        assert np.array_equal(whole[name][3:], one[name])
    expected = predictor.model.predict(contents[:3], batch_size=3)
    assert np.array_equal(whole["probs"][:3], expected.probs.numpy())
    assert np.array_equal(whole["in_distribution"][:3] == 1, expected.in_distribution.numpy())
    assert list(whole["set"][:3]) == ["|".join(each) for each in expected.shown_sets]
    assert set(whole["model"]) == {"diffmicv2_nano.busi"}


def test_bad_pictures_have_an_error_and_the_others_an_answer(predictor, contents, tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    good.write_bytes(contents[0])
    (tmp_path / "empty.png").touch()
    (tmp_path / "broken.png").write_bytes(contents[0][:100])
    paths = ["good.png", "empty.png", "broken.png", "missing.png", ""]
    found = predictor({"path": np.array([str(tmp_path / name) for name in paths])})
    alone = predictor({"bytes": column([contents[0]])})
    assert np.array_equal(found["probs"][0], alone["probs"][0]) and found["error"][0] == ""
    for row, words in enumerate(["empty (0 bytes)", "cannot be read", "no such file", "is a directory"], start=1):
        assert words in found["error"][row]
        assert np.isnan(found["probs"][row]).all() and found["label"][row] == "" and found["in_distribution"][row] == -1
    assert list(found["id"]) == [str(tmp_path / name) for name in paths]
    # The content of a broken picture is known; what is not there has none.
    assert found["sha256"][2] == hashlib.sha256(contents[0][:100]).hexdigest() and found["sha256"][3] == ""


def test_empty_cells_and_batches_of_nothing_but_errors(predictor) -> None:
    found = predictor({"bytes": column([b"", None, b"no picture"]), "id": np.array([7, 7, 8])})
    assert list(found["id"]) == ["7", "7", "8"] and list(found["label"]) == ["", "", ""]
    assert all(found["error"]) and found["probs"].shape == (3, 3) and found["probs"].dtype == np.float32


def test_pictures_come_from_urls(predictor, contents, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://scans/a.png", "wb") as file:
        file.write(contents[0])
    found = predictor({"path": np.array(["memory://scans/a.png", "memory://scans/b.png", "nothing://a.png"])})
    assert np.array_equal(found["probs"][0], predictor({"bytes": column(contents[:1])})["probs"][0])
    assert "check the address" in found["error"][1] and "nothing://" in found["error"][2]


def test_it_goes_to_other_processes_as_a_name_and_loads_there(predictor, contents) -> None:
    sent = pickle.dumps(predictor)
    assert len(sent) < 1000
    batch = {"bytes": column(contents[:2])}
    assert np.array_equal(pickle.loads(sent)(batch)["probs"], predictor(batch)["probs"])


def test_other_weights_than_those_asked_for_are_refused(weights: str) -> None:
    with pytest.raises(ValueError, match=r"the weights here have sha256 \w{64}, expected 0000"):
        BatchPredictor(weights, weights_sha256="0000")


def test_threads_are_the_share_that_was_given(weights: str) -> None:
    before = torch.get_num_threads()
    try:
        BatchPredictor(weights, threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ValueError, match="threads=0"):
        BatchPredictor(weights, threads=0)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"image": np.zeros(2)}, "columns image; expected path or bytes"),
        ({"bytes": column([b"a", b"b"]), "id": np.array(["a"])}, "1 ids or paths for 2 bytes"),
    ],
)
def test_batches_without_pictures_are_refused(predictor, batch: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictor(batch)

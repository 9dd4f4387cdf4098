"""`runner.py` makes the same bytes of every picture as the package, and answers the same without torch."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from factories import SHARED, save_picture
from PIL import Image

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.images.items import ImageError, Item
from diffmiczoo.images.preprocessing import read_square

pytest.importorskip("onnxruntime")
from diffmiczoo.export import runner

ODD = SHARED / "data/odd_files/files"
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").rglob("*.jpg"))

#: A process in which nothing of torch or of this package can be imported, that runs a file as a program.
ALONE = """
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "timm", "diffmiczoo", "einops", "onnx", "onnxscript"):
            raise ImportError(name + " is not here")
sys.meta_path.insert(0, Refused())
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def both(source: object, mode: str = "center", how: str = "bilinear", size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Returns the squares that the package and the runner make."""
    config = DiffMICConfig(image_size=size, crop_mode=mode, interpolation=how, roi_size=16)
    name = "picture" if isinstance(source, bytes) else str(source)
    own = read_square(Item(name, source), config).permute(1, 2, 0).numpy()
    return own, runner.to_square(runner.read_picture(source, name, 2 * size), size, mode, how)


@pytest.mark.parametrize("mode", ["center", "border", "squash"])
@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "shape", [(64, 64), (90, 120), (700, 500), (33, 200), (200, 11), (3, 100), (2000, 90), (7, 9), (1, 1)]
)
def test_squares_are_the_same_bit_for_bit(mode, how, shape):
    array = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(array).save(file, "PNG", compress_level=0)
    own, other = both(file.getvalue(), mode, how)
    np.testing.assert_array_equal(own, other)


def stored(image: Image.Image, kind: str, **options) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def made() -> dict[str, bytes]:
    random = np.random.default_rng(1)
    colours = Image.fromarray(random.integers(0, 256, (70, 90, 3), dtype=np.uint8))
    deep = Image.fromarray(random.integers(0, 4096, (70, 90), dtype=np.uint16))
    large = Image.fromarray(random.integers(0, 256, (768, 1024, 3), dtype=np.uint8))
    found = {f"orientation {turn}": stored(colours, "JPEG", exif=exif(turn)) for turn in range(1, 9)}
    found |= {f"TIFF orientation {turn}": stored(colours, "TIFF", tiffinfo={274: turn}) for turn in (3, 6)}
    found |= {mode: stored(colours.convert(mode), "TIFF") for mode in ("CMYK", "1", "L", "P", "RGBA", "LAB")}
    found |= {f"PNG {mode}": stored(colours.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGBA")}
    found |= {"transparent": stored(colours.convert("P"), "PNG", transparency=3)}
    found |= {"16 bits": stored(deep, "PNG"), "16 bits, TIFF": stored(deep, "TIFF", compression="tiff_deflate")}
    found |= {
        "zero is white": stored(deep, "TIFF", tiffinfo={262: 0}),
        "white": stored(colours.convert("L"), "TIFF", tiffinfo={262: 0}),
    }
    found |= {
        "32 bits": stored(Image.fromarray(np.full((9, 9), 70000, np.int32)), "TIFF"),
        "GIF": stored(colours, "GIF"),
    }
    found |= {"large JPEG": stored(large, "JPEG"), "CMYK JPEG": stored(colours.convert("CMYK"), "JPEG")}
    found |= {"WebP": stored(colours, "WEBP"), "BMP": stored(colours, "BMP"), "PPM": stored(colours, "PPM")}
    return found | {"pages": stored(colours, "TIFF", save_all=True, append_images=[colours.rotate(90)])}


def exif(turn: int) -> Image.Exif:
    found = Image.Exif()
    found[274] = turn
    return found


MADE = made()


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.filterwarnings("ignore:picture")
def test_kinds_of_files_are_read_the_same(kind):
    own, other = both(MADE[kind])
    np.testing.assert_array_equal(own, other)


@pytest.mark.skipif(not ODD.is_dir(), reason=f"{ODD} is absent")
def test_odd_files_are_read_the_same_or_refused():
    read, refused = 0, set()
    for path in [*sorted(ODD.iterdir()), *EXAMPLES]:
        if path.suffix == ".dcm":
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                own, other = both(path)
            except ImageError:
                with pytest.raises(runner.PictureError):
                    runner.read_picture(path, str(path))
            except runner.PictureError:
                refused.add(path.name)
            else:
                np.testing.assert_array_equal(own, other, err_msg=path.name)
                read += 1
    assert read >= 40 and not refused


def test_what_is_not_read_the_same_is_refused(tmp_path):
    deep = np.random.default_rng(0).integers(0, 9999, (9, 9)).astype(np.uint16)
    floats = Image.fromarray(np.random.default_rng(0).uniform(0, 1, (9, 9)).astype(np.float32))
    signed = stored(Image.fromarray(deep.astype(np.int32) - 5000), "TIFF")
    (tmp_path / "empty.png").write_bytes(b"")
    for source, message in [
        (stored(floats, "TIFF"), "holds floats"),
        (signed, "holds integers from -"),
        (b"\0" * 128 + b"DICM" + b"\0" * 99, "is DICOM, which this program does not read; use diffmiczoo"),
        (b"\x93NUMPY" + b"\0" * 99, "is a NumPy file"),
        (b"hello", "is not an image"),
        (MADE["BMP"][:300], "cannot be read"),
        (tmp_path / "empty.png", "is empty"),
        (tmp_path, "is no file"),
        (tmp_path / "none.png", "no such file"),
        (np.zeros((9, 9)), "is an array"),
        (7.5, "cannot be read"),
    ]:
        with pytest.raises(runner.PictureError, match=message):
            runner.read_picture(source)


def test_drawings_and_too_large_pictures_are_refused(tmp_path, monkeypatch):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Software", "diffmiczoo")
    with pytest.raises(runner.PictureError, match="is drawn by diffmiczoo"):
        runner.read_picture(stored(Image.new("L", (9, 9)), "PNG", pnginfo=info))
    monkeypatch.setattr(runner, "MAX_PIXELS", 80)
    with pytest.raises(runner.PictureError, match="is 9×9 pixels; expected 1 to 80"):
        runner.read_picture(stored(Image.new("L", (9, 9)), "PNG"))


def test_it_runs_without_torch_and_answers_as_the_model(exported, tmp_path):
    random = np.random.default_rng(0)
    files = [
        save_picture(tmp_path / f"{n}.png", random.integers(0, 256, (50, 40, 3), dtype=np.uint8)) for n in range(3)
    ]
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    program = exported.path.with_name("runner.py")
    given = [str(exported.path), str(files[0]), str(tmp_path / "broken.png"), *map(str, files[1:]), "--batch-size", "2"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(program), *given], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(each["name"]).name for each in records] == ["0.png", "broken.png", "1.png", "2.png"]
    assert "is not an image" in records.pop(1)["error"]
    known = exported.model.predict(list(files), defer_error=0.05)
    for row, record in enumerate(records):
        assert record["label"] == known.labels[row] and record["set"] == known.shown_sets[row]
        assert list(record["probs"]) == ["cat", "dog", "eel"]
        np.testing.assert_allclose(list(record["probs"].values()), known.probs[row], atol=1e-6)
        assert record["uncertainty"] == pytest.approx(float(known.uncertainty[row]), abs=1e-6)
        np.testing.assert_allclose(list(record["spread"].values()), known.spread[row], atol=1e-5)
        assert [roi["box"] for roi in record["rois"]] == known.rois[row].tolist()
        attention = [roi["attention"] for roi in record["rois"]]
        np.testing.assert_allclose(attention, known.roi_attention[row], atol=1e-5)
        assert record["in_distribution"] == bool(known.in_distribution[row])
        assert record["deferred"] == bool(known.deferred[row])


def test_its_class_takes_paths_bytes_and_pictures(exported):
    model = runner.Model(exported.path, threads=1)
    assert model.labels == ["cat", "dog", "eel"] and model.facts["task"] == "multiclass"
    image = Image.open(BytesIO(MADE["RGBA"]))
    first, second = model.predict([MADE["RGBA"], image])
    assert first["name"] == "pictures[0]" and first["label"] == second["label"]
    assert list(first["probs"].values()) == pytest.approx(list(second["probs"].values()), abs=1e-6)


def test_several_labels_are_listed():
    fake = runner.Model.__new__(runner.Model)
    fake.labels, fake.facts = ["a", "b"], {"task": "multilabel", "alphas": []}
    outputs = {"labels": np.array([[False, True]]), "probs": np.array([[0.2, 0.8]]), "uncertainty": np.array([0.4])}
    outputs |= {"rois": np.array([[[0, 1, 2, 3]]]), "attention": np.array([[1.0]])}
    record = fake._record(outputs, 0)
    known = {"labels": ["b"], "probs": {"a": 0.2, "b": 0.8}, "uncertainty": 0.4, "spread": None}
    assert record == known | {"in_distribution": None, "rois": [{"box": [0, 1, 2, 3], "attention": 1.0}]}


def test_files_of_others_are_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Abs", ["x"], ["y"])], "g", [value], [other])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    (tmp_path / "other.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(runner.PictureError, match=r"other.onnx was not written by diffmiczoo export"):
        runner.Model(tmp_path / "other.onnx")


def test_a_file_that_is_no_model_is_told_in_a_line(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    monkeypatch.setattr("sys.argv", ["runner.py", str(tmp_path / "no.onnx"), "a.png"])
    assert runner.main() == 2
    said = capsys.readouterr()
    assert not said.out and "no.onnx: cannot be used" in said.err and len(said.err.splitlines()) == 1

"""What `push --space` and `push --handler` write, run as a Space and an endpoint would run it."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import io
import json
import runpy
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

import diffmiczoo
from diffmiczoo.cli import main
from diffmiczoo.hub import publish
from diffmiczoo.serving import space
from diffmiczoo.serving.page import gradio


@pytest.fixture(scope="module")
def directory(weights: str) -> Path:
    return Path(weights.removeprefix("local-dir:"))


@pytest.fixture
def written(directory: Path, tmp_path: Path) -> Path:
    """What the command writes."""
    options = ["--handler", "--space", "org/page", "--write", str(tmp_path / "out")]
    result = CliRunner().invoke(main, ["push", str(directory), "org/weights", *options])
    assert result.exit_code == 0, result.output
    return tmp_path / "out"


def test_the_handler_answers_as_predict_does(directory: Path, written: Path, contents: list[bytes]) -> None:
    """As the Hub's toolkit does it: a module by its path, a class by its name, the directory of the weights."""
    spec = importlib.util.spec_from_file_location("handler", written / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler = module.EndpointHandler(path=str(directory))
    expected = diffmiczoo.DiffMICv2.from_pretrained(directory).predict(contents[:1])
    encoded = base64.b64encode(contents[0]).decode()
    opened = Image.open(io.BytesIO(contents[0]))
    loaded = Image.open(io.BytesIO(contents[0])).copy()
    inputs = [encoded, {"name": "a.png", "base64": encoded}, contents[0], opened, loaded, "/etc/passwd", 3]
    answers = json.loads(json.dumps(handler({"inputs": inputs})))
    assert answers["version"] == diffmiczoo.__version__ and len(answers["weights_sha256"]) == 64
    images = answers["images"]
    assert [image["status"] for image in images] == [200] * 5 + [422] * 2
    for image in images[:5]:
        assert list(image["probs"].values()) == pytest.approx(expected.probs[0].tolist(), abs=1e-6)
    assert images[1]["name"] == "a.png"
    assert images[3]["sha256"] == images[0]["sha256"]  # an opened file is the file that was sent
    assert "is not base64" in images[5]["error"] and "is a int; expected" in images[6]["error"]
    assert handler({"inputs": contents[0]})["images"][0]["status"] == 200
    for data in ({}, {"inputs": []}, {"inputs": None}):
        with pytest.raises(ValueError, match="there is no picture"):
            handler(data)


def test_the_space_shows_the_page(directory: Path, written: Path, contents, tmp_path, monkeypatch) -> None:
    pytest.importorskip("gradio", reason="the extra demo is not installed")
    app = written / "space" / "app.py"
    app.write_text(app.read_text().replace("hf-hub:org/weights", f"local-dir:{directory}"))
    launched = []
    monkeypatch.setattr(gradio().Blocks, "launch", lambda self, **options: launched.append((self, options)))
    runpy.run_path(str(app), run_name="__main__")
    ((page, options),) = launched
    assert options["footer_links"] == [] and options["ssr_mode"] is False and not page.analytics_enabled
    (function,) = [each for each in page.fns.values() if each.api_visibility == "private"]
    picture, broken = tmp_path / "good.png", tmp_path / "broken.png"
    picture.write_bytes(contents[0])
    broken.write_bytes(b"")
    cards = asyncio.run(function.fn([str(picture), str(broken)]))
    assert "good.png" in cards and "data:image/png;base64," in cards and "broken.png: is empty" in cards
    assert not picture.exists()  # nothing of a person stays on the disk


def test_the_space_says_what_it_is(written: Path) -> None:
    yaml = pytest.importorskip("yaml")
    head = yaml.safe_load((written / "space" / "README.md").read_text().split("---")[1])
    assert head["sdk"] == "gradio" and head["app_file"] == "app.py" and head["models"] == ["org/weights"]
    assert (written / "space" / head["app_file"]).is_file() and "license" not in head
    assert head["sdk_version"].split(".")[0] == "6" and len(head["short_description"]) <= 60
    assert f"[demo,dicom]=={diffmiczoo.__version__}" in (written / "space" / "requirements.txt").read_text()
    assert f"[dicom]=={diffmiczoo.__version__}" in (written / "requirements.txt").read_text()
    assert '\nlicense: "cc-by-4.0"\n' in space.space_files("org/weights", "page", "cc-by-4.0")["README.md"]


def test_a_space_is_pushed_as_one(monkeypatch) -> None:
    import huggingface_hub

    calls = []
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda self, *a, **k: calls.append((a, k)))
    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", lambda self, *a, **k: calls.append((a, k)))
    address = publish.push_space("org/page", {"app.py": "x", "README.md": "y"}, token="hf_x")
    (made, options), (commit, kind) = calls
    assert address.endswith("/spaces/org/page") and made == ("org/page",)
    assert options["repo_type"] == kind["repo_type"] == "space" and options["space_sdk"] == "gradio"
    assert sorted(each.path_in_repo for each in commit[1]) == ["README.md", "app.py"]
    with pytest.raises(ValueError, match="expected"):
        publish.push_space("page", {})

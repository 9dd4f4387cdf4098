"""The example of Spark in docs/scaling.md gives the answers of `predict`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import write_images

import diffmiczoo

pytestmark = pytest.mark.filterwarnings("ignore:this model is not trained")

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
BLOCK = re.compile(r"```python\n((?:(?!```).)*mapInPandas.*?)```", re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures, and one that is none."""
    (tmp_path / "pictures").mkdir()
    write_images(tmp_path / "pictures", [f"{number}.png" for number in range(6)])
    (tmp_path / "pictures" / "9.png").write_bytes(b"broken")
    return tmp_path / "pictures"


def example(weights: str, until: str | None = None) -> dict[str, Any]:
    """Runs the page's example, or what stands above a line of it, with small weights."""
    found = BLOCK.search(PAGE.read_text("utf-8"))
    assert found is not None
    text = found[1].replace('"diffmicv2_busi"', repr(weights))
    assert text != found[1]
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text[: text.index(until)] if until else text, str(PAGE), "exec"), names)
    return names


def check(rows: Any, weights: str, folder: Path) -> None:
    """`rows`: a DataFrame of the answers."""
    expected = diffmiczoo.create_model(weights, pretrained=True).predict(folder, on_error="skip", batch_size=32)
    good = rows[rows["error"] == ""].set_index("id").loc[expected.names]
    assert len(rows) == 7 and len(good) == 6 and "broken" in rows.set_index("id").loc[str(folder / "9.png"), "error"]
    assert list(good["label"]) == expected.labels
    np.testing.assert_allclose(np.array(good["probs"].tolist()), expected.probs.numpy(), atol=1e-6)


def test_its_function_answers_as_predict_does(weights, folder) -> None:
    pandas = pytest.importorskip("pandas")
    names = example(weights, until="from pyspark")
    paths = sorted(map(str, folder.iterdir()))
    frames = [pandas.DataFrame({"path": paths[:4]}), pandas.DataFrame({"path": paths[4:]})]
    check(pandas.concat(names["answers"](iter(frames))), weights, folder)


@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
def test_spark_runs_it(weights, folder, tmp_path, monkeypatch) -> None:
    pytest.importorskip("pyspark", reason="needs Spark")
    pandas = pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    pandas.DataFrame({"path": sorted(map(str, folder.iterdir()))}).to_parquet("paths.parquet")
    example(weights)
    check(pandas.read_parquet("answers"), weights, folder)

"""Images divided by a column of their table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import save_picture
from hypothesis import given, settings
from hypothesis import strategies as st

from diffmiczoo.data.manifest import Manifest, Record
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.data.subgroups import MISSING, divide

PICTURE = np.zeros((8, 8, 3), np.uint8)


def manifest_of(cells: list[str], column: str = "site") -> Manifest:
    records = [Record(Path(f"{n}.png"), ("a",), columns={"file": f"{n}.png", column: c}) for n, c in enumerate(cells)]
    return Manifest("data", tuple(records), ("a", "b"), "multiclass")


def sizes(cells: list[str], column: str = "site") -> dict[str, int]:
    division = divide(manifest_of(cells, column), column)
    return {name: division.of_image.count(place) for place, name in enumerate(division.subgroups)}


def test_values_and_missing_ones_are_subgroups() -> None:
    assert sizes(["B", " A", "", "NaN", "A", "unknown"]) == {"A": 2, "B": 1, "unknown": 1, MISSING: 2}
    assert sizes(["2.0", "1.0", "", "10.0"]) == {"1": 1, "2": 1, "10": 1, MISSING: 1}
    assert divide(manifest_of(["A"]), "Site").column == "site"


def test_ages_are_cut_at_the_same_years_everywhere() -> None:
    assert sizes([*map(str, range(15, 85, 5)), "NA"], "Patient Age") == {
        "below 20": 1, "20 to below 40": 4, "40 to below 60": 4, "60 to below 80": 4, "80 and above": 1, MISSING: 1,
    }  # fmt: skip
    dicom = ["006M", "003W", "012D", *(f"{years:03d}Y" for years in range(30, 70, 4))]
    assert sizes(dicom, "patient_age") == {"below 20": 3, "20 to below 40": 3, "40 to below 60": 5, "60 to below 80": 2}


def test_other_numbers_are_cut_at_rounded_quartiles_that_are_said() -> None:
    cells = [str(value / 10) for value in range(1234)]
    found = sizes(cells, "brightness")
    assert list(found) == ["below 30.8", "30.8 to below 61.7", "61.7 to below 92.5", "92.5 and above"]
    assert sum(found.values()) == 1234 and max(found.values()) - min(found.values()) < 12
    assert divide(manifest_of(cells, "brightness"), "brightness").note == "numbers cut near their quartiles"
    years = sizes([str(2001 + number % 12) for number in range(48)], "year")
    assert list(years) == ["below 2003.75", "2003.75 to below 2006.5", "2006.5 to below 2009.25", "2009.25 and above"]
    assert sizes(["0"] * 90 + [str(number) for number in range(1, 11)], "count") == {"0 and above": 100}


def test_ten_different_numbers_are_codes() -> None:
    assert len(sizes([str(number % 10) for number in range(40)], "skin type")) == 10


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(["", "NA", "left", "right"]),
            st.integers(-5, 120).map(str),
            st.floats(0, 1).map("{:.2f}".format),
        ),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from(["age", "site"]),
)  # fmt: skip
def test_each_image_is_in_one_subgroup(cells, column) -> None:
    found = sizes(cells, column)
    assert sum(found.values()) == len(cells) and min(found.values()) > 0
    assert found.get(MISSING, 0) == sum(cell in ("", "NA") for cell in cells)


def test_columns_that_are_none_or_have_a_value_per_image_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data: has no column camera to divide images by; found \['file', 'site'\]"):
        divide(manifest_of(["A"]), "camera")
    with pytest.raises(ValueError, match="column site has 51 different values, such as 'p0', more than the 50"):
        divide(manifest_of([f"p{number}" for number in range(51)]), "site")
    nothing = Manifest("folder", (Record(Path("a.png"), ("a",)),), ("a", "b"), "multiclass")
    with pytest.raises(ValueError, match="folder: has no columns such as sex to divide images by; only tables have"):
        divide(nothing, "sex")


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_tables_keep_their_columns(kind, tmp_path) -> None:
    rows = {"file": ["a.png", "b.png", "c.png"], "label": ["x", "y", "x"], "sex": ["f", "m", None], "age": [30, 71, 45]}
    for name in rows["file"]:
        save_picture(tmp_path / name, PICTURE)
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        pandas = pytest.importorskip("pandas")
        pandas.DataFrame(rows).to_parquet(path)
    else:
        lines = [rows.keys(), *zip(*rows.values(), strict=True)]
        sign = "," if kind == "csv" else "\t"
        path.write_text("\n".join(sign.join("" if cell is None else str(cell) for cell in line) for line in lines))
    manifest = read_manifest(path)
    assert divide(manifest, "sex").subgroups == ("f", "m", MISSING)
    kept = manifest.with_classes(("y", "x")).with_records(manifest.records[1:])
    assert divide(kept, "AGE").subgroups == ("45", "71")


def test_public_layouts_keep_their_metadata(tmp_path) -> None:
    for name in ("i1.jpg", "i2.jpg"):
        save_picture(tmp_path / name, PICTURE)
    (tmp_path / "HAM10000_metadata.csv").write_text(
        "lesion_id,image_id,dx,dx_type,age,sex,localization\nl1,i1,nv,histo,45.0,male,back\nl2,i2,mel,histo,,female,face\n"
    )
    manifest = read_manifest(tmp_path)
    assert divide(manifest, "sex").subgroups == ("female", "male")
    assert divide(manifest, "age").subgroups == ("45", MISSING)

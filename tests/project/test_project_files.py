"""Files for GitHub, citation and packaging: they can be read, and agree with each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import diffmiczoo

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
YAML = [
    *WORKFLOWS,
    *FORMS,
    ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml",
    ROOT / ".pre-commit-config.yaml",
    ROOT / "CITATION.cff",
    ROOT / "mkdocs.yml",
]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text("utf-8"))


def pyproject() -> str:
    return (ROOT / "pyproject.toml").read_text("utf-8")


@pytest.mark.parametrize("path", YAML, ids=name)
def test_yaml_can_be_read(path: Path):
    assert isinstance(read(path), dict)


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_a_workflow_has_jobs_with_limits_and_may_only_read(path: Path):
    workflow = read(path)
    assert workflow[True]  # YAML 1.1 reads the key `on` as a truth value
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["steps"]
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])
        assert "timeout-minutes" in job or all("run" not in step for step in job["steps"])


def test_the_newest_versions_are_tested_on_every_python():
    matrix = read(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]["newest"]["strategy"]["matrix"]["python"]
    assert matrix == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    assert f'requires-python = ">={matrix[0]}"' in pyproject()


def test_workflows_use_extras_tools_and_markers_that_exist():
    text = "\n".join(path.read_text("utf-8") for path in WORKFLOWS)
    for extras in re.findall(r'pip install -e "\.\[([\w,]+)\]"', text):
        assert all(re.search(rf"^{extra} = \[", pyproject(), re.M) for extra in extras.split(","))
    for tool in re.findall(r"(?:tools|tests)/\w+", text):
        assert (ROOT / tool).exists(), tool
    for marker in re.findall(r"pytest -m (\w+)", text):
        assert f'"{marker}: ' in pyproject()


@pytest.mark.parametrize("path", FORMS, ids=name)
def test_an_issue_form_asks_for_something(path: Path):
    form = read(path)
    assert form["name"]
    assert form["description"]
    kinds = {"markdown", "input", "textarea", "dropdown", "checkboxes"}
    assert {field["type"] for field in form["body"]} <= kinds
    asked = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(asked) == len(set(asked)) > 1
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_the_citation_is_of_this_version():
    citation = read(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == diffmiczoo.__version__
    assert citation["preferred-citation"]["doi"] in (ROOT / "README.md").read_text("utf-8")


def test_revisions_that_blame_ignores_are_whole_hashes():
    lines = (ROOT / ".git-blame-ignore-revs").read_text("utf-8").splitlines()
    hashes = [line for line in lines if not line.startswith("#")]
    assert hashes
    assert all(re.fullmatch(r"[0-9a-f]{40}", line) for line in hashes)

"""What the package raises on purpose derives from `DiffMICError`."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
import torch

import diffmiczoo
from diffmiczoo import errors
from diffmiczoo.errors import DiffMICError

PACKAGE = Path(diffmiczoo.__file__).parent

#: (module, builtin exception) → why it is no `DiffMICError`.
ALLOWED = {
    ("__init__", "AttributeError"): "Python's protocol of module attributes",
    ("cli.fit", "KeyboardInterrupt"): "Ctrl-C, with what to do next",
    ("cli.reproduce", "KeyboardInterrupt"): "Ctrl-C, with what to do next",
    ("inference.classifier", "NotImplementedError"): "a method that subclasses have to write",
    ("inference.prediction", "IndexError"): "Python's protocol of sequences",
    ("inference.prediction", "KeyError"): "Python's protocol of mappings",
    ("training.signals", "KeyboardInterrupt"): "the second Ctrl-C",
    ("training.trainer", "KeyboardInterrupt"): "Ctrl-C, when the checkpoint is written",
}


#: Programs that run without the package, and so without its errors.
ALONE = {"diffmiczoo.export.runner"}


def builtin_errors(source: str) -> set[str]:
    """Names of the builtin exceptions that a module raises by name, called or not."""
    raised = [node.exc for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Raise) and node.exc is not None]
    names = [
        getattr(exception.func if isinstance(exception, ast.Call) else exception, "id", "") for exception in raised
    ]
    return {
        name
        for name in names
        if isinstance(getattr(builtins, name, None), type) and issubclass(getattr(builtins, name), BaseException)
    }


def test_no_builtin_exception_is_raised_without_a_reason() -> None:
    found = {
        (".".join(path.relative_to(PACKAGE).with_suffix("").parts), name)
        for path in PACKAGE.rglob("*.py")
        for name in builtin_errors(path.read_text("utf-8"))
    }
    assert found == set(ALLOWED)


def test_builtin_exceptions_are_found() -> None:
    source = (
        "raise ValueError('a')\ntry:\n    raise Own('b') from TypeError('c')\nexcept Own:\n    raise\nraise KeyError\n"
    )
    assert builtin_errors(source + "raise KeyError\n") == {"ValueError", "KeyError"}


def test_every_exception_of_the_package_is_a_diffmic_error() -> None:
    names = [each.name for each in pkgutil.walk_packages([str(PACKAGE)], "diffmiczoo.") if "__main__" not in each.name]
    classes = {
        cls
        for name in names
        for cls in vars(importlib.import_module(name)).values()
        if inspect.isclass(cls) and issubclass(cls, BaseException) and cls.__module__.startswith("diffmiczoo")
    }
    assert len(classes) > 8
    assert {cls.__module__ for cls in classes if not issubclass(cls, DiffMICError)} == ALONE


@pytest.mark.parametrize(
    ("own", "builtin"),
    [
        (errors.InvalidValueError, ValueError),
        (errors.InvalidTypeError, TypeError),
        (errors.MissingFileError, FileNotFoundError),
        (errors.UnusableFileError, OSError),
        (errors.MissingExtraError, ImportError),
        (diffmiczoo.ImageError, ValueError),
        (diffmiczoo.HubError, OSError),
    ],
)
def test_code_that_knows_nothing_of_the_package_catches_them_as_usual(own: type, builtin: type) -> None:
    assert issubclass(own, DiffMICError) and issubclass(own, builtin)


def test_warnings_point_at_the_callers_line_through_decorators_of_torch() -> None:
    # A function of the package, and one that carries decorators as `fit` does.
    inside = eval("lambda: warn('odd')", {"warn": errors.warn, "__name__": "diffmiczoo.somewhere"})
    decorated = torch.inference_mode(False)(torch.enable_grad()(inside))
    with pytest.warns(UserWarning, match="odd") as caught:
        decorated()
    assert [warning.filename for warning in caught] == [__file__]

"""The shape of the package: what may lie at its root, how long a file and a function may be.

That imports only go down is import-linter's contract in pyproject.toml.
"""

import ast
from pathlib import Path

import diffmiczoo

PACKAGE = Path(diffmiczoo.__file__).parent
ROOT_MODULES = {"__init__", "_version", "errors", "files", "model"}
FILE_LINES = 350
FUNCTION_LINES = 40

# Names that are longer, each with its reason.
LONG_FILES = {"export.runner"}  # one file by design: it is copied beside an exported model and runs alone
LONG_FUNCTIONS: set[str] = set()


def source_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement behind the docstring to the end."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


def functions(tree: ast.Module, prefix: str) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    found = []

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                inner = f"{name}.{child.name}"
                if not isinstance(child, ast.ClassDef):
                    found.append((inner, child))
                visit(child, inner)
            else:
                visit(child, name)

    visit(tree, prefix)
    return found


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def test_only_these_modules_lie_at_the_root():
    assert {path.stem for path in PACKAGE.glob("*.py")} == ROOT_MODULES


def test_every_folder_of_sources_is_a_package_with_a_docstring():
    for directory in {path.parent for path in source_files()}:
        init = directory / "__init__.py"
        assert init.is_file(), f"{directory} has no __init__.py, so it is not in the wheel"
        assert ast.get_docstring(ast.parse(init.read_text("utf-8"))), f"{init} has no docstring"


def test_no_file_is_long():
    lengths = {module_name(path): len(path.read_text("utf-8").splitlines()) for path in source_files()}
    assert len(lengths) > 80
    assert {name for name, lines in lengths.items() if lines > FILE_LINES} == LONG_FILES


def test_no_function_is_long():
    every = [
        found for path in source_files() for found in functions(ast.parse(path.read_text("utf-8")), module_name(path))
    ]
    assert len(every) > 500
    assert {name for name, function in every if body_lines(function) > FUNCTION_LINES} == LONG_FUNCTIONS


def test_lines_of_a_function_are_counted_behind_its_docstring():
    tree = ast.parse('class A:\n    def f(self):\n        """One\n        two."""\n        a = 1\n\n        return a\n')
    (name, function), *_ = functions(tree, "module")
    assert (name, body_lines(function)) == ("module.A.f", 3)

"""What import-linter cannot see: no pickled weights, nothing drawn by the library, no file or function too long."""

import ast
from pathlib import Path

import pytest

import framepred

ROOT = Path(framepred.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", FILES, ids=name)
def test_weights_are_never_pickled(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not {m.split(".")[0] for m in modules} & {"pickle", "dill", "joblib", "cloudpickle"}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            assert node.attr not in ("load", "save"), f"{name(file)} calls torch.{node.attr}"
        if isinstance(node, ast.keyword):
            assert node.arg != "allow_pickle"


@pytest.mark.parametrize("file", [f for f in FILES if name(f).split("/")[0] != "cli"], ids=name)
def test_library_never_prints(file: Path) -> None:
    calls = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call)]
    assert not [c for c in calls if getattr(c.func, "id", "") == "print"]


def test_no_file_is_longer_than_300_lines() -> None:
    assert [name(f) for f in FILES if len(f.read_text().splitlines()) > 300] == []


def test_only_packages_and_three_files_stand_at_the_top() -> None:
    assert {f.name for f in ROOT.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py"}


@pytest.mark.parametrize("file", FILES, ids=name)
def test_no_function_is_longer_than_60_lines(file: Path) -> None:
    functions = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.FunctionDef)]
    assert [f.name for f in functions if (f.end_lineno or 0) - f.lineno + 1 > 60] == []

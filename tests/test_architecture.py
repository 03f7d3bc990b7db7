"""What import-linter cannot see: no pickled weights, nothing drawn by the library, no file or function too long."""

import ast
from collections.abc import Iterator
from pathlib import Path

import framepred

ROOT = Path(framepred.__file__).parent
FILES = {str(file.relative_to(ROOT)): file.read_text() for file in sorted(ROOT.rglob("*.py"))}


def nodes(*kinds: type[ast.AST], outside: str = " ") -> Iterator[tuple[str, ast.AST]]:
    """Yield (file, node) for the nodes of these kinds in all files but those of the package `outside`."""
    for name, text in FILES.items():
        if not name.startswith(outside):
            yield from ((name, node) for node in ast.walk(ast.parse(text)) if isinstance(node, kinds))


def test_weights_are_never_pickled() -> None:
    assert len(FILES) > 100
    for name, node in nodes(ast.Import, ast.ImportFrom, ast.Attribute, ast.keyword):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not {m.split(".")[0] for m in modules} & {"pickle", "dill", "joblib", "cloudpickle"}, name
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            assert node.attr not in ("load", "save"), f"{name} calls torch.{node.attr}"
        if isinstance(node, ast.keyword):
            assert node.arg != "allow_pickle", name


def test_library_never_prints() -> None:
    calls = nodes(ast.Call, outside="cli/")
    assert [name for name, call in calls if getattr(getattr(call, "func", None), "id", "") == "print"] == []


def test_no_file_is_longer_than_300_lines() -> None:
    assert [name for name, text in FILES.items() if len(text.splitlines()) > 300] == []


def test_no_function_is_longer_than_60_lines() -> None:
    functions = nodes(ast.FunctionDef, ast.AsyncFunctionDef)
    assert [(name, f.name) for name, f in functions if f.end_lineno - f.lineno >= 60] == []  # type: ignore[attr-defined]


def test_only_packages_and_three_files_stand_at_the_top() -> None:
    assert {name for name in FILES if "/" not in name} == {"__init__.py", "__main__.py", "errors.py"}

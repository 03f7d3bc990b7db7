"""The house stands: a module imports from lower floors only, and each part is blind to what it must not see."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import framepred

ROOT = Path(framepred.__file__).parent

# A name ending in a dot is a package, whose modules may import each other.
FLOORS = {
    "errors": 0, "compat": 0,
    "gguf_file": 1, "config": 1, "video": 1, "metrics": 1, "outputs": 1, "spread": 1, "bootstrap": 1,
    "plots": 1, "perceptual": 1, "splicing": 1, "hub": 1,
    "zoo": 2, "protocol": 2, "sampling": 2, "tokenizer.": 2, "sequence": 2, "predictor": 2, "panels": 2,
    "data.": 3, "decoding": 3, "evaluation": 3, "checkpoint": 3, "training": 3, "heatmap": 3, "token_names": 3,
    "embedding": 3, "adaptation": 3,
    "llm": 4, "text": 4, "rollout": 4, "stages": 4, "retrieval": 4,
    "pipeline": 5, "describe": 5, "teacher": 5, "counterfactual": 5, "engines": 5,
    "forecast": 6, "export": 6, "scoring": 6, "calibration": 6, "tables": 7, "summary": 7, "surprise": 7, "caption": 7,
    "publish": 7, "benchmark": 8, "grounding": 8, "report": 9,
    "console": 9,
    "cli.": 10,
    "__main__": 11,
}  # fmt: skip


def _modules() -> list[str]:
    names = [str(f.relative_to(ROOT).with_suffix("")).replace("/", ".") for f in sorted(ROOT.rglob("*.py"))]
    return [n.removesuffix(".__init__") for n in names if n != "__init__"]


def _tree(module: str) -> ast.Module:
    file = ROOT / f"{module.replace('.', '/')}.py"
    return ast.parse((file if file.exists() else ROOT / module.replace(".", "/") / "__init__.py").read_text())


def _imports(module: str) -> Iterator[str]:
    """Yield the full name of everything that a module imports, inside functions too."""
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _home(module: str) -> str:
    return f"{module.split('.')[0]}." if (ROOT / module.split(".")[0]).is_dir() else module


def _own_imports(module: str) -> set[str]:
    """Return the homes in framepred that a module imports from."""
    known = set(_modules())
    inside = {name.removeprefix("framepred.") for name in _imports(module) if name.startswith("framepred.")}
    return {_home(name) for name in inside if name in known}


def _outer_imports(module: str) -> set[str]:
    return {name.split(".")[0] for name in _imports(module)}


def test_every_module_has_a_floor() -> None:
    assert {_home(m) for m in _modules()} == set(FLOORS)


@pytest.mark.parametrize("module", _modules())
def test_module_imports_only_from_lower_floors(module: str) -> None:
    home = _home(module)
    for other in _own_imports(module) - ({home} if home.endswith(".") else set()):
        assert FLOORS[other] < FLOORS[home], f"{module} (floor {FLOORS[home]}) imports {other} (floor {FLOORS[other]})"


def test_the_check_sees_imports_inside_functions() -> None:
    assert "pipeline" in _own_imports("cli.train")
    assert "data." in _own_imports("cli.record")
    assert _own_imports("errors") == set()


def test_predictor_never_sees_pixels() -> None:
    assert _own_imports("predictor") <= {"errors"}
    assert not _outer_imports("predictor") & {"av", "PIL", "torchvision", "numpy"}


@pytest.mark.parametrize("module", [m for m in _modules() if m.startswith("tokenizer")])
def test_tokenizer_never_sees_sequences(module: str) -> None:
    assert not _own_imports(module) & {"sequence", "predictor", "decoding", "data.", "sampling"}


LIGHT = {"errors", "config", "hub", "zoo", "console", "cli."}


@pytest.mark.parametrize("module", [m for m in _modules() if _home(m) in LIGHT])
def test_what_the_help_page_needs_is_free_of_torch(module: str) -> None:
    top = [node for node in _tree(module).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {n.name if isinstance(node, ast.Import) else str(node.module) for node in top for n in node.names}
    assert not {n.split(".")[0] for n in names} & {"torch", "numpy", "av", "transformers", "accelerate", "datasets"}
    inside = {_home(n.removeprefix("framepred.")) for n in names if n.startswith("framepred.")}
    assert not inside & (set(FLOORS) - LIGHT)


@pytest.mark.parametrize("module", [m for m in _modules() if _home(m) not in ("cli.", "console", "__main__")])
def test_library_never_draws(module: str) -> None:
    assert not _outer_imports(module) & {"click", "rich"}
    assert not {"cli.", "console"} & _own_imports(module)
    prints = [n for n in ast.walk(_tree(module)) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "print"]
    assert not prints


@pytest.mark.parametrize("module", _modules())
def test_weights_are_never_pickled(module: str) -> None:
    assert not _outer_imports(module) & {"pickle", "dill", "joblib", "cloudpickle"}
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            assert node.attr not in ("load", "save"), f"{module} calls torch.{node.attr}"
        if isinstance(node, ast.keyword):
            assert node.arg != "allow_pickle"


@pytest.mark.parametrize("module", _modules())
def test_library_imports_nothing_from_scripts_or_tests(module: str) -> None:
    assert not _outer_imports(module) & {"scripts", "tests", "pytest", "hypothesis"}
    assert "transformers" not in _outer_imports(module) or module == "engines"

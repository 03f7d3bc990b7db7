"""The house stands: a module imports from lower floors only, and each part is blind to what it must not see."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import framepred

ROOT = Path(framepred.__file__).parent

# A name ending in a dot is a package, whose modules may import each other.
FLOORS = {
    "errors": 0, "compat": 0, "memory": 0, "muon": 0,
    "settings": 1, "llama_config": 1, "linear": 1,
    "gguf_file": 2, "kv_cache": 2, "config": 2, "video": 2, "metrics": 2, "outputs": 2, "spread": 2, "bootstrap": 2,
    "plots": 2, "files": 2, "perceptual": 2, "splicing": 2, "hub": 2, "resume": 2,
    "zoo": 3, "protocol": 3, "sampling": 3, "tokenizer.": 3, "sequence": 3, "panels": 3, "attention": 3,
    "lean": 4, "predictor": 5,
    "data.": 6, "decoding": 6, "evaluation": 6, "draft": 6, "training": 6, "heatmap": 6, "token_names": 6,
    "embedding": 6, "adaptation": 6,
    "checkpoint": 7,
    "llm": 8, "text": 8, "rollout": 8, "stages": 8, "retrieval": 8,
    "start": 9, "train_tokenizer": 10, "pipeline": 11, "describe": 9, "teacher": 9, "counterfactual": 9, "engines": 9,
    "forecast": 10, "export": 10, "scoring": 10, "calibration": 10, "tables": 11, "summary": 11, "surprise": 11,
    "caption": 11, "publish": 11, "benchmark": 12, "grounding": 12, "report": 13,
    "console": 13,
    "cli.": 14,
    "__main__": 15,
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
    assert _own_imports("predictor") <= {"errors", "llama_config", "kv_cache", "linear", "attention", "lean"}
    assert not _outer_imports("predictor") & {"av", "PIL", "torchvision", "numpy"}


@pytest.mark.parametrize("module", [m for m in _modules() if m.startswith("tokenizer")])
def test_tokenizer_never_sees_sequences(module: str) -> None:
    assert not _own_imports(module) & {"sequence", "predictor", "decoding", "data.", "sampling"}


LIGHT = {"errors", "settings", "config", "hub", "zoo", "console", "cli."}


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

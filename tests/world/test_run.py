"""Folders ⇄ objects: what was saved is what is loaded, and everything that does not fit is named."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file, save_file

from framepred.errors import FramepredError
from framepred.io.files import file_sha256
from framepred.tokenizer.checkpoint import copy_tokenizer, load_tokenizer, save_tokenizer, tokenizer_sha256
from framepred.world.run import load_predictor, load_run, save_run


@pytest.fixture
def run_dir(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run that a test may break."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_saved_run_is_loaded_as_it_was(tiny_run: Path, tmp_path: Path) -> None:
    run = load_run(tiny_run)
    copied = tmp_path / "again"
    copied.mkdir()
    copy_tokenizer(tiny_run / "tokenizer", copied / "tokenizer")
    save_run(copied, run.predictor, run.layout, run.window, run.fps, run.tokenizer.frame_size, run.tokenizer_sha256)
    again = load_run(copied)
    assert (again.layout, again.window, again.fps, again.tokenizer_sha256) == (
        run.layout,
        run.window,
        run.fps,
        run.tokenizer_sha256,
    )
    assert (copied / "model.safetensors").read_bytes() == (tiny_run / "model.safetensors").read_bytes()
    assert not any(p.requires_grad for p in again.predictor.parameters())
    assert not again.predictor.training
    assert not again.tokenizer.training  # type: ignore[attr-defined]


def test_a_run_is_a_hugging_face_checkpoint_beside_framepreds_facts(tiny_run: Path) -> None:
    config = json.loads((tiny_run / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("llama", ["LlamaForCausalLM"])
    about = json.loads((tiny_run / "framepred.json").read_text())
    assert about["vocabulary"]["visual"] == [0, 64]
    assert about["vocabulary"]["special"]["no_action"] == 68
    assert about["tokenizer_sha256"] == file_sha256(tiny_run / "tokenizer" / "model.safetensors")
    assert (about["frame_size"], about["window"], about["fps"]) == ([64, 64], 6, 10.0)
    assert all(name.startswith("model.") for name in load_file(tiny_run / "model.safetensors"))


def test_a_tokenizer_saved_in_half_precision_loads_in_full(tiny_run: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_run / "tokenizer")
    sha = save_tokenizer(tmp_path / "half", tokenizer, "", torch.float16)
    assert sha == tokenizer_sha256(tmp_path / "half") != tokenizer_sha256(tiny_run / "tokenizer")
    again = load_tokenizer(tmp_path / "half")
    for name, value in again.state_dict().items():
        assert value.dtype == tokenizer.state_dict()[name].dtype
        assert torch.allclose(value, tokenizer.state_dict()[name], atol=1e-2)
    assert (tmp_path / "half" / "model.safetensors").stat().st_size < 0.6 * (
        tiny_run / "tokenizer" / "model.safetensors"
    ).stat().st_size


def test_a_runs_folder_stands_for_its_tokenizer(tiny_run: Path) -> None:
    assert load_tokenizer(tiny_run).grid == load_tokenizer(tiny_run / "tokenizer").grid


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def remove(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


def overwrite(name: str, content: str) -> Callable[[Path], None]:
    return lambda run: (run / name).write_text(content) and None


def drop_a_tensor(run: Path) -> None:
    weights = load((run / "model.safetensors").read_bytes())
    weights.pop("model.layers.0.mlp.up_proj.weight")
    save_file(weights, run / "model.safetensors")


def reshape_a_tensor(run: Path) -> None:
    weights = load((run / "model.safetensors").read_bytes())
    weights["model.norm.weight"] = torch.zeros(7)
    save_file(weights, run / "model.safetensors")


def flip_a_byte_of_the_tokenizer(run: Path) -> None:
    file = run / "tokenizer" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


_BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another tokenizer": (flip_a_byte_of_the_tokenizer, r"has sha256 \w{12}, the run was trained with \w{12}: restore"),
    "another hash": (
        lambda run: edit(run / "framepred.json", lambda v: v.update(tokenizer_sha256="0" * 64)),
        "the run was trained with 000000000000",
    ),
    "no tokenizer": (
        lambda run: shutil.rmtree(run / "tokenizer"),
        r"tokenizer is no tokenizer \(no model.safetensors\)",
    ),
    "no weights": (
        remove("model.safetensors"),
        r"model.safetensors does not exist: the training did not finish \(--resume\)",
    ),
    "half the weights": (
        lambda run: truncate(run / "model.safetensors"),
        "model.safetensors is not a whole safetensors file",
    ),
    "empty weights": (overwrite("model.safetensors", ""), "model.safetensors is not a whole safetensors file"),
    "a tensor too few": (drop_a_tensor, r"model.safetensors lacks 'model.layers.0.mlp.up_proj.weight'"),
    "a tensor of another shape": (reshape_a_tensor, "model.safetensors does not fit its config.json"),
    "no facts": (
        remove("framepred.json"),
        r"is no run \(no framepred.json\): give a folder that framepred train wrote",
    ),
    "facts that are no JSON": (overwrite("framepred.json", "{"), "framepred.json cannot be read"),
    "facts that are a list": (overwrite("framepred.json", "[]"), "framepred.json is not a JSON object"),
    "a layout that is a number": (
        lambda run: edit(run / "framepred.json", lambda v: v.update(vocabulary=3)),
        "framepred.json is not valid",
    ),
    "a grid of tables": (
        lambda run: edit(run / "framepred.json", lambda v: v["layout"].update(grid=[4, {}])),
        "framepred.json is not valid",
    ),
    "an action whose name is a number": (
        lambda run: edit(run / "framepred.json", lambda v: v["actions"].update(names=["steer", 3])),
        r"framepred.json is not valid \(TypeError\('the name of an action is not text'\)\)",
    ),
    "facts of a store": (overwrite("framepred.json", '{"kind": "tokens"}'), "is a token store, not a run"),
    "no window": (
        lambda run: edit(run / "framepred.json", lambda v: v.pop("window")),
        r"framepred.json is not valid \(KeyError\('window'\)\)",
    ),
    "a gap in the vocabulary": (
        lambda run: edit(run / "framepred.json", lambda v: v["vocabulary"].update(action=[65, 69])),
        "not contiguous",
    ),
    "another vocabulary": (
        lambda run: edit(
            run / "framepred.json",
            lambda v: v["vocabulary"].update(visual=[0, 60], action=[60, 64], special={"no_action": 64}),
        ),
        "vocabulary, weights and tokenizer do not fit each other",
    ),
    "no configuration": (remove("config.json"), r"is no run \(no config.json\)"),
    "configuration that is no JSON": (overwrite("config.json", "not json"), "config.json cannot be read"),
    "configuration of another model": (
        lambda run: edit(run / "config.json", lambda v: v.update(model_type="gpt2")),
        "model_type 'gpt2' is not a Llama",
    ),
    "configuration of another width": (
        lambda run: edit(run / "config.json", lambda v: v.update(hidden_size=64)),
        "does not fit its config.json",
    ),
    "a tokenizer of another size": (
        lambda run: edit(run / "tokenizer" / "config.json", lambda v: v.update(frame_size=[32, 32])),
        "tokenizer/config.json is not the one that model.safetensors was saved with",
    ),
    "a tokenizer without configuration": (remove("tokenizer/config.json"), r"is no tokenizer \(no config.json\)"),
    "a tokenizer of another kind": (
        overwrite("tokenizer/config.json", '{"kind": "vqgan"}'),
        "is no framepred tokenizer: its config.json says kind 'vqgan'",
    ),
    "a tokenizer whose kind is a table": (
        overwrite("tokenizer/config.json", '{"kind": {"a": 1}}'),
        "is no framepred tokenizer: its config.json says kind {'a': 1}",
    ),
    "a delta tokenizer": (
        overwrite("tokenizer/config.json", '{"kind": "framepred-delta"}'),
        "is a delta tokenizer, a kind that is gone: train one with --recipe temporal",
    ),
}


@pytest.mark.parametrize("how", _BROKEN)
def test_a_run_that_is_not_whole_is_refused_with_the_reason(how: str, run_dir: Path) -> None:
    load_run(run_dir)
    damage, words = _BROKEN[how]
    damage(run_dir)
    with pytest.raises(FramepredError, match=words) as caught:
        load_run(run_dir)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_nowhere_is_refused() -> None:
    with pytest.raises(FramepredError, match="model 'no-such-run' is neither a folder nor in the zoo; the zoo has:"):
        load_run("no-such-run")
    with pytest.raises(FramepredError, match="tokenizer 'no-such-run' is neither a folder nor in the zoo"):
        load_tokenizer("no-such-run")


def full_disk(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def test_nothing_is_left_of_a_first_save_that_fails(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(tiny_run)
    tokenizer = load_tokenizer(tiny_run / "tokenizer")
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(
        FramepredError, match=r"cannot write .*No space left on device.*free space or choose another folder"
    ):
        save_run(tmp_path / "run", run.predictor, run.layout, run.window, run.fps, (64, 64), run.tokenizer_sha256)
    with pytest.raises(FramepredError, match=r"cannot write .*No space left on device"):
        save_tokenizer(tmp_path / "tokenizer", tokenizer, "")
    assert names(tmp_path / "run") == names(tmp_path / "tokenizer") == []


def test_the_old_run_survives_a_save_that_fails(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = load_run(run_dir)
    before = {p.name: p.read_bytes() for p in run_dir.iterdir() if p.is_file()}
    with torch.no_grad():
        run.predictor.norm.weight.mul_(2)
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(FramepredError):
        save_run(run_dir, run.predictor, run.layout, run.window, 99.0, (64, 64), run.tokenizer_sha256)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in run_dir.iterdir() if p.is_file()} == before
    assert load_run(run_dir).fps == 10.0


def test_a_half_written_tokenizer_is_never_taken_for_a_whole_one(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "replace", full_disk)
    target = tmp_path / "run" / "tokenizer"
    target.parent.mkdir()
    with pytest.raises(FramepredError, match="No space left"):
        copy_tokenizer(tiny_run / "tokenizer", target)
    assert not target.exists()
    monkeypatch.undo()
    copy_tokenizer(tiny_run / "tokenizer", target)
    assert names(tmp_path / "run") == ["tokenizer"]
    assert tokenizer_sha256(target) == tokenizer_sha256(tiny_run / "tokenizer")


def test_pickled_weights_are_not_read(run_dir: Path) -> None:
    torch.save(load((run_dir / "model.safetensors").read_bytes()), run_dir / "model.safetensors")
    with pytest.raises(FramepredError, match="is not a whole safetensors file"):
        load_predictor(run_dir)


@pytest.mark.parametrize(
    ("key", "default", "own", "bad", "words"),
    [
        ("temperature", 1.0, 0.25, -1, "temperature -1.0 is not allowed; it must be 0"),
    ],
)
def test_a_run_says_how_it_is_sampled(
    run_dir: Path, key: str, default: float, own: float, bad: float, words: str
) -> None:
    assert getattr(load_run(run_dir), key) == default
    edit(run_dir / "framepred.json", lambda v: v.update({key: own}))
    assert getattr(load_run(run_dir), key) == own
    edit(run_dir / "framepred.json", lambda v: v.pop(key))
    assert getattr(load_run(run_dir), key) == default
    edit(run_dir / "framepred.json", lambda v: v.update({key: bad}))
    with pytest.raises(FramepredError, match=f"framepred.json: {words}"):
        load_run(run_dir)

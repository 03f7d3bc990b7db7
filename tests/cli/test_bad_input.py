"""What a user can get wrong: exit code 1, one line that begins with "framepred: ", and nothing left behind."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import TINY_SETTINGS
from media import write_audio, write_noise_mp4

from framepred.cli import cli
from framepred.sources.actions_csv import write_actions
from framepred.video.read import read_video
from framepred.video.write import write_video

NPZ = "out.npz"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="framepred")


def tree(folder: Path) -> dict[str, object]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory: whatever a command leaves behind shows up in it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def refused(here: Path) -> Callable[..., str]:
    """Run a command that must fail: returns its one line after checking everything else."""

    def check(*arguments: object) -> str:
        before = tree(here)
        result = invoke(*arguments)
        assert result.exit_code == 1, (result.exit_code, result.stdout, result.stderr, result.exception)
        assert isinstance(result.exception, SystemExit), repr(result.exception)
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        lines = result.stderr.splitlines()
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("framepred: ")
        assert tree(here) == before
        return lines[0]

    return check


@pytest.fixture
def clip(clips_dir: Path, here: Path) -> Path:
    """A good clip without actions, in the working directory."""
    shutil.copy(clips_dir / "clip0.mp4", here / "clip.mp4")
    return here / "clip.mp4"


@pytest.fixture
def broken_run(tiny_run: Path, here: Path) -> Path:
    """A copy of the run, to be broken."""
    shutil.copytree(tiny_run, here / "run", ignore=shutil.ignore_patterns("resume-*", "tokens", "metrics.jsonl"))
    return here / "run"


def _bad_video(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("this is no video\n" * 100)
    elif kind == "audio":
        write_audio(path, "mp4", "aac")
    elif kind == "folder":
        path.mkdir()
    elif kind == "moovless":
        write_noise_mp4(path, faststart=False)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


BAD_VIDEOS = {
    "missing": "does not exist",
    "empty": "empty",
    "text": "cannot read",
    "audio": "no video stream",
    "folder": "folder",
    "moovless": "cannot read",
}


@pytest.mark.parametrize("kind", BAD_VIDEOS)
def test_rollout_refuses_what_is_no_video(here: Path, refused, tiny_run: Path, kind: str) -> None:
    path = _bad_video(kind, here)
    line = refused("rollout", path, "--model", tiny_run)
    assert str(path) in line
    assert BAD_VIDEOS[kind] in line


@pytest.mark.parametrize("kind", [k for k in BAD_VIDEOS if k != "folder"])
def test_tokenize_train_and_info_refuse_what_is_no_video(here: Path, refused, tiny_run: Path, kind: str) -> None:
    path = _bad_video(kind, here)
    assert path.name in refused("tokenize", path, "-o", here / "store", "--tokenizer", tiny_run)
    assert path.name in refused("train", path, "-o", here / "run", "--recipe", "tiny", "--steps", "1")
    assert path.name in refused("train", path, "-o", here / "run", "--tokenizer", tiny_run, "--steps", "1")
    assert path.name in refused("info", path)


def test_a_folder_without_video_is_refused(here: Path, refused, tiny_run: Path) -> None:
    (here / "empty").mkdir()
    for command in (
        ("tokenize", "empty", "-o", "store", "--tokenizer", tiny_run),
        ("train", "empty", "-o", "run"),
        ("info", "empty"),
    ):
        assert "holds no video" in refused(*command)


def test_a_truncated_video_predicts_from_what_decodes_and_warns(here: Path, tiny_run: Path) -> None:
    write_noise_mp4(here / "a.mp4", faststart=True)
    data = (here / "a.mp4").read_bytes()
    (here / "a.mp4").write_bytes(data[: len(data) * 6 // 10])
    result = invoke("rollout", "a.mp4", "--model", tiny_run, "-o", NPZ, "--horizon", 100, "--json")
    assert result.exit_code == 0, result.stderr
    assert any(line.startswith("warning: a.mp4: ") for line in result.stderr.splitlines())
    summary = json.loads(result.stdout)
    assert summary["horizon"] == 100
    assert 5 <= len(summary["mse"]["model"]) < 56


@pytest.mark.parametrize("frames", [1, 3])
def test_a_video_shorter_than_the_context_is_refused(here: Path, refused, tiny_run: Path, frames: int) -> None:
    write_video(here / "short.mp4", torch.zeros(frames, 3, 64, 64, dtype=torch.uint8), 10.0)
    line = refused("rollout", "short.mp4", "--model", tiny_run, "--context", 4)
    assert f"{frames} frames" in line
    assert "context of 4" in line


def test_training_on_one_frame_videos_is_refused(here: Path, refused, tiny_run: Path) -> None:
    write_video(here / "v" / "short.mp4", torch.zeros(1, 3, 64, 64, dtype=torch.uint8), 10.0)
    result = invoke("train", "v", "-o", "run", "--tokenizer", tiny_run, "--steps", 1, *tiny_settings())
    assert result.exit_code == 1
    assert "two frames" in result.stderr


def tiny_settings() -> list[str]:
    return [part for setting in TINY_SETTINGS for part in ("--set", setting)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("action\n" + "1\n" * 5, "5 actions for 24 frames"),
        ("action\n" + "1\n" * 40, "40 actions for 24 frames"),
        ("x,y\n" + "1,2\n" * 24, "has no action named 'action': its columns are x, y; give action"),
        ("action,y\n" + "1,2\n" * 24, "has an action 'y' that is not known"),
        ("x\n" + "1\n" * 24, "has no action named 'action'"),
        ("action\n" + "0.5\n" * 24, "one integer column"),
        ("action\n" + "1\n" * 23 + "77\n", None),
        ("action\n77\n" + "1\n" * 23, "77"),
        ("action\n" + "1\n" * 22 + "-4\n1\n", "-4"),
        ("action\n" + "1\n" * 22 + "nan\n1\n", "'nan'"),
        ("1\n" * 24, "no header"),
        ("", "no rows"),
    ],
)
def test_bad_actions_beside_the_video_are_refused(clip: Path, refused, tiny_run: Path, text: str, says: str) -> None:
    clip.with_suffix(".actions.csv").write_text(text)
    # The rows are counted against the frames where the whole video is read.
    horizon = 21 if says and "for 24 frames" in says else 20
    command = ("rollout", clip, "--model", tiny_run, "--horizon", horizon, "-o", NPZ)
    if says is None:
        # The last of T actions has no outcome: it is never looked at.
        assert invoke(*command).exit_code == 0
        return
    line = refused(*command)
    assert "clip.actions.csv" in line
    assert says in line


def test_bad_actions_given_by_name_are_refused(clip: Path, here: Path, refused, tiny_run: Path) -> None:
    command = ("rollout", clip, "--model", tiny_run, "-o", NPZ, "--horizon", 8, "--actions")
    assert "nowhere.csv does not exist" in refused(*command, "nowhere.csv")
    write_actions(here / "few.csv", torch.zeros(10, dtype=torch.int64), ["action"])
    line = refused(*command, "few.csv")
    assert "10 rows, 11 are needed" in line
    write_actions(here / "enough.csv", torch.zeros(11, dtype=torch.int64), ["action"])
    assert invoke(*command, "enough.csv").exit_code == 0


def test_training_goes_on_without_a_bad_file_among_good_ones(clips_dir: Path, here: Path) -> None:
    shutil.copytree(clips_dir, here / "v")
    (here / "v" / "bad.mp4").write_text("no video")
    result = invoke("train", "v", "-o", "run", "--recipe", "tiny", *tiny_settings(), "--only", "tokenizer")
    assert result.exit_code == 0, result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("warning"))
    assert line.startswith("warning: skipped: ")
    assert "bad.mp4" in line


def test_training_on_bad_files_only_leaves_no_run_behind(here: Path) -> None:
    (here / "v").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (here / "v" / name).write_text(f"no video {name}")
    for more in ((), ("--only", "tokenizer")):
        result = invoke("train", "v", "-o", "run", "--recipe", "tiny", *tiny_settings(), *more)
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1].startswith("framepred: no training video")
        assert not (here / "run").exists()


def test_bad_actions_stop_training_before_it_begins(clip: Path, refused, tiny_run: Path) -> None:
    clip.with_suffix(".actions.csv").write_text("action\n" + "1\n" * 23 + "nan\n")
    assert "line 25" in refused("tokenize", clip, "-o", "store", "--tokenizer", tiny_run)
    assert "line 25" in refused("train", clip, "-o", "run", "--tokenizer", tiny_run, "--steps", 1)


def test_actions_of_two_kinds_stop_training_before_it_begins(clip: Path, here: Path, refused) -> None:
    shutil.copy(clip, here / "other.mp4")
    clip.with_suffix(".actions.csv").write_text("action\n" + "1\n" * 23)
    (here / "other.actions.csv").write_text("x,y\n" + "0.5,1\n" * 23)
    assert "one store or run holds one kind" in refused("train", here, "-o", "run", "--recipe", "tiny", "--steps", 1)


def test_an_action_id_no_vocabulary_could_hold_is_refused(clip: Path, refused, tiny_run: Path) -> None:
    clip.with_suffix(".actions.csv").write_text("action\n" + "1\n" * 23 + "1000000000\n")
    assert "1000000000" in refused("train", clip, "-o", "run", "--tokenizer", tiny_run, "--steps", 1)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _randomize(file: Path) -> None:
    file.write_bytes(
        torch.randint(0, 256, (5000,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy().tobytes()
    )


def _flip_last(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def _edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


DAMAGE: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "tokenizer changed": ("tokenizer/model.safetensors", _flip_last, "sha256"),
    "tokenizer missing": ("tokenizer/model.safetensors", Path.unlink, "no model.safetensors"),
    "tokenizer config": ("tokenizer/config.json", lambda f: _edit(f, codebook_size=7), "config.json"),
    "tokenizer config missing": ("tokenizer/config.json", Path.unlink, "config.json"),
    "weights cut": ("model.safetensors", _cut, "not a whole safetensors file"),
    "weights random": ("model.safetensors", _randomize, "not a whole safetensors file"),
    "weights empty": ("model.safetensors", lambda f: f.write_bytes(b""), "not a whole safetensors file"),
    "weights missing": ("model.safetensors", Path.unlink, "does not exist"),
    "weights of another": (
        "model.safetensors",
        lambda f: shutil.copy(f.parent / "tokenizer" / f.name, f),
        "model.safetensors",
    ),
    "config cut": ("config.json", _cut, "config.json"),
    "config missing": ("config.json", Path.unlink, "config.json"),
    "config other model": ("config.json", lambda f: _edit(f, model_type="gpt2"), "gpt2"),
    "config other width": ("config.json", lambda f: _edit(f, hidden_size=48, head_dim=24), "does not fit"),
    "config without width": (
        "config.json",
        lambda f: f.write_text(json.dumps({k: v for k, v in json.loads(f.read_text()).items() if k != "hidden_size"})),
        "hidden_size",
    ),
    "config list": ("config.json", lambda f: f.write_text("[]"), "config.json"),
    "facts cut": ("framepred.json", _cut, "framepred.json"),
    "facts missing": ("framepred.json", Path.unlink, "framepred.json"),
    "facts without layout": (
        "framepred.json",
        lambda f: f.write_text(json.dumps({k: v for k, v in json.loads(f.read_text()).items() if k != "layout"})),
        "framepred.json",
    ),
    "facts other vocabulary": (
        "framepred.json",
        lambda f: _edit(
            f, vocabulary={"text": [0, 0], "visual": [0, 9], "action": [9, 9], "special": {"no_action": 9}}
        ),
        "do not fit",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_refused_with_what_is_wrong(broken_run: Path, clip: Path, refused, damage: str) -> None:
    name, harm, says = DAMAGE[damage]
    harm(broken_run / name)
    assert says in refused("rollout", clip, "--model", broken_run, "-o", NPZ)
    if damage != "facts missing":
        assert says in refused("info", broken_run)


def test_an_unknown_model_lists_what_there_is(clip: Path, refused) -> None:
    for command in (
        ("rollout", clip, "--model", "no-such-model"),
        ("tokenize", clip, "-o", "store", "--tokenizer", "no-such-tokenizer"),
        ("train", clip, "-o", "run", "--tokenizer", "no-such-tokenizer"),
        ("train", clip, "-o", "run", "--init-from", "no-such-run"),
        ("info", "no-such-thing"),
    ):
        line = refused(*command)
        assert "no-such-" in line
        assert "zoo" in line


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--horizon", 0), ("--horizon", -3), ("--horizon", 10**12), ("--context", 0), ("--context", -1),
        ("--samples", 0), ("--samples", 10**9), ("--ensemble", 0), ("--ensemble", 10**9), ("--temperature", -1),
        ("--temperature", "nan"), ("--temperature", "inf"), ("--top-p", 0), ("--top-p", 1.5), ("--top-p", "nan"),
        ("--top-k", -1), ("--seed", -1), ("--seed", 2**64), ("--device", "abacus"),
    ],
)  # fmt: skip
def test_numbers_out_of_range_name_the_value_and_what_is_allowed(
    clip: Path, refused, tiny_run: Path, option: str, value: object
) -> None:
    line = refused("rollout", clip, "--model", tiny_run, "-o", NPZ, option, value)
    assert option.strip("-").replace("-", "_") in line.replace("-", "_")
    assert str(value) in line


@pytest.mark.parametrize("name", ["out.avi", "out", "out.txt", "out.npy"])
def test_an_unknown_ending_is_refused_before_any_work(clip: Path, refused, name: str) -> None:
    assert ".npz" in refused("rollout", clip, "--model", "not-even-looked-at", "-o", name)


@pytest.mark.parametrize("name", ["out.mp4", "out.npz", "out.gif"])
def test_an_existing_output_is_kept_without_overwrite(
    clip: Path, here: Path, refused, tiny_run: Path, name: str
) -> None:
    (here / name).write_text("mine")
    assert "--overwrite" in refused("rollout", clip, "--model", tiny_run, "-o", name)
    result = invoke("rollout", clip, "--model", tiny_run, "-o", name, "--horizon", 2, "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert (here / name).read_bytes() != b"mine"


def test_overwrite_never_replaces_an_input_or_what_is_no_file(
    clip: Path, here: Path, broken_run: Path, refused
) -> None:
    (here / "link.mp4").symlink_to(clip)
    os.link(clip, here / "same.mp4")
    (here / "folder.mp4").mkdir()
    (here / "pipe.npz").symlink_to("/dev/null")
    for command in ("rollout", "surprise"):
        for out in ("clip.mp4", "link.mp4", "same.mp4", "../here/clip.mp4"):
            line = refused(command, clip, "--model", broken_run, "-o", out, "--overwrite")
            assert "would delete the input" in line
        for out in ("folder.mp4", "pipe.npz"):
            assert "is no file" in refused(command, clip, "--model", broken_run, "-o", out, "--overwrite")
    for out in (clip, broken_run / "model.safetensors", broken_run / "framepred.json"):
        line = refused("calibrate", clip, "--model", broken_run, "-o", out, "--overwrite")
        assert "would delete the input" in line


def test_a_resumed_run_is_checked_before_anything_is_written(
    clips_dir: Path, here: Path, tiny_run: Path, refused
) -> None:
    shutil.copytree(tiny_run, here / "run")
    command = ("train", clips_dir, "-o", "run", "--resume")
    for setting, says in (
        ("predictor.width=64", "predictor.width is 32 in run, not 64"),
        ("predictor.layers=3", "predictor.layers is 2 in run, not 3"),
        ("tokenizer.levels=[4, 4]", "tokenizer.levels is "),
        ("data.size=32", "data.size is [64, 64] in run, not [32, 32]"),
        ("data.validation_fraction=0.5", "data.validation_fraction is "),
    ):
        assert says in refused(*command, "--set", setting)
    assert "data.fps is 0.0 in run, not 5.0" in refused(*command, "--fps", 5)
    result = invoke(*command, "--set", "predictor.learning_rate=0.001", "--set", "training.predictor_steps=31")
    assert result.exit_code == 0, result.stderr
    assert "learning_rate = 0.001" in (here / "run" / "recipe.toml").read_text()


def test_an_existing_run_is_kept_without_overwrite(clip: Path, broken_run: Path, refused) -> None:
    line = refused("train", clip, "-o", broken_run, "--steps", 1)
    assert "--overwrite" in line
    assert "--resume" in line


def test_overwrite_never_deletes_a_folder_that_is_not_framepreds_or_holds_an_input(
    clip: Path, clips_dir: Path, here: Path, broken_run: Path, refused, tiny_run: Path
) -> None:
    (here / "photos").mkdir()
    (here / "photos" / "a.jpg").write_text("mine")
    assert "did not make" in refused("train", clip, "-o", "photos", "--overwrite", "--steps", 1)
    assert "did not make" in refused("tokenize", clip, "-o", "photos", "--overwrite", "--tokenizer", tiny_run)
    shutil.copytree(clips_dir, here / "recorded")
    (here / "recorded" / "recording.json").write_text("{}")
    for command in (
        ("tokenize", "recorded", "-o", "recorded", "--tokenizer", tiny_run),
        ("train", "recorded/clip0.mp4", "-o", "recorded"),
        ("train", clip, "-o", broken_run, "--tokenizer", broken_run / "tokenizer"),
        ("train", clip, "-o", broken_run, "--init-from", broken_run),
    ):
        assert "holds the input" in refused(*command, "--overwrite")


@pytest.mark.parametrize("name", ["file.txt/x.mp4", "file.txt/deep/x.npz", "file.txt/x.gif"])
def test_an_output_below_a_file_is_refused(clip: Path, here: Path, refused, tiny_run: Path, name: str) -> None:
    (here / "file.txt").write_text("x")
    assert "file.txt" in refused("rollout", clip, "--model", tiny_run, "-o", name)


def test_a_folder_below_a_file_is_refused(clip: Path, here: Path, refused, tiny_run: Path) -> None:
    (here / "file.txt").write_text("x")
    for out in ("file.txt", "file.txt/deep"):
        assert "file.txt" in refused("tokenize", clip, "-o", out, "--tokenizer", tiny_run)
        assert "file.txt" in refused("train", clip, "-o", out, "--tokenizer", tiny_run)
        assert "file.txt" in refused("record", "CartPole-v1", "-o", out, "--episodes", 1, "--steps", 2)
        assert "file.txt" in refused("record", "CartPole-v1", "-o", out, "--episodes", 1, "--steps", 2, "--overwrite")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_refused(clip: Path, here: Path, refused, tiny_run: Path) -> None:
    (here / "locked").mkdir(mode=0o500)
    assert "locked" in refused("rollout", clip, "--model", tiny_run, "-o", "locked/x.mp4")


@pytest.mark.parametrize("name", ["out.mp4", "out.npz", "out.webp"])
def test_no_space_is_one_line_and_leaves_nothing(clip: Path, here: Path, tiny_run: Path, name: str) -> None:
    # A limit on file size makes the very writes fail, as a full disk does.
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    before = tree(here)
    command = [sys.executable, "-B", "-m", "framepred", "rollout", clip, "--model", tiny_run, "-o", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, preexec_fn=limit)
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("framepred: cannot write ")
    assert "File too large" in lines[0]
    assert tree(here) == before


def test_tokens_of_another_tokenizer_are_refused(clip: Path, here: Path, refused, tiny_run: Path) -> None:
    assert invoke("tokenize", clip, "-o", "store", "--tokenizer", tiny_run).exit_code == 0
    other = shutil.copytree(tiny_run / "tokenizer", here / "other")
    _flip_last(other / "model.safetensors")
    assert "another -o" in refused("tokenize", clip, "-o", "store", "--tokenizer", other)
    assert "tokenizer" in refused("train", "store", "-o", "run", "--tokenizer", other, "--steps", 1)
    about = here / "store" / "framepred.json"
    _edit(about, tokenizer=json.loads(about.read_text())["tokenizer"] | {"sha256": "0" * 64})
    assert "--tokenizer" in refused("train", "store", "-o", "run", "--steps", 1)
    assert "only one kind" in refused("train", "store", clip, "-o", "run")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("predictor.depth=3", "unknown key predictor.depth"),
        ("nothing=3", "unknown key nothing"),
        ("predictor.layers", "key=value"),
        ("predictor.layers=many", "not a int"),
        ("predictor.layers=0", "at least 1"),
        ("tokenizer.quantizer=vae", "fsq, ema"),
        ("data.size=[10, 10]", "multiples"),
        ("training.precision=fp8", "fp32, bf16"),
        ("predictor=3", "table"),
        ("predictor.layers.deep=3", "predictor.layers"),
    ],
)  # fmt: skip
def test_a_wrong_setting_names_the_key_and_what_is_allowed(clip: Path, refused, setting: str, says: str) -> None:
    assert says in refused("train", clip, "-o", "run", "--set", setting)


def test_a_wrong_recipe_is_refused(clip: Path, here: Path, refused) -> None:
    assert "tiny" in refused("train", clip, "-o", "run", "--recipe", "huge")
    assert "does not exist" in refused("train", clip, "-o", "run", "--recipe", "huge.toml")
    (here / "bad.toml").write_text("[predictor\nlayers = 3")
    assert "not valid TOML" in refused("train", clip, "-o", "run", "--recipe", "bad.toml")
    assert "resume" in refused("train", clip, "-o", "run", "--resume")


def test_what_cannot_be_recorded_is_refused(here: Path, refused) -> None:
    pytest.importorskip("gymnasium")
    assert "NoSuchEnv-v0" in refused("record", "NoSuchEnv-v0", "-o", "out")
    play = ("record", "CartPole-v1", "-o", "out", "--policy")
    assert "policy 'lazy' is unknown: give one of sticky, random, curious" in refused(*play, "lazy")
    assert "--model RUN" in refused(*play, "curious")
    assert "--sticky 0.5 is for --policy sticky" in refused(*play, "random", "--sticky", 0.5)
    assert "give --policy curious" in refused(*play, "random", "--model", "doom-64")
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--no-such-option"], ["no-such-command"], ["rollout"], ["rollout", "a.mp4", "--horizon", "many"],
        ["rollout", "a.mp4", "--decoder", "psychic"], ["tokenize", "a.mp4"], ["train", "-o", "run"],
        ["train", "a.mp4", "-o", "run", "--minutes", "0"], ["train", "a.mp4", "-o", "run", "--steps", "-1"],
        ["train", "a.mp4", "-o", "run", "--resume", "--overwrite"], ["record", "X-v0", "-o", "d", "--size", "4"],
        ["record", "X-v0", "-o", "d", "--episodes", "0"], ["tokenize", "a.mp4", "-o", "d", "--fps", "0"],
    ],
)  # fmt: skip
def test_wrong_usage_exits_2(here: Path, arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: framepred" in result.stderr
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["rollout", "missing.mp4", "--model", "RUN"],
        ["info", "text.mp4"],
    ],
)
def test_the_real_process_says_one_line_and_exits_1(
    clip: Path, here: Path, tiny_run: Path, arguments: list[str]
) -> None:
    (here / "text.mp4").write_text("no video")
    before = tree(here)
    command = [sys.executable, "-m", "framepred", *(str(tiny_run) if a == "RUN" else a for a in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("framepred: ")
    assert tree(here) == before


def test_the_fixture_clip_is_readable(clip: Path) -> None:
    # Guards the tests above against passing because of a bad clip.
    assert read_video(clip).frames.shape == (24, 3, 64, 64)
    with av.open(str(clip)) as container:
        assert container.streams.video[0].frames == 24

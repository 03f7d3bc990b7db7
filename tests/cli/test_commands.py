"""What the commands give when all is well: strict JSON, arrays for scripts, facts about every artifact."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import TINY_SETTINGS
from PIL import Image

from framepred.cli import cli
from framepred.evaluation.forecast import make_forecast, write_forecast
from framepred.sequence.layout import SequenceLayout
from framepred.sources.actions_csv import read_actions
from framepred.tokens.store import read_store
from framepred.video.read import read_video
from framepred.world.run import load_run

ROWS = {"model", "copy_last", "ceiling"}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def strict(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse_constant)


def run(*arguments: object) -> str:
    """Run a command that must succeed; return its stdout."""
    result = CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="framepred")
    assert result.exit_code == 0, (result.stderr, result.exception)
    return result.stdout


def facts(*arguments: object) -> Any:
    return strict(run(*arguments, "--json"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_and_version_load_nothing_heavy() -> None:
    program = """
import sys
from framepred.cli import cli
for arguments in (["--help"], ["--version"], ["rollout", "--help"], ["train", "--help"], ["info", "--help"]):
    cli.main(arguments, prog_name="framepred", standalone_mode=False)
heavy = {"torch", "numpy", "av", "PIL", "torchvision", "transformers", "datasets", "pyarrow", "accelerate", "gymnasium"}
print("HEAVY", sorted(heavy & {name.split(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"
    assert done.stderr == ""


def test_every_command_explains_itself() -> None:
    for name in cli.commands:
        shown = run(name, "--help")
        assert f"Usage: framepred {name}" in shown
        assert "--json" in shown


def test_rollout_json_holds_facts_and_a_score_for_each_frame_with_truth(clips_dir: Path, tiny_run: Path) -> None:
    clip = clips_dir / "clip0.mp4"
    summary = facts("rollout", clip, "--model", tiny_run, "--context", 3, "--horizon", 7, "--seed", 5, "--samples", 2)
    assert {k: summary[k] for k in ("model", "context", "horizon", "seed", "output", "samples")} == {
        "model": str(tiny_run), "context": 3, "horizon": 7, "seed": 5, "output": "clip0-rollout.mp4", "samples": 2,
    }  # fmt: skip
    assert summary["decoder"] in ("speculative", "sequential")
    for metric in ("mse", "psnr", "ssim"):
        assert set(summary[metric]) == ROWS
        assert all(len(values) == 7 for values in summary[metric].values())
    for row in ROWS:
        expected = [-10 * np.log10(max(e, 1e-10)) for e in summary["mse"][row]]
        assert summary["psnr"][row] == pytest.approx(expected)
    assert summary["motion"] > 0
    assert summary["seconds"] > 0
    assert summary["tokens_per_second"] > 0
    assert summary["forward_passes"] >= 7
    truth = read_video(clip).frames.double() / 255
    copied = [(truth[2] - truth[3 + t]).square().mean().item() for t in range(7)]
    assert summary["mse"]["copy_last"] == pytest.approx(copied)


def test_rollout_says_whether_it_is_better_than_copying(clips_dir: Path, tiny_run: Path) -> None:
    command = ("rollout", clips_dir / "clip0.mp4", "--model", tiny_run, "--horizon", 5)
    gain = facts(*command, "-o", "a.npz")["over_copying"]
    better = f"{gain:.2f} dB better than" if gain > 0 else f"{-gain:.2f} dB worse than"
    assert f"The prediction is {better} copying the last frame" in run(*command, "-o", "b.npz")


def test_scores_stop_where_the_truth_stops(clips_dir: Path, tiny_run: Path, here: Path) -> None:
    command = ("rollout", clips_dir / "clip0.mp4", "--model", tiny_run, "--actions", "none", "-o")
    summary = facts(*command, "a.npz", "--context", 20, "--horizon", 9)
    assert all(len(summary[m][row]) == 4 for m in ("mse", "psnr", "ssim") for row in ROWS)
    with np.load(here / "a.npz") as arrays:
        assert arrays["frames"].shape[1] == 9
    summary = facts(*command, "b.npz", "--context", 24, "--horizon", 2)
    assert summary["psnr"] == {row: [] for row in ROWS}
    assert summary["motion"] is None
    assert run(*command, "c.mp4", "--context", 24, "--horizon", 2).strip() == "c.mp4"


@pytest.mark.parametrize("actions", ["given", "none"])
def test_npz_holds_frames_tokens_the_sequence_and_actions(
    clips_dir: Path, tiny_run: Path, here: Path, actions: str
) -> None:
    clip = clips_dir / "clip1.mp4"
    more = ["--actions", "none"] if actions == "none" else []
    summary = facts("rollout", clip, "--model", tiny_run, "-o", "a.npz", "--horizon", 5, "--samples", 3, *more)
    with np.load(here / "a.npz") as arrays:
        frames, tokens, ids, taken = (torch.from_numpy(arrays[k]) for k in ("frames", "tokens", "ids", "actions"))
        assert set(arrays) == {"frames", "tokens", "ids", "actions"}
    model = load_run(tiny_run)
    assert (frames.shape, frames.dtype) == ((3, 5, 3, 64, 64), torch.uint8)
    assert tokens.shape == (3, 5, 8, 8)
    assert not tokens.is_floating_point()
    assert torch.equal(frames, torch.stack([model.tokenizer.decode(t.long()) for t in tokens]))
    # The ids are what the model saw: context, then sample 0, with an action after each frame but the last.
    about = json.loads((tiny_run / "framepred.json").read_text())
    layout = SequenceLayout.from_json(about)
    assert (ids.dtype, ids.shape) == (torch.int64, (9 * layout.stride - layout.action_slots,))
    _, grids, action_ids = layout.unpack(ids)
    context = model.tokenizer.encode(read_video(clip, (64, 64)).frames[:4])
    assert torch.equal(grids, torch.cat([context, tokens[0].long()]))
    if actions == "none":
        assert len(taken) == 0
        assert (action_ids == about["vocabulary"]["special"]["no_action"]).all()
        assert summary["actions"] is False
    else:
        stored, _ = read_actions(clip.with_suffix(".actions.csv"))
        assert torch.equal(taken, stored[:8])
        assert (action_ids.flatten() - about["vocabulary"]["action"][0]).tolist() == stored[:8].tolist()
        assert summary["actions"] is True


def test_start_moves_context_truth_and_actions_together(clips_dir: Path, tiny_run: Path, here: Path) -> None:
    clip = clips_dir / "clip2.mp4"
    summary = facts("rollout", clip, "--model", tiny_run, "-o", "a.npz", "--start", 5, "--context", 3, "--horizon", 6)
    truth = read_video(clip).frames.double() / 255
    copied = [(truth[7] - truth[8 + t]).square().mean().item() for t in range(6)]
    assert summary["mse"]["copy_last"] == pytest.approx(copied)
    stored, _ = read_actions(clip.with_suffix(".actions.csv"))
    with np.load(here / "a.npz") as arrays:
        assert arrays["actions"].tolist() == stored[5:13].tolist()


def test_the_same_seed_gives_the_same_file_and_another_seed_does_not(
    clips_dir: Path, tiny_run: Path, here: Path
) -> None:
    for name, seed in (("a.npz", 1), ("b.npz", 1), ("c.npz", 2)):
        run("rollout", clips_dir / "clip0.mp4", "--model", tiny_run, "-o", name, "--horizon", 4, "--seed", seed)
    first, again, other = (np.load(here / name)["tokens"] for name in ("a.npz", "b.npz", "c.npz"))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", ["deep/er/a.mp4", "a.MKV", "a.gif", "a.webp"])
def test_pictures_show_context_and_prediction(clips_dir: Path, tiny_run: Path, here: Path, name: str) -> None:
    shown = run("rollout", clips_dir / "clip0.mp4", "--model", tiny_run, "-o", name, "--context", 3, "--horizon", 6)
    assert shown.splitlines()[-1] == name
    if name.endswith(".webp"):
        with Image.open(here / name) as picture:
            assert picture.n_frames == 9
    else:
        assert len(read_video(here / name).frames) == 9
    assert not list(here.rglob(".*"))


def test_rollout_at_another_size_and_rate_warns_and_predicts(clips_dir: Path, tiny_run: Path, here: Path) -> None:
    from framepred.video.write import write_video

    frames = torch.nn.functional.interpolate(read_video(clips_dir / "clip0.mp4").frames.float(), size=(90, 120)).byte()
    write_video(here / "other.mp4", frames.repeat_interleave(2, 0), 20.0)
    result = CliRunner().invoke(
        cli, ["rollout", "other.mp4", "--model", str(tiny_run), "-o", "a.npz", "--horizon", "4", "--json"]
    )
    assert result.exit_code == 0, result.stderr
    assert result.stderr.splitlines() == [
        "warning: other.mp4 has 20 frames a second, not 10 frames a second: resampled"
    ]
    assert len(strict(result.stdout)["mse"]["model"]) == 4


def test_info_tells_what_every_artifact_is(clips_dir: Path, tiny_run: Path) -> None:
    video = facts("info", clips_dir / "clip0.mp4")
    assert (video["kind"], video["width"], video["height"], video["fps"]) == ("video", 64, 64, 10.0)
    assert (video["num_frames"], video["seconds"]) == (24, pytest.approx(2.4))
    assert video["actions"].startswith("24 rows of action (discrete")
    folder = facts("info", clips_dir)
    assert (folder["kind"], folder["videos"], folder["with_actions"]) == ("video folder", 5, 5)
    store = facts("info", tiny_run / "tokens")
    assert (store["kind"], store["episodes"], store["frames"], store["grid"]) == ("token store", 5, 120, [8, 8])
    tokenizer = facts("info", tiny_run / "tokenizer")
    assert (tokenizer["kind"], tokenizer["codebook_size"], tokenizer["frame_size"]) == ("tokenizer", 64, [64, 64])
    assert store["tokenizer_sha256"] == tokenizer["sha256"]
    about = facts("info", tiny_run)
    assert (about["kind"], about["window_frames"], about["tokens_per_frame"]) == ("run", 6, 64)
    assert about["actions"] == "4 discrete ids"
    assert about["tokenizer_sha256"] == tokenizer["sha256"]
    for path in (clips_dir / "clip0.mp4", clips_dir, tiny_run / "tokens", tiny_run / "tokenizer", tiny_run):
        assert facts("info", path)["path"] == str(path)
        assert str(path) in run("info", path)


def test_info_alone_lists_what_comes_along() -> None:
    names = {item["name"] for item in facts("info")["zoo"]}
    assert "tiny" in names
    assert "tiny" in run("info")


def test_info_lists_the_zoo_without_torch_and_with_the_sizes_of_the_loaded_weights() -> None:
    program = "import sys; from framepred.cli import cli; cli.main(['info'], standalone_mode=False)"
    done = subprocess.run([sys.executable, "-c", f"{program}; assert 'torch' not in sys.modules"], check=False)
    assert done.returncode == 0
    for item in facts("info")["zoo"]:
        if item["kind"] != "recipe":
            about = facts("info", item["path"])
            assert f"{about['tokens_per_frame']} tokens a frame of {about['codebook_size']} codes" in item["summary"]
            assert f"{about['parameters'] / 1e6:.1f}M parameters" in item["summary"]


def test_tokenize_reports_what_it_added(clips_dir: Path, tiny_run: Path, here: Path) -> None:
    command = ("tokenize", clips_dir / "clip0.mp4", clips_dir / "clip1.mp4", "-o", "store", "--tokenizer", tiny_run)
    first = facts(*command)
    assert first.pop("frames_per_second") > 0
    assert first == {
        "path": "store", "episodes": 2, "frames": 48, "tokenizer": "tiny", "skipped": 0, "tokens_per_frame": 64,
    }  # fmt: skip
    assert facts(*command)["frames"] == 0
    assert facts(*command, "--overwrite")["frames"] == 48
    assert [e.name for e in read_store(here / "store")] == ["clip0", "clip1"]


def test_training_on_a_token_store_makes_a_run_that_predicts(clips_dir: Path, tiny_run: Path, here: Path) -> None:
    settings = [part for setting in TINY_SETTINGS for part in ("--set", setting)]
    run("tokenize", clips_dir, "-o", "store", "--tokenizer", tiny_run)
    # --steps comes before --set, so the setting decides.
    made = facts("train", "store", "-o", "run", "--recipe", "tiny", *settings, "--set", "training.predictor_steps=4")
    assert made["path"] == "run"
    assert made["stages"]["predictor"]["step"] == 4
    assert (here / "run" / "tokenizer" / "model.safetensors").is_file()
    summary = facts("rollout", clips_dir / "clip0.mp4", "--model", "run", "-o", "a.npz", "--horizon", 2)
    assert summary["model"] == "run"


def test_record_makes_a_video_folder(here: Path) -> None:
    pytest.importorskip("gymnasium")
    pytest.importorskip("pygame")
    made = facts("record", "CartPole-v1", "-o", "clips", "--episodes", 2, "--steps", 5, "--size", "24x32")
    assert (made["path"], len(made["episodes"])) == ("clips", 2)
    about = facts("info", "clips")
    assert (about["videos"], about["with_actions"], about["height"], about["width"]) == (2, 2, 24, 32)


def test_the_module_runs_as_a_program(clips_dir: Path) -> None:
    command = [sys.executable, "-m", "framepred", "info", str(clips_dir / "clip0.mp4"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert strict(done.stdout)["kind"] == "video"
    assert done.stderr == ""


def test_a_future_is_shown_beside_the_mean_of_all(clips_dir: Path, tiny_run: Path, tmp_path: Path) -> None:
    clip = clips_dir / "clip0.mp4"
    mean = make_forecast(clip, str(tiny_run), horizon=3, ensemble=3)
    several = make_forecast(clip, str(tiny_run), horizon=3, samples=3)
    assert mean.member is not None and several.member is None
    assert torch.equal(mean.member, several.frames[0])
    assert mean.frames.shape[0] == 1 and (mean.summary()["samples"], mean.summary()["ensemble"]) == (1, 3)
    write_forecast(mean, tmp_path / "mean.gif")
    write_forecast(several, tmp_path / "several.gif")
    widths = [read_video(tmp_path / name).frames.shape[-1] for name in ("mean.gif", "several.gif")]
    # Truth, mean, one of them and the ceiling; truth, three and the ceiling.
    assert widths == [4 * 208, 5 * 208]

"""The verdict after training: on what was held out, beside copying, and the temperature that a run keeps."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import FPS, moving_square

from framepred.evaluation.verdict import Trial, Verdict, _fit, chosen, judge, stored_verdict
from framepred.sources.folder import VideoFile
from framepred.training.held_out import HeldOut
from framepred.training.start import Start
from framepred.video.write import write_video
from framepred.world.run import load_run


def begun(held_out: Sequence[HeldOut], videos: int = 2) -> Start:
    return Start(videos, None, None, (FPS,), (64, 64), (), tuple(held_out), None, "cpu", 1, {}, 0.0, {"predictor": 1})


def judged(run: Path, sources: list[str], held_out: Sequence[HeldOut], seconds: float | None = None) -> Verdict | None:
    last = None
    for last in judge(run, sources, begun(held_out), seconds):  # noqa: B007
        pass
    return last if isinstance(last, Verdict) else None


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "run")


def test_a_still_video_cannot_be_predicted_better_than_by_copying(run: Path, tmp_path: Path) -> None:
    still = moving_square(3, 1)[0].expand(40, -1, -1, -1)
    write_video(tmp_path / "still.mp4", still, FPS, lossless=True)
    held = HeldOut("still", VideoFile(tmp_path / "still.mp4", "").key, 20)
    verdict = judged(run, [str(tmp_path / "still.mp4")], [held])
    assert verdict is not None
    assert verdict.over_copying < 0
    assert verdict.worse_clips == verdict.clips > 1
    assert verdict.ceiling < verdict.copying
    assert verdict.advice[0].startswith("a tokenizer trained on these videos")
    assert stored_verdict(run) == verdict.to_json()
    # The run keeps the temperature: it is drawn at that where nothing else is said.
    assert load_run(run).temperature == verdict.temperature
    assert verdict.temperature in [trial.temperature for trial in verdict.trials]


def test_nothing_held_out_gives_no_verdict_and_changes_nothing(run: Path, clips_dir: Path) -> None:
    before = (run / "framepred.json").read_bytes()
    assert judged(run, [str(clips_dir)], []) is None
    assert judged(run, [str(clips_dir)], [HeldOut("gone", "nowhere.mp4")]) is None
    assert (run / "framepred.json").read_bytes() == before
    assert stored_verdict(run) is None


def test_no_time_still_judges_one_clip(run: Path, clips_dir: Path) -> None:
    held = [HeldOut(f"clip{i}", VideoFile(clips_dir / f"clip{i}.mp4", "").key) for i in (1, 2)]
    hurried = judged(run, [str(clips_dir)], held, 0.0)
    assert hurried is not None
    assert (hurried.clips, hurried.horizon) == (1, 8)


def trial(temperature: float, psnr: float, motion: float) -> Trial:
    return Trial(temperature, psnr, 1.0, motion, 0)


@pytest.mark.parametrize(
    ("trials", "copying", "kept"),
    [
        ([trial(0, 20.0, 0.1), trial(0.5, 19.9, 0.8), trial(1, 19.0, 1.0)], 18.0, 0.5),
        ([trial(0, 20.0, 0.1), trial(0.5, 19.9, 0.8), trial(1, 19.0, 1.0)], 19.95, 0),
        ([trial(0, 20.0, 0.0), trial(0.5, 19.9, 2.0), trial(1, 19.8, 1.3)], 25.0, 1),
        ([trial(0, 20.0, 1.0), trial(0.5, 20.0, 1.0)], 25.0, 0),
    ],
)
def test_the_motion_decides_among_the_nearest_that_copying_does_not_beat(
    trials: list[Trial], copying: float, kept: float
) -> None:
    assert chosen(trials, copying).temperature == kept


@pytest.mark.parametrize(
    ("losses", "fit"),
    [([3.0, 2.0], "unknown"), ([3.0, 2.0, 1.5], "under"), ([3.0, 1.5, 1.497], "well"), ([2.0, 1.5, 1.8], "over")],
)
def test_validation_losses_say_whether_it_was_trained_long_enough(
    losses: list[float], fit: str, tmp_path: Path
) -> None:
    rows = [{"stage": "predictor", "step": i, "validation_loss": loss} for i, loss in enumerate(losses)]
    rows += [{"stage": "tokenizer", "step": 9, "validation_loss": 0.1}, {"stage": "predictor", "step": 9}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert _fit(tmp_path) == fit


def test_the_frames_are_those_that_were_held_out(run: Path, tmp_path: Path) -> None:
    """A video that moves until its held-out end stands still: only there copying is exact."""
    moving, rest = moving_square(5, 30)[0], moving_square(6, 1)[0].expand(20, -1, -1, -1)
    write_video(tmp_path / "v.mp4", torch.cat([moving, rest]), FPS, lossless=True)
    verdict = judged(run, [str(tmp_path / "v.mp4")], [HeldOut("v", VideoFile(tmp_path / "v.mp4", "").key, 30)])
    assert verdict is not None
    assert verdict.copying > 90

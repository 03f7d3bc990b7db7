"""Surprise: the same numbers frame by frame, measured against a baseline, and events found where they were spliced."""

import json
import math
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result
from conftest import FRAMES, moving_square
from splicing import Footage, change_action, cut, reverse
from torch import Tensor

from framepred.cli import cli
from framepred.cli.console import sparkline
from framepred.errors import FramepredError, FramepredWarning
from framepred.evaluation.surprise.baseline import Baseline, Statistics
from framepred.evaluation.surprise.calibrate import calibrate
from framepred.evaluation.surprise.calibration import FILE_NAME, Calibration, read_calibration, write_calibration
from framepred.evaluation.surprise.features import Features, FrameScores, score_frames
from framepred.evaluation.surprise.heatmap import ScoredFrame, colour, draw_surprise, overlay
from framepred.evaluation.surprise.reliability import Reliability, bin_confidence
from framepred.evaluation.surprise.surprise import action_odds, measure_surprise
from framepred.sources.actions_csv import actions_path, read_actions, write_actions
from framepred.sources.folder import find_videos
from framepred.video.read import read_video
from framepred.video.write import write_video
from framepred.world.counterfactual import take_past
from framepred.world.run import Run, load_run
from framepred.world.session import window_start

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tiny_run: Path) -> Run:
    return load_run(tiny_run)


@pytest.fixture(scope="module")
def calibrated(tiny_run: Path, clips_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Calibration]:
    """A copy of the tiny run that carries its calibration on `clips_dir`."""
    folder = tmp_path_factory.mktemp("calibrated") / "tiny"
    shutil.copytree(tiny_run, folder)
    run = load_run(folder)
    last = list(calibrate(run, find_videos([clips_dir])))[-1]
    assert isinstance(last, Calibration)
    write_calibration(folder / FILE_NAME, run, last)
    return folder, last


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="framepred")


def facts(*arguments: object) -> Any:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, (result.stderr, result.exception)
    return json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def clip_of(run: Run, clips_dir: Path, name: str = "clip0") -> tuple[Tensor, Tensor]:
    path = clips_dir / f"{name}.mp4"
    return run.tokenizer.encode(read_video(path).frames), read_actions(actions_path(path))[0]


def frame_of(nats: list[float], entropy: list[float], nll_other_pasts: float | None = None) -> FrameScores:
    nothing = torch.zeros(len(nats))
    return FrameScores(torch.tensor(nats), torch.tensor(entropy), nothing, nothing, nll_other_pasts)


@pytest.mark.parametrize("with_actions", [True, False])
def test_scores_equal_reading_the_sequence_token_by_token(run: Run, clips_dir: Path, with_actions: bool) -> None:
    tokens, given = clip_of(run, clips_dir)
    actions = given if with_actions else None
    scored = dict(score_frames(run, tokens, actions))
    assert list(scored) == list(range(1, FRAMES))
    ids, first = run.layout.action_ids(actions, FRAMES), run.layout.vocabulary.visual[0]
    for frame in (1, 7, 15):
        start = window_start(frame, run.window)
        sequence = run.layout.pack(tokens[start:frame], ids[start:frame])
        for n in (0, 1, 40, 63):
            seen = torch.cat([sequence, tokens[frame].flatten()[:n] + first])
            with torch.inference_mode():
                logits = run.predictor(seen[None])[0, -1, slice(*run.layout.vocabulary.visual)]
            p = logits.double().softmax(-1)
            token = int(tokens[frame].flatten()[n])
            assert float(scored[frame].nll[n]) == pytest.approx(-math.log(p[token]), abs=1e-4)
            assert float(scored[frame].entropy[n]) == pytest.approx(float(-(p * p.log()).sum()), abs=1e-4)
            assert float(scored[frame].confidence[n]) == pytest.approx(float(p.max()), abs=1e-5)
            assert bool(scored[frame].right[n]) == (int(p.argmax()) == token)


def test_a_frame_is_scored_by_its_past_alone(run: Run, clips_dir: Path) -> None:
    tokens, actions = clip_of(run, clips_dir)
    whole, begun = dict(score_frames(run, tokens, actions)), dict(score_frames(run, tokens[:9], actions))
    for frame, scores in begun.items():
        assert torch.allclose(scores.nll, whole[frame].nll, atol=1e-4)


def test_pasts_of_other_footage_change_only_the_relative_nll(run: Run, clips_dir: Path) -> None:
    tokens, actions = clip_of(run, clips_dir)
    past = take_past(run, *clip_of(run, clips_dir, "clip1"))
    alone, beside = dict(score_frames(run, tokens[:6], actions)), dict(score_frames(run, tokens[:6], actions, past))
    for frame in alone:
        assert torch.equal(alone[frame].nll, beside[frame].nll)
        assert alone[frame].nll_other_pasts is None
        unrelated = beside[frame].nll_other_pasts
        assert unrelated is not None
        features = beside[frame].features
        expected = float(alone[frame].nll.mean()) - (float(alone[frame].entropy.mean()) + unrelated) / 2
        assert features.relative_nll == pytest.approx(expected, abs=1e-5)
        assert features._replace(relative_nll=0) == alone[frame].features._replace(relative_nll=0)


def test_features_of_a_frame() -> None:
    frame = frame_of([8.0, 1, 1, 1, 1, 1, 1, 2], [1.0] * 8, nll_other_pasts=5.0)
    assert frame.features == Features(peak_nll=8.0, relative_nll=2 - 3, excess_nll=1.0, entropy=1.0)
    assert frame_of([2.0] * 16, [1.0] * 16).features == Features(2.0, 1.0, 1.0, 1.0)


def test_scale_is_median_and_spread_whatever_the_outliers() -> None:
    generator = torch.Generator().manual_seed(0)
    values = (torch.randn(4001, generator=generator) * 3 + 10).tolist()
    scale = Statistics.of(values, 0.99)
    assert scale.median == pytest.approx(10, abs=0.2)
    assert scale.deviation == pytest.approx(3, abs=0.2)
    assert sum(v > scale.limit for v in values) == 40
    wild = Statistics.of([*values, *[1e6] * 20], None)
    assert wild.median == pytest.approx(scale.median, abs=0.1)
    assert wild.limit == pytest.approx(wild.median + 5 * wild.deviation)
    assert scale.deviations(scale.median + 2 * scale.deviation) == pytest.approx(2)
    assert math.isfinite(Statistics.of([1.0] * 9, None).deviations(2.0))


def test_surprised_is_sure_and_wrong_and_unsure_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    ordinary = [frame_of((torch.rand(16, generator=generator) + 0.5).tolist(), [1.0] * 16).features for _ in range(500)]
    baseline = Baseline.of(ordinary)
    assert sum(baseline.surprise(f) > baseline.limit for f in ordinary) == 5
    sure_and_wrong, lost = frame_of([6.0] * 16, [1.0] * 16), frame_of([6.0] * 16, [6.0] * 16)
    assert baseline.verdict(sure_and_wrong.features) == "surprised"
    assert baseline.verdict(lost.features) == "unsure"
    assert baseline.verdict(frame_of([1.0] * 16, [1.0] * 16).features) == "expected"
    # One place of many is enough; and more is more, as is all a little beside it.
    local = frame_of([14.0, 14.0, *[1.0] * 14], [1.0] * 16).features
    assert baseline.surprise(local) > baseline.limit
    assert baseline.surprise(local._replace(peak_nll=15)) > baseline.surprise(local)
    assert baseline.surprise(local._replace(relative_nll=local.relative_nll + 0.1)) > baseline.surprise(local)


def test_reliability_of_probabilities_that_hold_and_of_overconfident_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(200_000, generator=generator)
    right = (torch.rand(200_000, generator=generator) < confidence).float()
    fair = Reliability.of(bin_confidence(confidence, right))
    assert sum(fair.count) == 200_000
    assert fair.ece < 0.01
    overconfident = Reliability.of(bin_confidence((confidence + 1) / 2, right))
    assert overconfident.ece == pytest.approx(0.25, abs=0.01)
    assert overconfident.confidence[0] is None
    edges = Reliability.of(bin_confidence(torch.tensor([1.0, 0.06, 1e-6]), torch.tensor([1.0, 0.0, 1.0])))
    assert (edges.count[0], edges.count[14]) == (2, 1)
    assert edges.accuracy[0] == 0.5
    by_hand = (2 / 3) * abs(edges.confidence[0] - 0.5)  # type: ignore[operator]
    assert edges.ece == pytest.approx(by_hand, abs=1e-6)


def test_odds_are_those_of_bayes() -> None:
    log_p = torch.tensor([0.2, 0.3, 0.5]).log()
    assert action_odds(log_p, torch.tensor([True, False, False])) == pytest.approx(math.log(0.4 / 0.2))
    assert action_odds(log_p, torch.tensor([False, False, True])) == pytest.approx(math.log(0.25 / 0.5))
    assert action_odds(log_p[:1], torch.tensor([True])) == 0.0


def test_calibration_comes_back_from_its_file_as_it_was(calibrated: tuple[Path, Calibration]) -> None:
    folder, made = calibrated
    read = read_calibration(folder / FILE_NAME, load_run(folder))
    assert (read.videos, read.actions, read.no_actions) == (5, made.actions, made.no_actions)
    assert read.pasts is not None
    assert made.pasts is not None
    assert torch.equal(read.pasts.tokens, made.pasts.tokens)
    assert torch.equal(read.pasts.action_ids, made.pasts.action_ids)
    assert made.actions is not None
    assert made.actions.baseline.frames == 5 * (FRAMES - 1)
    assert sum(made.actions.reliability.count) == 5 * (FRAMES - 1) * 64


def test_calibration_is_the_mean_over_all_tokens(
    calibrated: tuple[Path, Calibration], run: Run, clips_dir: Path
) -> None:
    _, made = calibrated
    clips = [clip_of(run, clips_dir, f"clip{i}") for i in range(5)]
    nats = torch.cat([s.nll for t, _ in clips for _, s in score_frames(run, t, None)])
    assert made.no_actions.nll == pytest.approx(float(nats.mean()), abs=1e-5)


def test_a_video_is_not_measured_against_its_own_past(run: Run, clips_dir: Path) -> None:
    one = list(calibrate(run, find_videos([clips_dir / "clip0.mp4"])))[-1]
    assert isinstance(one, Calibration)
    assert one.pasts is None
    two = list(calibrate(run, find_videos([clips_dir / "clip0.mp4", clips_dir / "clip1.mp4"])))[-1]
    assert isinstance(two, Calibration)
    assert two.pasts is not None
    (t0, a0), (t1, a1) = clip_of(run, clips_dir, "clip0"), clip_of(run, clips_dir, "clip1")
    features = [s.features for _, s in score_frames(run, t0, a0, take_past(run, t1, a1))]
    features += [s.features for _, s in score_frames(run, t1, a1, take_past(run, t0, a0))]
    assert two.actions is not None
    assert two.actions.baseline.relative_nll.median == pytest.approx(
        Baseline.of(features).relative_nll.median, abs=1e-5
    )


def spliced_clip(folder: Path, clips_dir: Path) -> Path:
    """Write clip0 with a cut to noise of another world at frame 12."""
    frames, actions = moving_square(0)
    foreign = torch.randint(0, 256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(3)).float()
    other = F.interpolate(foreign, (64, 64)).to(torch.uint8).expand(FRAMES, -1, -1, -1)
    spliced = cut(Footage.plain(frames, actions), Footage.plain(other, actions), 12)
    path = folder / "spliced.mp4"
    write_video(path, spliced.frames, 10.0, lossless=True)
    write_actions(actions_path(path), spliced.actions, ["action"])
    return path


def test_json_has_a_value_a_frame_and_finds_the_cut(
    calibrated: tuple[Path, Calibration], clips_dir: Path, here: Path
) -> None:
    path = spliced_clip(here, clips_dir)
    found = facts("surprise", path, "--model", calibrated[0], "--inverse", "-o", "a.npz")
    for name in ("surprise", "verdict", "nll", "entropy", "action_odds", "action_likeliest"):
        assert len(found[name]) == FRAMES
        assert found[name][0] is None
        assert None not in found[name][1:]
    surprise = found["surprise"]
    # After so little training the other world stays surprising.
    assert min(surprise[12:]) > max(surprise[1:12])
    assert surprise[12] > found["limit"]
    assert found["actions"] is True
    assert found["baseline_frames"] == 5 * (FRAMES - 1)
    assert all(0 <= a < 4 for a in found["action_likeliest"][1:])
    with np.load(here / "a.npz") as arrays:
        assert arrays["nll"].shape == arrays["entropy"].shape == arrays["tokens"].shape == (FRAMES, 8, 8)
        assert np.isnan(arrays["nll"][0]).all()
        assert arrays["nll"][1:].mean((1, 2)).tolist() == pytest.approx(found["nll"][1:], abs=1e-5)
        assert arrays["surprise"][1:].tolist() == pytest.approx(surprise[1:])
    again = facts("surprise", path, "--model", calibrated[0], "--inverse", "-o", "b.npz")
    assert again | {"output": ""} == found | {"output": ""}


def test_a_run_without_calibration_measures_by_the_video_itself_and_says_so(
    tiny_run: Path, clips_dir: Path, here: Path
) -> None:
    path = spliced_clip(here, clips_dir)
    result = invoke("surprise", path, "--model", tiny_run, "-o", "a.npz", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert "framepred calibrate" in result.stderr
    assert found["baseline"] == "this video itself"
    assert found["surprise"][12] > max(found["surprise"][1:12])


def test_the_shipped_run_finds_a_cut_between_the_example_clips(here: Path) -> None:
    home, box = (read_video(ROOT / "examples" / name, (64, 64)).frames for name in ("my-way-home.mp4", "box.mp4"))
    still = Footage.plain(box, torch.zeros(len(box)))
    spliced = cut(Footage.plain(home[:14], torch.zeros(14)), still, 7)
    write_video(here / "a.mp4", spliced.frames[:14], 8.75, lossless=True)
    found = facts("surprise", "a.mp4", "--calibration", "none", "-o", "a.npz")
    assert max(range(1, 14), key=lambda t: found["surprise"][t]) == 7
    assert found["verdict"][7] == "surprised"
    assert found["events"][0] == 7


def test_pictures_and_words(calibrated: tuple[Path, Calibration], clips_dir: Path, here: Path) -> None:
    path = spliced_clip(here, clips_dir)
    result = invoke("surprise", path, "--model", calibrated[0])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "spliced-surprise.mp4"
    assert any(bar in result.stderr for bar in "▂▃▄▅▆▇█")
    assert result.stderr.splitlines()[-1] == f"next: framepred eval {here} --model {calibrated[0]}"
    shown = read_video(here / "spliced-surprise.mp4").frames
    assert len(shown) == FRAMES
    assert shown.shape[3] > 3 * 192


def test_actions_none_and_another_file(calibrated: tuple[Path, Calibration], clips_dir: Path) -> None:
    clip, folder = clips_dir / "clip0.mp4", calibrated[0]
    base = facts("surprise", clip, "--model", folder, "-o", "a.npz")
    without = facts("surprise", clip, "--model", folder, "-o", "b.npz", "--actions", "none")
    other = facts("surprise", clip, "--model", folder, "-o", "c.npz", "--actions", clips_dir / "clip1.actions.csv")
    assert (base["actions"], without["actions"]) == (True, False)
    assert base["nll"] != without["nll"]
    assert base["nll"] != other["nll"]


def test_calibrate_writes_what_surprise_reads(tiny_run: Path, clips_dir: Path, here: Path) -> None:
    shutil.copytree(tiny_run, here / "run")
    sources = [clips_dir / "clip0.mp4", clips_dir / "clip1.mp4"]
    made = facts("calibrate", *sources, "--model", "run")
    assert made["output"] == str(Path("run") / FILE_NAME)
    assert made["videos"] == 2
    assert 0 <= made["actions"]["reliability"]["ece"] <= 1
    refused = invoke("calibrate", *sources, "--model", "run")
    assert refused.exit_code == 1
    assert "exists already" in refused.stderr
    shown = invoke("calibrate", *sources, "--model", "run", "--overwrite")
    assert "ECE" in shown.stdout
    assert facts("surprise", clips_dir / "clip2.mp4", "--model", "run", "-o", "a.npz")["baseline"].startswith(
        "2 videos"
    )


def test_what_cannot_be_scored_is_refused(
    calibrated: tuple[Path, Calibration], tiny_run: Path, clips_dir: Path, here: Path
) -> None:
    frames, actions = moving_square(0, 6)
    write_video(here / "one.mp4", frames[:1], 10.0)
    write_video(here / "bare.mp4", frames, 10.0, lossless=True)
    write_video(here / "few.mp4", frames, 10.0, lossless=True)
    write_actions(here / "few.actions.csv", actions[:3], ["action"])
    write_actions(here / "high.csv", torch.full((6,), 9), ["action"])
    (here / "taken.npz").write_text("mine")
    stored = (calibrated[0] / FILE_NAME).read_text()
    (here / "stale.json").write_text(stored.replace('"model_sha256": "', '"model_sha256": "0'))
    (here / "old.json").write_text(stored.replace('"version": 3', '"version": 2'))
    (here / "bad.json").write_text("[1]")
    clip, model = clips_dir / "clip0.mp4", ("--model", calibrated[0])
    for words, arguments in (
        ("video missing.mp4 does not exist", ("missing.mp4", *model)),
        ("one.mp4 has 1 frame, 2 are needed", ("one.mp4", *model)),
        ("few.actions.csv has 3 actions for 6 frames", ("few.mp4", *model)),
        ("high.csv: action id 9 is not allowed", ("bare.mp4", *model, "--actions", "high.csv")),
        ("actions file no.csv does not exist", (clip, *model, "--actions", "no.csv")),
        ("--inverse asks whether the actions fit", ("bare.mp4", *model, "--inverse")),
        ("exists already: give --overwrite", (clip, *model, "-o", "taken.npz")),
        ("unknown ending '.txt'", (clip, *model, "-o", "a.txt")),
        ("neither a folder nor in the zoo", (clip, "--model", "no-such-run")),
        ("was made with other weights", (clip, *model, "--calibration", "stale.json")),
        ("version 2, version 3 is needed: make it again", (clip, *model, "--calibration", "old.json")),
        ("is no calibration of a run", (clip, *model, "--calibration", "bad.json")),
        ("calibration no.json does not exist", (clip, *model, "--calibration", "no.json")),
    ):
        result = invoke("surprise", *arguments)
        assert result.exit_code == 1, (words, result.stderr, result.exception)
        assert words in result.stderr
        assert result.stderr.startswith("framepred: ")
        assert len(result.stderr.splitlines()) == 1
        assert result.stdout == ""
    assert (here / "taken.npz").read_text() == "mine"
    assert not list(here.glob("*-surprise.mp4"))
    assert invoke("surprise", clip, *model, "-o", "taken.npz", "--overwrite").exit_code == 0


def test_calibration_of_videos_without_actions_does_not_serve_with_actions(
    calibrated: tuple[Path, Calibration], clips_dir: Path, here: Path
) -> None:
    folder, made = calibrated
    run = load_run(folder)
    bare = Calibration(made.videos, made.pasts, made.no_actions, None)
    write_calibration(here / "bare.json", run, bare)
    with pytest.warns(FramepredWarning, match="made of videos without actions"):
        found = measure_surprise(clips_dir / "clip0.mp4", str(folder), calibration="bare.json")
    assert found.calibration is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure_surprise(clips_dir / "clip0.mp4", str(folder), "none", "bare.json")
    assert found.calibration is not None


def test_heat_is_seen_where_it_is() -> None:
    frame = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    heat = torch.zeros(8, 8)
    heat[1, 6] = 1.0
    shown = overlay(frame, heat).float()
    assert shown.sum(0).flatten().argmax() in [row * 64 + column for row in range(8, 16) for column in range(48, 56)]
    ramp = colour(torch.linspace(0, 1, 200)[None])
    light = (ramp * torch.tensor([0.2126, 0.7152, 0.0722])[:, None, None]).sum(0)[0]
    assert (light[1:] > light[:-1]).all(), "the hotter, the lighter"


def test_a_picture_a_moment_of_even_size() -> None:
    frames = torch.zeros(3, 3, 64, 96, dtype=torch.uint8)
    heat = torch.rand(8, 12)
    scored = [
        ScoredFrame(None, None, None, None),
        ScoredFrame(heat, heat, 0.3, "expected"),
        ScoredFrame(heat, heat, 9.0, "surprised"),
    ]
    shown = list(draw_surprise(frames, scored, 1.0, 3.0))
    assert len(shown) == 3
    assert all(p.dtype == torch.uint8 and p.shape[1] % 2 == p.shape[2] % 2 == 0 for p in shown)
    assert not torch.equal(shown[1], shown[2])


def test_sparkline_shows_the_highest_of_each_stretch() -> None:
    assert sparkline([None, 0.0, 7.0]) == " ▁█"
    assert sparkline([0.0] * 143 + [1.0], 72) == "▁" * 71 + "█"
    assert sparkline([None, 2.0, 2.0]) == " ▁▁"


def test_a_reversed_stretch_and_a_changed_action_score_as_their_sequence_says(run: Run, clips_dir: Path) -> None:
    """Splicing tokens is splicing frames: the tokenizer sees one frame at a time."""
    path = clips_dir / "clip0.mp4"
    frames, (tokens, actions) = read_video(path).frames, clip_of(run, clips_dir)
    shown = reverse(Footage.plain(frames, actions), 5, 6).frames
    assert torch.equal(run.tokenizer.encode(shown), reverse(Footage.plain(tokens, actions), 5, 6).frames)
    changed = change_action(Footage.plain(tokens, actions), 8, (actions[7] + 1) % 4)
    before, after = dict(score_frames(run, tokens, actions)), dict(score_frames(run, tokens, changed.actions))
    assert torch.equal(before[7].nll, after[7].nll)
    assert not torch.equal(before[8].nll, after[8].nll)
    with pytest.raises(FramepredError, match="action id 9"):
        run.layout.action_ids(torch.tensor([9]), 1)

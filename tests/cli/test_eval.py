"""`framepred eval`: the numbers by direct computation, the same twice and after an interruption, every error."""

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import moving_square
from torch import Tensor

import framepred.evaluation.benchmark
from framepred.cli import cli
from framepred.decoding.sampling import Sampling
from framepred.engines.export import export
from framepred.evaluation.benchmark import Benchmark, evaluate
from framepred.evaluation.forecast import make_forecast
from framepred.evaluation.futures import ROWS
from framepred.evaluation.protocol import load_protocol
from framepred.io.progress import Progress
from framepred.sources.actions_csv import read_actions
from framepred.video.read import read_video
from framepred.video.write import write_video
from framepred.world.likelihood import token_logits
from framepred.world.rollout import predict
from framepred.world.run import Run, load_run

SMALL = ("--context", 2, "--horizon", 3, "--samples", 2, "--set", "bootstrap=50")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def run(tiny_run: Path) -> Run:
    return load_run(tiny_run)


@pytest.fixture
def invoke(tiny_run: Path) -> Callable[..., Result]:
    def call(*arguments: object) -> Result:
        return CliRunner().invoke(cli, ["eval", "--model", str(tiny_run), *map(str, arguments)], prog_name="framepred")

    return call


@pytest.fixture
def evaluated(invoke: Callable[..., Result]) -> Callable[..., Any]:
    def call(*arguments: object) -> Any:
        result = invoke(*arguments, "--json")
        assert result.exit_code == 0, (result.stderr, result.exception)
        return json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    return call


@pytest.fixture
def refused(invoke: Callable[..., Result]) -> Callable[..., str]:
    def call(*arguments: object) -> str:
        result = invoke(*arguments)
        assert result.exit_code == 1, (result.exit_code, result.stdout, result.exception)
        assert result.stdout == ""
        return result.stderr.splitlines()[-1].removeprefix("framepred: ")

    return call


@pytest.fixture
def two(clips_dir: Path, here: Path) -> Path:
    """A folder of two of the clips."""
    folder = here / "two"
    folder.mkdir()
    for i in (0, 1):
        for ending in ("mp4", "actions.csv"):
            shutil.copy(clips_dir / f"clip{i}.{ending}", folder)
    return folder


def clip(folder: Path, i: int, length: int) -> tuple[Tensor, Tensor]:
    frames = read_video(folder / f"clip{i}.mp4").frames[:length]
    return frames, read_actions(folder / f"clip{i}.actions.csv")[0][: length - 1]


def rollouts(run: Run, frames: Tensor, actions: Tensor | None, context: int, samples: int, top_k: int = 0) -> Tensor:
    tokens = run.tokenizer.encode(frames)[:context]
    made = list(predict(run, tokens, actions, len(frames) - context, samples, Sampling(1.0, top_k, 1.0, 0)))
    return torch.stack([p.frames for p in made], 1)


def skimage_scores(prediction: Tensor, truth: Tensor) -> tuple[list[float], list[float]]:
    metrics = pytest.importorskip("skimage.metrics")
    ssims = []
    for x, y in zip(prediction.numpy(), truth.numpy(), strict=True):
        _, full = metrics.structural_similarity(
            x, y, channel_axis=0, data_range=255, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, full=True,
        )  # fmt: skip
        # Windows that lie inside the frame, as Wang et al. count them.
        ssims.append(float(full[:, 5:-5, 5:-5].mean()))
    psnrs = [
        float(metrics.peak_signal_noise_ratio(y, x, data_range=255))
        for x, y in zip(prediction.numpy(), truth.numpy(), strict=True)
    ]
    return psnrs, ssims


def test_the_bair_protocol_is_a_direct_computation(two: Path, run: Run, evaluated: Callable[..., Any]) -> None:
    result = evaluated(two, "--protocol", "bair-ivideogpt", "--horizon", 4, "--samples", 3, "--set", "bootstrap=50")
    best_psnr, best_ssim = [], []
    for i in (0, 1):
        frames, actions = clip(two, i, 5)
        given = run.tokenizer.decode(run.tokenizer.encode(frames))[:1]
        futures = rollouts(run, frames, actions, 1, 3, top_k=100)
        scores = [skimage_scores(torch.cat([given, future]), frames) for future in futures]
        best_psnr.append(max(np.mean(psnrs) for psnrs, _ in scores))
        best_ssim.append(max(np.mean(ssims) for _, ssims in scores))
    metrics = result["groups"][0]["rows"]["model"]["metrics"]
    assert metrics["psnr"]["value"] == pytest.approx(np.mean(best_psnr), abs=1e-4)
    assert metrics["ssim"]["value"] == pytest.approx(np.mean(best_ssim), abs=1e-4)


def test_the_mean_of_the_samples_is_a_row(two: Path, run: Run, evaluated: Callable[..., Any]) -> None:
    rows = evaluated(two, *SMALL, "--samples", 3)["groups"][0]["rows"]
    errors = []
    for i in (0, 1):
        frames, actions = clip(two, i, 5)
        mean = rollouts(run, frames, actions, 2, 3).float().mean(0).round()
        errors.append(((mean - frames[2:].float()) / 255).square().mean())
    expected = float(-10 * torch.stack(errors).mean().log10())
    assert rows["model_mean"]["metrics"]["psnr"]["value"] == pytest.approx(expected, abs=1e-4)
    assert rows["model_mean"]["metrics"]["psnr"]["value"] > rows["model"]["metrics"]["psnr"]["value"]
    alone = evaluated(two, *SMALL, "--samples", 1)["groups"][0]["rows"]["model_mean"]
    assert alone["note"] == "needs several samples: --samples N"


def test_the_strict_protocol_is_pooled_as_rollout_scores(
    two: Path, tiny_run: Path, run: Run, evaluated: Callable[..., Any]
) -> None:
    result = evaluated(two, *SMALL, "--samples", 1)
    rows = result["groups"][0]["rows"]
    for row, actions in (("model", None), ("model_no_actions", "none")):
        forecasts = [make_forecast(two / f"clip{i}.mp4", str(tiny_run), 2, 3, 0, actions) for i in (0, 1)]
        errors = {k: torch.stack([f.scores.rows[k].mse for f in forecasts if f.scores]) for k in ("model", "copy_last")}
        expected = float(10 * (1 / errors["model"].mean()).log10())
        assert rows[row]["metrics"]["psnr"]["value"] == pytest.approx(expected, abs=1e-5)
    expected = float(10 * (1 / errors["copy_last"].mean()).log10())
    assert rows["copy_last"]["metrics"]["psnr"]["value"] == pytest.approx(expected, abs=1e-5)
    by_frame = (-10 * errors["copy_last"].mean(0).log10()).tolist()
    assert rows["copy_last"]["metrics"]["psnr"]["by_horizon"] == pytest.approx(by_frame, abs=1e-5)


def test_every_row_is_there_and_tokens_are_scored_by_teacher_forcing(
    two: Path, run: Run, evaluated: Callable[..., Any]
) -> None:
    result = evaluated(two, *SMALL)
    group = result["groups"][0]
    rows = group["rows"]
    assert set(rows) == set(ROWS)
    assert rows["nearest_training"]["note"] == "needs the training clips: --train SOURCE"
    assert {r for r in ROWS if "note" in rows[r]} == {"nearest_training", "decoder_alone"}
    assert rows["model"]["metrics"] == rows["model_true_actions"]["metrics"]
    assert rows["model_shuffled_actions"]["metrics"] != rows["model"]["metrics"]
    assert result["weights"] == {"lpips": "needs weights", "fid": "needs weights", "fvd": "needs weights"}
    assert rows["copy_last"]["metrics"]["frozen"]["value"] == 1.0
    assert sum(group["spread"]["ranks"]) == pytest.approx(1, abs=1e-5)
    for row, given in (("model", True), ("model_no_actions", False)):
        logs, right, count = 0.0, 0, 0
        for i in (0, 1):
            frames, actions = clip(two, i, 5)
            tokens = run.tokenizer.encode(frames)
            for frame, logits in token_logits(run, tokens, actions if given else None):
                if frame >= 2:
                    target = tokens[frame].flatten()
                    logs -= float(logits.log_softmax(-1).gather(1, target[:, None]).sum())
                    right += int((logits.argmax(-1) == target).sum())
                    count += len(target)
        metrics = rows[row]["metrics"]
        assert metrics["cross_entropy"]["value"] == pytest.approx(logs / count, abs=1e-4)
        assert metrics["bits"]["value"] == pytest.approx(logs / count * 64 / np.log(2), abs=1e-2)
        assert metrics["accuracy"]["value"] == pytest.approx(right / count, abs=1e-6)
    for values in rows.values():
        for name, metric in values["metrics"].items():
            assert metric["low"] <= metric["value"] + 1e-6, name
            assert metric["value"] <= metric["high"] + 1e-6, name
            assert len(metric["by_horizon"]) == 3


def test_twice_the_same_command_and_an_interrupted_one_give_the_same_bytes(
    clips_dir: Path, tiny_run: Path, invoke: Callable[..., Result], here: Path
) -> None:
    command = (clips_dir, *SMALL, "--train", clips_dir / "clip4.mp4", "--json")
    first = invoke(*command)
    assert first.exit_code == 0, first.stderr
    assert "seconds" not in first.stdout
    settings = ("bootstrap=50",)
    benchmark = Benchmark(
        (str(clips_dir),), str(tiny_run), load_protocol("future", {"context": 2, "horizon": 3, "samples": 2}, settings),
        (str(clips_dir / "clip4.mp4"),), cache=here / "out" / "clips",
    )  # fmt: skip
    # What is left when a program ends after two clips.
    for step in evaluate(benchmark):
        if isinstance(step, Progress) and step.total == 5 and step.done == 2:
            break
    assert sorted(p.name for p in (here / "out").iterdir()) == ["clips"]
    kept = sorted((here / "out" / "clips").glob("*.json"))
    assert len(kept) == 2
    # A file that was cut off counts for nothing.
    kept[0].write_text(kept[0].read_text()[:100])
    written = [p.stat().st_mtime_ns for p in kept]
    resumed = invoke(*command, "-o", "out")
    assert resumed.exit_code == 0, resumed.stderr
    assert len(list((here / "out" / "clips").glob("*.json"))) == 5
    assert kept[0].stat().st_mtime_ns > written[0]
    assert kept[1].stat().st_mtime_ns == written[1]
    assert resumed.stdout == first.stdout == (here / "out" / "results.json").read_text()
    assert "out/results.json exists already: give --overwrite" in invoke(*command, "-o", "out").stderr


def test_ctrl_c_says_how_to_go_on(two: Path, invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(benchmark: Benchmark) -> Iterator[Progress]:
        yield Progress(1, 2, "clip0")
        raise KeyboardInterrupt

    monkeypatch.setattr(framepred.evaluation.benchmark, "evaluate", interrupted)
    for options, said in ((("-o", "out"), "the scored clips are in out: give the same command to go on"),
                          ((), "give -o to keep clips")):  # fmt: skip
        stopped = invoke(two, *SMALL, *options)
        assert stopped.exit_code == 1
        assert stopped.stderr == f"framepred: stopped; {said}\n"


def test_another_protocol_does_not_take_what_is_remembered(two: Path, evaluated: Callable[..., Any]) -> None:
    one = evaluated(two, *SMALL, "-o", "out")
    other = evaluated(two, *SMALL, "--set", "seed=1", "-o", "out", "--overwrite")
    assert one["protocol"]["sha256"] != other["protocol"]["sha256"]
    psnr = [r["groups"][0]["rows"]["model"]["metrics"]["psnr"]["value"] for r in (one, other)]
    assert psnr[0] != psnr[1]
    assert evaluated(two, *SMALL) == one


def test_the_copying_baseline_replays_what_it_has_seen(
    two: Path, clips_dir: Path, tiny_run: Path, evaluated: Callable[..., Any]
) -> None:
    facts = evaluated(two, *SMALL, "--train", clips_dir)["groups"][0]
    assert facts["rows"]["nearest_training"]["metrics"]["psnr"]["value"] == 100
    assert facts["retrieved"]["clip1@0"] == {"episode": "clip1", "frame": 0, "distance": 0.0}
    made = CliRunner().invoke(cli, ["tokenize", str(two), "-o", "store", "--tokenizer", str(tiny_run)])
    assert made.exit_code == 0, made.stderr
    from_store = evaluated(two, *SMALL, "--train", "store")["groups"][0]
    assert {found["episode"] for found in from_store["retrieved"].values()} == {"clip0", "clip1"}
    replayed, ceiling = (from_store["rows"][row]["metrics"] for row in ("nearest_training", "ceiling"))
    # What the store can replay of a clip that it holds is what the tokenizer keeps of it.
    assert replayed["psnr"]["value"] == pytest.approx(ceiling["psnr"]["value"], abs=1e-4)


def test_altered_dynamics_are_groups_of_their_own(two: Path, evaluated: Callable[..., Any]) -> None:
    options = [a for kind in ("mirrored", "reversed", "skipped") for a in ("--alter", kind)]
    groups = evaluated(f"home={two}", f"again={two}", *SMALL, "--samples", 1, *options)["groups"]
    assert [g["name"] for g in groups] == ["home", "again", "home, mirrored", "home, reversed", "home, skipped"]
    copied = [g["rows"]["copy_last"]["metrics"]["psnr"]["by_horizon"] for g in groups]
    assert copied[0] == copied[1]
    assert copied[2] == pytest.approx(copied[0])
    for kind, index in (("reversed", slice(4, None, -1)), ("skipped", slice(0, 9, 2))):
        errors = []
        for i in (0, 1):
            frames = clip(two, i, 9)[0].double() / 255
            frames = frames[:5].flip(0) if kind == "reversed" else frames[index]
            errors.append([float((frames[1] - frames[2 + t]).square().mean()) for t in range(3)])
        expected = [-10 * np.log10(e) for e in np.mean(errors, 0)]
        assert copied[3 if kind == "reversed" else 4] == pytest.approx(expected, abs=1e-5)


def test_a_token_store_is_scored_by_teacher_forcing(
    two: Path, here: Path, tiny_run: Path, evaluated: Callable[..., Any], refused: Callable[..., str]
) -> None:
    made = CliRunner().invoke(cli, ["tokenize", str(two), "-o", "store", "--tokenizer", str(tiny_run)])
    assert made.exit_code == 0, made.stderr
    settings = (
        "--protocol",
        "1x",
        "--set",
        "horizon=4",
        "--set",
        "stride=6",
        "--set",
        "fps=0",
        "--set",
        "bootstrap=50",
    )
    videos, tokens = (evaluated(source, *settings)["groups"][0] for source in (two, "store"))
    assert tokens["clips"] == videos["clips"] == 8
    assert tokens["rows"]["model"]["metrics"] == videos["rows"]["model"]["metrics"]
    assert "psnr" not in tokens["rows"]["model"]["metrics"]
    assert tokens["rows"]["copy_last"]["metrics"].keys() == {"accuracy"}
    assert tokens["rows"]["ceiling"]["note"] == "a teacher-forced protocol predicts no frames"
    assert "store is a token store, which has no pixels to score: give the videos" in refused("store", *SMALL)
    info = json.loads((here / "store" / "framepred.json").read_text())
    info["tokenizer"]["sha256"] = "0" * 64
    (here / "store" / "framepred.json").write_text(json.dumps(info))
    assert re.match(
        r"token store store was made by tokenizer .*\(000000000000\), the run has", refused("store", *settings)
    )
    assert "token store store was made by tokenizer" in refused(two, *SMALL, "--train", "store")


def test_the_table_names_the_protocol_and_says_where_the_model_is_ahead(
    two: Path, invoke: Callable[..., Result]
) -> None:
    result = invoke(two, *SMALL, "--alter", "mirrored")
    assert result.exit_code == 0, result.stderr
    for words in (
        "nearest training clip: needs the training clips: --train SOURCE", "tokenizer ceiling", "copy last frame",
        "LPIPS: needs weights", "Where the truth moves, the model beats", "copying or learning?", "two, mirrored",
    ):  # fmt: skip
        assert words in result.stdout
    assert len(set(re.findall(r"protocol:? ([0-9a-f]{12})", result.stdout))) == 1
    assert result.stdout.count("protocol ") >= 3


def test_videos_that_the_run_knows_are_named(
    clips_dir: Path, evaluated: Callable[..., Any], invoke: Callable[..., Result], here: Path
) -> None:
    (here / "new").mkdir()
    write_video(here / "new" / "other.mp4", clip(clips_dir, 0, 10)[0].flip(-1), 10.0, lossless=True)
    groups = evaluated(f"known={clips_dir}", "new", *SMALL)["groups"]
    known = groups[0]["known"]
    # Training held out one of the five.
    assert len(known) == 4 and set(known) < {f"clip{i}" for i in range(5)}
    assert groups[1]["known"] == []
    # What a video holds counts, not its name or its place.
    shutil.copy(clips_dir / f"{known[0]}.mp4", here / "new" / "again.mp4")
    said = invoke("new", *SMALL).stdout
    assert "The run knows 1 of these videos from its training: again." in said


def test_the_report_is_one_page_with_everything_inside(
    two: Path, invoke: Callable[..., Result], here: Path, clips_dir: Path
) -> None:
    pytest.importorskip("matplotlib")
    sources = (f"<b>&two={two}", "--train", clips_dir / "clip3.mp4")
    result = invoke(*sources, *SMALL, "--report", "rep", "--alter", "mirrored")
    assert result.exit_code == 0, (result.stderr, result.exception)
    page = (here / "rep" / "index.html").read_text()
    assert page.count("data:video/mp4;base64,") == page.count("data:image/png;base64,") == 4
    assert page.count("<svg") >= 9
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page.replace('xlink:href="#', 'href="#'))
    assert "<h2>&lt;b&gt;&amp;two: 2 clips</h2>" in page
    assert "<b>" not in page
    assert "best: clip" in page
    assert "worst: clip" in page


def test_a_report_without_matplotlib_names_the_extra(
    two: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert refused(two, *SMALL, "--report", "rep") == "a report needs matplotlib: pip install 'framepred[report]'"
    assert not (here / "rep").exists()


def test_what_comes_next_is_what_the_answer_asks_for(
    here: Path, tiny_run: Path, invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    (here / "still").mkdir()
    for i in (0, 1):
        write_video(here / "still" / f"{i}.mp4", moving_square(i, 1)[0].expand(8, -1, -1, -1), 10.0, lossless=True)
    begin = "next: framepred train VIDEOS -o run --init-from {} --minutes 30\n"
    said = invoke("still", *SMALL, "--report", "page")
    assert "Is it predicting? No" in said.stdout
    assert said.stderr.endswith(begin.format("none"))
    benchmark = Benchmark(("still",), str(tiny_run), load_protocol("future", {"context": 2, "horizon": 3}, SMALL[-1:]))
    for result in evaluate(benchmark):
        made = result

    def answers(low: float, high: float, ceiling: float) -> str:
        rows = made.result["groups"][0]["rows"]
        rows["model"]["over_copy_last"]["psnr"] = {"value": (low + high) / 2, "low": low, "high": high}
        rows["ceiling"]["metrics"]["psnr"]["value"] = ceiling
        monkeypatch.setattr(framepred.evaluation.benchmark, "evaluate", lambda _: iter([made]))
        monkeypatch.setattr("framepred.evaluation.report.write_report", lambda *_: iter([made]))
        return invoke("still", *SMALL, "--report", "other").stderr

    assert answers(-2, -1, 200.0).endswith(begin.format(tiny_run))
    assert answers(1, 2, 1.0).endswith(f"next: framepred export {tiny_run} -o exported --format hf\n")
    assert answers(-1, 2, 1.0).endswith(f"next: framepred eval MORE-VIDEOS --model {tiny_run}\n")


def test_what_cannot_be_read_is_passed_over(two: Path, invoke: Callable[..., Result]) -> None:
    (two / "broken.mp4").write_bytes(b"no video" * 100)
    result = invoke(two, *SMALL, "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith("warning: skipped: cannot read")
    assert json.loads(result.stdout)["groups"][0]["clips"] == 2


def test_videos_of_another_rate_are_resampled_and_one_warning_says_so(
    two: Path, clips_dir: Path, tiny_run: Path, invoke: Callable[..., Result], here: Path
) -> None:
    (here / "fast").mkdir()
    for i in (0, 1):
        write_video(here / "fast" / f"clip{i}.mp4", clip(clips_dir, i, 10)[0].repeat_interleave(2, 0), 20.0)
    result = invoke("fast", *SMALL, "--train", two, "--json")
    assert result.exit_code == 0, result.stderr
    warning = (
        "warning: clip0.mp4 has 20 frames a second, not 10 frames a second: resampled; so are others of another rate"
    )
    assert result.stderr.splitlines() == [warning]
    group = json.loads(result.stdout)["groups"][0]
    # At the run's rate each frame stands once: the clip is the training clip, but for what its codec lost.
    assert {found["frame"] for found in group["retrieved"].values()} == {0}
    made = invoke("fast", *SMALL, "--set", "fps=20", "--json")
    assert made.stderr == ""
    shutil.copytree(tiny_run, "run")
    for command in (["calibrate", "fast"], ["surprise", "fast/clip0.mp4", "--calibration", "none"]):
        shown = CliRunner().invoke(cli, [*command, "--model", "run"], prog_name="framepred")
        assert "clip0.mp4 has 20 frames a second, not 10 frames a second: resampled" in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol", "nothing"], "protocol 'nothing' is neither a file nor a built-in; the built-ins are 1x"),
        (["--samples", 0], "protocol: samples = 0 is not allowed; it must be a whole number from 1 to 1024"),
        (["--set", "statistic=worst"], "protocol: statistic = 'worst' is not allowed; choose one of mean, best"),
        (["--horizon", 30], "has no clip of 34 frames (start + context + horizon): give longer videos"),
        (["--horizon", 12, "--context", 8, "--alter", "skipped"], "has no clip of 39 frames"),
        (["--model", "nowhere"], "model 'nowhere' is neither a folder nor in the zoo"),
        (["--train", "nowhere"], "source nowhere does not exist"),
        (["--lpips", "none.safetensors"], "weights none.safetensors do not exist: give the file"),
        (["--fvd", "two/clip0.mp4"], "two/clip0.mp4 is no TorchScript file"),
        (["two"], "two sources are called 'two': name them apart, NAME=SOURCE"),
        (["nowhere"], "source nowhere does not exist"),
    ],
)
def test_every_error_says_what_to_do(
    two: Path, refused: Callable[..., str], here: Path, arguments: list[object], message: str
) -> None:
    small = SMALL[6:]
    assert message in refused("two", *small, *arguments)
    assert [p.name for p in here.iterdir()] == ["two"]


def test_actions_that_the_run_does_not_know(two: Path, refused: Callable[..., str]) -> None:
    (two / "clip1.actions.csv").write_text("action\n" + "9\n" * 24)
    assert "action id 9 is not allowed; the model knows ids 0 to 3" in refused(two, *SMALL)


def test_eval_calibrate_and_surprise_take_a_gguf_export(two: Path, tiny_run: Path, here: Path) -> None:
    pytest.importorskip("gguf")
    export(tiny_run, here / "gguf", "gguf")
    for command in (("eval", two, *SMALL, "--json"), ("calibrate", two), ("surprise", two / "clip0.mp4", "--json")):
        words = [*map(str, command), "--model", "gguf"]
        result = CliRunner().invoke(cli, words, prog_name="framepred")
        assert result.exit_code == 0, (command, result.stderr, result.exception)
        if command[0] == "eval":
            expected = hashlib.sha256((here / "gguf" / "model.gguf").read_bytes()).hexdigest()
            assert json.loads(result.stdout)["run"]["sha256"] == expected
    stored = json.loads((here / "gguf" / "calibration.json").read_text())
    assert stored["model_sha256"] == expected

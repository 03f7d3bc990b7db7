"""The commands, thin: parse, call the library, show. Nothing here that a script could not call."""

import json
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click

import framepred
from framepred.console import consume, duration, print_json, print_table, say, sparkline, track
from framepred.errors import FramepredError, FramepredWarning, Interrupted


class _Group(click.Group):
    """Turns FramepredError into one line and exit code 1, and warnings into lines on stderr."""

    def invoke(self, ctx: click.Context) -> Any:
        def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
            if issubclass(category, FramepredWarning):
                say(f"warning: {message}")

        with warnings.catch_warnings():
            warnings.showwarning = show  # type: ignore[assignment]
            warnings.simplefilter("always", FramepredWarning)
            try:
                return super().invoke(ctx)
            except FramepredError as error:
                say(f"framepred: {error}")
                ctx.exit(1)
            except KeyboardInterrupt:
                say("framepred: interrupted")
                ctx.exit(1)
            except OSError as error:
                say(
                    f"framepred: {error.strerror or error}: {error.filename or ''} - free space or choose another place"
                )
                ctx.exit(1)


_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else.")
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace an output that exists.")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(framepred.__version__, prog_name="framepred")
def cli() -> None:
    """Predict the future of video as tokens: tokenize, train, rollout, eval.

    \b
      framepred rollout clip.mp4                     predict with the model that comes along
      framepred tokenize videos/ -o tokens           video -> tokens
      framepred train videos/ -o run --minutes 30    train on your own videos
      framepred rollout clip.mp4 --model run         predict with it
      framepred eval held-out/ --model run           score it beside copying
    """


def _check_output(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise FramepredError(f"{path} exists already: give --overwrite or another -o")
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise FramepredError(f"{path} cannot be written: {folder} is no writable folder; choose another -o")


def _replacing(out: Path, overwrite: bool, *inputs: str | None) -> AbstractContextManager[None]:
    from framepred.outputs import overwriting

    return overwriting(out, inputs) if overwrite else nullcontext()


@contextmanager
def _terminate_like_interrupt() -> Iterator[None]:
    """Let SIGTERM, which schedulers send, save as Ctrl-C does."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _size(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    parts = value.lower().split("x")
    if len(parts) not in (1, 2) or not all(p.isdigit() and 8 <= int(p) <= 4096 for p in parts):
        raise click.BadParameter(f"{value!r}: give a side (64) or HEIGHTxWIDTH (64x96), 8 to 4096 pixels")
    return int(parts[0]), int(parts[-1])


@cli.command()
@click.argument("env")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder to record into.")
@click.option("--episodes", default=10, show_default=True, type=click.IntRange(1), help="Episodes to play.")
@click.option("--steps", default=300, show_default=True, type=click.IntRange(1), help="Most steps an episode.")
@click.option("--size", default="64", show_default=True, callback=_size, help="Side, or HEIGHTxWIDTH, in pixels.")
@click.option(
    "--frame-skip", type=click.IntRange(1, 100), help="Environment steps a frame.  [default: about 10 frames a second]"
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Episode i plays with seed + i.")
@click.option(
    "--sticky",
    default=0.75,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Chance that the random policy repeats its action.",
)
@click.option("--actions-of", metavar="ENV", help="Write the action ids of this environment, matched by name.")
@_OVERWRITE
@_JSON
def record(env: str, out: Path, overwrite: bool, as_json: bool, **options: Any) -> None:
    """Record a Gymnasium environment as a video folder with actions (lossless)."""
    from framepred.data.gym import Recording
    from framepred.data.gym import record as run_recording

    recording = Recording(env, **options)
    paths: list[Path] = []

    def describe(path: Path) -> tuple[float, str]:
        paths.append(path)
        return len(paths) / recording.episodes, f"{len(paths)} of {recording.episodes} episodes, {path.name}"

    with _replacing(out, overwrite):
        consume(run_recording(recording, out), describe)
    if as_json:
        print_json({"path": str(out), "episodes": [str(p) for p in paths]})
    else:
        click.echo(f"{out}: {len(paths)} episodes")


def _shard(_: click.Context, __: click.Parameter, value: str) -> tuple[int, int]:
    number, slash, count = value.partition("/")
    if not (slash and number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count) <= 100_000):
        raise click.BadParameter(f"{value!r}: give i/n, from 1/n to n/n")
    return int(number), int(count)


@cli.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder of the token store.")
@click.option("--tokenizer", default="doom-64", show_default=True, help="Name in the zoo, folder, or hf://owner/name.")
@click.option(
    "--size", callback=_size, help="Side, or HEIGHTxWIDTH, for a tokenizer of another library.  [default: 256]"
)
@click.option("--fps", type=click.FloatRange(0, 1000, min_open=True), help="Resample by timestamp to this rate.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 1024), help="Processes that encode.")
@click.option("--shard", default="1/1", callback=_shard, help="i/n: take the i-th of n parts, for a scheduler's jobs.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, ... or auto.")
@_OVERWRITE
@_JSON
def tokenize(
    sources: tuple[str, ...], out: Path, tokenizer: str, size: tuple[int, int] | None, fps: float | None,
    workers: int, shard: tuple[int, int], device: str, overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Turn videos into tokens: Parquet that `datasets.load_dataset` opens.

    Run it again to add what is missing: what is there already is not touched. Jobs with --shard may
    share one folder, or have one each: their rows together are the same.
    """
    from functools import partial

    from framepred.checkpoint import load_tokenizer, tokenizer_sha256
    from framepred.data.encoding import Workers
    from framepred.data.sources import find_videos
    from framepred.data.tokens import tokenize as run_tokenize
    from framepred.forecast import choose_device
    from framepred.hub import is_address
    from framepred.zoo import tokenizer_folder

    videos = find_videos(sources)
    folder = tokenizer_folder(tokenizer)
    load = partial(load_tokenizer, folder, size, choose_device(device))
    loaded = load()
    if size is not None and loaded.frame_size != size:
        takes, given = ("x".join(map(str, s)) for s in (loaded.frame_size, size))
        raise FramepredError(f"tokenizer {tokenizer} takes frames of {takes}, not {given}: leave --size out")
    name = tokenizer if is_address(tokenizer) else folder.parent.name if folder.name == "tokenizer" else folder.name
    steps = run_tokenize(
        videos, out, loaded, name, tokenizer_sha256(folder), str(folder.resolve()), fps,
        Workers(workers, load) if workers > 1 else None, shard,
    )  # fmt: skip
    try:
        with _terminate_like_interrupt(), _replacing(out, overwrite, *sources, str(folder)):
            last = consume(steps, lambda p: (p.done / p.total, _tokenizing(p)))
    except KeyboardInterrupt:
        steps.close()
        raise Interrupted(f"stopped; what was done is in {out}: give the same command again to go on") from None
    tokens = loaded.grid[0] * loaded.grid[1]
    mine = len(videos[shard[0] - 1 :: shard[1]])
    done, frames, rate, skipped = (last.done, last.frames, last.rate, last.skipped) if last else (mine, 0, 0.0, 0)
    if as_json:
        print_json(
            {"path": str(out), "episodes": done, "frames": frames, "tokenizer": name, "skipped": skipped,
             "tokens_per_frame": tokens, "frames_per_second": rate}
        )  # fmt: skip
    else:
        bad = f", {skipped} skipped" if skipped else ""
        click.echo(f"{out}: {done} episodes, {frames} frames added, {tokens} tokens a frame, {rate:,.0f} frames/s{bad}")


def _tokenizing(p: Any) -> str:
    left = duration(p.remaining)
    return f"{p.done} of {p.total} videos, {p.frames} frames, {p.rate:,.0f} frames/s, {left} left, {p.episode}"


@cli.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--recipe", help="Built-in name or TOML file.")
@click.option("--tokenizer", help="Name in the zoo or folder, used as it is; without it one is trained.")
@click.option("--only", type=click.Choice(["tokenizer", "predictor"]), help="Train only this part.")
@click.option(
    "--init-from", metavar="RUN|NAME|DIR|GGUF", help="Go on from the weights of a run, or of a Llama that knows text."
)
@click.option("--layers", type=click.IntRange(1), help="Keep only the first layers of such a Llama.")
@click.option(
    "--text", "texts", multiple=True, metavar="FILE|DIR", help="Text that such a Llama reads on beside (repeatable)."
)
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="The whole budget, all stages together.")
@click.option("--steps", type=click.IntRange(1), help="Steps of each stage that is trained.")
@click.option(
    "--fps", type=click.FloatRange(0, 1000, min_open=True), help="Resample videos without actions to this rate."
)
@click.option("--resume", is_flag=True, help="Go on with a run that was stopped.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a value of the recipe (repeatable)."
)
@_OVERWRITE
@_JSON
def train(
    sources: tuple[str, ...], out: Path, recipe: str | None, tokenizer: str | None, only: str | None,
    init_from: str | None, layers: int | None, texts: tuple[str, ...], minutes: float | None, steps: int | None,
    fps: float | None, resume: bool, settings: tuple[str, ...], overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train a run on videos or token stores: what is missing of tokenizer and predictor.

    The same command under `accelerate launch` trains on many GPUs or machines. Ctrl-C saves;
    --resume goes on.
    """
    from framepred.config import apply, apply_settings, load_recipe
    from framepred.pipeline import Job, stored_recipe
    from framepred.pipeline import train as run_training

    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other")
    base = stored_recipe(out) if resume and recipe is None else load_recipe(recipe)
    loop: dict[str, Any] = {}
    if minutes is not None:
        loop["minutes"] = minutes
    if steps is not None:
        loop |= {"tokenizer_steps": steps, "predictor_steps": steps, "minutes": 0.0}
    chosen = apply(
        base,
        {
            "training": loop,
            "data": {} if fps is None else {"fps": fps},
            "llm": {} if layers is None else {"layers": layers},
        },
    )
    chosen = apply_settings(chosen, settings)
    job = Job(sources, out, chosen, tokenizer, only, init_from, resume, texts)
    main_process = os.environ.get("RANK", "0") == "0"
    progress = run_training(job)
    try:
        with (
            _terminate_like_interrupt(),
            _replacing(out, overwrite and main_process, *sources, *texts, tokenizer, init_from),
        ):
            results = _watch(progress)
    except KeyboardInterrupt:
        progress.close()
        raise Interrupted(
            f"stopped; what was saved is in {out}: give the same command with --resume to go on"
        ) from None
    if not main_process:
        return
    if as_json:
        print_json({"path": str(out), "stages": results})
    else:
        for stage, values in results.items():
            click.echo(f"{stage}: " + ", ".join(f"{k} {v:.4g}" for k, v in values.items()))
        click.echo(f"{out}: done" + ("" if only == "tokenizer" else f"; next: framepred rollout VIDEO --model {out}"))


def _watch(progress: Iterator[Any]) -> dict[str, dict[str, float]]:
    """Draw training progress; return each stage's last values."""
    from framepred.training import TrainProgress

    results: dict[str, dict[str, float]] = {}

    def describe(p: Any) -> tuple[float, str]:
        if not isinstance(p, TrainProgress):
            return p.done / p.total, f"tokens: {p.done} of {p.total} videos, {p.frames} frames"
        shown = " ".join(f"{k} {v:.3f}" for k, v in results[p.stage].items() if k.startswith("validation"))
        return (
            p.fraction,
            f"{p.stage} step {p.step} loss {p.loss:.4f} {shown} {p.rate:,.0f} {p.unit}/s, {duration(p.remaining)} left",
        )

    def collected() -> Iterator[Any]:
        for p in progress:
            if isinstance(p, TrainProgress):
                results[p.stage] = results.get(p.stage, {}) | {"step": p.step, "loss": p.loss} | p.values
            yield p

    consume(collected(), describe)
    return results


@cli.command()
@click.argument("video", type=click.Path(path_type=Path))
@click.option("--model", default="doom-64", show_default=True, help="Run folder, name in the zoo, or hf://OWNER/NAME.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help=".mp4, .gif, .webp or .npz.  [default: NAME-rollout.mp4 here]"
)
@click.option("--context", default=4, show_default=True, help="Frames that are given.")
@click.option("--horizon", default=16, show_default=True, help="Frames to predict.")
@click.option("--start", default=0, show_default=True, type=click.IntRange(0), help="First context frame in the video.")
@click.option(
    "--actions", metavar="FILE|none", help="Actions CSV.  [default: NAME.actions.csv beside the video, if there]"
)
@click.option("--prompt", metavar="TEXT", help="Words before the frames, for a run that knows text.")
@click.option("--samples", default=1, show_default=True, help="Different futures.")
@click.option("--temperature", type=float, help="0 is greedy.  [default: the run's own]")
@click.option("--top-k", default=0, show_default=True, help="Draw from the k likeliest tokens; 0 is all.")
@click.option("--top-p", default=1.0, show_default=True, help="Draw from the likeliest tokens that make up this mass.")
@click.option(
    "--softness", type=float, help="Above 0, not one drawn token but the middle of several.  [default: the run's own]"
)
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same video.")
@click.option(
    "--decoder",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "speculative", "sequential"]),
    help="They give the same tokens.",
)
@click.option(
    "--engine",
    default="framepred",
    show_default=True,
    type=click.Choice(["framepred", "transformers", "llama.cpp", "vllm"]),
    help="What runs the Llama; greedy, they give the same frames.",
)
@click.option("--server", metavar="URL", help="Address of the vLLM server.  [default: http://localhost:8000]")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, ... or auto.")
@_OVERWRITE
@_JSON
def rollout(video: Path, out: Path | None, overwrite: bool, as_json: bool, **options: Any) -> None:
    """Predict how a video goes on, and score it where the video itself goes on."""
    from framepred.forecast import Forecast, make_forecast, write_forecast

    out = out or Path(f"{video.stem}-rollout.mp4")
    if out.suffix.lower() not in (".mp4", ".mkv", ".gif", ".webp", ".npz"):
        raise FramepredError(f"output {out}: unknown ending {out.suffix!r}; give .mp4, .mkv, .gif, .webp or .npz")
    _check_output(out, overwrite)
    forecast: Forecast = make_forecast(video, watch=_frames_bar(options["horizon"]), **options)
    write_forecast(forecast, out)
    summary = forecast.summary() | {"output": str(out)}
    if as_json:
        print_json(summary)
        return
    if forecast.scores is not None:
        mean = summary["mean"]
        rows = [(label, f"{mean[row]['psnr']:.2f}", f"{mean[row]['ssim']:.4f}") for row, label in
                (("model", "model"), ("copy_last", "copy last frame"), ("ceiling", "tokenizer ceiling"))]  # fmt: skip
        count = len(summary["psnr"]["model"])
        print_table(
            ("", "PSNR dB", "SSIM"), rows, f"{video.name}: {count} predicted frames, motion {summary['motion']:.4f}"
        )
    else:
        say("the video ends with the context: nothing to score against")
    rate, took = summary["tokens_per_second"], duration(summary["seconds"])
    say(f"{summary['forward_passes']} passes, {rate:.0f} tokens/s, {took}")
    click.echo(str(out))


def _frames_bar(horizon: int) -> Callable[[Iterator[Any]], Iterator[Any]]:
    count = iter(range(1, horizon + 1))
    return lambda frames: track(frames, lambda _: ((n := next(count)) / horizon, f"frame {n} of {horizon}"))


@cli.command()
@click.argument("video", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="Run that knows text: folder, name in the zoo, or hf://OWNER/NAME.")
@click.option("--context", type=click.IntRange(1), help="Frames that are shown.  [default: the run's window]")
@click.option("--start", default=0, show_default=True, type=click.IntRange(0), help="First of them in the video.")
@click.option(
    "--actions", metavar="FILE|none", help="Actions CSV.  [default: NAME.actions.csv beside the video, if there]"
)
@click.option("--samples", default=1, show_default=True, type=click.IntRange(1), help="Different captions.")
@click.option("--tokens", default=48, show_default=True, type=click.IntRange(1), help="Most tokens of a caption.")
@click.option("--temperature", default=0.0, show_default=True, help="0 is greedy.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same words.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, ... or auto.")
@_JSON
def caption(video: Path, as_json: bool, **options: Any) -> None:
    """Say in words what frames show, by the weights that predict how they go on."""
    from framepred.caption import caption_video

    told = caption_video(video, **options)
    if as_json:
        print_json(told)
        return
    for text in told["captions"]:
        click.echo(text)


@cli.command(name="eval")
@click.argument("sources", nargs=-1, required=True, metavar="[NAME=]SOURCE...")
@click.option("--model", default="doom-64", show_default=True, help="Run folder, or name in the zoo.")
@click.option("--protocol", default="future", show_default=True, help="Built-in name or TOML file.")
@click.option("--context", type=int, help="Frames that are given.  [default: the protocol's]")
@click.option("--horizon", type=int, help="Frames to predict.  [default: the protocol's]")
@click.option("--samples", type=int, help="Different futures of each clip.  [default: the protocol's]")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a value of the protocol (repeatable)."
)
@click.option("--train", multiple=True, metavar="SOURCE", help="The run's training clips, to copy from (repeatable).")
@click.option(
    "--alter",
    "alterations",
    multiple=True,
    type=click.Choice(["mirrored", "reversed", "skipped"]),
    help="Also the first source with altered dynamics (repeatable).",
)
@click.option("--lpips", type=click.Path(path_type=Path), help="LPIPS backbone: torchvision's weights as safetensors.")
@click.option("--fid", type=click.Path(path_type=Path), help="FID detector: TorchScript.")
@click.option("--fvd", type=click.Path(path_type=Path), help="FVD detector: TorchScript.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Folder for results.json and what it takes to go on."
)
@click.option("--report", type=click.Path(path_type=Path), help="Folder for index.html, a page with everything.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, ... or auto.")
@_OVERWRITE
@_JSON
def evaluate(
    sources: tuple[str, ...], model: str, protocol: str, settings: tuple[str, ...], out: Path | None,
    report: Path | None, overwrite: bool, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Score a run on many clips beside copying: each SOURCE is a table, and so is each --alter.

    With -o or --report, Ctrl-C keeps what is done: the same command goes on. Twice the same command
    gives the same numbers.
    """
    from framepred.benchmark import Benchmark, Evaluated, write_text
    from framepred.benchmark import evaluate as run_benchmark
    from framepred.protocol import load_protocol

    changes = {k: v for k in ("context", "horizon", "samples") if (v := options.pop(k)) is not None}
    chosen = load_protocol(protocol, changes, settings)
    outputs = [folder / name for folder, name in ((out, "results.json"), (report, "index.html")) if folder]
    for path in outputs:
        _check_output(path, overwrite)
    if report:
        from framepred.plots import require_matplotlib

        require_matplotlib()
    home = out or report
    benchmark = Benchmark(sources, model, chosen, cache=home / "clips" if home else None, **options)

    def describe(p: Any) -> tuple[float, str]:
        if isinstance(p, Evaluated):
            return 1.0, "done"
        left = "" if p.remaining is None else f", {duration(p.remaining)} left"
        return p.done / p.total, f"{p.done} of {p.total} videos{left}, {p.name}"

    try:
        with _terminate_like_interrupt():
            evaluated = consume(run_benchmark(benchmark), describe)
            assert isinstance(evaluated, Evaluated)
            if report:
                from framepred.report import write_report

                pages = write_report(evaluated, report / "index.html")
                consume(pages, lambda p: (p.done / p.total, f"report: {p.done} of {p.total} clips, {p.name}"))
    except KeyboardInterrupt:
        kept = f"the scored clips are in {home}: give the same command to go on" if home else "give -o to keep clips"
        raise Interrupted(f"stopped; {kept}") from None
    if out:
        write_text(out / "results.json", json.dumps(evaluated.result, allow_nan=False) + "\n")
    if as_json:
        print_json(evaluated.result)
    else:
        _show_result(evaluated.result)
        for path in outputs:
            click.echo(str(path))


def _show_result(result: dict[str, Any]) -> None:
    from framepred.tables import group_table, groups_table, header_facts, horizon_table, spread_sentence, verdict

    for name, value in header_facts(result):
        click.echo(f"{name}: {value}")
    stamp, confidence = f"protocol {result['protocol']['sha256'][:12]}", result["protocol"]["confidence"]
    for group in result["groups"]:
        headers, rows, notes = group_table(group, brief=True)
        title = f"{group['name']}, {group['clips']} clips, {stamp}, ± half of the {confidence:.0%} interval over clips"
        print_table(headers, [row for i, row in enumerate(rows) if i not in notes], f"\n{title}")
        for i, note in notes.items():
            click.echo(f"{rows[i][0]}: {note}")
        if curves := horizon_table(group):
            print_table(*curves, stamp)
        click.echo(verdict(group))
        if group["spread"]:
            click.echo(spread_sentence(group["spread"]))
    if len(result["groups"]) > 1:
        print_table(*groups_table(result), f"\n{stamp}: copying or learning?")


@cli.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--model", default="doom-64", show_default=True, help="Run folder, or name in the zoo.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="JSON file.  [default: RUN/calibration.json]")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, ... or auto.")
@_OVERWRITE
@_JSON
def calibrate(
    sources: tuple[str, ...], model: str, out: Path | None, device: str, overwrite: bool, as_json: bool
) -> None:
    """Measure on held-out videos what is usual for a run, and whether its probabilities hold.

    `framepred surprise` scales by it. Use videos that the run was not trained on.
    """
    from framepred.calibration import FILE_NAME, CalibrationProgress, write_calibration
    from framepred.calibration import calibrate as run_calibration
    from framepred.checkpoint import load_run
    from framepred.data.sources import find_videos
    from framepred.forecast import choose_device

    videos = find_videos(sources)
    run = load_run(model, choose_device(device))
    out = out or run.path / FILE_NAME
    _check_output(out, overwrite)

    def describe(p: CalibrationProgress) -> tuple[float, str]:
        return p.done / p.total, f"video {min(p.done + 1, p.total)} of {p.total}, {p.frames} frames"

    last = consume(run_calibration(run, videos), describe)
    assert last is not None and last.result is not None
    write_calibration(out, run, last.result)
    if as_json:
        print_json({"model": str(run.path), "output": str(out)} | last.result.to_json() | {"pasts": None})
        return
    for name, found in (("with actions", last.result.actions), ("without actions", last.result.no_actions)):
        if found is None:
            continue
        odds = found.reliability
        rows = [
            (f"{i / len(odds.count):.2f} to {(i + 1) / len(odds.count):.2f}", str(n), f"{c:.3f}", f"{a:.3f}")
            for i, (n, c, a) in enumerate(zip(odds.count, odds.confidence, odds.accuracy, strict=True))
            if c is not None
        ]
        print_table(
            ("confidence", "tokens", "mean confidence", "was right"), rows,
            f"{name}: {found.nats:.3f} nats a token, {found.accuracy:.1%} right, ECE {odds.ece:.4f}",
        )  # fmt: skip
    click.echo(str(out))


@cli.command()
@click.argument("video", type=click.Path(path_type=Path))
@click.option("--model", default="doom-64", show_default=True, help="Run folder, or name in the zoo.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help=".mp4, .gif, .webp or .npz.  [default: NAME-surprise.mp4 here]"
)
@click.option(
    "--actions", metavar="FILE|none", help="Actions CSV.  [default: NAME.actions.csv beside the video, if there]"
)
@click.option(
    "--calibration", metavar="FILE|none", help="What is usual for the run.  [default: RUN/calibration.json, if there]"
)
@click.option("--inverse", is_flag=True, help="Also ask of each frame which action it looks like (takes longer).")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, ... or auto.")
@_OVERWRITE
@_JSON
def surprise(video: Path, out: Path | None, overwrite: bool, as_json: bool, **options: Any) -> None:
    """Show when and where the world was not what the run predicted.

    Each frame is compared with what the model expected of it, given the real frames and actions before.
    """
    from framepred.surprise import measure_surprise, write_surprise

    out = out or Path(f"{video.stem}-surprise.mp4")
    if out.suffix.lower() not in (".mp4", ".mkv", ".gif", ".webp", ".npz"):
        raise FramepredError(f"output {out}: unknown ending {out.suffix!r}; give .mp4, .mkv, .gif, .webp or .npz")
    _check_output(out, overwrite)
    found = measure_surprise(video, watch=_scored_bar, **options)
    write_surprise(found, out)
    summary = found.summary() | {"output": str(out)}
    if as_json:
        print_json(summary)
        return
    say(f"surprise {sparkline(summary['surprise'])}")
    say(f"entropy  {sparkline(summary['entropy'])}")
    say(f"in spreads above the usual of {summary['usual']}, {summary['usual_frames']} frames")
    rows = [
        (str(t), f"{t / found.fps:.2f}", *(f"{summary[k][t]:.2f}" for k in ("surprise", "nats", "entropy")))
        for t in found.events()[:10]
    ]
    title = f"{video.name}: {len(found.events())} surprising moments in {summary['frames']} frames"
    print_table(("frame", "second", "surprise", "nats a token", "entropy"), rows, title)
    if found.taken is not None:
        against = [t for t, answer in enumerate(found.taken, 1) if answer.odds > 3]
        click.echo(f"frames that look like another action: {', '.join(map(str, against)) or 'none'}")
    click.echo(str(out))


def _scored_bar(items: Iterator[Any], total: int) -> Iterator[Any]:
    return track(items, lambda item: (item[0] / total, f"frame {item[0]} of {total}"))


@cli.command()
@click.argument("run")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "--format", required=True, type=click.Choice(["hf", "gguf"]), help="For transformers and vLLM, or llama.cpp."
)
@click.option("--quantize", type=click.Choice(["q8_0", "q4_0", "f16"]), help="Store a GGUF's matrices in fewer bits.")
@click.option("--measure", metavar="SOURCE", help="Videos on which to measure the loss in bits a frame.")
@_OVERWRITE
@_JSON
def export(
    run: str, out: Path, format: str, quantize: str | None, measure: str | None, overwrite: bool, as_json: bool
) -> None:
    """Write a run for other engines, its ids under readable names.

    The folder is a run too: rollout, eval and info take it.
    """
    from framepred.checkpoint import load_run
    from framepred.export import export as run_export
    from framepred.export import measure_loss

    if quantize and format != "gguf":
        raise click.UsageError("--quantize is for --format gguf")
    _check_output(out, overwrite)
    with _replacing(out, overwrite, run, measure):
        exported = run_export(run, out, format, quantize)
        steps = measure_loss(load_run(run), exported, [measure]) if measure else iter(())
        last = consume(steps, lambda p: (p.done / p.total, f"{p.done} of {p.total} videos, {p.frames} frames"))
    size = sum(file.stat().st_size for file in out.glob("model.*"))
    loss = last and {"frames": last.frames, "bits_before": last.before, "bits_after": last.after}
    if as_json:
        print_json({"path": str(out), "format": format, "quantize": quantize, "bytes": size, "loss": loss})
        return
    if last:
        click.echo(
            f"{last.frames} frames: {last.before:.2f} bits a frame before, {last.after:.2f} after "
            f"({last.after - last.before:+.3f})"
        )
    click.echo(f"{out}: {size / 1e6:.1f} MB")


@cli.command()
@click.argument("run")
@click.argument("address", metavar="hf://OWNER/NAME")
@click.option("--private", is_flag=True, help="Make the repository private, if it is made.")
@_JSON
def push(run: str, address: str, private: bool, as_json: bool) -> None:
    """Upload a run to the Hugging Face Hub, with a model card."""
    from framepred.publish import push as run_push

    page = run_push(run, address, private)
    if as_json:
        print_json({"path": address, "page": page})
    else:
        click.echo(f"{page}: framepred rollout VIDEO --model {address}")


@cli.command()
@click.argument("address", metavar="hf://OWNER/NAME")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@_OVERWRITE
@_JSON
def pull(address: str, out: Path, overwrite: bool, as_json: bool) -> None:
    """Download a run or tokenizer from the Hugging Face Hub.

    Everything that takes a run takes hf://OWNER/NAME as well; this makes a copy of one's own.
    """
    from framepred.publish import pull as run_pull

    _check_output(out, overwrite)
    with _replacing(out, overwrite):
        facts = run_pull(address, out)
    if as_json:
        print_json(facts)
    else:
        click.echo(f"{out}: a {facts['kind']}")


@cli.command()
@click.argument("path", required=False)
@_JSON
def info(path: str | None, as_json: bool) -> None:
    """Say what a video, token store, tokenizer or run is; alone, list the zoo."""
    from framepred.describe import describe, describe_zoo

    if path is None:
        zoo = describe_zoo()
        if as_json:
            print_json({"zoo": zoo})
            return
        for item in zoo:
            click.echo(f"{item['name']:<16} {item['kind']:<10} {item['summary']}")
        return
    facts = describe(path)
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        if isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(v, int) for v in value):
            value = f"{value[0]} x {value[1]}"
        click.echo(f"{key.replace('_', ' '):<20} {value}")


def main() -> None:
    """Run the command line."""
    cli.main(prog_name="framepred", standalone_mode=True)

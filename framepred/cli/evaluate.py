"""`framepred eval`, `framepred calibrate` and `framepred surprise`: how good a run is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from framepred.cli.console import consume, duration, print_json, print_table, say, sparkline, track
from framepred.cli.group import JSON, OVERWRITE, check_output, cli, terminate_like_interrupt
from framepred.errors import FramepredError, Interrupted


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
@OVERWRITE
@JSON
def evaluate(
    sources: tuple[str, ...], model: str, protocol: str, settings: tuple[str, ...], out: Path | None,
    report: Path | None, overwrite: bool, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Score a run on many clips beside copying: each SOURCE is a table, and so is each --alter.

    With -o or --report, Ctrl-C keeps what is done: the same command goes on. Twice the same command
    gives the same numbers.
    """
    from framepred.evaluation.benchmark import Benchmark, Evaluated
    from framepred.evaluation.benchmark import evaluate as run_benchmark
    from framepred.evaluation.protocol import load_protocol
    from framepred.io.atomic import write_text

    changes = {k: v for k in ("context", "horizon", "samples") if (v := options.pop(k)) is not None}
    chosen = load_protocol(protocol, changes, settings)
    outputs = [folder / name for folder, name in ((out, "results.json"), (report, "index.html")) if folder]
    for path in outputs:
        check_output(path, overwrite)
    if report:
        from framepred.evaluation.plots import require_matplotlib

        require_matplotlib()
    home = out or report
    benchmark = Benchmark(sources, model, chosen, cache=home / "clips" if home else None, **options)

    def describe(p: Any) -> tuple[float, str]:
        if isinstance(p, Evaluated):
            return 1.0, "done"
        left = "" if p.remaining is None else f", {duration(p.remaining)} left"
        return p.done / p.total, f"{p.done} of {p.total} videos{left}, {p.name}"

    try:
        with terminate_like_interrupt():
            evaluated = consume(run_benchmark(benchmark), describe)
            assert isinstance(evaluated, Evaluated)
            if report:
                from framepred.evaluation.report import write_report

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
    from framepred.evaluation.tables import (
        group_table,
        groups_table,
        header_facts,
        horizon_table,
        spread_sentence,
        verdict,
    )

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
@OVERWRITE
@JSON
def calibrate(
    sources: tuple[str, ...], model: str, out: Path | None, device: str, overwrite: bool, as_json: bool
) -> None:
    """Measure on held-out videos what is usual for a run, and whether its probabilities hold.

    `framepred surprise` scales by it. Use videos that the run was not trained on.
    """
    from framepred.evaluation.surprise.calibration import FILE_NAME, CalibrationProgress, write_calibration
    from framepred.evaluation.surprise.calibration import calibrate as run_calibration
    from framepred.sources.folder import find_videos
    from framepred.world.device import choose_device
    from framepred.world.run import load_run

    videos = find_videos(sources)
    run = load_run(model, choose_device(device))
    out = out or run.path / FILE_NAME
    check_output(out, overwrite)

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
@OVERWRITE
@JSON
def surprise(video: Path, out: Path | None, overwrite: bool, as_json: bool, **options: Any) -> None:
    """Show when and where the world was not what the run predicted.

    Each frame is compared with what the model expected of it, given the real frames and actions before.
    """
    from framepred.evaluation.surprise.surprise import measure_surprise, write_surprise

    out = out or Path(f"{video.stem}-surprise.mp4")
    if out.suffix.lower() not in (".mp4", ".mkv", ".gif", ".webp", ".npz"):
        raise FramepredError(f"output {out}: unknown ending {out.suffix!r}; give .mp4, .mkv, .gif, .webp or .npz")
    check_output(out, overwrite)
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

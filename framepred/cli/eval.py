"""`framepred eval`: the scores of a run on many clips, beside copying."""

import json
from pathlib import Path
from typing import Any

import click

from framepred.cli import options
from framepred.cli.console import consume, print_json, print_table, say, say_next, tell
from framepred.cli.group import cli
from framepred.cli.scores import say_words
from framepred.errors import Interrupted


@cli.command(
    name="eval",
    sections={
        "What is measured": ("protocol", "context", "horizon", "samples", "settings", "train", "alterations", "replay"),
        "Weights of your own": ("lpips", "fid", "fvd"),
    },
)
@options.take_sources("[NAME=]SOURCE...")
@options.MODEL
@click.option("--protocol", default="future", show_default=True, help="Built-in name or TOML file.")
@click.option("--context", type=int, help="Frames that are given.  [default: the protocol's]")
@click.option("--horizon", type=int, help="Frames to predict.  [default: the protocol's]")
@click.option("--samples", type=int, help="Different futures of each clip.  [default: the protocol's]")
@options.settings("protocol")
@click.option("--train", multiple=True, metavar="SOURCE", help="The run's training clips, to copy from (repeatable).")
@click.option(
    "--alter",
    "alterations",
    multiple=True,
    type=click.Choice(["mirrored", "reversed", "skipped"]),
    help="Also the first source with altered dynamics (repeatable).",
)
@click.option("--replay", is_flag=True, help="Also play what `record` wrote again, each action held: what if?")
@click.option("--lpips", type=click.Path(path_type=Path), help="LPIPS backbone: torchvision's weights as safetensors.")
@click.option("--fid", type=click.Path(path_type=Path), help="FID detector: TorchScript.")
@click.option("--fvd", type=click.Path(path_type=Path), help="FVD detector: TorchScript.")
@options.out("Folder for results.json and what it takes to go on.")
@click.option("--report", type=click.Path(path_type=Path), help="Folder for index.html, a page with everything.")
@options.DEVICE
@options.OVERWRITE
@options.JSON
def evaluate(
    sources: tuple[str, ...], model: str, protocol: str, settings: tuple[str, ...], out: Path | None,
    report: Path | None, overwrite: bool, as_json: bool, **values: Any,
) -> None:  # fmt: skip
    """Score a run on many clips beside copying: each SOURCE is a table, and so is each --alter.

    With -o or --report, Ctrl-C keeps what is done: the same command goes on. Twice the same command
    gives the same numbers.

    \b
    Examples:
      # is it predicting?
      framepred eval held-out/ --model run
      # a page, and the nearest training clip
      framepred eval held-out/ --model run --train videos/ --report page
      # two tables, four futures a clip
      framepred eval mine=a/ other=b/ --model run --samples 4
    """
    from framepred.evaluation.benchmark import Benchmark, Evaluated
    from framepred.evaluation.benchmark import evaluate as run_benchmark
    from framepred.evaluation.protocol import load_protocol
    from framepred.io.atomic import write_text

    changes = {k: v for k in ("context", "horizon", "samples") if (v := values.pop(k)) is not None}
    chosen = load_protocol(protocol, changes, settings)
    outputs = [folder / name for folder, name in ((out, "results.json"), (report, "index.html")) if folder]
    for path in outputs:
        options.check_file_output(path, overwrite, protocol)
    if report:
        from framepred.evaluation.plots import require_matplotlib

        require_matplotlib()
    home = out or report
    benchmark = Benchmark(sources, model, chosen, cache=home / "clips" if home else None, **values)

    try:
        evaluated = consume(run_benchmark(benchmark))
        assert isinstance(evaluated, Evaluated)
        if report:
            from framepred.evaluation.report import write_report

            consume(write_report(evaluated, report / "index.html"))
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
        _say_next(evaluated.result["groups"][0], sources, model, report)


def _say_next(group: dict[str, Any], sources: tuple[str, ...], model: str, report: Path | None) -> None:
    """Say what comes next: where the run does not predict, what would help; else the page, and then an export."""
    from framepred.evaluation.tables import is_predicting

    predicts = is_predicting(group)
    if predicts is False:
        psnr = {row: group["rows"][row]["metrics"]["psnr"]["value"] for row in ("ceiling", "copy_last")}
        begin, why = model, "from this run"
        if psnr["ceiling"] < psnr["copy_last"]:
            begin, why = "none", "with a tokenizer of their own: this one gives back less than copying does"
        say(f"what would help: training on videos like these, {why}")
        say_next("train", "VIDEOS", "-o", options.numbered(Path("run")), "--init-from", begin, "--minutes", 30)
    elif report is None:
        say_next("eval", *sources, "--model", model, "--report", "page")
    elif predicts:
        say_next("export", model, "-o", "exported", "--format", "hf")
    else:
        say_next("eval", "MORE-VIDEOS", "--model", model)


def _show_result(result: dict[str, Any]) -> None:
    from framepred.evaluation import tables

    protocol, several = result["protocol"], len(result["groups"]) > 1
    for group in result["groups"]:
        tell(f"{group['name']}: " * several + tables.answer(group, protocol))
        if known := tables.known_sentence(group):
            tell(known)
    for name, value in tables.header_facts(result):
        tell(f"{name}: {value}")
    stamp, columns = f"protocol {protocol['sha256'][:12]}", list[str]()
    for group in result["groups"]:
        clips = f"{group['name']}, {group['clips']} clips, {stamp}"
        near = tables.group_table(group, tables.NEARNESS)
        if near[1]:
            print_table(*near, f"\n{clips}, ± half of the {protocol['confidence']:.0%} interval over clips")
        look = tables.group_table(group, tables.LOOK, bounds=False)
        print_table(*look, f"\n{clips}")
        for note in tables.notes(group):
            tell(note)
        if curves := tables.horizon_table(group):
            print_table(*curves, f"\n{stamp}")
        tell(tables.verdict(group))
        if found := group.get("counterfactual"):
            print_table(*tables.counterfactual_table(found), f"\n{found['clips']} moments, each action held")
        if group["spread"]:
            tell(tables.spread_sentence(group["spread"]))
        columns += near[0] + look[0]
    if several:
        print_table(*tables.groups_table(result), f"\n{stamp}: copying or learning?")
    say_words(columns)

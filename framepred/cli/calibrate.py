"""`framepred calibrate`: the baseline of `framepred surprise`."""

from pathlib import Path

import click

from framepred.cli import options
from framepred.cli.console import consume, print_json, print_table, say, say_next
from framepred.cli.group import cli


@cli.command()
@options.SOURCES
@options.MODEL
@options.out("JSON file.  [default: RUN/calibration.json]")
@options.DEVICE
@options.OVERWRITE
@options.JSON
def calibrate(
    sources: tuple[str, ...], model: str, out: Path | None, device: str, overwrite: bool, as_json: bool
) -> None:
    """Measure a run's baseline surprise on held-out videos, and how well its probabilities are calibrated.

    `framepred surprise` compares with this baseline. Use videos that the run was not trained on.

    \b
    Examples:
      framepred calibrate held-out/ --model run  # writes run/calibration.json
    """
    from framepred.evaluation.surprise.calibrate import calibrate as run_calibration
    from framepred.evaluation.surprise.calibration import FILE_NAME, Calibration, write_calibration
    from framepred.sources.find import find_episodes
    from framepred.world.device import choose_device
    from framepred.world.run import load_run

    videos = find_episodes(sources)
    run = load_run(model, choose_device(device))
    out = out or run.path / FILE_NAME
    read = (file for e in videos for file in (e.where, e.actions_from))
    options.check_file_output(out, overwrite, *read, *(p for p in run.path.iterdir() if p.name != FILE_NAME))

    made = consume(run_calibration(run, videos))
    assert isinstance(made, Calibration)
    write_calibration(out, run, made)
    if as_json:
        print_json({"model": str(run.path), "output": str(out)} | made.to_json() | {"pasts": None})
        return
    for name, found in (("with actions", made.actions), ("without actions", made.no_actions)):
        if found is None:
            continue
        diagram = found.reliability
        rows = [
            (f"{i / len(diagram.count):.2f} to {(i + 1) / len(diagram.count):.2f}", str(n), f"{c:.3f}", f"{a:.3f}")
            for i, (n, c, a) in enumerate(zip(diagram.count, diagram.confidence, diagram.accuracy, strict=True))
            if c is not None
        ]
        print_table(
            ("confidence", "tokens", "mean confidence", "was right"), rows,
            f"{name}: {found.nll:.3f} nats a token, {found.accuracy:.1%} right, ECE {diagram.ece:.4f}",
        )  # fmt: skip
    click.echo(str(out))
    say("confidence: the probability of the likeliest token; ECE: its distance to how often that was right, 0 is best")
    say_next("surprise", "VIDEO", "--model", model)

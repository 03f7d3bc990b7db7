"""`framepred export`: a run for other engines."""

from pathlib import Path

import click

from framepred.cli import options
from framepred.cli.console import consume, print_json, say_next
from framepred.cli.group import cli
from framepred.io.atomic import writing_folder
from framepred.io.outputs import check_replaceable


@cli.command()
@click.argument("run")
@options.out("Folder to write.", required=True)
@click.option(
    "--format", required=True, type=click.Choice(["hf", "gguf"]), help="For transformers and vLLM, or llama.cpp."
)
@click.option("--quantize", type=click.Choice(["q8_0", "q4_0", "f16"]), help="Store a GGUF's matrices in fewer bits.")
@click.option("--measure", metavar="SOURCE", help="Videos on which to measure the loss in bits a frame.")
@options.OVERWRITE
@options.JSON
def export(
    run: str, out: Path, format: str, quantize: str | None, measure: str | None, overwrite: bool, as_json: bool
) -> None:
    """Write a run for other engines, its ids under readable names.

    The folder is a run too: rollout, eval and info take it.

    \b
    Examples:
      # for transformers and vLLM
      framepred export run -o llama --format hf
      # for llama.cpp
      framepred export run -o small --format gguf --quantize q8_0
    """
    from framepred.engines.export import measure_loss, write_export
    from framepred.io.zoo import resolve
    from framepred.world.run import load_run

    if quantize and format != "gguf":
        raise click.UsageError("--quantize is for --format gguf")
    options.check_output(out, overwrite)
    check_replaceable(out, str(resolve("models", run)), measure)
    with writing_folder(out) as folder:
        exported = write_export(run, folder, out.name, format, quantize)
        steps = measure_loss(load_run(run), exported, [measure]) if measure else iter(())
        last = consume(steps)
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
    click.echo(f"{out}: {size / 1e6:.1f} MB; {out}/README.md has the lines that load it")
    say_next("rollout", "VIDEO", "--model", out)

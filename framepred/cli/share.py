"""`framepred export`, `push`, `pull` and `info`: runs for others, and what a path is."""

from pathlib import Path

import click

from framepred.cli.console import consume, print_json
from framepred.cli.group import JSON, OVERWRITE, check_output, cli
from framepred.io.outputs import replacing


@cli.command()
@click.argument("run")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "--format", required=True, type=click.Choice(["hf", "gguf"]), help="For transformers and vLLM, or llama.cpp."
)
@click.option("--quantize", type=click.Choice(["q8_0", "q4_0", "f16"]), help="Store a GGUF's matrices in fewer bits.")
@click.option("--measure", metavar="SOURCE", help="Videos on which to measure the loss in bits a frame.")
@OVERWRITE
@JSON
def export(
    run: str, out: Path, format: str, quantize: str | None, measure: str | None, overwrite: bool, as_json: bool
) -> None:
    """Write a run for other engines, its ids under readable names.

    The folder is a run too: rollout, eval and info take it.
    """
    from framepred.engines.export import export as run_export
    from framepred.engines.export import measure_loss
    from framepred.world.run import load_run

    if quantize and format != "gguf":
        raise click.UsageError("--quantize is for --format gguf")
    check_output(out, overwrite)
    with replacing(out, overwrite, run, measure):
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
@JSON
def push(run: str, address: str, private: bool, as_json: bool) -> None:
    """Upload a run to the Hugging Face Hub, with a model card."""
    from framepred.engines.publish import push as run_push

    page = run_push(run, address, private)
    if as_json:
        print_json({"path": address, "page": page})
    else:
        click.echo(f"{page}: framepred rollout VIDEO --model {address}")


@cli.command()
@click.argument("address", metavar="hf://OWNER/NAME")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@OVERWRITE
@JSON
def pull(address: str, out: Path, overwrite: bool, as_json: bool) -> None:
    """Download a run or tokenizer from the Hugging Face Hub.

    Everything that takes a run takes hf://OWNER/NAME as well; this makes a copy of one's own.
    """
    from framepred.engines.publish import pull as run_pull

    check_output(out, overwrite)
    with replacing(out, overwrite):
        facts = run_pull(address, out)
    if as_json:
        print_json(facts)
    else:
        click.echo(f"{out}: a {facts['kind']}")


@cli.command()
@click.argument("path", required=False)
@JSON
def info(path: str | None, as_json: bool) -> None:
    """Say what a video, token store, tokenizer or run is; alone, list the zoo."""
    from framepred.world.info import describe, describe_zoo

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

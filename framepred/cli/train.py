"""`framepred train`: videos or token stores → a run."""

import os
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import click

from framepred.cli import options
from framepred.cli.console import consume, duration, print_json, say, say_next, show_progress, tell, warn
from framepred.cli.curves import drawing_curves
from framepred.cli.group import cli
from framepred.cli.memory import keep_memory
from framepred.cli.stopped import saying_what_is_saved
from framepred.cli.threads import use_free_cores
from framepred.cli.training_words import start_lines, verdict_lines
from framepred.io.outputs import folder_to_write, replacing


@cli.command(
    sections={
        "What is trained": ("recipe", "tokenizer", "only", "init_from", "layers", "texts", "settings"),
        "How long": ("minutes", "steps", "resume"),
        "The videos": ("fps", "size", "fit"),
    }
)
@options.SOURCES
@options.out("Folder of the run.  [default: run, or run-2 and so on where that exists]")
@click.option("--recipe", help="Built-in name or TOML file.  [default: finetune from a run, else the default recipe]")
@click.option("--tokenizer", help="Name in the zoo or folder, used as it is; without it one is trained.")
@click.option("--only", type=click.Choice(["tokenizer", "predictor"]), help="Train only this part.")
@click.option(
    "--init-from",
    metavar="RUN|NAME|DIR|GGUF|none",
    help="Go on from the weights of a run, or of a Llama that knows text; none starts from nothing.  [default: the "
    "shipped run that fits, where --recipe, --tokenizer and --only are left out too]",
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
@click.option(
    "--size",
    callback=options.frame_size,
    help="Side, or HEIGHTxWIDTH, of a frame in pixels.  [default: the recipe's, 64]",
)
@options.fit("that of the store, run or tokenizer that it begins from, else crop")
@click.option(
    "--track",
    type=click.Choice(["tensorboard", "trackio", "wandb"]),
    help="Show the numbers of metrics.jsonl to a tracker too; tensorboard's files are in RUN/tensorboard.",
)
@options.settings("recipe")
@options.resume
@options.JSON
def train(
    sources: tuple[str, ...], out: Path | None, recipe: str | None, tokenizer: str | None, only: str | None,
    init_from: str | None, layers: int | None, texts: tuple[str, ...], minutes: float | None, steps: int | None,
    fps: float | None, size: tuple[int, int] | None, fit: str | None, track: str | None, resume: bool,
    settings: tuple[str, ...], overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train a run on videos or token stores: what is missing of tokenizer and predictor.

    The same command under `accelerate launch` trains on many GPUs or machines. Ctrl-C saves;
    --resume goes on.

    \b
    Examples:
      # makes what it needs: tokenizer, tokens, predictor
      framepred train videos/ -o run --minutes 30
      # go on after Ctrl-C
      framepred train videos/ -o run --resume
      # another predictor on tokens that are there
      framepred train tokens/ -o run2 --init-from none --set predictor.layers=4
    """
    from framepred.config.recipe import apply, apply_settings, load_recipe
    from framepred.training.job import Job, stored_recipe
    from framepred.training.pipeline import train as run_training
    from framepred.training.start import NOTHING, fitting_run
    from framepred.training.unfinished import KEPT

    out = out or _unnamed(resume or overwrite)
    folder = folder_to_write(out, overwrite, resume=resume)
    keep_memory()
    use_free_cores()
    changes = _changes(minutes, steps, layers, fps=fps, size=size, fit=fit)
    if not (recipe or tokenizer or only or init_from or resume):
        init_from = fitting_run(sources, apply_settings(apply(load_recipe(), changes), settings).data.size)
    init_from = None if init_from == NOTHING else init_from
    known = resume and recipe is None
    base = stored_recipe(folder) if known else load_recipe(recipe or _fitting_recipe(init_from, only))
    chosen = apply_settings(apply(base, changes), settings)
    # Of many processes, one takes care of the folder.
    main_process = os.environ.get("RANK", "0") == "0"
    inputs = (*sources, *texts, recipe, tokenizer, init_from)
    place = replacing(out, overwrite, *inputs, keep=KEPT, resume=resume) if main_process else nullcontext(folder)
    with saying_what_is_saved(out, place, _saved, options.how_to_resume(overwrite)) as folder:
        job = Job(sources, folder, chosen, tokenizer, only, init_from, resume, texts, track)
        with closing(run_training(job)) as progress:
            start, results = _watch(drawing_curves(progress, folder) if main_process else progress, folder, sources)
        if not main_process:
            return
        verdict = None if only == "tokenizer" else _judged(folder, sources, start, chosen.training.minutes)
    if as_json:
        said = {"start": start.to_json(), "verdict": verdict and verdict.to_json()}
        print_json({"path": str(out), "stages": results, **said})
    else:
        _say_end(out, sources, only, start, results, verdict)


def _say_end(
    out: Path, sources: tuple[str, ...], only: str | None, start: Any, results: dict[str, dict[str, float]],
    verdict: Any,
) -> None:  # fmt: skip
    """Say what training has reached, and the command that comes next."""
    lines = [f"{stage}: " + ", ".join(f"{k} {v:.4g}" for k, v in row.items()) for stage, row in results.items()]
    tell("\n".join([*lines, *(verdict_lines(verdict) if verdict else ())]))
    click.echo(f"{out}: done")
    if only == "tokenizer":
        say_next("train", *sources, "-o", "run", "--tokenizer", out)
        return
    # One that it has not seen, where there is one.
    held = [part.key for part in start.held_out if Path(part.key).is_file()] if start else []
    say_next("rollout", held[0] if held else "VIDEO", "--model", out)


def _unnamed(goes_on: bool) -> Path:
    """Return the folder of a run that was not named."""
    if goes_on or "RANK" in os.environ:
        raise click.UsageError("give -o RUN with --resume, with --overwrite and to processes that train together")
    return options.numbered(Path("run"))


def _fitting_recipe(origin: str | None, only: str | None) -> str | None:
    """Return the built-in recipe for training from the weights of a run; None, the default one, for all else."""
    from framepred.llm.model import find_checkpoint

    return "finetune" if origin and only != "tokenizer" and not find_checkpoint(origin)[1] else None


def _changes(minutes: float | None, steps: int | None, layers: int | None, **data: Any) -> dict[str, Any]:
    """Return what the options change of a recipe; `data` are those of its videos."""
    loop: dict[str, Any] = {} if minutes is None else {"minutes": minutes}
    if steps is not None:
        loop |= {"tokenizer_steps": steps, "predictor_steps": steps, "minutes": 0.0}
    given = {name: value for name, value in data.items() if value is not None}
    return {"training": loop, "data": given, "llm": {} if layers is None else {"layers": layers}}


def _saved(run: Path) -> str:
    from framepred.training.unfinished import saved_steps

    return ", ".join(f"{stage} step {step}" for stage, step in saved_steps(run).items())


def _judged(folder: Path, sources: tuple[str, ...], start: Any, minutes: float) -> Any:
    """Return how the run does on what was held out, or None; it takes a tenth of the minutes at most, or one clip."""
    from framepred.evaluation.verdict import Verdict, judge

    last = consume(judge(folder, sources, start, minutes * 6 if minutes else None))
    return last if isinstance(last, Verdict) else None


def _watch(progress: Iterator[Any], folder: Path, sources: tuple[str, ...]) -> tuple[Any, dict[str, dict[str, float]]]:
    """Say what will be done and what cannot be reached, draw the progress, a line for each validation.

    Return what was said first, and each stage's last values.
    """
    from framepred.evaluation.limit import doubt_tokenizer
    from framepred.training.loop import TrainProgress
    from framepred.training.start import Start

    results: dict[str, dict[str, float]] = {}
    begun: list[Start] = []
    doubted = False

    def describe(p: Any) -> tuple[float, str]:
        nonlocal doubted
        if isinstance(p, Start):
            begun.append(p)
            say("\n".join(start_lines(p)))
            return 0.0, "starting"
        if begun and not doubted:
            # What it is given is in the run now.
            doubted = True
            if doubt := doubt_tokenizer(folder, sources, begun[0]):
                warn(f"warning: {doubt}")
        if not isinstance(p, TrainProgress):
            return show_progress(p)
        results[p.stage] = results.get(p.stage, {}) | {"step": p.step, "loss": p.loss} | p.values
        if found := [f"{k.removeprefix('validation_')} {v:.4g}" for k, v in p.values.items() if "validation" in k]:
            say(f"{p.stage} step {p.step}, validation: {', '.join(found)}")
        rate = f"{p.rate:,.0f} {p.unit}/s"
        return p.fraction, f"{p.stage} step {p.step} loss {p.loss:.3f}, {rate}, {duration(p.remaining)} left"

    consume(progress, describe)
    return begun[0] if begun else None, results

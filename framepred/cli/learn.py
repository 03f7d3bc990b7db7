"""`framepred learn`: a run goes on learning from new sources, episode by episode."""

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from framepred.cli import options
from framepred.cli.console import consume, print_json, print_table, say_next, show_progress
from framepred.cli.group import cli
from framepred.cli.memory import keep_memory
from framepred.cli.stopped import saying_what_is_saved
from framepred.cli.threads import use_free_cores
from framepred.io.outputs import folder_to_write, replacing


@cli.command(sections={"How it learns": ("replay", "lora", "only_surprising", "steps", "settings")})
@options.SOURCES
@options.MODEL
@options.out("Folder of the new run; the old one stays as it is.", required=True)
@click.option("--replay", multiple=True, metavar="SOURCE", help="What the run knows, to be kept known (repeatable).")
@click.option("--lora", type=click.IntRange(1), metavar="RANK", help="Learn low-rank updates of the matrices alone.")
@click.option("--only-surprising", is_flag=True, help="Learn only from episodes that cost more than those before.")
@click.option("--steps", type=click.IntRange(0), help="Updates after each episode.")
@options.settings("recipe, as learning.learning_rate")
@options.resume
@options.JSON
def learn(
    sources: tuple[str, ...], model: str, out: Path, replay: tuple[str, ...], lora: int | None, only_surprising: bool,
    steps: int | None, settings: tuple[str, ...], resume: bool, overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Learn from new videos one by one: each is predicted first, then learned from.

    Of each source, some episodes are held out. What they cost in bits before and after each source says what was
    learned, and what was forgotten. Replay keeps what was known.

    \b
    Examples:
      framepred learn new/ --model run -o run-2
      # keep what it knew, and see how much was forgotten
      framepred learn new/ --model run --replay old/ -o run-2
    """
    from framepred.training.learn import LearnJob, transfer
    from framepred.training.learn import learn as run_learning
    from framepred.training.online import STATE, read_learning

    use_free_cores()
    keep_memory()
    wanted: dict[str, Any] = {"steps": steps, "lora_rank": lora, "only_surprising": only_surprising or None}
    begun = folder_to_write(out, overwrite, resume=resume) / "recipe.toml"
    recipe = _recipe(begun if resume and begun.is_file() else None, wanted, settings)
    place = replacing(out, overwrite, *sources, *replay, model, keep=[STATE], resume=resume)
    with (
        saying_what_is_saved(out, place, _saved, options.how_to_resume(overwrite)) as folder,
        closing(run_learning(LearnJob(sources, model, folder, recipe, replay, resume))) as progress,
    ):
        consume(progress, _describe)
    learned, measured = read_learning(out / "metrics.jsonl")
    tasks = list(dict.fromkeys(episode.task for episode in learned))
    result = transfer(measured, tasks)
    if as_json:
        curve = [vars(episode) for episode in learned]
        print_json({"path": str(out), "episodes": curve, **result})
        return
    _print_result(result)
    known = sum(episode.learned for episode in learned)
    click.echo(f"{out}: {len(learned)} episodes, {known} learned from")
    say_next("rollout", "VIDEO", "--model", out)


def _recipe(begun: Path | None, wanted: dict[str, Any], settings: tuple[str, ...]) -> Any:
    """Return the recipe of what was begun, or the default one, with what is wanted changed."""
    from framepred.config.recipe import apply, apply_settings, load_recipe

    changes = {key: value for key, value in wanted.items() if value is not None}
    return apply_settings(apply(load_recipe(begun), {"learning": changes}), settings)


def _saved(run: Path) -> str:
    from framepred.training.unfinished import saved_steps

    steps = saved_steps(run).get("learn", 0)
    return f"what {steps} episodes taught" if steps else ""


def _describe(item: Any) -> tuple[float, str]:
    from framepred.training.online import EpisodeLearned, Measured

    if isinstance(item, EpisodeLearned):
        return item.fraction, f"{item.task}: episode {item.episode + 1}, {item.bits:.1f} bits a frame before learning"
    if isinstance(item, Measured):
        return item.fraction, "measured"
    return show_progress(item)


def _print_result(result: dict[str, Any]) -> None:
    names = list(result["changes"])
    if not names:
        return
    rows = [
        [row if row == "before" else f"after {row}", *(f"{bits[name]:.1f}" for name in names)]
        for row, bits in result["bits"].items()
    ]
    print_table(["held-out episodes, bits a frame", *names], rows)
    for name, change in result["changes"].items():
        words = {"learned": "by its own episodes", "forward": "by those before", "backward": "by those after"}
        said = [f"{change[key]:+.1f} {how}" for key, how in words.items() if key in change]
        click.echo(f"{name}: " + ", ".join(said) + " (below 0 is better)")

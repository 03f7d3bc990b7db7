"""`framepred reinforce`: a run is rewarded for futures that come near to what really happened."""

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from framepred.cli import options
from framepred.cli.console import consume, print_json, say_next
from framepred.cli.group import cli
from framepred.cli.memory import keep_memory
from framepred.cli.stopped import saying_what_is_saved
from framepred.cli.threads import use_free_cores
from framepred.io.outputs import folder_to_write, replacing


@cli.command()
@options.SOURCES
@options.MODEL
@options.out("Folder of the new run; the old one stays as it is.", required=True)
@click.option("--updates", type=click.IntRange(1), help="Updates in all.")
@options.settings("recipe, as reinforcement.kl")
@options.resume
@options.JSON
def reinforce(
    sources: tuple[str, ...], model: str, out: Path, updates: int | None, settings: tuple[str, ...], resume: bool,
    overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Reward a run for futures that come near to what really happened.

    Groups of futures of one context are compared with the true frames; those that are nearer
    and as sharp as the truth become more likely. Nobody has to judge: the video does.

    \b
    Examples:
      framepred reinforce videos/ --model run -o run-2
      # sharper futures, further from where it began
      framepred reinforce videos/ -o run-2 --set reinforcement.sharpness=1
    """
    from framepred.config.recipe import apply, apply_settings, load_recipe
    from framepred.training.learn import LearnJob
    from framepred.training.learn import reinforce as run_reinforcement
    from framepred.training.reinforce import STATE

    use_free_cores()
    keep_memory()
    begun = folder_to_write(out, overwrite, resume=resume) / "recipe.toml"
    base = load_recipe(begun if resume and begun.is_file() else None)
    changed = apply(base, {"reinforcement": {} if updates is None else {"updates": updates}})
    recipe = apply_settings(changed, settings)
    made: list[Any] = []

    def describe(item: Any) -> tuple[float, str]:
        made.append(item)
        return item.fraction, f"update {item.step}: reward {item.reward:.3f}, error {item.error:.2f} of copying's"

    place = replacing(out, overwrite, *sources, model, keep=[STATE], resume=resume)
    with (
        saying_what_is_saved(out, place, _saved, options.how_to_resume(overwrite)) as folder,
        closing(run_reinforcement(LearnJob(sources, model, folder, recipe, resume=resume))) as progress,
    ):
        consume(progress, describe)
    if as_json:
        print_json({"path": str(out), "updates": [vars(item) for item in made]})
        return
    if made:
        part = max(1, len(made) // 10)
        for words, some in (("first", made[:part]), ("last", made[-part:])):
            reward, error, sharpness = (
                sum(getattr(item, name) for item in some) / len(some) for name in ("reward", "error", "sharpness")
            )
            click.echo(
                f"{words} {len(some)} updates: reward {reward:.3f}, error {error:.2f} of copying's, "
                f"sharpness {sharpness:.2f} of the truth's"
            )
    click.echo(f"{out}: done")
    say_next("eval", "VIDEOS", "--model", out)


def _saved(run: Path) -> str:
    from framepred.training.unfinished import saved_steps

    steps = saved_steps(run).get("reinforce", 0)
    return f"{steps} updates" if steps else ""

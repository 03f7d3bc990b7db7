"""A run and new sources → a run that has learned from them too, and what it forgot, or that they have reinforced."""

import warnings
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from framepred.config.frame_size import fit_of
from framepred.config.recipe import Recipe, to_toml
from framepred.errors import FramepredError, FramepredWarning
from framepred.io.atomic import write_text
from framepred.sources.contract import StoredEpisode
from framepred.sources.find import find_episodes
from framepred.tokenizer.checkpoint import copy_tokenizer
from framepred.tokens.store import check_made_by, is_store, other_rate_of_tokens, read_store
from framepred.tokens.tokenize import TokenizeProgress, tokenize
from framepred.training.loop import make_accelerator
from framepred.training.online import EpisodeLearned, Measured, OnlineLearner, Task
from framepred.training.reinforce import Clip, Reinforced, Reinforcer
from framepred.training.unfinished import check_empty, only_trainer
from framepred.world.footage import rate_of_run
from framepred.world.run import Run, load_run, save_run

Progress = TokenizeProgress | EpisodeLearned | Measured


@dataclass(frozen=True)
class LearnJob:
    """Which `sources` to learn from, in order, starting from `model`; `replay` are sources of what it knows."""

    sources: Sequence[str]
    model: str
    out: Path
    recipe: Recipe
    replay: Sequence[str] = ()
    resume: bool = False


def learn(job: LearnJob) -> Generator[Progress, None, None]:
    """Learn from sources episode by episode, yielding progress; leave a new run in `job.out`, the old one as it is.

    Raises FramepredError for a run or sources that do not fit, and for a folder that is in use.
    """
    names = _names([*job.sources, *job.replay])
    run, accelerator = _begin(job)
    space = run.layout.actions
    episodes = {source: find_episodes([source]) for source in names if not is_store(source)}
    for episode in (e for found in episodes.values() for e in found if space is not None and e.actions_from):
        # Before anything is written or learned.
        episode.ordered(space.names if space else None).actions()
    with only_trainer(job.out):
        yield from _learn(job, run, accelerator, names, episodes)


def _learn(
    job: LearnJob, run: Run, accelerator: Accelerator, names: dict[str, str], episodes: dict[str, list[StoredEpisode]]
) -> Iterator[Progress]:
    if not job.resume:
        write_text(job.out / "recipe.toml", to_toml(job.recipe))
    tasks = []
    for source, name in names.items():
        store = Path(source) if is_store(source) else job.out / "tokens" / name
        if source in episodes:
            path = str((run.path / "tokenizer").resolve())
            yield from tokenize(episodes[source], store, run.tokenizer, "run", run.tokenizer_sha256, path, run.fps)
        tasks.append(_task(run, name, store, job.recipe.learning.held_out))
    count = len(job.sources)
    learner = OnlineLearner(run.predictor, tasks[:count], tasks[count:], job.recipe, accelerator, job.out)
    # What was learned so far can be gone on with under this recipe.
    write_text(job.out / "recipe.toml", to_toml(job.recipe))
    yield from learner.learn()
    _save(job, run)


def reinforce(job: LearnJob) -> Generator[Reinforced, None, None]:
    """Reinforce a run by what really happens in videos, yielding each update; leave a new run in `job.out`.

    At most `data.max_tokenizer_frames` frames are read. Raises FramepredError as `learn` does.
    """
    if stores := [source for source in job.sources if is_store(source)]:
        raise FramepredError(f"{stores[0]} is a token store, which has no pictures to compare with: give the videos")
    run, accelerator = _begin(job)
    space, left = run.layout.actions, job.recipe.data.max_tokenizer_frames
    clips: list[Clip] = []
    for stored in find_episodes(job.sources):
        if left > 0:
            named, rate = stored.ordered(space.names if space else None), rate_of_run(stored, run)
            episode = named.read(run.tokenizer.frame_size, rate, left)
            clips.append((episode.frames, episode.actions if space else None))
            left -= len(episode.frames)
    if space is not None and all(actions is None for _, actions in clips):
        _warn(f"{job.sources[0]} has no actions: the run is reinforced without, as under no known action")
    reinforcer = Reinforcer(run, clips, job.recipe, accelerator, job.out)
    with only_trainer(job.out):
        write_text(job.out / "recipe.toml", to_toml(job.recipe))
        yield from reinforcer.updates()
        _save(job, run)


def _begin(job: LearnJob) -> tuple[Run, Accelerator]:
    """Load the run; raise FramepredError where the job cannot begin."""
    accelerator = make_accelerator()
    run = load_run(job.model, str(accelerator.device))
    if job.out.resolve() == run.path.resolve():
        raise FramepredError(f"-o {job.out} is the run itself, which must stay as it is: give another folder")
    if not job.resume:
        check_empty(job.out)
    if accelerator.num_processes > 1:
        raise FramepredError("this takes one process: call it without accelerate launch")
    if run.layout.vocabulary.text_size:
        _warn(f"{job.model} knows text, none of which is trained on: it may forget words")
    return run, accelerator


def _save(job: LearnJob, run: Run) -> None:
    copy_tokenizer(run.path / "tokenizer", job.out / "tokenizer", run.tokenizer.frame_size)
    save_run(
        job.out, run.predictor, run.layout, run.window, run.fps, run.tokenizer.frame_size, run.tokenizer_sha256,
        temperature=run.temperature,
    )  # fmt: skip


def _task(run: Run, name: str, store: Path, share: float) -> Task:
    check_made_by(store, run.tokenizer_sha256, fit_of(run.tokenizer.frame_size))
    space = run.layout.actions
    episodes = read_store(store, space.names if space else None)
    if message := next(filter(None, (other_rate_of_tokens(e, run.fps) for e in episodes)), None):
        _warn(f"{message}; so are others of another rate")
    if space is None and any(e.actions is not None for e in episodes):
        _warn(f"{name} has actions, which are not used: the run was trained without")
    if space is not None and not any(e.actions is not None for e in episodes):
        _warn(f"{name} has no actions: it is learned from without, as what happens under no known action")
    task = Task.build(name, episodes, run.layout, run.window, share)
    if not len(task.episodes):
        raise FramepredError(f"{name} has no episode of two frames to learn from: give longer videos")
    return task


def _names(sources: Sequence[str]) -> dict[str, str]:
    """Return each source's short name; the same source twice is an error."""
    names: dict[str, str] = {}
    for source in sources:
        if source in names:
            raise FramepredError(f"{source} is given twice: give each source once")
        stem = Path(source).stem or "videos"
        taken = [n for n in names.values() if n.rstrip("0123456789-") == stem]
        names[source] = f"{stem}-{len(taken) + 1}" if taken else stem
    return names


def _warn(message: str) -> None:
    warnings.warn(FramepredWarning(message), stacklevel=3)


def transfer(measured: Sequence[Measured], tasks: Sequence[str]) -> dict[str, Any]:
    """Return the matrix of bits, and by name what learning changed: strict JSON values, in bits a frame.

    `learned` is what a task's own episodes changed on its held-out ones, `forward` what the tasks before it changed,
    `backward` what the tasks after it changed; of what was known before, `backward` is what all of them changed.
    Below 0 is better.
    """
    rows = {m.after or "before": m.bits for m in measured}
    changes: dict[str, dict[str, float]] = {}
    order = list(rows)
    for name in measured[-1].bits if measured else ():
        at = [rows[row][name] for row in order]
        own = 1 + list(tasks).index(name) if name in tasks else 0
        changes[name] = {"backward": at[-1] - at[own]}
        if own:
            changes[name] |= {"forward": at[own - 1] - at[0], "learned": at[own] - at[own - 1]}
    return {"bits": rows, "changes": changes}

"""From sources to a run: trains or makes what is missing, in order: tokenizer, tokens, predictor."""

import shutil
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

import torch
from accelerate import Accelerator, PartialState

from framepred.config.recipe import to_toml
from framepred.errors import FramepredError, FramepredWarning
from framepred.io import zoo
from framepred.io.atomic import write_text
from framepred.llm.model import LanguageModel
from framepred.sequence.layout import SequenceLayout
from framepred.sources.contract import StoredEpisode
from framepred.sources.find import find_episodes
from framepred.tokenizer.checkpoint import copy_tokenizer, load_tokenizer, tokenizer_sha256
from framepred.tokenizer.contract import Tokenizer
from framepred.tokens.store import TokenEpisode, is_store, read_store, read_store_info
from framepred.tokens.tokenize import TokenizeProgress, common_actions, tokenize
from framepred.training.embedding import merge_rows, separate_text, share_digits
from framepred.training.finetune import adapt, merge_updates
from framepred.training.frames import Actions
from framepred.training.initialisation import (
    common_fps,
    fit_layout,
    known_names,
    layout_after,
    make_model,
    make_words,
    shaped_like,
    tokenizer_to_train,
)
from framepred.training.job import Job, check_text, given_tokenizer, load_init, stored_recipe
from framepred.training.loop import Budget, TrainProgress, fit, make_accelerator
from framepred.training.objectives import predictor_stage
from framepred.training.start import (
    Start,
    count_parameters,
    held_out_of,
    look_at_stores,
    look_at_videos,
    save_start,
    stored_origin,
)
from framepred.training.tokenizer import train_tokenizer, warn_unvalidated
from framepred.training.unfinished import KEPT, check_resumed
from framepred.training.windows import Windows, held_out_end, split_episodes, step_generator
from framepred.world.run import Run, save_run

Progress = Start | TrainProgress | TokenizeProgress
_Episodes = list[tuple[TokenEpisode, str]]
"""Each episode with the name of its source: sources are drawn by `data.source_power`."""


def train(job: Job) -> Generator[Progress, None, None]:
    """Train a run in `job.out`, yielding what it will do, then progress.

    Killed at any moment, it resumes with `resume`, from the weights that it was started from.
    Raises FramepredError for sources, recipes and folders that do not fit each other.
    """
    fresh = not job.out.is_dir() or not any(job.out.iterdir())
    noted = not job.resume
    if job.resume and job.init_from is None:
        job = replace(job, init_from=stored_origin(job.out))
    init = load_init(job)
    if isinstance(init, Run):
        job = replace(job, recipe=shaped_like(job.recipe, init))
    try:
        for progress in _train(job, init):
            if not noted and isinstance(progress, TrainProgress) and PartialState().is_main_process:
                # With its first step a run is of the recipe that it was resumed with.
                write_text(job.out / "recipe.toml", to_toml(job.recipe))
                noted = True
            yield progress
    except BaseException:
        # Nothing was trained: what this try left must not stop the next one.
        if fresh and not any(next(job.out.glob(pattern), None) for pattern in KEPT):
            shutil.rmtree(job.out, ignore_errors=True)
        raise


def _train(job: Job, init: Run | LanguageModel | None) -> Iterator[Progress]:
    started = time.monotonic()
    stores = [s for s in job.sources if is_store(s)]
    if stores and len(stores) != len(job.sources):
        raise FramepredError("sources mix videos and token stores: give only one kind")
    videos = [] if stores else find_episodes(job.sources)
    if job.resume:
        check_resumed(job.out, stored_recipe(job.out), job.recipe)
    if job.only != "tokenizer":
        # Found out before anything is written or trained.
        common_actions(videos, ())
    check_text(job, init)
    accelerator = make_accelerator()
    if accelerator.is_main_process:
        if not job.resume and job.out.is_dir() and any(job.out.iterdir()):
            raise FramepredError(
                f"{job.out} exists and is not empty: give --resume to go on, --overwrite to start anew, or another -o"
            )
        if not job.resume:
            write_text(job.out / "recipe.toml", to_toml(job.recipe))
        start = _start(job, videos, stores, init, accelerator)
        save_start(job.out, start)
        yield start
    accelerator.wait_for_everyone()
    yield from _provide_tokenizer(job, videos, stores, init, accelerator, started)
    if job.only == "tokenizer":
        return
    tokenizer, sha256 = load_tokenizer(job.out / "tokenizer"), tokenizer_sha256(job.out / "tokenizer")
    if not stores:
        stores = [str(job.out / "tokens")]
        if accelerator.is_main_process:
            tokenizer.to(accelerator.device)
            # Where the tokenizer is from the store: a run may be moved.
            fps, where = job.recipe.data.fps or None, "../tokenizer"
            yield from tokenize(videos, stores[0], tokenizer, "run", sha256, where, fps)
        accelerator.wait_for_everyone()
    # A run's own store holds the episodes of all its sources, each of which is drawn as often as the recipe says.
    origin = {v.key: v.source for v in videos}
    names = known_names(init if isinstance(init, Run) else None, stores)
    episodes = [(e, origin.get(e.source, store)) for store in stores for e in read_store(store, names)]
    yield from _train_predictor(job, stores, episodes, tokenizer, sha256, init, accelerator, started)


def _start(
    job: Job, videos: Sequence[StoredEpisode], stores: Sequence[str], init: Run | LanguageModel | None,
    accelerator: Accelerator,
) -> Start:  # fmt: skip
    """Look at the sources and say what the training will do."""
    recipe, given = job.recipe, given_tokenizer(job, stores, init)
    footage = look_at_stores(stores) if stores else look_at_videos(videos)
    kept = job.out / "tokenizer"
    where = kept if any(kept.glob("*.safetensors")) else zoo.tokenizer_folder(given) if given else None
    tokenizer = load_tokenizer(where, _size(job, stores)) if where else tokenizer_to_train(recipe, None, Actions())
    if where and job.only != "tokenizer":
        _check_tokenizer(job, stores, init, tokenizer, tokenizer_sha256(where))
    parameters = count_parameters(recipe, tokenizer, init)
    trained = {"tokenizer": recipe.training.tokenizer_steps} if not where or job.only == "tokenizer" else {}
    if job.only == "tokenizer":
        parameters.pop("predictor")
    else:
        trained["predictor"] = recipe.training.predictor_steps
    return Start(
        len(footage.episodes), footage.frames, footage.hours,
        (recipe.data.fps,) if recipe.data.fps and not stores else footage.rates, tokenizer.frame_size,
        footage.actions, held_out_of(footage, recipe.data.validation_fraction), job.init_from,
        str(accelerator.device), torch.get_num_threads(), parameters, recipe.training.minutes, trained,
    )  # fmt: skip


def _size(job: Job, stores: Sequence[str]) -> tuple[int, int]:
    """Return the frame size that a tokenizer of another library, which takes many, is used at."""
    return read_store_info(stores[0]).frame_size if stores else job.recipe.data.size


def _provide_tokenizer(
    job: Job, videos: Sequence[StoredEpisode], stores: Sequence[str], init: Run | LanguageModel | None,
    accelerator: Accelerator, started: float,
) -> Iterator[Progress]:  # fmt: skip
    """Put the tokenizer that is given or that made the stores into OUT/tokenizer, or train one, unless one is there."""
    folder = job.out / "tokenizer"
    given = given_tokenizer(job, stores, init)
    if any(folder.glob("*.safetensors")):
        return
    if given and job.only != "tokenizer":
        source = zoo.tokenizer_folder(given)
        if accelerator.is_main_process:
            copy_tokenizer(source, folder, _size(job, stores))
    elif job.only == "predictor":
        raise FramepredError(
            "--only predictor needs a tokenizer: give --tokenizer NAME|DIR, a token store or --init-from RUN"
        )
    elif stores:
        raise FramepredError("a tokenizer is trained on frames, not on a token store: give videos")
    else:
        loop = job.recipe.training
        share = 1.0 if job.only == "tokenizer" else loop.tokenizer_share
        deadline = started + loop.minutes * 60 * share if loop.minutes else None
        yield from train_tokenizer(videos, job.tokenizer or job.init_from, job.recipe, job.out, accelerator, deadline)
    accelerator.wait_for_everyone()


def _check_tokenizer(
    job: Job, stores: Sequence[str], init: Run | LanguageModel | None, tokenizer: Tokenizer, sha256: str
) -> None:
    """Raise FramepredError unless the earlier run and the token stores use this tokenizer."""
    if isinstance(init, Run) and init.tokenizer_sha256 != sha256:
        raise FramepredError(
            f"--init-from {job.init_from} predicts tokens of its own tokenizer ({init.tokenizer_sha256[:12]}), "
            f"not of {sha256[:12]}: leave --tokenizer out"
        )
    for store in stores:
        info = read_store_info(store)
        if info.tokenizer_sha256 != sha256:
            raise FramepredError(
                f"token store {store} was made by tokenizer {info.tokenizer} ({info.tokenizer_sha256[:12]}), "
                f"the run uses {sha256[:12]}: give that tokenizer, or tokenize again"
            )
        if info.frame_size != tokenizer.frame_size:
            raise FramepredError(
                f"token store {store} is of frames of {info.frame_size}, the run's tokenizer takes "
                f"{tokenizer.frame_size}: tokenize again with that --size"
            )


def _parts(
    job: Job, episodes: _Episodes, layout: SequenceLayout, window: int
) -> tuple[list[TokenEpisode], list[TokenEpisode], Windows, Windows]:
    """Return the episodes for training and for validation, and the windows of each."""
    if layout.actions is None and any(e.actions is not None for e, _ in episodes):
        warnings.warn(FramepredWarning(f"actions are not used: {job.init_from} was trained without"), stacklevel=2)
    fraction = job.recipe.data.validation_fraction
    if len(episodes) == 1 and (end := held_out_end(len(episodes[0][0].tokens), fraction)):
        parts: tuple[list[int], list[int]] = [0], [1]
        only, source = episodes[0]
        episodes = [(only.part(0, -end), source), (only.part(-end, None), source)]
    else:
        parts = split_episodes([e.name for e, _ in episodes], fraction)
    warn_unvalidated(parts[1])
    kept, held = ([episodes[i][0] for i in part] for part in parts)
    train_windows, held_windows = (
        Windows.build(part, [episodes[i][1] for i in index], layout, window, job.recipe.data.source_power)
        for part, index in zip((kept, held), parts, strict=True)
    )
    if not len(train_windows):
        raise FramepredError("no training episode has two frames: give longer videos")
    return kept, held, train_windows, held_windows


def _predictor_budget(job: Job, started: float) -> Budget:
    loop = job.recipe.training
    if not loop.minutes:
        return Budget(loop.predictor_steps)
    return Budget(loop.predictor_steps, max(1.0, loop.minutes * 60 - (time.monotonic() - started)))


def _train_predictor(
    job: Job, stores: Sequence[str], episodes: _Episodes, tokenizer: Tokenizer, sha256: str,
    init: Run | LanguageModel | None, accelerator: Accelerator, started: float,
) -> Iterator[Progress]:  # fmt: skip
    recipe = job.recipe
    text_size = init.text_size if isinstance(init, LanguageModel) else 0
    layout = (
        layout_after(init, [e for e, _ in episodes], stores, tokenizer, recipe)
        if isinstance(init, Run)
        else fit_layout([e for e, _ in episodes], stores, tokenizer, recipe, text_size)
    )
    window = init.window if isinstance(init, Run) else recipe.predictor.window
    if not layout.vocabulary.text_size and any(e.captions for e, _ in episodes):
        warnings.warn(
            FramepredWarning("captions are not used: the run knows no text; give a Llama with --init-from"),
            stacklevel=2,
        )
    kept, held, train_windows, held_windows = _parts(job, episodes, layout, window)
    generator = step_generator(recipe.training.seed, 4)
    model, text_files = make_model(init, layout, recipe, generator)
    words, held_words = (
        make_words(recipe, model, layout, text_files, part, texts) for part, texts in ((kept, job.texts), (held, ()))
    )
    separate_text(model, layout.vocabulary.text_size)
    # Foreign tokenizers do not say what digits their ids have.
    fresh = None if isinstance(init, Run) else generator
    for (first, _), digits in ((layout.vocabulary.visual, "digits"), (layout.vocabulary.context, "context_digits")):
        parts = getattr(tokenizer, digits, ())
        # A cell is one more digit: a code means something alike wherever it stands.
        cells = (layout.frame_tokens,) if layout.cells and digits == "digits" and parts else ()
        share_digits(model, (*parts, *cells), first, fresh)
    if layout.vocabulary.text_size:
        adapt(model, recipe.llm, recipe.training.seed)
    model.to(accelerator.device)
    stage = predictor_stage(model, train_windows, held_windows, recipe, accelerator, words, held_words)
    yield from fit(stage, accelerator, _predictor_budget(job, started), recipe.training, job.out)
    merge_updates(model)
    merge_rows(model)
    if accelerator.is_main_process:
        save_run(
            job.out, model, layout, window, common_fps([e for e, _ in episodes]), tokenizer.frame_size, sha256,
            text_files=text_files, temperature=init.temperature if isinstance(init, Run) else 1.0,
        )  # fmt: skip

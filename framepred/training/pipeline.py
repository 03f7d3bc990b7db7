"""From sources to a run: trains or makes what is missing, in order: tokenizer, tokens, predictor."""

import shutil
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import torch
from accelerate import Accelerator, PartialState

from framepred.config.frame_size import FrameSize
from framepred.config.recipe import to_toml
from framepred.errors import FramepredError, FramepredWarning
from framepred.io import zoo
from framepred.io.atomic import write_text
from framepred.llm.model import LanguageModel
from framepred.sequence.layout import SequenceLayout
from framepred.sources.content import distinct
from framepred.sources.contract import StoredEpisode
from framepred.sources.find import find_episodes
from framepred.tokenizer.checkpoint import copy_tokenizer, load_tokenizer, tokenizer_sha256
from framepred.tokenizer.contract import Tokenizer
from framepred.tokens.store import check_made_by, is_store, read_store_info
from framepred.tokens.tokenize import TokenizeProgress, common_actions, tokenize
from framepred.training.embedding import merge_rows, separate_text, share_digits
from framepred.training.finetune import adapt, merge_updates
from framepred.training.frames import Actions
from framepred.training.held_out import HeldOut, Sourced, divided, episodes_of, stored_held_out
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
from framepred.training.job import Job, check_text, fitted, given_tokenizer, load_init, stored_recipe
from framepred.training.loop import Budget, TrainProgress, fit, make_accelerator
from framepred.training.objectives import predictor_stage
from framepred.training.preview import draw_prediction
from framepred.training.start import (
    Footage,
    Start,
    count_parameters,
    held_out_of,
    look_at_stores,
    look_at_videos,
    save_start,
    stored_origin,
)
from framepred.training.tokenizer import train_tokenizer, warn_unvalidated
from framepred.training.tracking import check_tracker, tracked
from framepred.training.unfinished import KEPT, check_empty, check_resumed, layout_note, only_trainer, stored_layout
from framepred.training.windows import Windows, step_generator
from framepred.world.run import Run, save_run

Progress = Start | TrainProgress | TokenizeProgress


def train(job: Job) -> Generator[Progress, None, None]:
    """Train a run in `job.out`, yielding what it will do, then progress.

    Killed at any moment, it resumes with `resume`, from the weights that it was started from.
    Raises FramepredError for sources, recipes and folders that do not fit each other.
    """
    if job.tracker:
        check_tracker(job.tracker)
    fresh = not job.out.is_dir() or not any(job.out.iterdir())
    noted = not job.resume
    if job.resume and job.init_from is None:
        job = replace(job, init_from=stored_origin(job.out))
    init = load_init(job)
    if isinstance(init, Run):
        job = replace(job, recipe=shaped_like(job.recipe, init))
    job = fitted(job, init)
    with only_trainer(job.out):
        try:
            made = _train(job, init)
            # Where it is stopped, what was trained is saved before it is looked for.
            with closing(tracked(made, job.tracker, job.out, job.recipe) if job.tracker else made) as steps:
                for progress in steps:
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


def _train(job: Job, init: Run | LanguageModel | None) -> Generator[Progress, None, None]:
    started = time.monotonic()
    stores = [s for s in job.sources if is_store(s)]
    if stores and len(stores) != len(job.sources):
        raise FramepredError("sources mix videos and token stores: give only one kind")
    if stores:
        videos, footage = list[StoredEpisode](), look_at_stores(stores)
    else:
        videos, footage = look_at_videos(distinct(find_episodes(job.sources)))
    if job.resume:
        check_resumed(job.out, stored_recipe(job.out), job.recipe)
    if job.only != "tokenizer":
        # Found out before anything is written or trained.
        common_actions(videos, ())
    check_text(job, init)
    accelerator = make_accelerator()
    if accelerator.is_main_process:
        if not job.resume:
            check_empty(job.out)
            write_text(job.out / "recipe.toml", to_toml(job.recipe))
        start = _start(job, videos, stores, footage, init, accelerator)
        save_start(job.out, start)
        yield start
    accelerator.wait_for_everyone()
    held = stored_held_out(job.out) or ()
    yield from _provide_tokenizer(job, videos, stores, init, accelerator, started, held)
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
    # What the weights were trained on stays what it was, whatever videos came or went since.
    layout = stored_layout(job.out) if job.resume else None
    names = known_names(init if isinstance(init, Run) else None, stores)
    if layout is not None:
        names = layout.actions.names if layout.actions else None
    # A large store is written once as the file that all processes map.
    with accelerator.main_process_first():
        episodes = episodes_of(stores, names, videos)
    parts = divided(episodes, held, job.recipe.data.validation_fraction)
    yield from _train_predictor(job, stores, parts, tokenizer, sha256, init, accelerator, started, layout)


def _start(
    job: Job, videos: Sequence[StoredEpisode], stores: Sequence[str], footage: Footage,
    init: Run | LanguageModel | None, accelerator: Accelerator,
) -> Start:  # fmt: skip
    """Say what the training will do with sources that hold `footage`."""
    recipe, given = job.recipe, given_tokenizer(job, stores, init)
    kept = job.out / "tokenizer"
    where = kept if any(kept.glob("*.safetensors")) else zoo.tokenizer_folder(given) if given else None
    size = _size(job, stores)
    tokenizer = load_tokenizer(where, size, fit=size.fit) if where else tokenizer_to_train(recipe, None, Actions())
    if where and job.only != "tokenizer":
        _check_tokenizer(job, stores, init, tokenizer, tokenizer_sha256(where))
    parameters = count_parameters(recipe, tokenizer, init)
    trained = {"tokenizer": recipe.training.tokenizer_steps} if not where or job.only == "tokenizer" else {}
    if job.only == "tokenizer":
        parameters.pop("predictor")
    else:
        trained["predictor"] = recipe.training.predictor_steps
    held = stored_held_out(job.out) if job.resume else None
    if held is None:
        held = held_out_of(footage, recipe.data.validation_fraction, videos)
    return Start(
        len(footage.episodes), footage.frames, footage.hours,
        (recipe.data.fps,) if recipe.data.fps and not stores else footage.rates, tokenizer.frame_size,
        footage.actions, held, job.init_from,
        str(accelerator.device), torch.get_num_threads(), parameters, recipe.training.minutes, trained,
    )  # fmt: skip


def _size(job: Job, stores: Sequence[str]) -> FrameSize:
    """Return the frame size and fit that a tokenizer is used at; only one of another library takes many sizes."""
    sides = read_store_info(stores[0]).frame_size if stores else job.recipe.data.size
    return FrameSize(sides, job.recipe.data.frame_size.fit)


def _provide_tokenizer(
    job: Job, videos: Sequence[StoredEpisode], stores: Sequence[str], init: Run | LanguageModel | None,
    accelerator: Accelerator, started: float, held: Sequence[HeldOut],
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
        origin = job.tokenizer or job.init_from
        yield from train_tokenizer(videos, origin, job.recipe, job.out, accelerator, deadline, held)
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
        info = check_made_by(store, sha256)
        if info.frame_size != tokenizer.frame_size:
            raise FramepredError(
                f"token store {store} is of frames of {info.frame_size}, the run's tokenizer takes "
                f"{tokenizer.frame_size}: tokenize again with that --size"
            )


def _windows(
    job: Job, parts: tuple[list[Sourced], list[Sourced]], layout: SequenceLayout, window: int
) -> tuple[Windows, Windows]:
    """Return the windows for training and for validation."""
    if layout.actions is None and any(e.actions is not None for part in parts for e, _ in part):
        warnings.warn(FramepredWarning(f"actions are not used: {job.init_from} was trained without"), stacklevel=2)
    warn_unvalidated(parts[1])
    kept, held = (
        Windows.build([e for e, _ in part], [s for _, s in part], layout, window, job.recipe.data.source_power)
        for part in parts
    )
    if not len(kept):
        raise FramepredError("no training episode has two frames: give longer videos")
    return kept, held


def _predictor_budget(job: Job, started: float) -> Budget:
    loop = job.recipe.training
    if not loop.minutes:
        return Budget(loop.predictor_steps)
    return Budget(loop.predictor_steps, max(1.0, loop.minutes * 60 - (time.monotonic() - started)))


def _train_predictor(
    job: Job, stores: Sequence[str], parts: tuple[list[Sourced], list[Sourced]], tokenizer: Tokenizer, sha256: str,
    init: Run | LanguageModel | None, accelerator: Accelerator, started: float, layout: SequenceLayout | None,
) -> Iterator[Progress]:  # fmt: skip
    recipe = job.recipe
    text_size = init.text_size if isinstance(init, LanguageModel) else 0
    episodes = [e for part in parts for e, _ in part]
    if layout is None and isinstance(init, Run):
        layout = layout_after(init, episodes, stores, tokenizer, recipe)
    layout = layout or fit_layout(episodes, stores, tokenizer, recipe, text_size)
    window = init.window if isinstance(init, Run) else recipe.predictor.window
    if not layout.vocabulary.text_size and any(e.captions for e in episodes):
        warnings.warn(
            FramepredWarning("captions are not used: the run knows no text; give a Llama with --init-from"),
            stacklevel=2,
        )
    train_windows, held_windows = _windows(job, parts, layout, window)
    generator = step_generator(recipe.training.seed, 4)
    model, text_files = make_model(init, layout, recipe, generator)
    words, held_words = (
        make_words(recipe, model, layout, text_files, [e for e, _ in part], texts)
        for part, texts in zip(parts, (job.texts, ()), strict=True)
    )
    separate_text(model, layout.vocabulary.text_size)
    # Foreign tokenizers do not say what digits their ids have.
    fresh = None if isinstance(init, Run) else generator
    for (first, _), digits in ((layout.vocabulary.visual, "digits"), (layout.vocabulary.context, "context_digits")):
        own = getattr(tokenizer, digits, ())
        # A cell is one more digit: a code means something alike wherever it stands.
        cells = (layout.frame_tokens,) if layout.cells and digits == "digits" and own else ()
        share_digits(model, (*own, *cells), first, fresh)
    if layout.vocabulary.text_size:
        adapt(model, recipe.llm, recipe.training.seed)
    model.to(accelerator.device)
    stage = predictor_stage(model, train_windows, held_windows, recipe, accelerator, words, held_words)
    fps, temperature = common_fps(episodes), init.temperature if isinstance(init, Run) else 1.0
    run, held = Run(job.out, model, tokenizer, layout, window, fps, sha256, temperature), [e for e, _ in parts[1]]
    stage = replace(stage, about=layout_note(layout), preview=lambda: draw_prediction(run, held))
    yield from fit(stage, accelerator, _predictor_budget(job, started), recipe.training, job.out)
    merge_updates(model)
    merge_rows(model)
    if accelerator.is_main_process:
        save_run(
            job.out, model, layout, window, fps, tokenizer.frame_size, sha256,
            text_files=text_files, temperature=temperature,
        )  # fmt: skip

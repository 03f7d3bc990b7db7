"""What a training is asked for, and the weights that it goes on from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from framepred.config.frame_size import Fit, fit_of
from framepred.config.recipe import Recipe, apply, load_recipe
from framepred.errors import FramepredError
from framepred.io import zoo
from framepred.llm.model import LanguageModel, find_checkpoint, load_language_model
from framepred.sources.captions_csv import find_texts
from framepred.tokenizer.checkpoint import stored_fit, tokenizer_sha256
from framepred.tokens.store import StoreInfo, is_store, read_store_info
from framepred.world.run import Run, load_run


@dataclass(frozen=True)
class Job:
    """What to train: `only` one part, with a given `tokenizer`, from the weights of a run or language model.

    `init_from` names that run or model. `texts` are files and folders of text, which a model that knows text is
    trained on beside the frames. `tracker` is one of `tracking.TRACKERS`.
    """

    sources: Sequence[str]
    out: Path
    recipe: Recipe
    tokenizer: str | None = None
    only: str | None = None
    init_from: str | None = None
    resume: bool = False
    texts: Sequence[str] = ()
    tracker: str | None = None


def stored_recipe(run: Path) -> Recipe:
    """Return the recipe that a run was started with."""
    if not (run / "recipe.toml").is_file():
        raise FramepredError(f"{run} holds no training to resume (no recipe.toml): start it without --resume")
    recipe = load_recipe(run / "recipe.toml")
    # Runs of framepred 0.1 do not say their fit, which was crop.
    return apply(recipe, {"data": {"fit": recipe.data.frame_size.fit}})


def load_init(job: Job) -> Run | LanguageModel | None:
    if not job.init_from or job.only == "tokenizer":
        return None
    path, knows_only_text = find_checkpoint(job.init_from)
    return load_language_model(path, job.recipe.llm.layers) if knows_only_text else load_run(path)


def check_text(job: Job, init: Run | LanguageModel | None) -> None:
    """Raise FramepredError, before anything is trained, for text or llm.layers without a language model."""
    layers = job.recipe.llm.layers
    if layers and not isinstance(init, LanguageModel) and job.only != "tokenizer":
        raise FramepredError(
            f"llm.layers = {layers} says how much of a language model stays: give one with --init-from, "
            "or set predictor.layers"
        )
    if job.texts and not (isinstance(init, LanguageModel) or (init and init.layout.vocabulary.text_size)):
        raise FramepredError(f"text {job.texts[0]} is for a run that knows text: give a Llama with --init-from")
    find_texts(job.texts)


def store_tokenizer(stores: Sequence[str]) -> str | None:
    """Return the tokenizer that made a store, found by its name in the zoo or the path it had."""
    if not stores:
        return None
    info: StoreInfo = read_store_info(stores[0])
    for candidate in (info.tokenizer, Path(stores[0]) / info.tokenizer_path, info.tokenizer_path):
        try:
            if tokenizer_sha256(zoo.tokenizer_folder(candidate)) == info.tokenizer_sha256:
                return str(candidate)
        except FramepredError:
            continue
    raise FramepredError(
        f"the tokenizer of token store {stores[0]} ({info.tokenizer}, {info.tokenizer_sha256[:12]}) is not at "
        f"{info.tokenizer_path}: give it with --tokenizer"
    )


def given_tokenizer(job: Job, stores: Sequence[str], init: Run | LanguageModel | None) -> str | None:
    """Return the tokenizer that is given, that of the run to go on from, or the one that made the stores."""
    return job.tokenizer or (job.init_from if isinstance(init, Run) else None) or store_tokenizer(stores)


def fitted(job: Job, init: Run | LanguageModel | None) -> Job:
    """Return the job with a fit that is not "auto": that of the stores, run or tokenizer that it begins from, or crop.

    Raises FramepredError where the stores have another fit.
    """
    stores = {source: fit_of(read_store_info(source).frame_size) for source in job.sources if is_store(source)}
    fit = job.recipe.data.fit
    if fit == "auto":
        fit = next(iter(stores.values())) if stores else _fit_before(job, init)
    for store, made in stores.items():
        if made != fit:
            raise FramepredError(
                f"token store {store} is of pictures made to fit by {made}, not {fit}: leave --fit out, or tokenize "
                f"again with --fit {fit}"
            )
    return replace(job, recipe=apply(job.recipe, {"data": {"fit": fit}}))


def _fit_before(job: Job, init: Run | LanguageModel | None) -> Fit:
    """Return the fit of the run that is resumed, or else of what training begins from."""
    if job.resume:
        return stored_recipe(job.out).data.frame_size.fit
    given = job.tokenizer or (job.init_from if isinstance(init, Run) or job.only == "tokenizer" else None)
    return stored_fit(given) if given else "crop"

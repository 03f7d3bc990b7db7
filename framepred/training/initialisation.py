"""What training begins with: a new tokenizer, predictor and layout, or those of a run or a language model."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

import torch

from framepred.config.action_names import values_of
from framepred.config.recipe import Recipe
from framepred.errors import FramepredError
from framepred.io import zoo
from framepred.llm.model import LanguageModel, check_names, extend
from framepred.llm.token_names import TOKENIZER_JSON, read_text_files, text_ids, text_tokenizer
from framepred.predictor.llama import Llama
from framepred.sequence.actions import fit_action_space
from framepred.sequence.layout import SequenceLayout
from framepred.sequence.vocabulary import Vocabulary
from framepred.sources.captions_csv import find_texts, read_text
from framepred.tokenizer.checkpoint import load_tokenizer
from framepred.tokenizer.contract import Tokenizer
from framepred.tokenizer.foreign import AdaptedTokenizer
from framepred.tokenizer.image import Autoencoder
from framepred.tokenizer.temporal import TemporalAutoencoder
from framepred.tokenizer.temporal_net import TemporalShape
from framepred.tokens.store import TokenEpisode, names_of_stores
from framepred.training.frames import Actions
from framepred.training.objectives import llama_config
from framepred.training.words import Words
from framepred.world.run import Run


def tokenizer_to_train(recipe: Recipe, origin: str | None, actions: Actions) -> Autoencoder | TemporalAutoencoder:
    """Return a new tokenizer for videos with these actions, or the one of `origin`."""
    loaded = load_tokenizer(zoo.tokenizer_folder(origin)) if origin else None
    if isinstance(loaded, AdaptedTokenizer):
        raise FramepredError(
            f"tokenizer {origin} is a {loaded.name}: framepred trains only its own; use it as it is, "
            "without --only tokenizer"
        )
    temporal = recipe.tokenizer.kind == "temporal"
    if loaded and loaded.frame_size != recipe.data.size:
        raise FramepredError(f"tokenizer {origin} takes frames of {loaded.frame_size}, data.size is {recipe.data.size}")
    if loaded and isinstance(loaded, TemporalAutoencoder) != temporal:
        kind = "image" if temporal else "temporal"
        raise FramepredError(f"tokenizer {origin} is of the kind {kind}: give --set tokenizer.kind={kind}")
    if isinstance(loaded, TemporalAutoencoder) and actions.size:
        _check_same_actions(loaded.shape, actions, f"tokenizer {origin}")
    if loaded:
        return loaded.requires_grad_(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        if not temporal:
            return Autoencoder(recipe.tokenizer, recipe.data.size)
        made = TemporalAutoencoder(temporal_shape(recipe, actions))
    if actions.mean is not None and actions.scale is not None:
        made.action_mean.copy_(actions.mean)
        made.action_scale.copy_(actions.scale)
    return made


def _check_same_actions(shape: TemporalShape, actions: Actions, where: str) -> None:
    """Raise FramepredError unless a tokenizer of this shape knows the actions of videos, by number and by name."""
    names = actions.names or ()
    if shape.action_names and sorted(shape.action_names) != sorted(names):
        raise FramepredError(
            f"{where} knows actions {list(shape.action_names)}, the videos have {list(names)}: train a new one"
        )
    values, given = values_of(shape.action_names), values_of(names)
    if values and given:
        if new := [value for value in given if value not in values]:
            raise FramepredError(f"{where} knows actions {list(values)}, the videos have {new[0]!r}: train a new one")
    elif (shape.action_size, shape.continuous) != (actions.size, actions.continuous):
        known, has = ("continuous" if c else "discrete" for c in (shape.continuous, actions.continuous))
        raise FramepredError(
            f"{where} knows {shape.action_size} {known} actions, the videos have {actions.size} {has} ones: "
            "train a new one"
        )


def temporal_shape(recipe: Recipe, actions: Actions) -> TemporalShape:
    """Return the shape of a temporal tokenizer for videos with these actions."""
    tok = recipe.tokenizer
    return TemporalShape(
        recipe.data.size, actions.size, actions.continuous, (tok.width, 2 * tok.width, 2 * tok.width),
        tok.encoder_blocks, 2 * tok.width, tok.levels, tok.context_levels, action_names=actions.names or (),
    )  # fmt: skip


def make_model(
    init: Run | LanguageModel | None, layout: SequenceLayout, recipe: Recipe, generator: torch.Generator
) -> tuple[Llama, dict[str, str]]:
    """Return the predictor before training, and the files of its text tokenizer by name."""
    if isinstance(init, LanguageModel):
        check_names(init, layout.vocabulary)
        # A caption takes its tokens, a marker before and after the frames, and an end.
        context = recipe.predictor.window * layout.stride + recipe.text.tokens + 3
        return extend(init, layout, context, generator), init.files
    if init is not None:
        return init.predictor.requires_grad_(True), read_text_files(init.path) if layout.vocabulary.text_size else {}
    model = Llama(llama_config(recipe.predictor, layout))
    model.initialise(generator)
    return model, {}


def make_words(
    recipe: Recipe, model: Llama, layout: SequenceLayout, text_files: Mapping[str, str],
    episodes: Sequence[TokenEpisode], texts: Sequence[str],
) -> Words | None:  # fmt: skip
    """Return the captions of the episodes and other text; None where the run knows no text or there is none."""
    if not layout.vocabulary.text_size or not (texts or any(e.captions for e in episodes)):
        return None
    end = model.config.end_of_text
    if end is None:
        raise FramepredError("the language model's config.json has no eos_token_id, which ends a caption: add it")
    tokenizer = text_tokenizer(text_files[TOKENIZER_JSON])
    read = [read_text(f) for f in find_texts(texts)]
    return Words.build(episodes, read, partial(text_ids, tokenizer), end, layout, recipe.text)


def fit_layout(
    episodes: list[TokenEpisode], stores: Sequence[str], tokenizer: Tokenizer, recipe: Recipe, text_size: int
) -> SequenceLayout:
    """Return a layout for episodes: text ids first, then their tokenizer's codes, then the actions that occur.

    Raises FramepredError where the stores' actions differ.
    """
    actions = [e.actions for e in episodes if e.actions is not None and len(e.actions)]
    space = fit_action_space(actions, names_of_stores(stores), recipe.predictor.action_bins) if actions else None
    # A frame coded given several pictures has few tokens, and each place of it its own meaning.
    cells = tokenizer.past > 1
    visual_size = tokenizer.codebook_size * (math.prod(tokenizer.grid) if cells else 1)
    vocabulary = Vocabulary(
        text_size, visual_size, space.size if space else 0, context_size=tokenizer.context_codebook_size
    )
    return SequenceLayout(vocabulary, tokenizer.grid, space, tokenizer.context_grid, recipe.predictor.scan, cells)


def common_fps(episodes: list[TokenEpisode]) -> float:
    """Return the rate that most frames have."""
    frames: Counter[float] = Counter()
    for episode in episodes:
        frames[float(f"{episode.fps:.6g}")] += len(episode.tokens)
    return frames.most_common(1)[0][0]

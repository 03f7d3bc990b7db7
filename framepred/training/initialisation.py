"""What training begins with: a new tokenizer, predictor and layout, or those of a run or a language model."""

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from framepred.config.action_names import values_of
from framepred.config.recipe import PredictorRecipe, Recipe, apply
from framepred.errors import FramepredError, FramepredWarning
from framepred.io import zoo
from framepred.llm.model import LanguageModel, check_names, extend, with_new_rows
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
from framepred.tokens.store import TokenEpisode, names_of_stores, read_store_info
from framepred.training.frames import Actions
from framepred.training.objectives import llama_config
from framepred.training.words import Words
from framepred.world.run import Run


def tokenizer_to_train(recipe: Recipe, origin: str | None, actions: Actions) -> Autoencoder | TemporalAutoencoder:
    """Return a new tokenizer for videos with these actions, or the one of `origin`."""
    loaded = load_tokenizer(zoo.tokenizer_folder(origin), fit=recipe.data.frame_size.fit) if origin else None
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
            return Autoencoder(recipe.tokenizer, recipe.data.frame_size)
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
        recipe.data.frame_size, actions.size, actions.continuous, (tok.width, 2 * tok.width, 2 * tok.width),
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
        files = read_text_files(init.path) if layout.vocabulary.text_size else {}
        same = layout == init.layout
        return (init.predictor if same else _with_actions(init, layout, generator)).requires_grad_(True), files
    model = Llama(llama_config(recipe.predictor, layout))
    model.initialise(generator)
    return model, {}


def _with_actions(init: Run, layout: SequenceLayout, generator: torch.Generator) -> Llama:
    """Return a run's predictor for a layout of other actions: their rows are new, all others are the run's."""
    known, size = init.predictor, layout.vocabulary.size
    config = replace(known.config, vocab_size=size, max_position_embeddings=init.window * layout.stride)
    weights = known.state_dict()
    for name in ("embed.weight", "head.weight"):
        weights[name] = with_new_rows(weights[name][: layout.vocabulary.action[0]], size, generator)
    if config.tie_word_embeddings:
        weights["head.weight"] = weights["embed.weight"]
    model = Llama(config)
    model.load_state_dict(weights)
    return model


def shaped_like(recipe: Recipe, init: Run) -> Recipe:
    """Return a recipe that says the shape of the run that training starts from.

    Warns of another shape that it asks for.
    """
    config = init.predictor.config
    shape = {
        "width": config.hidden_size, "layers": config.num_hidden_layers, "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads, "mlp_width": config.intermediate_size, "window": init.window,
        "scan": init.layout.scan,
    }  # fmt: skip
    for name, value in shape.items():
        asked = getattr(recipe.predictor, name)
        if asked not in (value, getattr(PredictorRecipe(), name)):
            warnings.warn(
                FramepredWarning(
                    f"predictor.{name} = {asked} is not used: {init.path.name}, which training starts from, has "
                    f"{value}; --init-from none starts from nothing"
                ),
                stacklevel=3,
            )
    return recipe if init.layout.vocabulary.text_size else apply(recipe, {"predictor": shape})


def layout_after(
    init: Run, episodes: list[TokenEpisode], stores: Sequence[str], tokenizer: Tokenizer, recipe: Recipe
) -> SequenceLayout:
    """Return the layout to go on with from a run: its own, or one with the episodes' actions where it knows others."""
    ids = [e.actions for e in episodes if e.actions is not None and len(e.actions)]
    space, names = init.layout.actions, names_of_stores(stores)
    counted = space and (space.kind == "continuous" or all(int(a.max()) < space.count for a in ids))
    if not ids or init.layout.vocabulary.text_size or (counted and knows(init, stores)):
        return init.layout
    warnings.warn(
        FramepredWarning(
            f"{init.path.name} does not know the actions {', '.join(values_of(names) or names)}: new to it"
        ),
        stacklevel=2,
    )
    made = fit_layout(episodes, stores, tokenizer, recipe, 0)
    return replace(made, scan=init.layout.scan, cells=init.layout.cells)


def known_names(init: Run | None, stores: Sequence[str]) -> tuple[str, ...] | None:
    """Return the names of actions: those of the run to go on from, where it knows the stores' actions, else theirs."""
    if init is not None and init.layout.actions and (knows(init, stores) or init.layout.vocabulary.text_size):
        return init.layout.actions.names
    return names_of_stores(stores) or None


def knows(init: Run, stores: Sequence[str]) -> bool:
    """Say whether a run knows the actions of stores by their kind and names; ids without names are taken as its own."""
    space = init.layout.actions
    kinds = {kind for store in stores if (kind := read_store_info(store).action_kind)}
    if space is None or not kinds <= {space.kind}:
        return False
    names = names_of_stores(stores)
    mine, theirs = values_of(space.names), values_of(names)
    named = set(theirs) <= set(mine) if mine else len(theirs) in (0, space.count)
    return named and sorted(names) in ([], sorted(space.names))


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

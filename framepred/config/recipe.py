"""Recipes: all settings of a run as frozen dataclasses, from and to TOML, validated; no torch."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from framepred.config.constraints import above_zero_below_one, allow, at_least, below_one, check, fraction, require
from framepred.config.frame_size import FrameSize
from framepred.config.learning import LearningRecipe, ReinforcementRecipe
from framepred.errors import FramepredError
from framepred.io.toml import overlay, read_settings, read_table

Scan = Literal["raster", "interlaced"]
"""The order of a frame's tokens: row by row, or four grids of half its height and width, one after the other."""

_REMOVED: dict[str, tuple[Any, ...]] = {
    "tokenizer.attention": (False,),
    "tokenizer.gradient": ("straight",),
    "tokenizer.residual_depth": (2,),
    "tokenizer.delta_downsampling": (0,),
    "tokenizer.delta_levels": ([8] * 4, [8] * 5),
    "tokenizer.clip_frames": (8,),
    "tokenizer.entropy_weight": (0.1, 0.02),
    "draft": ({"width": 128, "blocks": 3, "batch_size": 8, "learning_rate": 2e-3},),
}
"""Settings that older recipes still hold → their defaults, which are ignored: such files go on loading."""


def _levels(default: tuple[int, ...], about: str) -> Any:
    words = "one or more whole numbers from 2 to 64"
    return allow(default, (lambda levels: len(levels) > 0 and all(2 <= n <= 64 for n in levels), words), about=about)


def _above_zero(default: float, about: str) -> Any:
    return allow(default, (lambda value: value > 0, "above 0"), about=about)


@dataclass(frozen=True)
class DataRecipe:
    """The videos; a small source is not to be drowned by a large one."""

    size: tuple[int, int] = allow(
        (64, 64),
        (lambda size: min(size) >= 8, "at least 8 pixels a side"),
        about="height and width of a frame in pixels",
    )
    fit: Literal["auto", "crop", "pad", "stretch"] = allow(
        "auto",
        about="how pictures of another shape fit; auto: as what training begins from, else crop",
    )
    fps: float = at_least(
        0, 0.0, "frames a second that videos are resampled to", words="0 (each video's own) or a positive rate"
    )
    validation_fraction: float = below_one(0.05, "share of the videos that is held out")
    max_tokenizer_frames: int = at_least(1, 60_000, "most frames that the tokenizer is trained on")
    source_power: float = fraction(
        0.3,
        "a source is drawn by its number of frames to this power: 1 by size, 0 all sources alike (arXiv 1911.02116)",
    )

    @property
    def frame_size(self) -> FrameSize:
        """The size of frames with their fit, "auto" being crop."""
        return FrameSize(self.size, "crop" if self.fit == "auto" else self.fit)


@dataclass(frozen=True)
class TokenizerRecipe:
    """The tokenizer: an image one codes each frame by itself, a temporal one given the frames and actions before it."""

    kind: Literal["image", "temporal"] = allow(
        "image", about="image: each frame by itself; temporal: given those before it"
    )
    quantizer: Literal["fsq", "ema"] = allow("fsq", about="image: finite scalar, or a codebook that follows a mean")
    levels: tuple[int, ...] = _levels((8, 8, 4, 4), "levels of FSQ: their product is the codes; temporal: all odd")
    context_levels: tuple[int, ...] = _levels((8, 8, 6, 5), "temporal: levels of the tokens that say what the past is")
    bits: float = _above_zero(75.0, "temporal: bits that a frame is to cost; a price of bits moves until it does")
    codebook_size: int = at_least(1, 1024, "ema: number of codes")
    code_dim: int = at_least(1, 16, "ema: numbers a code has")
    distance: Literal["euclidean", "cosine"] = allow("euclidean", about="ema: which code is nearest")
    downsampling: int = allow(
        8, ((4, 8, 16).__contains__, "4, 8 or 16"), about="image: pixels a token is wide and high"
    )
    width: int = allow(
        64, (lambda n: n % 8 == 0, "a multiple of 8"), (lambda n: n >= 1, "at least 1"),
        about="channels of the first layers; twice as many below",
    )  # fmt: skip
    encoder_blocks: int = at_least(1, 2, "residual blocks of the encoder at each size")
    decoder_blocks: int = at_least(1, 3, "image: residual blocks of the decoder at each size")
    batch_size: int = at_least(1, 16, "frames in a step, or chains of frames")
    optimizer: Literal["adamw", "muon"] = allow("muon", about="of the hidden convolutions; all other weights: AdamW")
    learning_rate: float = above_zero_below_one(2e-3, "highest learning rate")
    weight_decay: float = at_least(0, 0.01, "weight decay of AdamW and Muon")
    augment: float = fraction(
        0.5, "probability of each of three changes: a pasted rectangle, other light, another view"
    )
    perceptual: str = allow("", about="safetensors file of torchvision's perceptual_net: adds LPIPS to the loss")
    perceptual_net: Literal["alex", "vgg", "squeeze"] = allow("vgg", about="which network that file is of")
    perceptual_weight: float = at_least(0, 0.1, "weight of LPIPS in the loss")
    adversarial: float = at_least(0, 0.0, "weight of a discriminator's loss; 0 trains none")
    adversarial_after: int = at_least(0, 1000, "image: step from which on it counts; temporal: a third of the budget")
    ema_decay: float = below_one(0.995, "the weights that are kept are a mean over steps: share of the mean so far")


@dataclass(frozen=True)
class PredictorRecipe:
    """The Llama that predicts the next tokens (Muon: arXiv 2502.16982)."""

    width: int = at_least(1, 256, "hidden size")
    layers: int = at_least(1, 6, "number of layers")
    heads: int = at_least(1, 4, "attention heads")
    kv_heads: int = at_least(1, 4, "heads of keys and values: a divisor of heads")
    mlp_width: int = at_least(1, 704, "width of each layer's MLP")
    window: int = at_least(2, 12, "frames that the model sees at once", words="at least 2 frames")
    scan: Scan = allow("raster", about="order of a frame's tokens: raster is learned sooner, interlaced is faster")  # noqa: RUF009
    batch_size: int = at_least(1, 6, "windows in a step")
    optimizer: Literal["adamw", "muon"] = allow("muon", about="of the hidden matrices; all other weights: AdamW")
    learning_rate: float = above_zero_below_one(4e-3, "highest learning rate")
    weight_decay: float = at_least(0, 0.1, "weight decay of AdamW and Muon")
    ema_decay: float = below_one(0.995, "the weights that are kept are a mean over steps: share of the mean so far")
    action_dropout: float = fraction(
        0.15, "share of steps in which actions are hidden, so that it predicts without too"
    )
    context_noise: float = fraction(
        0.3, "temporal: up to this share of a window's context tokens are replaced at random"
    )
    action_bins: int = allow(
        32, (lambda bins: 2 <= bins <= 1024, "2 to 1024"), about="bins that a continuous action is cut into"
    )


@dataclass(frozen=True)
class LLMRecipe:
    """How a language model is trained on (`train --init-from`); LoRA: arXiv 2106.09685."""

    layers: int = at_least(0, 0, "first layers that are kept; 0 keeps all", words="0 (all) or more")
    trained: Literal["all", "lora", "added"] = allow(
        "all", about="all weights, low-rank updates, or only the embedding rows added for frames and actions"
    )
    lora_rank: int = at_least(1, 16, "rank of the low-rank updates")
    learning_rate: float = above_zero_below_one(3e-4, "of its weights; the added rows have predictor.learning_rate")


@dataclass(frozen=True)
class TextRecipe:
    """Text beside frames and actions, for a run that knows text."""

    alone: float = fraction(0.25, "share of a batch's rows that are text alone, where --text gives any")
    captioned: float = allow(0.5, about="share of rows with a caption before or after their frames, where one exists")
    weight: float = at_least(0, 1.0, "loss weight of text tokens")
    frame_weight: float = at_least(0, 1.0, "loss weight of frame tokens")
    tokens: int = at_least(1, 64, "a caption is cut after so many tokens")


@dataclass(frozen=True)
class TrainingRecipe:
    """The training loop."""

    minutes: float = at_least(
        0, 0.0, "budget of all training together; 0: the steps decide", words="0 (not set) or more"
    )
    tokenizer_steps: int = at_least(1, 2000, "steps of the tokenizer, where no minutes are set")
    predictor_steps: int = at_least(1, 4000, "steps of the predictor, where no minutes are set")
    tokenizer_share: float = allow(
        0.3, (lambda share: 0 < share < 1, "between 0 and 1"), about="share of the minutes that the tokenizer takes"
    )
    warmup: float = allow(
        0.02, (lambda share: 0 < share <= 1, "above 0, at most 1: a share of the budget"),
        about="share of the budget in which the learning rate rises",
    )  # fmt: skip
    clip_gradient: float = _above_zero(1.0, "longest gradient; a longer one is shortened to it")
    precision: Literal["fp32", "bf16", "auto"] = allow(
        "auto", about="arithmetic of the passes; auto: bf16 where the device does so fast, else fp32; weights are fp32"
    )
    compile: bool = allow(False, about="torch.compile: faster steps after a minute or two")
    seed: int = allow(0, about="decides the initial weights and the order of the data")
    save_minutes: float = at_least(0, 2.0, "minutes between two saves for --resume")
    validate_every: int = at_least(1, 500, "steps between two validations")
    validation_batches: int = at_least(1, 8, "batches of a validation")


@dataclass(frozen=True)
class Recipe:
    """All settings of a run, as stored in RUN/recipe.toml."""

    data: DataRecipe = field(default_factory=DataRecipe)
    tokenizer: TokenizerRecipe = field(default_factory=TokenizerRecipe)
    predictor: PredictorRecipe = field(default_factory=PredictorRecipe)
    llm: LLMRecipe = field(default_factory=LLMRecipe)
    text: TextRecipe = field(default_factory=TextRecipe)
    training: TrainingRecipe = field(default_factory=TrainingRecipe)
    learning: LearningRecipe = field(default_factory=LearningRecipe)
    reinforcement: ReinforcementRecipe = field(default_factory=ReinforcementRecipe)

    def __post_init__(self) -> None:
        for part in fields(self):
            check(getattr(self, part.name), f"recipe: {part.name}.")
        # What one value allows another one.
        size, pred, text = self.data.size, self.predictor, self.text
        temporal = self.tokenizer.kind == "temporal"
        pixels, whose = (
            (16, "of a temporal tokenizer's 16")
            if temporal
            else (self.tokenizer.downsampling, f"of tokenizer.downsampling = {self.tokenizer.downsampling}")
        )
        multiples = not (size[0] % pixels or size[1] % pixels)
        require(multiples, "recipe: data.size", size, f"multiples {whose}")
        levels = self.tokenizer.levels
        odd = not temporal or all(n % 2 for n in levels)
        require(odd, "recipe: tokenizer.levels", levels, "odd numbers: the middle ones say nothing")
        even = pred.width % pred.heads == 0 and (pred.width // pred.heads) % 2 == 0
        require(even, "recipe: predictor.width", pred.width, f"an even multiple of predictor.heads = {pred.heads}")
        divides = pred.heads % pred.kv_heads == 0
        require(divides, "recipe: predictor.kv_heads", pred.kv_heads, f"a divisor of heads = {pred.heads}")
        rest = f"0 to 1 - text.alone = {1 - text.alone:g}"
        require(0 <= text.captioned <= 1 - text.alone, "recipe: text.captioned", text.captioned, rest)
        some = text.weight + text.frame_weight > 0
        require(some, "recipe: text.weight", text.weight, "above 0, or text.frame_weight is")


def load_recipe(name_or_file: str | Path | None = None) -> Recipe:
    """Read a recipe by built-in name or TOML file; what it leaves out takes the defaults."""
    return Recipe() if name_or_file is None else apply(Recipe(), read_table(name_or_file, "recipe"))


def check_sampling(temperature: float, top_k: int, top_p: float, seed: int, what: str = "") -> None:
    """Raise FramepredError, whose message begins with `what`, unless the sampling settings are allowed."""
    for name, value, holds, allowed in (
        ("temperature", temperature, 0 <= temperature <= 100, "0 (greedy) to 100"),
        ("top_k", top_k, top_k >= 0, "0 (all) or more"),
        ("top_p", top_p, 0 < top_p <= 1, "above 0, at most 1"),
        ("seed", seed, 0 <= seed < 2**63, "0 to 2^63 - 1"),
    ):
        if not holds:
            raise FramepredError(f"{what}{name} {value} is not allowed; it must be {allowed}")


def apply(recipe: Recipe, table: Mapping[str, Any]) -> Recipe:
    """Return the recipe with the values of a (nested) table in place of its own, validated."""
    result: Recipe = overlay(recipe, _without_removed(table), "recipe")
    return result


def _without_removed(table: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out removed settings at their old defaults; raise FramepredError where one has another value."""
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in table.items()}
    for key, defaults in _REMOVED.items():
        *parents, last = key.split(".")
        inner = result.get(parents[0], {}) if parents else result
        if isinstance(inner, dict) and last in inner and (value := inner.pop(last)) not in defaults:
            raise FramepredError(f"recipe: {key} = {value!r} is not allowed; the setting was removed: leave it out")
    return result


def apply_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """Return the recipe with `key=value` settings applied together, values written as in TOML."""
    # Together, because some values can only change together (predictor.heads and kv_heads).
    return apply(recipe, read_settings(settings))


def explained(recipe: Recipe) -> str:
    """Return the recipe as TOML that holds every value, each under a comment: what it is about and may be."""
    lines = []
    for part in fields(recipe):
        table = getattr(recipe, part.name)
        lines += ["", f"# {(type(table).__doc__ or '').splitlines()[0]}", f"[{part.name}]"]
        hints = get_type_hints(type(table))
        for key in fields(table):
            choices = get_args(hints[key.name]) if get_origin(hints[key.name]) is Literal else ()
            allowed = [", ".join(map(str, choices))] if choices else []
            allowed += [words for _, words in key.metadata.get("constraints", ())]
            about = key.metadata.get("about", "")
            value = json.dumps(getattr(table, key.name))
            lines += [f"# {about}" + (f" ({'; '.join(allowed)})" if allowed else ""), f"{key.name} = {value}"]
    return "\n".join(lines).lstrip("\n") + "\n"


def to_toml(recipe: Recipe) -> str:
    """Return the recipe as TOML that holds every value."""
    import tomli_w

    return tomli_w.dumps({name: dict(part) for name, part in asdict(recipe).items()})

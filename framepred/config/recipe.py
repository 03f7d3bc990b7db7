"""Recipes: all settings of a run as frozen dataclasses, from and to TOML, validated; no torch."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from framepred.config.constraints import above_zero_below_one, allow, at_least, below_one, check, fraction, require
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


def _levels(default: tuple[int, ...]) -> Any:
    words = "one or more whole numbers from 2 to 64"
    return allow(default, (lambda levels: len(levels) > 0 and all(2 <= n <= 64 for n in levels), words))


@dataclass(frozen=True)
class DataRecipe:
    """The videos: `size` (height, width) in pixels; `fps` resamples them, 0 keeps each video's own rate.

    A source is drawn with a probability proportional to its number of frames to the power `source_power`: with 1 by
    size, with 0 all sources equally often. Values in between keep a small source from being drowned by a large one,
    as multilingual models draw languages (arXiv 1911.02116, which uses 0.3).
    """

    size: tuple[int, int] = allow((64, 64), (lambda size: min(size) >= 8, "at least 8 pixels a side"))
    fps: float = at_least(0, 0.0, "0 (each video's own) or a positive rate")
    validation_fraction: float = below_one(0.05)
    max_tokenizer_frames: int = at_least(1, 60_000)
    source_power: float = fraction(0.3)


@dataclass(frozen=True)
class TokenizerRecipe:
    """The tokenizer: an image one codes each frame by itself, a `temporal` one given the frames and actions before it.

    Of an image tokenizer, grid = size / downsampling; `levels` are FSQ's, `codebook_size` and `distance` EMA VQ's.
    Of a temporal one, grid = size / 16; `levels`, all odd, are those of a frame's own tokens, `context_levels` of its
    context tokens, and a price of bits moves until a frame's take `bits`. Its widths are `width` and twice that.
    `augment` is the probability of each of three changes to a training frame (a pasted rectangle, other light, another
    view): it keeps a tokenizer from depending on the few scenes it was trained on.
    `perceptual`, a safetensors file of torchvision's `perceptual_net`, adds LPIPS with `perceptual_weight`. With
    `adversarial` above 0, a discriminator is trained beside the tokenizer; from step `adversarial_after` on (a temporal
    tokenizer's from a third of the budget on) its loss is added with that weight. `optimizer` "muon" trains the hidden
    convolutions by Muon and all other weights by AdamW.
    """

    kind: Literal["image", "temporal"] = "image"
    quantizer: Literal["fsq", "ema"] = "fsq"
    levels: tuple[int, ...] = _levels((8, 8, 4, 4))
    context_levels: tuple[int, ...] = _levels((8, 8, 6, 5))
    bits: float = allow(75.0, (lambda bits: bits > 0, "above 0"))
    codebook_size: int = at_least(1, 1024)
    code_dim: int = at_least(1, 16)
    distance: Literal["euclidean", "cosine"] = "euclidean"
    downsampling: int = allow(8, ((4, 8, 16).__contains__, "4, 8 or 16"))
    width: int = allow(64, (lambda n: n % 8 == 0, "a multiple of 8"), (lambda n: n >= 1, "at least 1"))
    encoder_blocks: int = at_least(1, 2)
    decoder_blocks: int = at_least(1, 3)
    batch_size: int = at_least(1, 16)
    optimizer: Literal["adamw", "muon"] = "muon"
    learning_rate: float = above_zero_below_one(2e-3)
    weight_decay: float = at_least(0, 0.01)
    augment: float = fraction(0.5)
    perceptual: str = ""
    perceptual_net: Literal["alex", "vgg", "squeeze"] = "vgg"
    perceptual_weight: float = at_least(0, 0.1)
    adversarial: float = at_least(0, 0.0)
    adversarial_after: int = at_least(0, 1000)
    ema_decay: float = below_one(0.995)


@dataclass(frozen=True)
class PredictorRecipe:
    """The Llama predictor: `window` is its context in frames, `batch_size` counts windows.

    `optimizer` "muon" trains the hidden matrices by Muon (arXiv 2502.16982) and all other weights by AdamW. `scan` is
    the order of a frame's tokens: "raster" is learned sooner, "interlaced" takes fewer passes to decode. In training, a
    share of up to `context_noise` of a window's context tokens are replaced by random ones.
    """

    width: int = at_least(1, 256)
    layers: int = at_least(1, 6)
    heads: int = at_least(1, 4)
    kv_heads: int = at_least(1, 4)
    mlp_width: int = at_least(1, 704)
    window: int = at_least(2, 12, "at least 2 frames")
    scan: Scan = "raster"
    batch_size: int = at_least(1, 6)
    optimizer: Literal["adamw", "muon"] = "muon"
    learning_rate: float = above_zero_below_one(4e-3)
    weight_decay: float = at_least(0, 0.1)
    ema_decay: float = below_one(0.995)
    action_dropout: float = fraction(0.15)
    context_noise: float = fraction(0.3)
    action_bins: int = allow(32, (lambda bins: 2 <= bins <= 1024, "2 to 1024"))


@dataclass(frozen=True)
class LLMRecipe:
    """How a language model is trained on (`train --init-from`).

    Its first `layers` are kept; 0 keeps all. `trained` "all" trains all weights, "lora" adds updates of rank
    `lora_rank` to its matrices (arXiv 2106.09685), "added" trains only the embedding rows that are added for frames and
    actions. Its weights learn at `learning_rate`, the added rows always at predictor.learning_rate.
    """

    layers: int = at_least(0, 0, "0 (all) or more")
    trained: Literal["all", "lora", "added"] = "all"
    lora_rank: int = at_least(1, 16)
    learning_rate: float = above_zero_below_one(3e-4)


@dataclass(frozen=True)
class TextRecipe:
    """Text beside frames and actions, for a run that knows text.

    A row of a batch is text alone with probability `alone` (where --text gives any), has a caption before or after its
    frames with probability `captioned` (where a caption exists), and is frames otherwise. `weight` is the loss weight
    of text tokens, `frame_weight` of frame tokens; a caption is cut after `tokens` tokens.
    """

    alone: float = fraction(0.25)
    captioned: float = 0.5
    weight: float = at_least(0, 1.0)
    frame_weight: float = at_least(0, 1.0)
    tokens: int = at_least(1, 64)


@dataclass(frozen=True)
class TrainingRecipe:
    """The training loop: `steps` or `minutes` of all training together (0: no limit); `precision` of the arithmetic."""

    minutes: float = at_least(0, 0.0, "0 (not set) or more")
    tokenizer_steps: int = at_least(1, 2000)
    predictor_steps: int = at_least(1, 4000)
    tokenizer_share: float = allow(0.3, (lambda share: 0 < share < 1, "between 0 and 1"))
    warmup: float = allow(0.02, (lambda share: 0 < share <= 1, "above 0, at most 1: a share of the budget"))
    clip_gradient: float = allow(1.0, (lambda norm: norm > 0, "above 0"))
    precision: Literal["fp32", "bf16"] = "bf16"
    compile: bool = False
    seed: int = 0
    save_minutes: float = at_least(0, 2.0)
    validate_every: int = at_least(1, 500)
    validation_batches: int = at_least(1, 8)


@dataclass(frozen=True)
class Recipe:
    """All settings of a run, as stored in RUN/recipe.toml."""

    data: DataRecipe = field(default_factory=DataRecipe)
    tokenizer: TokenizerRecipe = field(default_factory=TokenizerRecipe)
    predictor: PredictorRecipe = field(default_factory=PredictorRecipe)
    llm: LLMRecipe = field(default_factory=LLMRecipe)
    text: TextRecipe = field(default_factory=TextRecipe)
    training: TrainingRecipe = field(default_factory=TrainingRecipe)

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


def to_toml(recipe: Recipe) -> str:
    """Return the recipe as TOML that holds every value."""
    import tomli_w

    return tomli_w.dumps({name: dict(part) for name, part in asdict(recipe).items()})

"""Recipes: frozen dataclasses ⇄ TOML, validated; no torch."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from framepred.errors import FramepredError
from framepred.io.toml import overlay, read_settings, read_table

Scan = Literal["raster", "interlaced"]
"""In what order a frame's tokens stand: row by row, or four grids of half its height and width one after the other."""

_REMOVED: dict[str, tuple[Any, ...]] = {
    "tokenizer.attention": (False,),
    "tokenizer.gradient": ("straight",),
    "tokenizer.residual_depth": (2,),
    "tokenizer.entropy_weight": (0.1, 0.02),
    "draft": ({"width": 128, "blocks": 3, "batch_size": 8, "learning_rate": 2e-3},),
}
"""Settings that older recipes still hold → their defaults, which are ignored: such files go on loading."""


@dataclass(frozen=True)
class DataRecipe:
    """What the data looks like: `size` (height, width) in pixels; `fps` resamples, 0 keeps each video's own.

    Sources are drawn by their frames to the power `source_power`: 1 is by size, 0 all equally often. In
    between, a small source is not drowned by a large one, as multilingual models draw languages
    (arXiv 1911.02116, whose 0.3 this is).
    """

    size: tuple[int, int] = (64, 64)
    fps: float = 0.0
    validation_fraction: float = 0.05
    max_tokenizer_frames: int = 60_000
    source_power: float = 0.3


@dataclass(frozen=True)
class TokenizerRecipe:
    """The image tokenizer: grid = size / downsampling; `levels` are FSQ's, `codebook_size` and `distance` EMA VQ's.

    `delta_downsampling` 16 or 32 codes each frame given the one before it, in a grid of size / that of FSQ's
    `delta_levels` (or `codebook_size`), trained on `clip_frames` in a row; the rest is then of the keys.
    `augment` is the share of training frames that are varied in each of three ways (pasted over, in another
    light, from elsewhere): with few frames of a scene, its things are otherwise known only as they stood.
    `perceptual`, a safetensors file of torchvision's `perceptual_net`, adds LPIPS by `perceptual_weight`. With
    `adversarial`, a discriminator is trained beside, and from step `adversarial_after` on looking real to it counts
    that much beside being near. `optimizer` "muon" moves the hidden convolutions by Muon and the rest by AdamW.
    """

    quantizer: Literal["fsq", "ema"] = "fsq"
    levels: tuple[int, ...] = (8, 8, 4, 4)
    codebook_size: int = 1024
    code_dim: int = 16
    distance: Literal["euclidean", "cosine"] = "euclidean"
    downsampling: int = 8
    delta_downsampling: int = 0
    delta_levels: tuple[int, ...] = (8, 8, 8, 8)
    clip_frames: int = 8
    width: int = 64
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    batch_size: int = 16
    optimizer: Literal["adamw", "muon"] = "muon"
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    augment: float = 0.5
    perceptual: str = ""
    perceptual_net: Literal["alex", "vgg", "squeeze"] = "vgg"
    perceptual_weight: float = 0.1
    adversarial: float = 0.0
    adversarial_after: int = 1000
    ema_decay: float = 0.995


@dataclass(frozen=True)
class PredictorRecipe:
    """The Llama predictor; `window` is its context in frames, `batch_size` counts windows.

    `optimizer` "muon" moves the hidden matrices by Muon (arXiv 2502.16982) and the rest by AdamW. `scan` is the order
    of a frame's tokens: "raster" is learned sooner, "interlaced" takes fewer passes to decode.
    """

    width: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 4
    mlp_width: int = 704
    window: int = 12
    scan: Scan = "raster"
    batch_size: int = 6
    optimizer: Literal["adamw", "muon"] = "muon"
    learning_rate: float = 4e-3
    weight_decay: float = 0.1
    ema_decay: float = 0.995
    action_dropout: float = 0.15
    action_bins: int = 32


@dataclass(frozen=True)
class LLMRecipe:
    """What becomes of a language model that a run starts from (`train --init-from`).

    Its first `layers` are kept, 0 is all. `trained` "all" moves all of it, "lora" adds updates of `lora_rank` to its
    matrices (arXiv 2106.09685), "added" leaves it as it is. It learns at `learning_rate`; the rows that are added
    for frames and actions always learn, at predictor.learning_rate.
    """

    layers: int = 0
    trained: Literal["all", "lora", "added"] = "all"
    lora_rank: int = 16
    learning_rate: float = 3e-4


@dataclass(frozen=True)
class TextRecipe:
    """Text in the training of a run that knows it, beside frames and actions.

    A row of a batch is text `alone` with this probability (where --text gives any), has a caption before or behind
    its frames with that of `captioned` (where they have one), and is frames otherwise. `weight` and `frame_weight`
    are those of a token's loss; of a caption at most `tokens` are read.
    """

    alone: float = 0.25
    captioned: float = 0.5
    weight: float = 1.0
    frame_weight: float = 1.0
    tokens: int = 64


@dataclass(frozen=True)
class TrainingRecipe:
    """The loop: `steps` or `minutes` for the whole of it (0 is not set), `precision` of the arithmetic."""

    minutes: float = 0.0
    tokenizer_steps: int = 2000
    predictor_steps: int = 4000
    tokenizer_share: float = 0.3
    warmup: float = 0.02
    clip_gradient: float = 1.0
    precision: Literal["fp32", "bf16"] = "bf16"
    compile: bool = False
    seed: int = 0
    save_minutes: float = 2.0
    validate_every: int = 500
    validation_batches: int = 8


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, as stored in RUN/recipe.toml."""

    data: DataRecipe = field(default_factory=DataRecipe)
    tokenizer: TokenizerRecipe = field(default_factory=TokenizerRecipe)
    predictor: PredictorRecipe = field(default_factory=PredictorRecipe)
    llm: LLMRecipe = field(default_factory=LLMRecipe)
    text: TextRecipe = field(default_factory=TextRecipe)
    training: TrainingRecipe = field(default_factory=TrainingRecipe)

    def __post_init__(self) -> None:
        _validate(self)


def _validate(recipe: Recipe) -> None:
    data, tok, pred, loop = recipe.data, recipe.tokenizer, recipe.predictor, recipe.training
    _require(min(data.size) >= 8, "data.size", data.size, "at least 8 pixels a side")
    _require(data.fps >= 0, "data.fps", data.fps, "0 (each video's own) or a positive rate")
    _require(0 <= data.validation_fraction < 1, "data.validation_fraction", data.validation_fraction, "0 to below 1")
    _require(data.max_tokenizer_frames > 0, "data.max_tokenizer_frames", data.max_tokenizer_frames, "at least 1")
    _require(0 <= data.source_power <= 1, "data.source_power", data.source_power, "0 to 1")
    down = tok.downsampling
    _require(down in (4, 8, 16), "tokenizer.downsampling", down, "4, 8 or 16")
    _require(
        data.size[0] % down == 0 and data.size[1] % down == 0,
        "data.size",
        data.size,
        f"multiples of tokenizer.downsampling = {down}",
    )
    _require(
        len(tok.levels) > 0 and all(2 <= level <= 64 for level in tok.levels),
        "tokenizer.levels",
        tok.levels,
        "one or more whole numbers from 2 to 64",
    )
    _require(
        len(tok.delta_levels) > 0 and all(2 <= level <= 64 for level in tok.delta_levels),
        "tokenizer.delta_levels",
        tok.delta_levels,
        "one or more whole numbers from 2 to 64",
    )
    delta = tok.delta_downsampling
    _require(delta in (0, 16, 32), "tokenizer.delta_downsampling", delta, "0 (each frame for itself), 16 or 32")
    _require(
        not delta or (data.size[0] % delta == 0 and data.size[1] % delta == 0),
        "data.size",
        data.size,
        f"multiples of tokenizer.delta_downsampling = {delta}",
    )
    _require(tok.clip_frames >= 2, "tokenizer.clip_frames", tok.clip_frames, "at least 2")
    _require(tok.width % 8 == 0, "tokenizer.width", tok.width, "a multiple of 8")
    for name in ("codebook_size", "code_dim", "width", "encoder_blocks", "decoder_blocks", "batch_size"):
        _require(getattr(tok, name) >= 1, f"tokenizer.{name}", getattr(tok, name), "at least 1")
    for name in ("width", "layers", "heads", "kv_heads", "mlp_width", "batch_size"):
        _require(getattr(pred, name) >= 1, f"predictor.{name}", getattr(pred, name), "at least 1")
    _require(pred.window >= 2, "predictor.window", pred.window, "at least 2 frames")
    _require(
        pred.width % pred.heads == 0 and (pred.width // pred.heads) % 2 == 0,
        "predictor.width",
        pred.width,
        f"an even multiple of predictor.heads = {pred.heads}",
    )
    _require(pred.heads % pred.kv_heads == 0, "predictor.kv_heads", pred.kv_heads, f"a divisor of heads = {pred.heads}")
    _require(0 <= tok.augment <= 1, "tokenizer.augment", tok.augment, "0 to 1")
    for name in ("perceptual_weight", "adversarial", "adversarial_after"):
        _require(getattr(tok, name) >= 0, f"tokenizer.{name}", getattr(tok, name), "0 or more")
    _require(2 <= pred.action_bins <= 1024, "predictor.action_bins", pred.action_bins, "2 to 1024")
    _require(0 <= pred.action_dropout <= 1, "predictor.action_dropout", pred.action_dropout, "0 to 1")
    for part, value in (("tokenizer", tok), ("predictor", pred)):
        _require(0 < value.learning_rate < 1, f"{part}.learning_rate", value.learning_rate, "above 0, below 1")
        _require(value.weight_decay >= 0, f"{part}.weight_decay", value.weight_decay, "0 or more")
        _require(0 <= value.ema_decay < 1, f"{part}.ema_decay", value.ema_decay, "0 to below 1")
    _require(recipe.llm.layers >= 0, "llm.layers", recipe.llm.layers, "0 (all) or more")
    _require(recipe.llm.lora_rank >= 1, "llm.lora_rank", recipe.llm.lora_rank, "at least 1")
    _require(0 < recipe.llm.learning_rate < 1, "llm.learning_rate", recipe.llm.learning_rate, "above 0, below 1")
    text = recipe.text
    _require(0 <= text.alone <= 1, "text.alone", text.alone, "0 to 1")
    allowed = f"0 to 1 - text.alone = {1 - text.alone:g}"
    _require(0 <= text.captioned <= 1 - text.alone, "text.captioned", text.captioned, allowed)
    for name in ("weight", "frame_weight"):
        _require(getattr(text, name) >= 0, f"text.{name}", getattr(text, name), "0 or more")
    _require(text.weight + text.frame_weight > 0, "text.weight", text.weight, "above 0, or text.frame_weight is")
    _require(text.tokens >= 1, "text.tokens", text.tokens, "at least 1")
    _require(loop.minutes >= 0, "training.minutes", loop.minutes, "0 (not set) or more")
    for name in ("tokenizer_steps", "predictor_steps", "validate_every", "validation_batches"):
        _require(getattr(loop, name) >= 1, f"training.{name}", getattr(loop, name), "at least 1")
    _require(0 < loop.warmup <= 1, "training.warmup", loop.warmup, "above 0, at most 1: a share of the budget")
    _require(loop.clip_gradient > 0, "training.clip_gradient", loop.clip_gradient, "above 0")
    _require(loop.save_minutes >= 0, "training.save_minutes", loop.save_minutes, "0 or more")
    _require(0 < loop.tokenizer_share < 1, "training.tokenizer_share", loop.tokenizer_share, "between 0 and 1")


def _require(holds: bool, key: str, value: object, allowed: str) -> None:
    if not holds:
        raise FramepredError(f"recipe: {key} = {value} is not allowed; it must be {allowed}")


def load_recipe(name_or_file: str | Path | None = None) -> Recipe:
    """Read a recipe by built-in name or TOML file; what it leaves out takes the defaults."""
    return Recipe() if name_or_file is None else apply(Recipe(), read_table(name_or_file, "recipe"))


def check_sampling(temperature: float, top_k: int, top_p: float, seed: int, what: str = "") -> None:
    """Raise FramepredError, which begins with `what`, unless tokens can be drawn so."""
    for name, value, holds, allowed in (
        ("temperature", temperature, 0 <= temperature <= 100, "0 (greedy) to 100"),
        ("top_k", top_k, top_k >= 0, "0 (all) or more"),
        ("top_p", top_p, 0 < top_p <= 1, "above 0, at most 1"),
        ("seed", seed, 0 <= seed < 2**63, "0 to 2^63 - 1"),
    ):
        if not holds:
            raise FramepredError(f"{what}{name} {value} is not allowed; it must be {allowed}")


def apply(recipe: Recipe, table: Mapping[str, Any]) -> Recipe:
    """Return the recipe with a (nested) table of values laid over it, validated."""
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
    # At once, because some values must change together (predictor.heads and kv_heads).
    return apply(recipe, read_settings(settings))


def to_toml(recipe: Recipe) -> str:
    """Return the recipe as TOML, every value written out."""
    import tomli_w

    return tomli_w.dumps({name: dict(part) for name, part in asdict(recipe).items()})

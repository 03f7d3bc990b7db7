"""Recipes: TOML ⇄ dataclasses, and every value that is refused is refused by a clear line."""

import dataclasses
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from framepred.config.recipe import Recipe, apply, apply_settings, explained, load_recipe, to_toml
from framepred.errors import FramepredError, FramepredWarning, Interrupted
from framepred.io.toml import built_in

ROOT = Path(__file__).parents[2]


def test_interrupted_is_an_error_and_a_warning_is_none() -> None:
    assert issubclass(Interrupted, FramepredError)
    assert issubclass(FramepredWarning, UserWarning)
    assert not issubclass(FramepredWarning, FramepredError)


@pytest.mark.parametrize("name", [None, *built_in("recipe")])
def test_recipe_survives_toml(name: str | None, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    file = tmp_path / "recipe.toml"
    file.write_text(to_toml(recipe))
    assert load_recipe(file) == recipe


def test_toml_writes_every_value_out() -> None:
    text = to_toml(Recipe())
    for part in dataclasses.fields(Recipe):
        for value in dataclasses.fields(getattr(Recipe(), part.name)):
            assert f"\n{value.name} = " in text


def test_a_changed_value_survives_toml(tmp_path: Path) -> None:
    changed = apply(
        Recipe(), {"data": {"size": [64, 96], "fps": 12.5}, "tokenizer": {"levels": [3, 5], "quantizer": "ema"}}
    )
    file = tmp_path / "recipe.toml"
    file.write_text(to_toml(changed))
    assert load_recipe(file) == changed != Recipe()


def test_tiny_differs_from_the_defaults_only_where_it_says() -> None:
    tiny = load_recipe("tiny")
    assert tiny.data == Recipe().data
    assert (tiny.predictor.layers, tiny.tokenizer.width) == (3, 32)


BASE = apply(Recipe(), {"predictor": {"width": 320, "heads": 5, "kv_heads": 5}, "tokenizer": {"downsampling": 8}})
_REFUSED: list[tuple[str, Any, str]] = [
    ("data.size", [4, 64], "at least 8 pixels a side"),
    ("data.size", [68, 64], "multiples of tokenizer.downsampling = 8"),
    ("data.size", [64, 68], "multiples of tokenizer.downsampling = 8"),
    ("data.size", [64], "not a list of 2 numbers"),
    ("data.size", "64", "not a list of 2 numbers"),
    ("data.fps", -1.0, "0 (each video's own) or a positive rate"),
    ("data.fps", float("nan"), "0 (each video's own) or a positive rate"),
    ("data.validation_fraction", 1.0, "0 to below 1"),
    ("data.validation_fraction", -0.1, "0 to below 1"),
    ("data.max_tokenizer_frames", 0, "at least 1"),
    ("data.source_power", 1.5, "0 to 1"),
    ("tokenizer.augment", -0.1, "0 to 1"),
    ("tokenizer.downsampling", 5, "4, 8 or 16"),
    ("tokenizer.levels", [], "one or more whole numbers from 2 to 64"),
    ("tokenizer.levels", [8, 1], "one or more whole numbers from 2 to 64"),
    ("tokenizer.levels", [65], "one or more whole numbers from 2 to 64"),
    ("tokenizer.levels", [2.5], "not a int"),
    ("tokenizer.levels", 8, "not a list of"),
    ("tokenizer.quantizer", "vq", "choose one of fsq, ema"),
    ("tokenizer.distance", "manhattan", "choose one of euclidean, cosine"),
    ("tokenizer.codebook_size", 0, "at least 1"),
    ("tokenizer.code_dim", 0, "at least 1"),
    ("tokenizer.width", 0, "at least 1"),
    ("tokenizer.encoder_blocks", 0, "at least 1"),
    ("tokenizer.decoder_blocks", 0, "at least 1"),
    ("tokenizer.batch_size", 0, "at least 1"),
    ("tokenizer.learning_rate", 0.0, "above 0, below 1"),
    ("tokenizer.learning_rate", 1.0, "above 0, below 1"),
    ("tokenizer.ema_decay", 1.0, "0 to below 1"),
    ("predictor.width", 0, "at least 1"),
    ("predictor.width", 321, "an even multiple of predictor.heads = 5"),
    ("predictor.width", 315, "an even multiple of predictor.heads = 5"),
    ("predictor.layers", 0, "at least 1"),
    ("predictor.heads", 0, "at least 1"),
    ("predictor.kv_heads", 0, "at least 1"),
    ("predictor.kv_heads", 3, "a divisor of heads = 5"),
    ("predictor.mlp_width", 0, "at least 1"),
    ("predictor.batch_size", 0, "at least 1"),
    ("predictor.window", 1, "at least 2 frames"),
    ("predictor.action_bins", 1, "2 to 1024"),
    ("predictor.action_bins", 1025, "2 to 1024"),
    ("predictor.action_dropout", 1.5, "0 to 1"),
    ("predictor.learning_rate", -1e-3, "above 0, below 1"),
    ("predictor.ema_decay", -0.1, "0 to below 1"),
    ("predictor.layers", True, "not a int"),
    ("predictor.layers", 2.0, "not a int"),
    ("predictor.layers", "two", "not a int"),
    ("training.minutes", -1.0, "0 (not set) or more"),
    ("training.minutes", "ten", "not a float"),
    ("training.minutes", True, "not a float"),
    ("training.tokenizer_steps", 0, "at least 1"),
    ("training.predictor_steps", 0, "at least 1"),
    ("training.validate_every", 0, "at least 1"),
    ("training.validation_batches", 0, "at least 1"),
    ("training.tokenizer_share", 0.0, "between 0 and 1"),
    ("training.tokenizer_share", 1.0, "between 0 and 1"),
    ("training.precision", "fp16", "choose one of fp32, bf16"),
    ("training.compile", 1, "not a bool"),
]


@pytest.mark.parametrize(("key", "value", "allowed"), _REFUSED)
def test_value_that_is_not_allowed_is_named_with_what_is(key: str, value: Any, allowed: str) -> None:
    part, name = key.split(".")
    with pytest.raises(FramepredError) as caught:
        apply(BASE, {part: {name: value}})
    message = str(caught.value)
    assert key in message
    assert allowed in message
    assert "\n" not in message


_DRAFT = {"width": 128, "blocks": 3, "batch_size": 8, "learning_rate": 0.002}


def test_removed_settings_at_their_old_defaults_are_ignored() -> None:
    old = {"attention": False, "gradient": "straight", "residual_depth": 2, "entropy_weight": 0.02, "width": 32}
    table = {"tokenizer": old, "draft": _DRAFT}
    assert apply(Recipe(), table) == apply(Recipe(), {"tokenizer": {"width": 32}})
    assert old["attention"] is False, "the caller's table is left as it is"
    assert apply_settings(Recipe(), ["tokenizer.entropy_weight=0.1"]) == Recipe()


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("tokenizer", {"attention": True}, "tokenizer.attention = True"),
        ("tokenizer", {"gradient": "rotation"}, "tokenizer.gradient = 'rotation'"),
        ("tokenizer", {"residual_depth": 3}, "tokenizer.residual_depth = 3"),
        ("tokenizer", {"entropy_weight": 0.5}, "tokenizer.entropy_weight = 0.5"),
        ("draft", _DRAFT | {"width": 64}, "draft = {'width': 64,"),
    ],
)
def test_removed_settings_with_another_value_are_refused(part: str, value: dict[str, Any], words: str) -> None:
    with pytest.raises(FramepredError) as caught:
        apply(Recipe(), {part: value})
    assert str(caught.value).startswith(f"recipe: {words}")
    assert str(caught.value).endswith("is not allowed; the setting was removed: leave it out")


@pytest.mark.parametrize("file", sorted(ROOT.glob("*/*/recipe.toml")), ids=lambda file: file.parent.name)
def test_every_shipped_recipe_loads(file: Path) -> None:
    assert load_recipe(file).tokenizer.quantizer == "fsq"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"datta": {}}, ["unknown key datta", "data", "predictor"]),
        ({"data": {"sise": 3}}, ["unknown key data.sise", "data.size"]),
        ({"predictor": 3}, ["predictor is a table, not 3"]),
    ],
)
def test_unknown_key_is_named_with_the_known_ones(table: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(FramepredError) as caught:
        apply(Recipe(), table)
    for word in words:
        assert word in str(caught.value)


def test_one_number_means_a_square_and_a_whole_number_a_float() -> None:
    recipe = apply(Recipe(), {"data": {"size": 32, "fps": 10}})
    assert recipe.data.size == (32, 32)
    assert isinstance(recipe.data.fps, float)


def test_settings_apply_in_order_and_are_written_as_in_toml() -> None:
    recipe = apply_settings(
        Recipe(),
        ["predictor.layers=4", "predictor.layers=2", "data.size=[32, 48]", "tokenizer.quantizer=ema",
         'training.precision="fp32"', "training.compile=true", "data.fps = 5"],
    )  # fmt: skip
    assert recipe.predictor.layers == 2
    assert recipe.data.size == (32, 48)
    assert recipe.data.fps == 5.0
    assert recipe.tokenizer.quantizer == "ema"
    assert recipe.training.precision == "fp32"
    assert recipe.training.compile is True


def test_no_settings_change_nothing() -> None:
    assert apply_settings(load_recipe("tiny"), []) == load_recipe("tiny")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("predictor.layers", "is not key=value, for example predictor.layers=4"),
        ("predictor.layer=4", "unknown key predictor.layer"),
        ("predictor.layers=0", "predictor.layers = 0 is not allowed"),
        ("predictor.layers=many", "predictor.layers = 'many' is not a int"),
        ("predictor=4", "predictor is a table, not 4"),
        ("=4", "unknown key"),
    ],
)
def test_setting_that_is_not_allowed_is_refused(setting: str, words: str) -> None:
    with pytest.raises(FramepredError) as caught:
        apply_settings(Recipe(), [setting])
    assert words in str(caught.value)


def test_recipe_that_is_nowhere_lists_the_built_ins() -> None:
    with pytest.raises(FramepredError, match=r"neither a file nor a built-in.*doom-64.*tiny"):
        load_recipe("huge")
    with pytest.raises(FramepredError, match=r"missing\.toml does not exist"):
        load_recipe("missing.toml")


@pytest.mark.parametrize("content", [b"[data\nsize = 3", b"\xff\xfe\x00", b"{}"])
def test_recipe_file_that_is_no_toml_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "broken.toml"
    file.write_bytes(content)
    with pytest.raises(FramepredError, match="is not valid TOML"):
        load_recipe(file)


def test_recipes_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().predictor.layers = 3  # type: ignore[misc]


def test_every_setting_is_explained_where_it_is_declared() -> None:
    for part in fields(Recipe):
        for key in fields(getattr(Recipe(), part.name)):
            assert key.metadata.get("about"), f"{part.name}.{key.name}"


@pytest.mark.parametrize("name", [None, *built_in("recipe")])
def test_an_explained_recipe_is_the_recipe(name: str | None, tmp_path: Path) -> None:
    text = explained(load_recipe(name))
    (tmp_path / "mine.toml").write_text(text)
    assert load_recipe(tmp_path / "mine.toml") == load_recipe(name)
    assert max(map(len, text.splitlines())) <= 120
    assert "# attention heads (at least 1)" in text

"""Controls: a key for every action, by what its name means, and values that the run knows."""

from typing import Any

import pytest
import torch

from framepred.config.action_names import ActionNames
from framepred.errors import FramepredError
from framepred.play.controls import COMMANDS, Controls, controls_of
from framepred.sequence.actions import ActionSpace

CRAFTER = (
    "noop", "move_left", "move_right", "move_up", "move_down", "do", "sleep", "place_stone", "place_table",
    "place_furnace", "place_plant", "make_wood_pickaxe", "make_stone_pickaxe", "make_iron_pickaxe", "make_wood_sword",
    "make_stone_sword", "make_iron_sword",
)  # fmt: skip
DOOM = ("NOOP", "MOVE_RIGHT", "MOVE_LEFT", "MOVE_FORWARD", "TURN_RIGHT", "TURN_LEFT", "ATTACK")


def discrete(names: tuple[str, ...] = (), count: int = 0) -> Controls:
    return controls_of(ActionSpace("discrete", ActionNames(("action",), names), count or len(names)))


@pytest.mark.parametrize("controls", [discrete(CRAFTER), discrete(DOOM), discrete(count=6), discrete(count=20)])
def test_every_action_but_the_idle_one_has_a_key_of_its_own(controls: Controls) -> None:
    keys = [key for i, key in enumerate(controls.keys) if i != controls.idle or key]
    assert all(keys) and len(set(keys)) == len(keys) >= len(controls.names) - 1
    assert not set(keys) & set(COMMANDS.values())


def test_keys_follow_from_names() -> None:
    doom = dict(zip(DOOM, discrete(DOOM).keys, strict=True))
    assert (doom["TURN_LEFT"], doom["TURN_RIGHT"], doom["MOVE_FORWARD"]) == ("ArrowLeft", "ArrowRight", "ArrowUp")
    assert (doom["MOVE_LEFT"], doom["MOVE_RIGHT"], doom["ATTACK"], doom["NOOP"]) == ("a", "d", " ", "")
    crafter = dict(zip(CRAFTER, discrete(CRAFTER).keys, strict=True))
    assert [crafter[f"move_{way}"] for way in ("left", "right", "up", "down")] == [
        "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown",
    ]  # fmt: skip
    assert crafter["do"] == " "
    assert discrete(count=4).keys == ("0", "1", "2", "3")


def test_names_of_an_environment_are_used_where_the_run_has_none() -> None:
    space = ActionSpace("discrete", ("action",), 2)
    assert controls_of(space, ["LEFT", "RIGHT", "FIRE"]).names == ("LEFT", "RIGHT")
    assert discrete(("A", "B")).names == controls_of(ActionSpace("discrete", ActionNames(("x",), ("A", "B")), 2)).names


def test_continuous_values_reach_every_bin_and_no_further() -> None:
    space = ActionSpace("continuous", ("steer", "gas"), edges=((-0.5, 0.0, 0.5), (2.0, 3.0)))
    controls = controls_of(space)
    low, high = (controls.read([value, value]) for value in (-1e9, 1e9))
    ids = space.encode(controls.tensor([low, high]))
    assert [row.tolist() for row in ids] == [[0, 4], [3, 6]]
    assert controls.idle == (0.0, pytest.approx(2.5))
    assert controls.tensor([controls.read([0, 2.5])]).dtype == torch.float32  # type: ignore[union-attr]


@pytest.mark.parametrize("value", [[1.0], [1.0, 2.0, 3.0], [float("nan"), 0.0], [True, 0.0], ["1", 0.0], "ab", None, 3])
def test_what_is_no_action_is_refused(value: Any) -> None:
    controls = controls_of(ActionSpace("continuous", ("x", "y"), edges=((0.0,), (0.0,))))
    with pytest.raises(FramepredError, match="is not known: give 2 numbers"):
        controls.read(value)
    assert controls_of(None).read(value) is None

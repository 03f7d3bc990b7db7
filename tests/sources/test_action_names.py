"""Actions by name: words in a file, names of ids from a recording, and how files are matched to what is known."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from framepred.config.action_names import ActionNames, names_from_json, names_to_json, values_of
from framepred.errors import FramepredError
from framepred.sources.actions import join_names, order_actions
from framepred.sources.actions_csv import read_actions


def _file(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def _recording(folder: Path, **about: object) -> None:
    _file(folder / "recording.json", json.dumps({"env": "Some/Game-v1", "actions": ["noop", "jump", "duck"]} | about))


def test_words_are_the_names_of_ids(tmp_path: Path) -> None:
    ids, names = read_actions(_file(tmp_path / "a.csv", "move\nup\n left \nup\nMOVE_LEFT+FIRE\n"))
    assert (ids.dtype, names) == (torch.int64, ("move",))
    assert [values_of(names)[i] for i in ids.tolist()] == ["up", "left", "up", "MOVE_LEFT+FIRE"]
    assert names.spelled


def test_a_recording_names_the_ids_of_its_own_files(tmp_path: Path) -> None:
    _recording(tmp_path)
    ids, names = read_actions(_file(tmp_path / "Some-Game-v1-000003.actions.csv", "action\n2\n0\n"))
    assert (ids.tolist(), names.values, names.spelled) == ([2, 0], ("noop", "jump", "duck"), False)
    assert read_actions(_file(tmp_path / "other.actions.csv", "action\n2\n0\n"))[1].values == ()
    with pytest.raises(FramepredError, match=r"action id 3, and recording\.json beside it names 3 actions"):
        read_actions(_file(tmp_path / "Some-Game-v1-000004.actions.csv", "action\n3\n"))


def test_a_recording_with_the_ids_of_another_game_has_its_names(tmp_path: Path) -> None:
    file = _file(tmp_path / "Some-Game-v1-000003.actions.csv", "action\n2\n0\n")
    _recording(tmp_path, actions_of="Other-v0")
    assert read_actions(file)[1].values == ()
    _recording(tmp_path, actions_of="Other-v0", action_values=["wait", "up", "down"])
    assert read_actions(file)[1].values == ("wait", "up", "down")


@pytest.mark.parametrize("about", ["", "[]", "3", '{"env": 3, "actions": []}', '{"env": "a", "actions": [1]}'])
def test_a_recording_that_says_nothing_names_nothing(tmp_path: Path, about: str) -> None:
    _file(tmp_path / "recording.json", about)
    assert read_actions(_file(tmp_path / "a-000001.actions.csv", "action\n2\n"))[1].values == ()


_WORDS = st.lists(st.sampled_from(["left", "right", "up", "down", "wait"]), min_size=1, max_size=7)


@given(files=st.lists(_WORDS, min_size=1, max_size=4))
def test_files_that_spell_some_of_the_actions_agree_on_their_ids(files: list[list[str]]) -> None:
    read = []
    for words in files:
        own = sorted(set(words))
        read.append((torch.tensor([own.index(word) for word in words]), ActionNames(("move",), own, spelled=True)))
    kind, known = join_names(("discrete", names, f"file {i}") for i, (_, names) in enumerate(read))
    assert (kind, known, list(known.values)) == ("discrete", ("move",), sorted({w for words in files for w in words}))
    for words, (ids, names) in zip(files, read, strict=True):
        assert [known.values[i] for i in order_actions(ids, names, known, "a").tolist()] == words


def test_values_that_are_known_keep_their_ids_and_new_ones_come_after() -> None:
    known = ActionNames(("move",), ("right", "left"))
    found = [("discrete", ActionNames(("move",), ("left", "up"), spelled=True), "a")]
    _, joined = join_names(found, known)
    assert joined.values == ("right", "left", "up")
    ids = order_actions(torch.tensor([0, 1, 0]), found[0][1], joined, "a")
    assert ids.tolist() == [1, 2, 1]
    with pytest.raises(FramepredError, match="a has the action 'up', which is not known: give one of right, left"):
        order_actions(torch.tensor([0, 1, 0]), found[0][1], known, "a")
    # What is listed and never taken does not matter.
    assert order_actions(torch.tensor([0, 0]), found[0][1], known, "a").tolist() == [1, 1]


def test_numbers_are_ids_where_a_file_names_nothing_or_nothing_is_known() -> None:
    ids, known = torch.tensor([2, 0]), ActionNames(("move",), ("a", "b", "c"))
    assert order_actions(ids, ("move",), known, "f") is ids
    assert order_actions(ids, known, ("move",), "f") is ids
    spelled = ActionNames(("move",), ("a", "b", "c"), spelled=True)
    with pytest.raises(FramepredError, match=r"f names actions .'a'., and the ids of 'move' have no names here"):
        order_actions(ids, spelled, ("move",), "f")


def test_what_cannot_be_one_set_of_actions_is_refused() -> None:
    named, numbered = ("discrete", ActionNames(("m",), ("x",)), "one.csv"), ("discrete", ("m",), "two.csv")
    for order in ([named, numbered], [numbered, named]):
        with pytest.raises(FramepredError, match=r"one\.csv has names of its actions, two\.csv only numbers"):
            join_names(order)
    for other in (("discrete", ("n",), "b"), ("continuous", ("m",), "b"), ("continuous", ("m", "n"), "b")):
        with pytest.raises(FramepredError, match=r"b has .* actions .*two\.csv has discrete .*holds one kind"):
            join_names([numbered, other])
    assert join_names([]) == (None, ())


def test_names_survive_json() -> None:
    for names in (ActionNames(("a", "b")), ActionNames(("a",), ("x", "y"))):
        again = names_from_json(json.loads(json.dumps(names_to_json(names))))
        assert (again, again.values) == (names, names.values)

"""SOURCE arguments: addresses, and a source that another package adds by an entry point."""

from pathlib import Path

import pytest
import torch
from installing import install

from framepred.errors import FramepredError
from framepred.sources.find import Address, find_episode, find_episodes, source_of, with_choices

DUMMY = """
from dataclasses import dataclass
import torch
from framepred.sources.contract import StoredEpisode, VideoInfo, refuse_unknown

@dataclass(frozen=True)
class Grey(StoredEpisode):
    number: int
    source: str
    action_names: tuple = None
    actions_from = "grey"
    num_bytes = 0
    state = "always"
    name = property(lambda self: f"grey{self.number}")
    where = property(lambda self: f"{self.source}#{self.number}")
    key = where

    def info(self):
        return VideoInfo(8, 8, 10.0, 5, 0.5, "none")

    def stream_timed(self, size, fps, chunk=64):
        for at in range(0, 5, chunk):
            n = min(chunk, 5 - at)
            yield torch.full((n, 3, *size), 10 * self.number, dtype=torch.uint8), (at + torch.arange(n)).double() / 10

    def captions(self, times, fps):
        return ()

    def own_actions(self):
        return torch.arange(8.0).view(4, 2) + self.number, ("x", "y")

def find(where, choices):
    refuse_unknown(choices, ("shade",), f"grey:{where}")
    return [Grey(i, f"grey:{where}") for i in range(int(where))]
"""


@pytest.fixture
def grey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is installed and adds the source `grey:COUNT`, and one that cannot be loaded."""
    named = "[framepred.sources]\ngrey = grey_source:find\nbroken = not_there:find\n"
    install(tmp_path, monkeypatch, "grey_source", DUMMY, named)


def test_a_package_adds_a_source(grey: None) -> None:
    episodes = find_episodes(["grey:3", "grey:3#1"])
    assert [e.name for e in episodes] == ["grey0", "grey1", "grey2"]
    read = find_episode("grey:3#2").ordered(("y", "x")).read((4, 6), max_frames=3)
    assert read.frames.shape == (3, 3, 4, 6) and bool((read.frames == 20).all())
    assert torch.equal(read.actions, torch.tensor([[3.0, 2.0], [5.0, 4.0], [7.0, 6.0]]))
    assert read.times.tolist() == [0.0, 0.1, 0.2]
    assert [e.name for e in find_episodes(["grey:9#7:"])] == ["grey7", "grey8"]
    assert [e.name for e in find_episodes(["grey:9#2:4"])] == ["grey2", "grey3"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("grey:3#3", "episodes 0 to 2"),
        ("grey:3?size=4", "no choice 'size'.*shade"),
        ("broken:1", "cannot be loaded"),
        ("nothing:1", "nothing: is no kind of source.*broken:, grey:"),
        ("clips/none.mp4", "does not exist"),
    ],
)
def test_what_is_wrong_with_a_source_is_one_line(grey: None, source: str, says: str) -> None:
    with pytest.raises(FramepredError, match=says) as caught:
        find_episodes([source])
    assert "\n" not in str(caught.value)
    with pytest.raises(FramepredError, match="holds 3 episodes, one is wanted: give grey:3#0 to #2"):
        find_episode("grey:3")


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Address.parse("videos/clip.mp4") is None and Address.parse("C:/clip.mp4") is None
    assert Address.parse("lerobot:what?").where == "what?"
    full = Address.parse("lerobot:hf://o/n?camera=top%20one&split=train#2:")
    assert full == Address("lerobot", "hf://o/n", (("camera", "top one"), ("split", "train")), slice(2, None))
    assert Address.parse("lerobot:/a/b#7").episodes == slice(7, 8)
    assert Address.parse("lerobot:/a/b#:7").episodes == slice(0, 7)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:name.mp4").touch()
    assert Address.parse("odd:name.mp4") is None


def test_the_source_of_an_episode() -> None:
    assert source_of("videos/a.mp4") == "videos" and source_of("a.mp4") == "."
    assert source_of("lerobot:x?camera=top#3") == "lerobot:x?camera=top" and source_of("hf:x") == "hf:x"


def test_choices_of_options_are_added_to_addresses_only() -> None:
    assert with_choices("videos", {"camera": "top"}) == "videos"
    made = with_choices("lerobot:x?split=a#3", {"camera": "top & left", "columns": "frames=image,actions=a"})
    assert Address.parse(made) == Address(
        "lerobot", "x", (("split", "a"), ("camera", "top & left"), ("columns", "frames=image,actions=a")), slice(3, 4)
    )
    assert with_choices("held=lerobot:x", {"camera": "top"}) == "held=lerobot:x?camera=top"

"""The experiment in curiosity counts each state once, at the frames that were recorded."""

import runpy
from pathlib import Path

import pytest

pytest.importorskip("gymnasium")

from recording.recording_worlds import Painter, registered

from framepred.errors import FramepredError
from framepred.recording.environment import Environment, open_environment
from framepred.recording.gym import Recording, record
from framepred.sources.folder import find_videos

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "reproduce_curiosity"), run_name="script")


def test_a_state_counts_once_and_only_in_so_many_frames() -> None:
    a, b, c = (0, 0, 0), (0, 0, 1), (0, 1, 0)
    assert SCRIPT["covered"]([[a, a, b], [b, c]], 5) == (3, [1, 1, 2, 2, 3])
    assert SCRIPT["covered"]([[a, a, b], [b, c]], 4) == (2, [1, 1, 2, 2])


def test_states_are_those_of_the_recorded_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with registered({"test/Counted-v0": (Painter, {})}):
        list(record(Recording("test/Counted-v0", 2, 9, (32, 32), policy="random"), tmp_path))
        with open_environment("test/Counted-v0", (32, 32)) as env:
            for video in find_videos([tmp_path]):
                with pytest.raises(FramepredError, match="does not tell where its player is"):
                    SCRIPT["states_of"](env, video.path)
                with monkeypatch.context() as patch:
                    # The place is what the frame shows.
                    patch.setattr(Environment, "place", lambda e: (64.0 * e._env.unwrapped.paint, -1.0, 359.0))
                    states = SCRIPT["states_of"](env, video.path)
                painted = video.read((32, 32), with_actions=False).frames[:, 0, 0, 0].tolist()
                assert states == [(paint, -1, 7) for paint in painted]

"""The frames that tokenizers are trained on."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from framepred.sources.actions_csv import write_actions
from framepred.sources.folder import VideoFile
from framepred.training.frames import known_actions, sample_frames


def test_of_a_long_video_every_so_many_frames_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = torch.arange(1200)[:, None, None, None].expand(-1, 3, 1, 1).to(torch.int16)

    def stream(self: VideoFile, size: tuple[int, int], fps: float | None) -> tuple[Tensor, ...]:
        return frames.split(62)

    monkeypatch.setattr(VideoFile, "stream", stream)
    monkeypatch.setattr(VideoFile, "info", lambda _: type("Info", (), {"num_frames": 1200}))
    found = sample_frames([VideoFile(tmp_path / "a.mp4", "s")], (1, 1), 300, False)
    assert found.runs == (300,)
    assert found.groups == ("s",) * 300
    assert found.frames[:, 0, 0, 0].tolist() == list(range(0, 1200, 4))


def test_sources_take_turns(clips_dir: Path) -> None:
    videos = [VideoFile(clips_dir / f"clip{i}.mp4", "a" if i < 4 else "b") for i in range(5)]
    found = sample_frames(videos, (8, 8), 30, False)
    assert found.runs == (24, 6)
    assert {*found.groups} == {"a", "b"}


@pytest.mark.parametrize("unit", [1e-44, 1e-20, 1.0, 1e30])
def test_continuous_actions_of_any_unit_are_scaled_to_numbers_that_tell_them_apart(tmp_path: Path, unit: float) -> None:
    actions = torch.tensor([[0.0, 5.0], [0.0, 5.0], [3.0, 5.0], [-1.0, 5.0]]) * unit
    write_actions(tmp_path / "a.actions.csv", actions, ["steer", "gas"])
    known = known_actions([VideoFile(tmp_path / "a.mp4", "s")])
    assert known.mean is not None
    assert known.scale is not None
    told = (actions - known.mean) / known.scale
    assert bool(told.isfinite().all())
    assert float(told[:, 0].max() - told[:, 0].min()) > 1e-7
    if unit > 1e-40:
        assert float(told[:, 0].std(correction=0)) == pytest.approx(1.0, abs=1e-3)
    assert float(told[:, 1].abs().max()) < 1e-5

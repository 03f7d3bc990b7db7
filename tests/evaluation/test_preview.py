"""The preview page, and the check whether actions are shifted against frames."""

import json
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import moving_square

from framepred.cli import cli
from framepred.evaluation.alignment import align
from framepred.sources.actions_csv import write_actions
from framepred.video.write import write_video

pytest.importorskip("jinja2")


def clips(folder: Path, shift: int = 0) -> Path:
    """Write two videos of a square that actions move; row t of the actions is of step t + shift."""
    folder.mkdir()
    for seed in (0, 1):
        frames, actions = moving_square(seed, 60)
        write_video(folder / f"c{seed}.mp4", frames, 10.0, lossless=True)
        write_actions(folder / f"c{seed}.actions.csv", actions.roll(-shift), ("move",))
    return folder


def ball(actions: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return frames of a ball on a smooth path, and the positions or the speeds that lead to each next frame."""
    steps = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)).unfold(0, 5, 1).mean(2) * 5
    path = 16 * torch.tanh(torch.cumsum(steps, 0) / 16)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    away = (y - 32 - path[:, 0, None, None]).square() + (x - 32 - path[:, 1, None, None]).square()
    frames = (60 + 150 * torch.exp(-away / 60)).to(torch.uint8)[:, None].expand(-1, 3, -1, -1)
    return frames, path[1:] if actions == "positions" else path.diff(dim=0)


@pytest.mark.parametrize("kind", ["positions", "speeds"])
@pytest.mark.parametrize("late", [-1, 0, 1])
def test_lag_of_continuous_actions(kind: str, late: int) -> None:
    frames, actions = ball(kind)
    found = align([(frames, actions.roll(late, 0))])
    assert found.best == -late and (found.warning is None) == (late == 0)


@pytest.mark.parametrize("late", [-2, -1, 0, 1])
def test_lag_of_discrete_actions(late: int) -> None:
    found = align([(frames, actions.roll(late)) for frames, actions in map(moving_square, (0, 1), (60, 60))])
    assert found.best == -late and (found.warning is None) == (late == 0)
    if late == 1:
        assert "written 1 frame late" in found.warning


def test_nothing_is_said_of_noise_stills_and_few_steps() -> None:
    noise = torch.randint(0, 256, (200, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    actions = torch.arange(200) % 4
    assert align([(noise, actions)]).warning is None
    still = align([(torch.full_like(noise, 90), actions)])
    assert still.warning is None and max(still.scores.values()) == 0
    assert align([(noise[:20], actions)]) is None


def test_the_page_shows_actions_between_frames(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ["preview", str(clips(tmp_path / "right")), "-o", str(page), "--frames", "10", "--json"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    made = json.loads(result.stdout)
    assert made["episodes"] == 2 and made["warning"] is None and made["lags"]["0"] > 0.2
    html = page.read_text()
    assert html.count("data:image/jpeg;base64") == 2 and "http" not in html
    # Frames are 96 wide: action t stands in the middle between frame t and t + 1.
    _, actions = moving_square(0, 60)
    cells = re.findall(r'<text x="(\d+)" y="21" text-anchor="middle">(\d)</text>', html)
    assert [(int(x), int(a)) for x, a in cells[:10]] == [(96 * (t + 1), int(actions[t])) for t in range(10)]
    again = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert again.exit_code == 1 and "exists already" in again.output


def test_shifted_actions_are_a_warning(tmp_path: Path) -> None:
    arguments = ["preview", str(clips(tmp_path / "late", shift=-1)), "-o", str(tmp_path / "page.html")]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and "warning: actions seem to be written 1 frame late" in result.stderr
    assert "written 1 frame late" in (tmp_path / "page.html").read_text()


def test_what_is_shown_is_never_overwritten(tmp_path: Path) -> None:
    folder = clips(tmp_path / "right")
    for file in sorted(folder.iterdir()):
        before = file.read_bytes()
        result = CliRunner().invoke(cli, ["preview", str(folder), "-o", str(file), "--overwrite"])
        assert result.exit_code == 1 and "would delete the input" in result.stderr
        assert file.read_bytes() == before


def test_a_long_name_of_an_action_is_cut_and_told_whole_under_the_pointer(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving_square(0, 4)[0], 10.0, lossless=True)
    name = "make_a_very_long_wooden_sword"
    (tmp_path / "a.actions.csv").write_text(f"action\nleft\n{name}\nleft\nleft\n")
    page = tmp_path / "page.html"
    assert CliRunner().invoke(cli, ["preview", str(tmp_path / "a.mp4"), "-o", str(page)]).exit_code == 0
    labels = re.findall(r'text-anchor="middle">([^<]*)</text>', page.read_text())
    assert labels[0] == "left"
    # Letters are about 6.5 pixels wide, a frame is 96.
    assert labels[1].endswith("…") and name.startswith(labels[1][:-1]) and 8 < len(labels[1]) < 96 / 6.5
    assert f"<title>{name}</title>" in page.read_text()

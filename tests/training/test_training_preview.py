"""RUN/preview.png: it shows what training has reached, and changes nothing of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_recipe
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from framepred.config.recipe import TrainingRecipe, apply_settings
from framepred.tokens.store import read_store
from framepred.training import loop
from framepred.training.loop import Budget, Stage, fit, make_accelerator
from framepred.training.pipeline import Job, train
from framepred.training.preview import FRAMES, draw_given_back, draw_prediction
from framepred.world.run import load_run

pytestmark = [
    pytest.mark.filterwarnings("ignore::framepred.errors.FramepredWarning"),
    pytest.mark.usefixtures("one_thread"),
]
SHORT = ["training.tokenizer_steps=4", "training.predictor_steps=4", "training.validate_every=2"]


def trained(clips: Path, out: Path, *settings: str) -> Path:
    for _ in train(Job([str(clips)], out, apply_settings(tiny_recipe(), [*SHORT, *settings]))):
        pass
    return out


def picture(file: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)


@pytest.fixture(scope="module")
def drawn(clips_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(clips_dir, tmp_path_factory.mktemp("drawn") / "run")


def test_drawing_changes_no_weight(
    clips_dir: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.Preview, "update", lambda self, at_end: None)
    plain = trained(clips_dir, tmp_path / "plain")
    assert (drawn / "preview.png").is_file()
    assert not (plain / "preview.png").exists()
    for name in ("model.safetensors", "tokenizer/model.safetensors"):
        one, other = load_file(drawn / name), load_file(plain / name)
        assert all(torch.equal(one[key], other[key]) for key in one | other)


def test_the_last_picture_is_of_the_run_that_was_saved(drawn: Path) -> None:
    run, episodes = load_run(drawn), read_store(drawn / "tokens")
    # One of the five is held out.
    by_clip = [draw_prediction(run, [episode]) for episode in episodes]
    assert sum(torch.equal(picture(drawn / "preview.png"), made) for made in by_clip if made is not None) == 1


def test_short_clips_are_shown_as_far_as_they_go(clips_dir: Path, tiny_run: Path) -> None:
    run, episode = load_run(tiny_run), read_store(tiny_run / "tokens")[0]
    whole, short, two = (
        draw_prediction(run, part) for part in ([episode], [episode.part(0, 6)], [episode, episode.part(0, 6), episode])
    )
    assert whole is not None and short is not None and two is not None
    assert short.shape[2] < whole.shape[2]
    assert two.shape == (3, 2 * whole.shape[1], whole.shape[2])
    assert draw_prediction(run, [episode.part(0, 4)]) is None


def test_a_later_part_has_not_the_first_picture_of_the_whole(tiny_run: Path) -> None:
    episode = replace(read_store(tiny_run / "tokens")[0], first=torch.zeros(3, 64, 64, dtype=torch.uint8))
    assert [episode.part(*ends).first is None for ends in ((0, 9), (None, 9), (3, None), (-4, None))] == [
        False, False, True, True,
    ]  # fmt: skip


def test_frames_stand_above_those_given_back() -> None:
    dark, bright = (torch.full((FRAMES, 3, 8, 8), value, dtype=torch.uint8) for value in (10, 250))
    upper, lower = draw_given_back(dark, bright)[:, 22:].chunk(2, 1)
    assert (upper == 10).sum() > (lower == 10).sum() and (lower == 250).sum() > (upper == 250).sum()


def test_drawing_takes_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    drawn: list[float] = []
    model = nn.Linear(1, 1)

    def loss(run: nn.Module, step: int, fraction: float) -> tuple[Tensor, dict[str, float]]:
        clock[0] += 1.0
        return run(torch.ones(1, 1)).square().sum(), {}

    def draw() -> Tensor:
        drawn.append(clock[0])
        clock[0] += 2.0
        return torch.zeros(3, 8, 8, dtype=torch.uint8)

    stage = Stage("toy", model, loss, lambda _: {"validation_loss": 1.0}, 0.01, 0.0, 0.9, 1, "rows", preview=draw)
    recipe = replace(TrainingRecipe(), precision="fp32", validate_every=5)
    for _ in fit(stage, make_accelerator(), Budget(400), recipe, tmp_path):
        pass
    # At the first validation and at the end in any case.
    assert drawn[0] == 5.0
    assert 3 < len(drawn) <= 1 + 0.03 * clock[0] / 2 + 1
    assert drawn[-1] == clock[0] - 2.0
    assert picture(tmp_path / "preview.png").shape == (3, 8, 8)

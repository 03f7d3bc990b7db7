"""Teacher forcing sees what a rollout would see, and nothing of the frame it scores."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from framepred.config.recipe import Scan
from framepred.decoding.sampling import Sampling
from framepred.sources.actions_csv import read_actions
from framepred.video.read import read_video
from framepred.world.likelihood import token_logits
from framepred.world.rollout import predict
from framepred.world.run import Run, load_run


@pytest.fixture(scope="module")
def run(tiny_run: Path) -> Run:
    return load_run(tiny_run)


@pytest.fixture(scope="module")
def seen(run: Run, clips_dir: Path) -> tuple[torch.Tensor, torch.Tensor]:
    return run.tokenizer.encode(read_video(clips_dir / "clip0.mp4").frames), read_actions(
        clips_dir / "clip0.actions.csv"
    )[0]


@pytest.mark.parametrize("with_actions", [True, False])
@pytest.mark.parametrize("scan", get_args(Scan))
def test_a_greedy_rollout_is_what_teacher_forcing_finds_likeliest(
    run: Run, seen: tuple[torch.Tensor, torch.Tensor], with_actions: bool, scan: Scan
) -> None:
    tokens, given = seen
    run = replace(run, layout=replace(run.layout, scan=scan))
    actions = given if with_actions else None
    # Longer than the window, so that it slides.
    made = [p.tokens[0] for p in predict(run, tokens[:2], actions, 14, 1, Sampling(0.0))]
    whole = torch.cat([tokens[:2], torch.stack(made)])
    expected = dict(token_logits(run, whole, actions))
    assert list(expected) == list(range(1, 16))
    assert all(torch.equal(expected[f].argmax(-1), whole[f].flatten()) for f in range(2, 16))


def test_a_token_is_scored_by_its_past_alone(run: Run, seen: tuple[torch.Tensor, torch.Tensor]) -> None:
    tokens, actions = seen
    changed = tokens.clone()
    changed[3, 4:] = (changed[3, 4:] + 1) % run.tokenizer.codebook_size
    before, after = dict(token_logits(run, tokens, actions)), dict(token_logits(run, changed, actions))
    assert torch.allclose(before[2], after[2], atol=1e-5)
    # Row 4 begins at place 32, whose own logits are the last that the change cannot touch.
    assert torch.allclose(before[3][:33], after[3][:33], atol=1e-5)
    assert not torch.allclose(before[3][33:], after[3][33:], atol=1e-5)


def test_actions_lead_to_the_frame_after_them(run: Run, seen: tuple[torch.Tensor, torch.Tensor]) -> None:
    tokens, actions = seen
    other = actions.clone()
    other[2] = (other[2] + 1) % 4
    before, after = dict(token_logits(run, tokens, actions)), dict(token_logits(run, tokens, other))
    assert torch.allclose(before[2], after[2], atol=1e-6)
    assert not torch.equal(before[3], after[3])

"""What-if likelihoods are those of the sequence written out with another action or another past."""

from pathlib import Path
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from framepred.config.recipe import Scan
from framepred.predictor.config import LlamaConfig
from framepred.predictor.llama import Llama
from framepred.sequence.actions import ActionSpace
from framepred.sequence.layout import SequenceLayout
from framepred.sequence.vocabulary import Vocabulary
from framepred.world.counterfactual import (
    Pasts,
    after_other_actions,
    after_other_pasts,
    candidate_actions,
    join_pasts,
    take_past,
)
from framepred.world.likelihood import token_logits
from framepred.world.run import Run
from framepred.world.session import window_start

DISCRETE = ActionSpace("discrete", ("a",), count=4)
CONTINUOUS = ActionSpace("continuous", ("x", "y"), edges=((0.0,), (-1.0, 1.0)))
SPACES = pytest.mark.parametrize("space", [None, DISCRETE, CONTINUOUS], ids=["none", "discrete", "continuous"])


def build(space: ActionSpace | None, window: int = 5, scan: Scan = "raster") -> Run:
    """Return a run of random weights in float64 whose frames are 2 x 3 tokens of 16 codes; it needs no tokenizer."""
    torch.manual_seed(0)
    layout = SequenceLayout(Vocabulary(0, 16, space.size if space else 0), (2, 3), space, scan=scan)
    predictor = Llama(LlamaConfig(layout.vocabulary.size, 16, 24, 2, 2, 2, window * layout.stride))
    for parameter in predictor.parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape) * 0.4
    return Run(Path("random"), predictor.double().eval(), None, layout, window, 10.0, "")  # type: ignore[arg-type]


def footage(space: ActionSpace | None, frames: int = 13, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 16, (frames, 2, 3), generator=generator)
    if space is None:
        return tokens, None
    shape = (frames,) if space.kind == "discrete" else (frames, 2)
    noise = torch.rand(shape, generator=generator)
    return tokens, (noise * 4).long() if space.kind == "discrete" else noise * 4 - 2


def written_out(run: Run, tokens: Tensor, action_ids: Tensor, frame: Tensor) -> float:
    """Return log p of `frame` after the ids of whole frames and an action each, by one plain pass."""
    ids = run.layout.pack(torch.cat([tokens, frame[None]]), action_ids)
    with torch.inference_mode():
        logits = run.predictor(ids[None])[0, :-1]
    count = run.layout.frame_tokens
    visual = logits[-count:, slice(*run.layout.vocabulary.visual)]
    return -float(F.cross_entropy(visual, frame.flatten(), reduction="sum"))


@pytest.mark.parametrize("space", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_another_action_changes_the_last_action_and_nothing_else(space: ActionSpace) -> None:
    run, (tokens, actions) = build(space), footage(space)
    assert actions is not None
    ids = run.layout.action_ids(actions, len(tokens))
    candidates = candidate_actions(run.layout, ids)
    made = dict(after_other_actions(run, tokens, actions, candidates))
    assert list(made) == list(range(1, 13))
    for frame in (1, 2, 5, 12):
        start = window_start(frame, run.window)
        for k, candidate in enumerate(candidates):
            told = torch.cat([ids[start : frame - 1], candidate[None]])
            expected = written_out(run, tokens[start:frame], told, tokens[frame])
            assert float(made[frame][k]) == pytest.approx(expected, abs=1e-9)
    assert all(len(set(m.tolist())) > 1 for m in made.values())


@pytest.mark.parametrize("scan", get_args(Scan))
def test_the_action_given_is_as_likely_as_teacher_forcing_says(scan: Scan) -> None:
    run, (tokens, actions) = build(DISCRETE, scan=scan), footage(DISCRETE)
    assert actions is not None
    made = dict(after_other_actions(run, tokens, actions, candidate_actions(run.layout, actions[:, None])))
    for frame, logits in token_logits(run, tokens, actions):
        plain = -float(F.cross_entropy(logits.double(), tokens[frame].flatten(), reduction="sum"))
        assert float(made[frame][actions[frame - 1]]) == pytest.approx(plain, abs=1e-4)


@SPACES
def test_another_past_is_the_strangers_frames_and_the_footages_action(space: ActionSpace | None) -> None:
    run, (tokens, actions) = build(space), footage(space, 6)
    others = [take_past(run, *footage(space, 9, seed)) for seed in (1, 2, 3)]
    pasts = join_pasts([p for p in others if p])
    assert pasts is not None
    assert len(pasts) == 3
    made = dict(after_other_pasts(run, tokens, actions, pasts))
    assert list(made) == [1, 2, 3, 4, 5]
    ids = run.layout.action_ids(actions, len(tokens))
    for frame, values in made.items():
        for k, value in enumerate(values):
            told = torch.cat([pasts.action_ids[k], ids[frame - 1][None]])
            assert float(value) == pytest.approx(written_out(run, pasts.tokens[k], told, tokens[frame]), abs=1e-9)


def test_a_past_is_three_frames_from_the_middle_with_the_actions_between() -> None:
    run, (tokens, actions) = build(DISCRETE), footage(DISCRETE, 9)
    assert actions is not None
    past = take_past(run, tokens, actions)
    assert past is not None
    assert torch.equal(past.tokens[0], tokens[3:6])
    assert torch.equal(past.action_ids[0, :, 0] - run.layout.vocabulary.action[0], actions[3:5])
    assert (past.without_actions(run.layout).action_ids == run.layout.vocabulary.no_action).all()
    assert take_past(run, tokens[:2], actions) is None


def test_a_past_leaves_room_for_the_frame_in_a_small_window() -> None:
    run, (tokens, actions) = build(DISCRETE, window=2), footage(DISCRETE, 4)
    past = take_past(run, tokens, actions)
    assert past is not None
    assert past.tokens.shape == (1, 1, 2, 3)
    assert len(dict(after_other_pasts(run, tokens, actions, past))) == 3


def test_pasts_are_joined_and_left_out() -> None:
    parts = [Pasts(torch.full((1, 3, 2, 3), i), torch.full((1, 2, 1), i)) for i in range(4)]
    joined = join_pasts(parts)
    assert joined is not None
    assert joined.without(2).tokens[:, 0, 0, 0].tolist() == [0, 1, 3]
    assert joined.without(2).action_ids[:, 0, 0].tolist() == [0, 1, 3]
    assert len(joined.without(None)) == 4
    assert join_pasts([]) is None


def test_candidates_are_all_of_a_small_space_or_what_occurs_most() -> None:
    small = SequenceLayout(Vocabulary(0, 16, 4), (2, 3), DISCRETE)
    assert candidate_actions(small, torch.tensor([[17]])).tolist() == [[16], [17], [18], [19]]
    large = SequenceLayout(Vocabulary(0, 16, 90), (2, 3), ActionSpace("discrete", ("a",), count=90))
    taken = torch.tensor([[16 + i % 20] for i in range(59)] + [[35]] * 9)
    found = candidate_actions(large, taken)
    assert len(found) == 16
    assert found[0].tolist() == [35]

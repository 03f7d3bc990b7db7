"""Rollout: a deterministic function of run, context, actions and seed, however long and however many."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from framepred.config.recipe import Recipe, Scan, apply
from framepred.decoding.engine import DECODERS
from framepred.decoding.sampling import Sampling
from framepred.errors import FramepredError
from framepred.predictor.config import LlamaConfig
from framepred.predictor.llama import Llama
from framepred.sequence.actions import ActionSpace
from framepred.sequence.layout import SequenceLayout
from framepred.sequence.vocabulary import Vocabulary
from framepred.tokenizer.image import Autoencoder
from framepred.video.read import Clip
from framepred.world.rollout import check_actions, ensemble_mean, predict, rollout
from framepred.world.run import Run
from framepred.world.session import window_start

SIZE, WINDOW = (16, 24), 5
DISCRETE = ActionSpace("discrete", ("a",), count=4)
CONTINUOUS = ActionSpace("continuous", ("x", "y"), edges=((0.0,), (-1.0, 1.0)))


def build(space: ActionSpace | None = DISCRETE, window: int = WINDOW, scan: Scan = "raster") -> Run:
    """Return a run of random weights in float64: no two logits are nearly equal."""
    torch.manual_seed(0)
    table = {"levels": [4, 4], "width": 8, "encoder_blocks": 1, "decoder_blocks": 1}
    tokenizer = Autoencoder(apply(Recipe(), {"data": {"size": list(SIZE)}, "tokenizer": table}).tokenizer, SIZE).eval()
    layout = SequenceLayout(Vocabulary(0, 16, space.size if space else 0), tokenizer.grid, space, scan=scan)
    config = LlamaConfig(layout.vocabulary.size, 16, 24, 2, 2, 2, window * layout.stride, tie_word_embeddings=False)
    predictor = Llama(config)
    for parameter in predictor.parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape) * 0.4
    return Run(Path("random"), predictor.double().eval(), tokenizer, layout, window, 10.0, "")


@pytest.fixture(scope="module", params=get_args(Scan))
def run(request: pytest.FixtureRequest) -> Run:
    return build(scan=request.param)


def context_tokens(frames: int = 3, seed: int = 0) -> Tensor:
    return torch.randint(0, 16, (frames, 2, 3), generator=torch.Generator().manual_seed(seed))


def random_actions(space: ActionSpace | None, count: int = 40, seed: int = 0) -> Tensor | None:
    generator = torch.Generator().manual_seed(seed)
    if space is None:
        return None
    return (
        torch.randint(0, 4, (count,), generator=generator)
        if space.kind == "discrete"
        else torch.randn(count, 2, generator=generator)
    )


def futures(
    run: Run, tokens: Tensor, actions: Tensor | None, horizon: int, samples: int = 1, seed: int = 0, **more: Any
) -> Tensor:
    """Return predicted tokens (S, T, h, w)."""
    sampling = Sampling(seed=seed, **{k: more.pop(k) for k in ("temperature", "top_k", "top_p") if k in more})
    return torch.stack([p.tokens for p in predict(run, tokens, actions, horizon, samples, sampling, **more)], 1)


def test_same_seed_same_future_other_seed_another(run: Run) -> None:
    tokens, actions = context_tokens(), random_actions(DISCRETE)
    one = futures(run, tokens, actions, 12, samples=2, seed=1)
    assert torch.equal(one, futures(run, tokens, actions, 12, samples=2, seed=1))
    assert not torch.equal(one, futures(run, tokens, actions, 12, samples=2, seed=2))


def test_sample_s_is_the_same_whatever_their_number(run: Run) -> None:
    many = futures(run, context_tokens(), random_actions(DISCRETE), 12, samples=4)
    for count in (1, 2, 3):
        assert torch.equal(futures(run, context_tokens(), random_actions(DISCRETE), 12, samples=count), many[:count])
    assert len({tuple(sample.flatten().tolist()) for sample in many}) == 4


def test_a_shorter_horizon_is_the_beginning_of_a_longer_one(run: Run) -> None:
    long = futures(run, context_tokens(), random_actions(DISCRETE), 14)
    assert torch.equal(futures(run, context_tokens(), random_actions(DISCRETE), 5), long[:, :5])


@pytest.mark.parametrize("space", [None, DISCRETE, CONTINUOUS], ids=["none", "discrete", "continuous"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("scan", get_args(Scan))
def test_decoders_agree_far_beyond_the_window(
    space: ActionSpace | None, temperature: float, samples: int, scan: Scan
) -> None:
    run, actions = build(space, scan=scan), random_actions(space)
    made = {
        name: futures(run, context_tokens(), actions, 13, samples, temperature=temperature, decoder=name)
        for name in ("sequential", "speculative", "auto")
    }
    assert torch.equal(made["sequential"], made["speculative"])
    assert torch.equal(made["sequential"], made["auto"])


@given(window=st.integers(2, 40), frame=st.integers(1, 400))
def test_the_window_slides_forward_and_is_never_empty_nor_overfull(window: int, frame: int) -> None:
    start = window_start(frame, window)
    assert 0 <= start <= window_start(frame + 1, window)
    # The frame that is being predicted takes a place in the window as well.
    assert frame - start <= window - 1
    assert frame - start >= min(frame, window // 2)


@pytest.mark.parametrize("window", [2, 3, 4, 5, 8])
def test_the_window_moves_once_in_half_a_window(window: int) -> None:
    starts = [window_start(frame, window) for frame in range(1, 200)]
    moves = [i for i, (a, b) in enumerate(pairwise(starts)) if a != b]
    assert {b - a for a, b in pairwise(moves)} == {window - window // 2}


@pytest.mark.parametrize("window", [2, 3, 5])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_frame_past_the_window_is_what_a_fresh_start_there_predicts(window: int, temperature: float) -> None:
    run, tokens, actions = build(window=window), context_tokens(2), random_actions(DISCRETE)
    made = futures(run, tokens, actions, 14, samples=2, temperature=temperature)
    for sample, future in enumerate(made):
        whole = torch.cat([tokens, future])
        for frame in range(3, 16):
            fresh = futures(run, whole[:frame], actions, 1, samples=2, temperature=temperature)
            assert torch.equal(fresh[sample, 0], whole[frame])


def test_frame_is_what_the_model_says_of_exactly_its_window(run: Run) -> None:
    tokens, actions = context_tokens(2), random_actions(DISCRETE)
    assert actions is not None
    whole = torch.cat([tokens, futures(run, tokens, actions, 12, temperature=0)[0]])
    ids = run.layout.action_ids(actions, 20)
    for frame in range(2, 14):
        start = window_start(frame, run.window)
        sequence = run.layout.pack(whole[start:frame], ids[start:frame])
        for token in run.layout.scanned(whole[frame].flatten()[None])[0].tolist():
            with torch.inference_mode():
                logits = run.predictor(sequence[None])[0, -1, slice(*run.layout.vocabulary.visual)]
            assert int(logits.argmax()) == token
            sequence = torch.cat([sequence, torch.tensor([token + run.layout.vocabulary.visual[0]])])


def test_what_left_the_window_is_forgotten(run: Run) -> None:
    tokens, other, actions = context_tokens(9), context_tokens(9, seed=1), random_actions(DISCRETE)
    start = window_start(9, run.window)
    assert start > 0
    other[start:] = tokens[start:]
    assert torch.equal(futures(run, tokens, actions, 4), futures(run, other, actions, 4))
    other[start] = (tokens[start] + 1) % 16
    assert not torch.equal(futures(run, tokens, actions, 4), futures(run, other, actions, 4))


def test_actions_change_the_future_and_only_the_future(run: Run) -> None:
    actions = random_actions(DISCRETE)
    assert actions is not None
    changed = actions.clone()
    changed[5] = (changed[5] + 1) % 4
    before, after = (futures(run, context_tokens(), a, 9, samples=3) for a in (actions, changed))
    # Action 5 leads from frame 5 to frame 6, which is the fourth after a context of three.
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3], after[:, 3])


def test_the_last_action_that_counts_is_the_one_before_the_last_frame(run: Run) -> None:
    actions = random_actions(DISCRETE)
    assert actions is not None
    changed = actions.clone()
    changed[3 + 5 - 1 :] = 0
    exact = actions[: 3 + 5 - 1]
    expected = futures(run, context_tokens(), actions, 5)
    assert torch.equal(futures(run, context_tokens(), changed, 5), expected)
    assert torch.equal(futures(run, context_tokens(), exact, 5), expected)


def test_no_actions_are_not_action_zero(run: Run) -> None:
    zeros = torch.zeros(40, dtype=torch.int64)
    assert not torch.equal(futures(run, context_tokens(), None, 6), futures(run, context_tokens(), zeros, 6))


def test_predictions_know_where_they_are_and_what_they_cost(run: Run) -> None:
    made = list(predict(run, context_tokens(), None, 8, 2, decoder="sequential"))
    assert [p.index for p in made] == list(range(3, 11))
    assert all(a.passes < b.passes for a, b in pairwise(made))
    # Six tokens a frame one by one, and a reading of the context wherever the window has moved.
    starts = {window_start(frame, run.window) for frame in range(3, 11)}
    assert made[-1].passes == 6 * 8 + len(starts)
    assert made[0].frames.shape == (2, 3, *SIZE)
    assert made[0].frames.dtype == torch.uint8
    assert made[0].tokens.shape == (2, 2, 3)
    assert torch.equal(made[0].frames, run.tokenizer.decode(made[0].tokens))


def test_frames_come_one_by_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    hidden = Llama.hidden
    monkeypatch.setattr(Llama, "hidden", lambda self, ids, *rest: read.append(ids.shape[1]) or hidden(self, ids, *rest))
    future = predict(run, context_tokens(), None, 100_000)
    assert read == []
    next(future)
    first = len(read)
    next(future)
    assert 0 < first < len(read) <= first + run.layout.frame_tokens + 1


def clip(frames: int = 8, size: tuple[int, int] = SIZE) -> Clip:
    return Clip(
        torch.randint(0, 256, (frames, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(5)), 10.0
    )


def test_rollout_yields_frames_or_samples_of_frames(run: Run) -> None:
    plain = list(rollout(run, clip(), context=3, horizon=4, seed=7))
    several = list(rollout(run, clip(), context=3, horizon=4, seed=7, samples=2))
    assert [f.shape for f in plain] == [(3, *SIZE)] * 4
    assert [f.shape for f in several] == [(2, 3, *SIZE)] * 4
    assert all(torch.equal(a, b[0]) for a, b in zip(plain, several, strict=True))
    tokens = run.tokenizer.encode(clip().frames[:3])
    assert torch.equal(
        torch.stack(plain), torch.cat([p.frames for p in predict(run, tokens, None, 4, 1, Sampling(seed=7))])
    )


def test_rollout_sees_the_context_alone(run: Run) -> None:
    cut = Clip(clip().frames[:3], 10.0)
    pairs = zip(rollout(run, clip(), context=3, horizon=4), rollout(run, cut, context=3, horizon=4), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_rollout_fits_frames_of_another_size(run: Run) -> None:
    assert [f.shape for f in rollout(run, clip(size=(40, 50)), context=2, horizon=2)] == [(3, *SIZE)] * 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context": 0}, "context 0 is not allowed: give a whole number from 1 to 100000"),
        ({"horizon": 0}, "horizon 0 is not allowed"),
        ({"horizon": -3}, "horizon -3 is not allowed"),
        ({"horizon": 1_000_001}, "horizon 1000001 is not allowed"),
        ({"samples": 0}, "samples 0 is not allowed: give a whole number from 1 to 4096"),
        ({"samples": 5000}, "samples 5000 is not allowed"),
        ({"ensemble": 0}, "ensemble 0 is not allowed: give a whole number from 1 to 4096"),
        ({"ensemble": 2, "samples": 1}, "samples 1 are shown one by one, ensemble 2 as their mean: give one"),
        ({"context": 9}, "the clip has 8 frames, fewer than the context of 9; give a smaller context"),
        ({"decoder": "magic"}, "decoder 'magic' is not known; give one of auto, sequential, speculative"),
        ({"temperature": -1.0}, "temperature -1.0 is not allowed"),
        ({"actions": torch.zeros(18, dtype=torch.int64)}, "actions: 18 rows, 19 are needed (context + horizon - 1)"),
        ({"actions": torch.full((19,), 4)}, "action id 4 is not allowed; the model knows ids 0 to 3"),
        ({"actions": torch.zeros(19, 2)}, "these are continuous"),
    ],
)
def test_what_cannot_be_predicted_is_refused(run: Run, options: dict[str, Any], words: str) -> None:
    with pytest.raises(FramepredError) as caught:
        next(iter(rollout(run, clip(), **options)))
    assert words in str(caught.value)


def test_enough_actions_are_enough(run: Run) -> None:
    made: Iterator[Tensor] = rollout(run, clip(), torch.zeros(19, dtype=torch.int64), context=4, horizon=16)
    assert len(list(made)) == 16


def test_actions_for_a_model_without_are_refused() -> None:
    with pytest.raises(FramepredError, match="was trained without actions; give --actions none"):
        check_actions(build(None), torch.zeros(3, dtype=torch.int64), 2)
    check_actions(build(None), None, 2)


def test_the_runs_own_temperature_is_used_where_none_is_given(run: Run) -> None:
    warm, cold = replace(run, temperature=2.0), replace(run, temperature=0.0)

    def frames(run: Run, **given: float) -> Tensor:
        return torch.stack(list(rollout(run, clip(), horizon=2, **given)))  # type: ignore[arg-type]

    assert torch.equal(frames(warm), frames(run, temperature=2.0))
    assert torch.equal(frames(cold), frames(warm, temperature=0.0))
    assert not torch.equal(frames(cold), frames(warm))


def test_an_ensemble_is_the_mean_of_its_futures(run: Run) -> None:
    several = torch.stack(list(rollout(run, clip(), context=3, horizon=5, samples=6)), 1)
    mean = several.float().mean(0).round().byte()
    made = torch.stack(list(rollout(run, clip(), context=3, horizon=5, ensemble=6)))
    assert torch.equal(made, run.tokenizer.decode(run.tokenizer.encode(mean)))
    assert not torch.equal(made, run.tokenizer.decode(run.tokenizer.encode(several[0])))


def test_an_ensemble_of_one_is_the_future_itself(run: Run) -> None:
    tokens = context_tokens()
    alone = list(predict(run, tokens, None, 5))
    frames = torch.cat([made.frames for made in alone])
    mean = list(ensemble_mean(run, tokens, predict(run, tokens, None, 5)))
    assert [made.index for made in mean] == [made.index for made in alone]
    assert [made.passes for made in mean] == [made.passes for made in alone]
    assert torch.equal(torch.cat([m.tokens for m in mean]), run.tokenizer.encode(frames))
    assert torch.equal(torch.cat([m.frames for m in mean]), run.tokenizer.decode(run.tokenizer.encode(frames)))


def test_the_decoders_give_the_same_mean(run: Run) -> None:
    made = [torch.stack(list(rollout(run, clip(), horizon=9, ensemble=4, decoder=d))) for d in DECODERS]
    assert torch.equal(made[0], made[1])


def test_one_future_is_shown_where_nothing_is_asked_for(run: Run) -> None:
    one, several = list(rollout(run, clip(), horizon=3)), list(rollout(run, clip(), horizon=3, samples=1))
    assert torch.equal(torch.stack(one), torch.cat(several))

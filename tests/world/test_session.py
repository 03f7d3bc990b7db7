"""A session: what it yields is a function of the run, the context, the actions and the seed, however it is driven."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from framepred.decoding.engine import DECODERS
from framepred.decoding.sampling import Sampling
from framepred.errors import FramepredError
from framepred.predictor.config import LlamaConfig
from framepred.predictor.kv_cache import KVCache
from framepred.predictor.llama import Llama
from framepred.sequence.actions import ActionSpace
from framepred.sequence.layout import SequenceLayout
from framepred.sequence.vocabulary import Vocabulary
from framepred.tokenizer.contract import FrameByFrame, Tokenizer, actions_before
from framepred.video.read import Clip
from framepred.world.likelihood import token_logits
from framepred.world.rollout import predict, rollout
from framepred.world.run import Run
from framepred.world.session import Session, window_start

SIZE, WINDOW, CODES = (4, 6), 5, 16
DISCRETE = ActionSpace("discrete", ("a",), count=4)
CONTINUOUS = ActionSpace("continuous", ("x", "y"), edges=((0.0,), (-1.0, 1.0)))


class Pixels(FrameByFrame):
    """A frame of 4x6 pixels is 2x3 tokens of 16 codes: how bright each 2x2 pixels are."""

    codebook_size, grid, frame_size = CODES, (2, 3), SIZE

    def encode(self, frames: Tensor, actions: Tensor | None = None) -> Tensor:
        return (frames[:, 0, ::2, ::2] // 16).long()

    def decode(self, tokens: Tensor, actions: Tensor | None = None, first: Tensor | None = None) -> Tensor:
        shown = (tokens * 16).byte().repeat_interleave(2, 1).repeat_interleave(2, 2)
        return shown[:, None].expand(-1, 3, -1, -1).contiguous()


class Temporal:
    """A frame of 2x3 tokens is coded as what the two pictures before it and the last two actions do not say.

    The context token says how bright the last of them is at its corner.
    """

    codebook_size, grid, frame_size, past, past_actions = CODES, (2, 3), SIZE, 2, 2
    context_grid, context_codebook_size = (1, 1), CODES

    def expected(self, pictures: Tensor, actions: Tensor | None) -> Tensor:
        weights = torch.tensor([1, 2])
        assert pictures.shape[1:] == (2, 3, *SIZE)
        told = torch.zeros(len(pictures), dtype=torch.int64)
        if actions is not None:
            assert actions.shape[:2] == (len(pictures), 2)
            values = actions.nan_to_num(-1).flatten(2).sum(-1) if actions.is_floating_point() else actions
            told = ((values + 1) * 3 * weights).sum(1).long()
        seen = (pictures[:, :, 0, ::2, ::2].long() // 16 * weights[:, None, None]).sum(1)
        return seen + told[:, None, None]

    def encode_context(self, pictures: Tensor, actions: Tensor | None) -> Tensor:
        return pictures[:, -1, 0, :1, 0].long() // 16

    def encode_next(self, pictures: Tensor, actions: Tensor | None, frames: Tensor) -> Tensor:
        return (frames[:, 0, ::2, ::2].long() // 16 - self.expected(pictures, actions)) % CODES

    def decode_next(self, pictures: Tensor, actions: Tensor | None, tokens: Tensor) -> Tensor:
        return Pixels().decode((tokens + self.expected(pictures, actions)) % CODES)

    def encode_stream(self, chunks: Any, actions: Tensor | None = None) -> Any:
        pictures, count = None, 0
        for chunk in chunks:
            rows = []
            for frame in chunk[:, None]:
                if pictures is None:
                    pictures = self.begin(frame[:, 0, :1, 0].long() // 16)
                given = actions_before(self, actions, count)
                own = self.encode_next(pictures, given, frame)
                rows.append(torch.cat([self.encode_context(pictures, given), own.flatten(1)], 1))
                pictures, count = self.seen(pictures, given, own, count), count + 1
            yield torch.cat(rows)

    def encode(self, frames: Tensor, actions: Tensor | None = None) -> Tensor:
        return torch.cat(list(self.encode_stream([frames], actions)))

    def decode(self, tokens: Tensor, actions: Tensor | None = None, first: Tensor | None = None) -> Tensor:
        pictures, frames = self.begin(tokens[:1, :1]), []
        for count, row in enumerate(tokens[:, None]):
            pictures = self.seen(pictures, actions_before(self, actions, count), row[:, 1:].view(1, 2, 3), count)
            frames.append(pictures[:, 1])
        return torch.cat(frames)

    def begin(self, corner: Tensor) -> Tensor:
        return (corner * 16).byte()[:, None, None, :, None].expand(1, 2, 3, *SIZE)

    def seen(self, pictures: Tensor, given: Tensor | None, own: Tensor, count: int) -> Tensor:
        shown = self.decode_next(pictures, given, own)
        return torch.stack([shown if count == 0 else pictures[:, 1], shown], 1)


def build(space: ActionSpace | None = DISCRETE, tokenizer: Any = None, text: int = 0) -> Run:
    """Return a run of random weights in float64: no two logits are nearly equal."""
    torch.manual_seed(0)
    tokenizer = tokenizer or Pixels()
    # As where a run of a temporal tokenizer is trained.
    cells = tokenizer.past > 1
    vocabulary = Vocabulary(
        text, CODES * (6 if cells else 1), space.size if space else 0, tokenizer.context_codebook_size
    )
    layout = SequenceLayout(vocabulary, (2, 3), space, tokenizer.context_grid, "interlaced", cells)
    predictor = Llama(LlamaConfig(vocabulary.size, 16, 24, 2, 2, 2, WINDOW * layout.stride + 9))
    for parameter in predictor.parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape) * 0.4
    predictor.double().eval().requires_grad_(False)
    return Run(Path("random"), predictor, tokenizer, layout, WINDOW, 10.0, "")


def frames_of(count: int = 3, seed: int = 0) -> Tensor:
    values = torch.randint(0, CODES, (count, 2, 3), generator=torch.Generator().manual_seed(seed))
    return Pixels().decode(values)


def actions_of(space: ActionSpace | None, count: int = 20, seed: int = 0) -> Tensor | None:
    generator = torch.Generator().manual_seed(seed)
    if space is None:
        return None
    discrete = space.kind == "discrete"
    return (
        torch.randint(0, 4, (count,), generator=generator) if discrete else torch.randn(count, 2, generator=generator)
    )


def begin(run: Run, actions: Tensor | None, context: int = 3, **options: Any) -> Session:
    return run.session(frames_of(context), None if actions is None else actions[: context - 1], **options)


def walk(session: Session, actions: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
    """Step so often → frames uint8 (S, T, 3, H, W) and tokens (S, T, …)."""
    made = []
    for _ in range(count):
        shown = session.step(None if actions is None else actions[session.frame - 1])
        made.append((shown, session.tokens))
    return torch.stack([f for f, _ in made], 1), torch.stack([t for _, t in made], 1)


CASES = pytest.mark.parametrize(
    ("space", "tokenizer"),
    [(None, None), (DISCRETE, None), (CONTINUOUS, None), (DISCRETE, Temporal()), (CONTINUOUS, Temporal())],
    ids=["none", "discrete", "continuous", "discrete-temporal", "continuous-temporal"],
)


@CASES
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("prompt", [None, [2, 0, 1]])
def test_stepping_is_one_call(
    space: ActionSpace | None, tokenizer: Any, decoder: str, samples: int, prompt: list[int] | None
) -> None:
    # Twelve frames are more than the window: it slides several times.
    run, actions = build(space, tokenizer, text=4), actions_of(space)
    words = None if prompt is None else torch.tensor(prompt)
    tokens = torch.cat(list(run.tokenizer.encode_stream([frames_of(3)], None if actions is None else actions[:2])))
    moments = list(predict(run, tokens, actions, 12, samples, Sampling(seed=3), decoder, words))
    session = begin(run, actions, samples=samples, seed=3, decoder=decoder, prompt=words)
    frames, made = walk(session, actions, 12)
    assert torch.equal(made, torch.stack([m.tokens for m in moments], 1))
    assert torch.equal(frames, torch.stack([m.frames for m in moments], 1))
    assert session.passes == moments[-1].passes
    assert len({tuple(row.flatten().tolist()) for row in made}) == samples


@CASES
def test_a_greedy_frame_is_what_one_plain_pass_says(space: ActionSpace | None, tokenizer: Any) -> None:
    run, actions = build(space, tokenizer), actions_of(space)
    tokens = torch.cat(list(run.tokenizer.encode_stream([frames_of(3)], None if actions is None else actions[:2])))
    session = begin(run, actions, temperature=0.0)
    whole = torch.cat([tokens, walk(session, actions, 12)[1][0]])
    ids = run.layout.action_ids(actions, 20)
    for frame in range(3, 15):
        start = window_start(frame, WINDOW)
        sequence = run.layout.pack(whole[start : frame + 1], ids[start:frame])
        with torch.inference_mode():
            logits = run.predictor(sequence[None])[:, -7:-1, slice(*run.layout.vocabulary.visual)]
            logits = run.layout.own_logits(logits)[0]
        assert torch.equal(run.layout.unscanned(logits.argmax(-1)[None])[0], run.layout.steps(whole)[frame])


@CASES
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("samples", [1, 3])
def test_rewinding_and_stepping_again_gives_the_same(
    space: ActionSpace | None, tokenizer: Any, decoder: str, samples: int
) -> None:
    run, actions, other = build(space, tokenizer), actions_of(space), actions_of(space, seed=1)
    session = begin(run, actions, samples=samples, decoder=decoder)
    start = session.mark()
    first = walk(session, actions, 4)
    middle = session.mark()
    rest = walk(session, actions, 6)
    for moment, expected, count in ((middle, rest, 6), (start, first, 4), (middle, rest, 3), (start, first, 2)):
        session.rewind(moment)
        strange = walk(session, other, 5)
        session.rewind(moment)
        made = walk(session, actions, count)
        assert all(torch.equal(a, b[:, :count]) for a, b in zip(made, expected, strict=True))
        assert space is None or not torch.equal(strange[1][:, :count], made[1][:, : strange[1].shape[1]])


@CASES
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_forks_go_their_own_ways_and_the_session_its_own(
    space: ActionSpace | None, tokenizer: Any, decoder: str, steps: int
) -> None:
    run, actions, other = build(space, tokenizer), actions_of(space), actions_of(space, seed=1)
    session = begin(run, actions, samples=2, decoder=decoder)
    for _ in range(steps):
        walk(session, actions, 1)
    expected = walk(session.fork(), actions, 6)
    many = session.fork(3)
    assert many.samples == 6
    made = walk(many, actions, 6)
    assert all(torch.equal(a[:2], b) for a, b in zip(made, expected, strict=True))
    walk(session.fork([1, 1, 0]), other, 3)
    # A fork of two futures of a session of six: each has what its origin had seen.
    again = many.fork([5, 0])
    last = walk(again, other, 2)[1]
    assert torch.equal(last[1:], walk(many.fork([0, 0]), other, 2)[1][1:])
    own = walk(session, actions, 6)
    assert all(torch.equal(a, b) for a, b in zip(own, expected, strict=True))


@CASES
@pytest.mark.parametrize("steps", [1, 2, 4, 9])
def test_a_sample_that_restarts_goes_on_from_its_new_past_and_the_others_from_theirs(
    space: ActionSpace | None, tokenizer: Any, steps: int
) -> None:
    run, actions = build(space, tokenizer), actions_of(space)
    session, calm = (begin(run, actions, samples=3, temperature=0.0) for _ in range(2))
    walk(session, actions, steps), walk(calm, actions, steps)
    assert session.seen == session.frame - window_start(session.frame, WINDOW)
    frames = frames_of(session.seen, seed=5)
    other = actions_of(space, seed=5)
    before = run.session(frames, None if other is None else other[: session.seen - 1], temperature=0.0)
    session.restart([1], [before.mark()])
    # As long as neither window slides, its future is that of a session of its own; the others notice nothing.
    alone = min(WINDOW - session.seen, 3)
    for step in range(3):
        action = None if actions is None else actions[step]
        shown, expected, own = session.step(action), calm.step(action), before.step(action)
        assert torch.equal(shown[[0, 2]], expected[[0, 2]])
        assert step >= alone or torch.equal(shown[1], own[0])
        # Greedy and without actions, all pasts of this run lead to the same frame.
        assert space is None or not torch.equal(session.tokens[1], calm.tokens[1])


def test_a_past_of_another_length_is_refused() -> None:
    run, actions = build(), actions_of(DISCRETE)
    session = begin(run, actions, samples=2)
    moment = run.session(frames_of(2), actions[:1]).mark()
    with pytest.raises(FramepredError, match="a past of 2 frames cannot stand in a session that sees 3"):
        session.restart([0], [moment])


def test_an_action_for_each_future() -> None:
    run = build()
    session = begin(run, actions_of(DISCRETE)).fork(4)
    made = session.step(torch.tensor([0, 1, 2, 3]))
    for action in range(4):
        alone = begin(run, actions_of(DISCRETE), samples=4)
        assert torch.equal(alone.step(action)[action], made[action])


@CASES
@pytest.mark.parametrize("samples", [1, 3])
def test_what_is_observed_is_weighed_as_in_one_teacher_forced_pass(
    space: ActionSpace | None, tokenizer: Any, samples: int
) -> None:
    run, actions, frames = build(space, tokenizer), actions_of(space), frames_of(12)
    tokens = torch.cat(list(run.tokenizer.encode_stream([frames], actions)))
    expected, ids = dict(token_logits(run, tokens, actions)), run.layout.action_ids(actions, 20)
    session = run.session(frames[:2], None if actions is None else actions[:1], samples=samples)
    for frame in range(2, 12):
        seen = session.observe(frames[frame], None if actions is None else actions[frame - 1])
        assert (seen.frame, seen.logits.shape) == (frame, (1, 6, CODES))
        assert torch.equal(seen.tokens, run.layout.steps(tokens)[frame][None])
        assert torch.allclose(seen.logits[0].float(), expected[frame], atol=1e-5)
        start = window_start(frame, WINDOW)
        sequence = run.layout.pack(tokens[start : frame + 1], ids[start:frame])
        with torch.inference_mode():
            plain = run.predictor(sequence[None])[:, -7:-1, slice(*run.layout.vocabulary.visual)]
            plain = run.layout.own_logits(plain)[0]
        plain = run.layout.unscanned(plain[None])[0].log_softmax(-1)
        assert torch.allclose(seen.nll[0], -plain.gather(1, seen.tokens.T)[:, 0], atol=1e-9)
        assert torch.allclose(seen.entropy[0], -(plain.exp() * plain).sum(1), atol=1e-9)
    # And it goes on from what was observed.
    after = run.session_after(tokens, actions, samples)
    assert torch.equal(session.step(None if actions is None else actions[11]), after.step(
        None if actions is None else actions[11]
    ))  # fmt: skip


def test_each_future_is_surprised_by_itself() -> None:
    run, actions = build(), actions_of(DISCRETE)
    session = begin(run, actions, samples=3)
    walk(session, actions, 2)
    seen = session.observe(frames_of(1, seed=7)[0], 1)
    assert seen.nll.shape == (3, 6)
    assert len(seen.nll.sum(1).unique()) == 3
    alone = session.fork([1])
    alone.rewind(alone.mark())
    assert torch.equal(alone.tokens, session.tokens[1:2])


def test_64_forks_share_what_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    run, actions, forks = build(), actions_of(DISCRETE), list[tuple[KVCache, KVCache]]()
    session = begin(run, actions)
    session.step(actions[2])
    fork = KVCache.fork
    monkeypatch.setattr(KVCache, "fork", lambda self, rows: forks.append((self, fork(self, rows))) or forks[-1][1])
    many = session.fork(64)
    (before, after), *more = forks
    assert not more and (after.rows, before.rows) == (64, 1)
    assert after.prefix.data_ptr() == before.data.data_ptr()
    assert after.prefix.shape[2] == 1 and after.prefix.shape[4] == before.length
    many.step(torch.arange(64) % 4)
    assert len(forks) == 1 and after.length > before.length


def test_64_samples_are_one_prefill(monkeypatch: pytest.MonkeyPatch) -> None:
    read, hidden = list[tuple[int, ...]](), Llama.hidden
    monkeypatch.setattr(Llama, "hidden", lambda self, ids, *r: read.append(tuple(ids.shape)) or hidden(self, ids, *r))
    run = build()
    begin(run, actions_of(DISCRETE), samples=64).step(torch.arange(64) % 4)
    assert read[0][0] == 1 and read[0][1] > 2 * run.layout.stride - 2
    assert sum(rows * length for rows, length in read[1:]) <= 64 * (2 + 6 * 6)


def test_the_dummy_is_a_tokenizer() -> None:
    assert isinstance(Temporal(), Tokenizer) and isinstance(Pixels(), Tokenizer)
    frames, actions = frames_of(8), actions_of(DISCRETE)
    tokens = Temporal().encode(frames, actions)
    assert torch.equal(Temporal().decode(tokens, actions), frames)
    assert not torch.equal(Temporal().decode(tokens, None), frames)


@pytest.mark.parametrize("space", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
@pytest.mark.parametrize("options", [{"samples": 2}, {"ensemble": 3}])
def test_a_temporal_tokenizer_goes_through_a_rollout(space: ActionSpace, options: dict[str, int]) -> None:
    run, actions = build(space, Temporal()), actions_of(space)
    made = torch.stack(list(rollout(run, Clip(frames_of(8), 10.0), actions, 3, 9, **options)))
    assert made.shape == ((9, 2, 3, *SIZE) if "samples" in options else (9, 3, *SIZE))
    if "samples" in options:
        frames, _ = walk(begin(run, actions, samples=2), actions, 9)
        assert torch.equal(made.transpose(0, 1), frames)
    else:
        several = torch.stack(list(rollout(run, Clip(frames_of(8), 10.0), actions, 3, 9, samples=3)))
        # The tokens say exactly what pictures and actions do not: only the sixteen codes are lost.
        assert torch.equal(made // 16, several.float().mean(1).round().byte() // 16)


@pytest.mark.parametrize(
    ("space", "action", "words"),
    [
        (None, 1, "action 1 is not allowed: the model was trained without actions"),
        (DISCRETE, 4, "action: action id 4 is not allowed; the model knows ids 0 to 3"),
        (DISCRETE, torch.zeros(3, dtype=torch.int64), "is not one, nor one for each of the samples"),
        (DISCRETE, 0.5, "these are continuous"),
        (CONTINUOUS, [1.0], "action: 1 columns, the model takes 2: x, y"),
        (CONTINUOUS, [1.0, float("nan")], "a value is not finite"),
    ],
)
def test_an_action_that_cannot_be_is_refused(space: ActionSpace | None, action: Any, words: str) -> None:
    session = begin(build(space), actions_of(space), samples=2)
    before = session.mark()
    with pytest.raises(FramepredError, match=words):
        session.step(action)
    assert session.mark() is before


def test_what_a_session_cannot_do_is_refused() -> None:
    run = build(tokenizer=Temporal())
    session = begin(run, actions_of(DISCRETE), samples=2)
    for rows in (0, [], [2], [-1]):
        with pytest.raises(FramepredError):
            session.fork(rows)
    session.step(1)
    with pytest.raises(FramepredError, match="a moment of 2 samples"):
        session.fork(2).rewind(session.mark())
    blind = run.token_session(run.tokenizer.encode(frames_of(2)), None)
    with pytest.raises(FramepredError, match="without pictures"):
        blind.step(1)

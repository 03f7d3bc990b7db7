"""The engine's cache is a memo: whatever was asked before, an answer is that of a new engine."""

from collections.abc import Callable

import pytest
import torch
from test_decoding import LAYOUTS, build
from torch import Tensor

from framepred.decoding.engine import DECODERS, LlamaEngine
from framepred.decoding.sampling import Sampling
from framepred.errors import FramepredError
from framepred.predictor.llama import Llama

LAYOUT = LAYOUTS["discrete"]
GAP = 1 + LAYOUT.action_slots


def make(samples: int = 3, decoder: str = "auto", temperature: float = 1.0) -> LlamaEngine:
    model = build(LAYOUT).requires_grad_(False)
    return LlamaEngine(model, LAYOUT, Sampling(temperature, seed=4), samples, 8 * LAYOUT.stride, decoder)


def past_of(frames: int, rows: int = 1, seed: int = 0) -> Tensor:
    """Return ids of so many frames, each with its action."""
    generator = torch.Generator().manual_seed(seed)
    parts = [
        LAYOUT.pack(
            torch.randint(0, 12, (frames, 3, 4), generator=generator),
            torch.randint(17, 20, (frames, 1), generator=generator),
        )
        for _ in range(rows)
    ]
    return torch.stack(parts)


GUESS = torch.zeros(3, 12, dtype=torch.int64)
Question = Callable[[LlamaEngine], Tensor]
QUESTIONS: dict[str, Question] = {
    "frame": lambda e: e.frame(past_of(2), 2, GUESS),
    "frame of three pasts": lambda e: e.frame(past_of(2, 3), 2, GUESS),
    "later frame": lambda e: e.frame(past_of(4), 4, GUESS),
    "later frame of three pasts": lambda e: e.frame(past_of(4, 3), 4, GUESS),
    "frame after others": lambda e: e.frame(past_of(3, seed=1), 3, GUESS),
    "score": lambda e: e.score(past_of(3), past_of(1)[:, :12], LAYOUT.vocabulary.visual),
    "score of three": lambda e: e.score(past_of(3), past_of(1, 3)[:, :12], LAYOUT.vocabulary.visual),
    "score of three pasts": lambda e: e.score(past_of(2, 3), past_of(1)[:, :12], LAYOUT.vocabulary.visual),
    "text": lambda e: e.text(past_of(2), 6),
}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("first", QUESTIONS)
def test_an_answer_does_not_depend_on_what_was_asked_before(first: str, decoder: str) -> None:
    for name, question in QUESTIONS.items():
        used = make(decoder=decoder)
        QUESTIONS[first](used)
        assert torch.allclose(question(used), question(make(decoder=decoder)), atol=1e-10), name


@pytest.mark.parametrize("first", QUESTIONS)
def test_a_fork_answers_as_a_new_engine_and_leaves_its_origin_alone(first: str) -> None:
    for name, question in QUESTIONS.items():
        used = make()
        QUESTIONS[first](used)
        fork = used.fork(torch.tensor([0, 1, 2]))
        for engine in (fork, used, fork):
            assert torch.allclose(question(engine), question(make()), atol=1e-10), name


def test_a_frame_after_a_frame_reads_only_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, read, hidden = make(decoder="sequential"), list[tuple[int, ...]](), Llama.hidden
    monkeypatch.setattr(Llama, "hidden", lambda self, ids, *r: read.append(tuple(ids.shape)) or hidden(self, ids, *r))
    past = past_of(2)
    made = engine.frame(past, 2, GUESS)
    assert read[:2] == [(1, past.shape[1] - GAP), (3, GAP)] and len(read) == 13 == engine.passes
    whole = torch.cat([past.expand(3, -1), made + LAYOUT.vocabulary.visual[0], torch.full((3, 1), 18)], 1)
    engine.frame(whole, 3, made)
    assert read[13] == (3, GAP) and len(read) == 25
    # Back to where it was, and on with another action.
    whole[:, -1] = 19
    engine.frame(whole, 3, made)
    assert read[25] == (3, GAP) and len(read) == 37 == engine.passes


def test_64_forks_are_one_prefill(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, read, hidden = make(1), list[tuple[int, ...]](), Llama.hidden
    past, new = past_of(3), past_of(1)[:, :12]
    engine.score(past, new, LAYOUT.vocabulary.visual)
    many = engine.fork(torch.zeros(64, dtype=torch.int64))
    monkeypatch.setattr(Llama, "hidden", lambda self, ids, *r: read.append(tuple(ids.shape)) or hidden(self, ids, *r))
    many.score(torch.cat([past, new], 1).expand(64, -1), past_of(1, 64)[:, :12], LAYOUT.vocabulary.visual)
    assert read == [(64, GAP + 11)]


def test_a_score_is_the_logits_of_one_plain_pass() -> None:
    engine, past, new = make(), past_of(3), past_of(1, 2)[:, :12]
    made = engine.score(past, new, LAYOUT.vocabulary.visual)
    model = build(LAYOUT)
    with torch.inference_mode():
        logits = model(torch.cat([past.expand(2, -1), new], 1))[:, -13:-1, slice(*LAYOUT.vocabulary.visual)]
    assert torch.allclose(made, logits, atol=1e-10)


def test_an_unknown_decoder_is_refused() -> None:
    with pytest.raises(FramepredError, match="decoder 'magic' is not known; give one of auto, sequential, speculative"):
        make(decoder="magic")

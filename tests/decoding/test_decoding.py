"""Decoding: guessing a whole frame and verifying it gives the very tokens of one-at-a-time decoding."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from framepred.decoding import speculative
from framepred.decoding.cuda_graph import decode_by_replay
from framepred.decoding.engine import DECODERS
from framepred.decoding.sampling import Sampling
from framepred.decoding.sequential import decode_sequential
from framepred.decoding.speculative import decode_speculative, pass_length
from framepred.decoding.stream import Stream, frame_noise, prefill
from framepred.predictor.config import LlamaConfig
from framepred.predictor.llama import Llama
from framepred.sequence.actions import ActionSpace
from framepred.sequence.layout import SequenceLayout
from framepred.sequence.vocabulary import Vocabulary

FRAMES = 3
CONTINUOUS = ActionSpace("continuous", ("x", "y"), edges=((0.0,), (-1.0, 1.0)))
LAYOUTS = {
    "no actions": SequenceLayout(Vocabulary(0, 12, 0), (3, 4)),
    "discrete": SequenceLayout(Vocabulary(5, 12, 3), (3, 4), ActionSpace("discrete", ("a",), count=3)),
    "continuous": SequenceLayout(Vocabulary(0, 12, 5), (3, 4), CONTINUOUS),
    "cells": SequenceLayout(Vocabulary(5, 144, 3), (3, 4), ActionSpace("discrete", ("a",), count=3), cells=True),
    "interlaced cells": SequenceLayout(Vocabulary(0, 144, 0), (3, 4), scan="interlaced", cells=True),
    "one token": SequenceLayout(Vocabulary(0, 12, 0), (1, 1)),
}  # fmt: skip
SAMPLINGS = [
    Sampling(0), Sampling(0.7, seed=1), Sampling(1, seed=2), Sampling(1, top_k=3, seed=3),
    Sampling(1.3, top_p=0.7, seed=4), Sampling(1, top_k=5, top_p=0.5, seed=5),
]  # fmt: skip


def build(layout: SequenceLayout, scale: float = 0.3, seed: int = 0) -> Llama:
    """Return a model of random weights in float64, where no two logits are nearly equal."""
    config = LlamaConfig(
        vocab_size=layout.vocabulary.size, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=8 * layout.stride,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = Llama(config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    return model.double().eval()


def begin(model: Llama, layout: SequenceLayout, samples: int) -> tuple[Stream, Tensor]:
    """Return a stream that has read a history with actions, and that history (S, T, N)."""
    generator = torch.Generator().manual_seed(9)
    tokens = torch.randint(0, layout.codes, (FRAMES, *layout.grid), generator=generator)
    actions = None
    if layout.actions is not None:
        discrete = layout.actions.kind == "discrete"
        actions = (
            torch.randint(0, 3, (FRAMES,), generator=generator)
            if discrete
            else torch.randn(FRAMES, 2, generator=generator)
        )
    ids = layout.pack(tokens, layout.action_ids(actions, FRAMES))
    with torch.inference_mode():
        stream = prefill(model, ids[None], samples, 8 * layout.stride)
    return stream, tokens.view(1, FRAMES, -1).expand(samples, -1, -1)


def decode(
    name: str,
    model: Llama,
    layout: SequenceLayout,
    sampling: Sampling,
    samples: int,
    guess: Tensor | None = None,
    frame: int = FRAMES,
) -> tuple[Tensor, Stream, int]:
    stream, history = begin(model, layout, samples)
    before = stream.passes
    noise = frame_noise(layout, sampling, torch.arange(samples), frame)
    tokens = DECODERS[name](model, stream, layout, sampling, noise, history[:, -1] if guess is None else guess)
    return tokens, stream, stream.passes - before


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("way", ["speculative", "as on a GPU"])
def test_speculative_decoding_gives_the_sequential_tokens(
    kind: str, sampling: Sampling, samples: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its passes read the whole frame; what is done here without is to record and replay them.
    monkeypatch.setitem(DECODERS, "as on a GPU", decode_by_replay)
    layout = LAYOUTS[kind]
    model = build(layout)
    expected, reference, slow = decode("sequential", model, layout, sampling, samples)
    assert slow == layout.frame_tokens
    assert expected.shape == (samples, layout.frame_tokens)
    generator = torch.Generator().manual_seed(1)
    odd = torch.randint(0, layout.codes, expected.shape, generator=generator)
    half = torch.where(torch.rand(expected.shape, generator=generator) < 0.5, expected, odd)
    for guess in (None, odd, half, torch.zeros_like(expected)):
        tokens, stream, fast = decode(way, model, layout, sampling, samples, guess)
        assert torch.equal(tokens, expected)
        assert fast <= slow
        assert torch.equal(stream.pending, reference.pending)
        assert stream.cache.length == reference.cache.length


@pytest.mark.parametrize(("far", "near"), [(1, 1), (2, 2), (5, 2), (100, 3), (100, 100)])
@pytest.mark.parametrize("samples", [1, 4])
def test_how_far_a_pass_reaches_changes_no_token(
    far: int, near: int, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, sampling = LAYOUTS["discrete"], Sampling(1, seed=6)
    model = build(layout)
    expected, reference, slow = decode("sequential", model, layout, sampling, samples)
    monkeypatch.setattr(speculative, "pass_length", lambda rows, rate, _: far if rate == 1 else near)
    tokens, stream, passes = decode("speculative", model, layout, sampling, samples)
    assert torch.equal(tokens, expected)
    assert stream.cache.length == reference.cache.length
    assert (passes == slow) if far == 1 else (passes <= slow)


@pytest.mark.parametrize("reach", [2, 5, 100])
def test_each_sample_goes_on_from_where_its_own_guess_failed(reach: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, sampling, samples = LAYOUTS["discrete"], Sampling(1, seed=6), 6
    model = build(layout)
    expected, _, _ = decode("sequential", model, layout, sampling, samples)
    generator = torch.Generator().manual_seed(2)
    wrong = torch.rand(expected.shape, generator=generator) < 0.3
    guess = torch.where(wrong, (expected + 1) % layout.codes, expected)

    alone = []
    monkeypatch.setattr(speculative, "pass_length", lambda rows, *_: max(1, reach // rows))
    for row in range(samples):
        stream, _ = begin(model, layout, 1)
        noise = frame_noise(layout, sampling, torch.tensor([row]), FRAMES)
        before = stream.passes
        DECODERS["speculative"](model, stream, layout, sampling, noise, guess[row : row + 1])
        alone.append(stream.passes - before)

    monkeypatch.setattr(speculative, "pass_length", lambda rows, *_: max(1, reach * samples // rows))
    rows, hidden = list[int](), Llama.hidden
    monkeypatch.setattr(Llama, "hidden", lambda self, ids, *rest: rows.append(len(ids)) or hidden(self, ids, *rest))
    tokens, _, passes = decode("speculative", model, layout, sampling, samples, guess)
    assert torch.equal(tokens, expected)
    # Those that are done are not read again, and leave the others room.
    assert len(set(alone)) > 1 and passes <= max(alone)
    assert rows[-1] < samples and rows[-passes:] == sorted(rows[-passes:], reverse=True)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_a_right_guess_takes_one_pass(sampling: Sampling) -> None:
    layout = LAYOUTS["discrete"]
    model = build(layout)
    expected, _, _ = decode("sequential", model, layout, sampling, 5)
    tokens, _, passes = decode("speculative", model, layout, sampling, 5, expected)
    assert passes == 1
    assert torch.equal(tokens, expected)


def test_many_samples_read_on_as_far_as_their_guesses_are_right() -> None:
    layout, sampling, samples = LAYOUTS["discrete"], Sampling(1, seed=2), 64
    model = build(layout)
    expected, _, slow = decode("sequential", model, layout, sampling, samples)
    wrong = (expected + 1) % layout.codes
    _, stream, passes = decode("speculative", model, layout, sampling, samples, wrong)
    assert passes <= slow and stream.rate == 0
    # The first pass reads eight tokens of each, to learn that they are right.
    _, stream, passes = decode("speculative", model, layout, sampling, samples, expected)
    assert passes == 2 and stream.rate == 1


@given(st.integers(1, 4096), st.floats(0, 1), st.floats(0, 1))
def test_a_pass_reads_no_less_where_more_is_right(rows: int, rate: float, other: float) -> None:
    lengths = [pass_length(rows, r, torch.device("cpu")) for r in sorted((rate, other))]
    assert 1 <= lengths[0] <= lengths[1]


def test_a_guess_that_is_wrong_in_one_place_is_mended() -> None:
    layout, sampling = LAYOUTS["discrete"], Sampling(1, seed=2)
    model = build(layout)
    expected, _, _ = decode("sequential", model, layout, sampling, 1)
    for place in range(layout.frame_tokens):
        guess = expected.clone()
        guess[0, place] = (guess[0, place] + 1) % 12
        tokens, _, passes = decode("speculative", model, layout, sampling, 1, guess)
        assert torch.equal(tokens, expected)
        assert passes <= layout.frame_tokens - place


def test_the_next_frame_goes_on_from_either_decoder_alike() -> None:
    layout, sampling = LAYOUTS["discrete"], Sampling(1, seed=3)
    model = build(layout)
    made: dict[str, list[Tensor]] = {name: [] for name in DECODERS}
    for name, decoder in DECODERS.items():
        stream, history = begin(model, layout, 2)
        for frame in range(FRAMES, FRAMES + 4):
            if frame > FRAMES:
                stream.pending = torch.cat(
                    [stream.pending, torch.full((2, 1), layout.vocabulary.action[0] + frame % 3)], 1
                )
            noise = frame_noise(layout, sampling, torch.arange(2), frame)
            tokens = decoder(model, stream, layout, sampling, noise, history[:, -1])
            history = torch.cat([history, tokens[:, None]], 1)
            made[name].append(tokens)
    assert torch.equal(torch.stack(made["sequential"]), torch.stack(made["speculative"]))
    assert not torch.equal(made["sequential"][0], made["sequential"][1])


@pytest.mark.parametrize("name", DECODERS)
def test_tokens_are_those_of_the_whole_model_without_a_cache(name: str) -> None:
    layout = LAYOUTS["continuous"]
    model = build(layout)
    tokens, _, _ = decode(name, model, layout, Sampling(0), 1)
    stream, history = begin(model, layout, 1)
    generator = torch.Generator().manual_seed(9)
    torch.randint(0, 12, (FRAMES, *layout.grid), generator=generator)
    actions = layout.action_ids(torch.randn(FRAMES, 2, generator=generator), FRAMES)
    ids = layout.pack(history[0].view(FRAMES, *layout.grid), actions)
    assert torch.equal(ids[-1:], stream.pending[0])
    with torch.inference_mode():
        for token in tokens[0].tolist():
            start, stop = layout.vocabulary.visual
            assert int(model(ids[None])[0, -1, start:stop].argmax()) == token
            ids = torch.cat([ids, torch.tensor([token + start])])


@pytest.mark.parametrize("name", DECODERS)
def test_sampling_never_leaves_the_visual_range(name: str) -> None:
    layout = LAYOUTS["discrete"]
    model = build(layout)
    with torch.no_grad():
        start, stop = layout.vocabulary.visual
        model.head.weight[:start] *= 1000
        model.head.weight[stop:] *= 1000
    tokens, _, _ = decode(name, model, layout, Sampling(5, seed=1), 20)
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < layout.codes
    assert len(tokens.unique()) > 6


@pytest.mark.parametrize("name", DECODERS)
def test_a_sample_does_not_depend_on_the_others(name: str) -> None:
    layout, sampling = LAYOUTS["discrete"], Sampling(1, seed=8)
    model = build(layout)
    many, _, _ = decode(name, model, layout, sampling, 5)
    few, _, _ = decode(name, model, layout, sampling, 2)
    assert torch.equal(many[:2], few)
    assert not torch.equal(many[0], many[1])


def test_the_frame_index_and_the_seed_change_the_draws() -> None:
    layout = LAYOUTS["no actions"]
    model = build(layout)
    base, _, _ = decode("sequential", model, layout, Sampling(1, seed=1), 1)
    assert not torch.equal(base, decode("sequential", model, layout, Sampling(1, seed=2), 1)[0])
    assert not torch.equal(base, decode("sequential", model, layout, Sampling(1, seed=1), 1, frame=FRAMES + 1)[0])


def test_greedy_needs_no_noise() -> None:
    assert frame_noise(LAYOUTS["discrete"], Sampling(0), torch.arange(2), 3) is None
    noise = frame_noise(LAYOUTS["discrete"], Sampling(1), torch.arange(2), 3)
    assert noise is not None
    assert noise.shape == (2, 12, 12)


def test_a_trained_model_decodes_alike_in_fewer_passes() -> None:
    layout = LAYOUTS["no actions"]
    model = Llama(build(layout).config).double()
    model.initialise(torch.Generator().manual_seed(0))
    frame = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0]])
    stills = torch.stack([frame.roll(k, 1) for k in range(12)]).expand(12, 5, 12).reshape(12, 60)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(200):
        logits = model(stills[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits[:, 11:].flatten(0, 1), stills[:, 12:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02
    model.eval()
    expected, undisturbed = stills[3:4, :12].expand(3, -1), 0
    for sampling in SAMPLINGS:
        passes = {}
        made = {}
        for name, decoder in (("slow", decode_sequential), ("fast", decode_speculative)):
            with torch.inference_mode():
                stream = prefill(model, stills[3:4, :36], 3, 96)
            noise = frame_noise(layout, sampling, torch.arange(3), 3)
            before = stream.passes
            made[name] = decoder(model, stream, layout, sampling, noise, stills[3:4, 24:36].expand(3, -1))
            passes[name] = stream.passes - before
        assert torch.equal(made["slow"], made["fast"])
        assert passes["slow"] == 12
        # A rare draw leads off what was learned; then there is nothing to guess.
        if torch.equal(made["slow"], expected):
            undisturbed += 1
            assert passes["fast"] == 1
    assert undisturbed >= 4

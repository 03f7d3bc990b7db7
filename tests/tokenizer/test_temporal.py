"""The temporal tokenizer: what it says of a frame, given the pictures before it and the actions."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from framepred.errors import FramepredError
from framepred.tokenizer.contract import Tokenizer, actions_before
from framepred.tokenizer.image import scaled
from framepred.tokenizer.temporal import TemporalAutoencoder
from framepred.tokenizer.temporal_net import TemporalShape

SHAPE = TemporalShape(
    frame_size=(32, 32), action_size=3, widths=(16, 16, 16), blocks=1, condition=16, levels=(5, 3),
    context_levels=(4, 4),
)  # fmt: skip


def clip(frames: int = 7, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, 3, 32, 32), generator=generator, dtype=torch.uint8)


def made(shape: TemporalShape = SHAPE) -> TemporalAutoencoder:
    torch.manual_seed(0)
    tokenizer = TemporalAutoencoder(shape)
    # Layers that start at zero would hide what they are given.
    for parameter in tokenizer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return tokenizer.eval().requires_grad_(False)


def test_it_is_a_tokenizer() -> None:
    assert isinstance(made(), Tokenizer)


@pytest.mark.parametrize("sizes", [(7,), (1, 6), (3, 0, 4)])
def test_a_clip_in_chunks_has_the_tokens_of_the_whole(sizes: tuple[int, ...]) -> None:
    tokenizer, frames, actions = made(), clip(), torch.tensor([0, 1, 2, 0, 1, 2])
    parts = list(tokenizer.encode_stream(frames.split(list(sizes)), actions))
    assert [len(part) for part in parts] == list(sizes)
    assert torch.equal(torch.cat(parts), tokenizer.encode(frames, actions))


def test_decoding_goes_the_way_that_encoding_went() -> None:
    tokenizer, frames, actions = made(), clip(), torch.tensor([0, 1, 2, 0, 1, 2])
    tokens = tokenizer.encode(frames, actions)
    decoded = tokenizer.decode(tokens, actions, frames[0])
    pictures = torch.cat([frames[:1], frames[:1], frames[:1], decoded])
    for t in range(len(frames)):
        given, before = pictures[None, t : t + 3], actions_before(tokenizer, actions, t)
        assert torch.equal(tokenizer.encode_context(given, before)[0], tokens[t, :4])
        assert torch.equal(tokenizer.encode_next(given, before, frames[t : t + 1]).flatten(), tokens[t, 4:])
        own = tokens[None, t, 4:].unflatten(1, tokenizer.grid)
        assert torch.equal(tokenizer.decode_next(given, before, own)[0], decoded[t])


def test_what_is_given_decides_the_picture() -> None:
    tokenizer, frames, own = made(), clip(), torch.zeros(1, 2, 2, dtype=torch.int64)
    past, other = frames[None, :3], frames[None, 3:6]
    acted = torch.tensor([[-1, -1, 0, 1]])
    base = tokenizer.decode_next(past, acted, own)
    assert not torch.equal(base, tokenizer.decode_next(past, torch.tensor([[-1, -1, 0, 2]]), own))
    assert not torch.equal(base, tokenizer.decode_next(past, None, own))
    assert not torch.equal(base, tokenizer.decode_next(other, acted, own))
    assert not torch.equal(base, tokenizer.decode_next(past, acted, own + 7))
    assert torch.equal(tokenizer.decode_next(past, None, own), tokenizer.decode_next(past, torch.full((1, 4), -1), own))


def test_samples_are_what_each_is_alone() -> None:
    tokenizer, frames = made(), clip()
    pictures = torch.stack([frames[:3], frames[2:5], frames[3:6]])
    actions = torch.tensor([[0, 1, 2, 0], [-1, -1, -1, 1], [2, 2, 2, 2]])
    codes = tokenizer.encode_next(pictures, actions, frames[4:7])
    together = tokenizer.decode_next(pictures, actions, codes)
    for i in range(3):
        alone = tokenizer.decode_next(pictures[i : i + 1], actions[i : i + 1], codes[i : i + 1])
        assert torch.equal(together[i], alone[0])


def test_the_null_code_is_what_is_expected() -> None:
    tokenizer, frames = made(), clip()
    null = torch.full((1, 2, 2), tokenizer.net.codes.null)
    past = tokenizer.net.past(scaled(frames[None, :3]), torch.zeros(1, 4, 4))
    assert bool((tokenizer.net.codes.lookup(null) == 0).all())
    assert torch.allclose(
        tokenizer.net.picture(past, None), tokenizer.net.picture(past, tokenizer.net.codes.lookup(null)), atol=1e-6
    )


def test_continuous_actions_and_those_not_given() -> None:
    tokenizer, frames = made(replace(SHAPE, action_size=2, continuous=True)), clip()
    actions = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
    own = torch.zeros(1, 2, 2, dtype=torch.int64)
    acted = actions_before(tokenizer, actions, 4)
    assert not torch.equal(
        tokenizer.decode_next(frames[None, :3], acted, own), tokenizer.decode_next(frames[None, :3], None, own)
    )
    absent = torch.full((1, 4, 2), torch.nan)
    assert torch.equal(
        tokenizer.decode_next(frames[None, :3], absent, own), tokenizer.decode_next(frames[None, :3], None, own)
    )


@pytest.mark.parametrize(
    ("actions", "words"),
    [(torch.tensor([0, 3, 0, 0, 0, 0]), "action id 3 is not allowed"), (torch.zeros(6, 2), "these are continuous")],
)
def test_actions_that_it_does_not_know_are_named(actions: Tensor, words: str) -> None:
    with pytest.raises(FramepredError, match=words):
        made().encode(clip(), actions)


def test_tokens_alone_give_no_picture() -> None:
    tokenizer = made()
    with pytest.raises(FramepredError, match="first picture"):
        tokenizer.decode(tokenizer.encode(clip()))

"""The KV cache: forks share what is stored, and none of them changes what another reads."""

import pytest
import torch
from torch import Tensor

from framepred.predictor.config import LlamaConfig
from framepred.predictor.kv_cache import KVCache
from framepred.predictor.llama import Llama

CONFIG = LlamaConfig(50, 16, 24, 2, 2, 1, 40)


def build() -> Llama:
    """Return a model of random weights in float64."""
    model = Llama(CONFIG).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator).double() * 0.3
    return model.requires_grad_(False)


def ids(rows: int, length: int, seed: int) -> Tensor:
    return torch.randint(0, 50, (rows, length), generator=torch.Generator().manual_seed(seed))


def read(model: Llama, tokens: Tensor) -> KVCache:
    cache = KVCache(CONFIG, len(tokens), 40, model.embed.weight)
    model.hidden(tokens, cache)
    return cache


def goes_on(model: Llama, cache: KVCache, past: Tensor, seed: int = 9) -> bool:
    """Say whether new ids behind a cache give the numbers of one pass over a past (R, L) and them; the cache stays."""
    new, length = ids(len(past), 5, seed), cache.length
    made = model.hidden(new, cache)
    cache.length = length
    return torch.allclose(made, model.hidden(torch.cat([past, new], 1))[:, past.shape[1] :], atol=1e-10)


def forked(cache: KVCache, rows: list[int]) -> KVCache:
    return cache.fork(torch.tensor(rows))


@torch.inference_mode()
def test_64_forks_of_one_row_share_its_storage() -> None:
    model, past = build(), ids(1, 12, 1)
    cache = read(model, past)
    many = forked(cache, [0] * 64)
    assert many.rows == 64 and many.capacity == cache.capacity and many.length == 12
    assert many.prefix.data_ptr() == cache.data.data_ptr()
    assert many.prefix.shape[2:5:2] == (1, 12)
    # What is theirs alone is what is to come.
    assert many.data.shape[4] == 40 - 12
    assert goes_on(model, many, past.expand(64, -1))
    assert goes_on(model, cache, past)
    assert goes_on(model, many, past.expand(64, -1), seed=3)


@torch.inference_mode()
@pytest.mark.parametrize("keep", [1, 6, 11])
def test_what_forks_share_stays_when_one_of_them_forgets_it(keep: int) -> None:
    model, past = build(), ids(1, 12, 1)
    cache = read(model, past)
    many, alone = forked(cache, [0, 0, 0]), forked(cache, [0])
    other = torch.cat([past[:, :keep], ids(1, 12 - keep, 2)], 1)
    cache.truncate(keep)
    model.hidden(other[:, keep:], cache)
    assert goes_on(model, cache, other)
    assert goes_on(model, many, past.expand(3, -1))
    assert goes_on(model, alone, past)


@torch.inference_mode()
@pytest.mark.parametrize("keep", [0, 5, 12, 14, 17])
def test_a_fork_is_cut_back_to_any_length(keep: int) -> None:
    model, past = build(), ids(1, 12, 1)
    whole = torch.cat([past.expand(3, -1), ids(3, 5, 2)], 1)
    many = forked(read(model, past), [0, 0, 0])
    model.hidden(whole[:, 12:], many)
    many.truncate(keep)
    assert (many.length, many.capacity) == (keep, 40)
    assert goes_on(model, many, whole[:, :keep])


@torch.inference_mode()
def test_rows_are_chosen_repeated_and_forked_again() -> None:
    model, past = build(), ids(1, 12, 1)
    whole = torch.cat([past.expand(3, -1), ids(3, 5, 2)], 1)
    many = forked(read(model, past), [0, 0, 0])
    model.hidden(whole[:, 12:], many)
    chosen = forked(many, [2, 0, 2, 1])
    assert chosen.prefix.data_ptr() == many.prefix.data_ptr()
    assert goes_on(model, chosen, whole[[2, 0, 2, 1]])
    best = forked(many, [1])
    again = forked(best, [0] * 8)
    assert again.prefix.shape[4] == 17
    for cache, rows in ((again, [1] * 8), (best, [1]), (many, [0, 1, 2])):
        assert goes_on(model, cache, whole[rows])

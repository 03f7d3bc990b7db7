"""The predictor's embedding while it is trained: what codes have in common is learned once, not once a code."""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from framepred.predictor.llama import Llama


class DigitSum(nn.Module):
    """Adds to each code's own vector one vector for each of its digits.

    Rows (V, D) of a vocabulary whose codes start at `first` → rows (V, D). Codes of FSQ
    are numbers of several digits, the first the least; those that share one look alike in part. A language
    model learns each id from its own occurrences alone; so it need not (as with the factorised tokens of
    arXiv 2310.05737, but a token stays one id, and the trained weights a plain matrix).
    """

    def __init__(self, digits: tuple[int, ...], first: int, width: int) -> None:
        super().__init__()
        basis = torch.cumprod(torch.tensor([1, *digits[:-1]]), 0)
        values = torch.arange(math.prod(digits))[:, None] // basis % torch.tensor(digits)
        column = values + torch.tensor([0, *digits[:-1]]).cumsum(0)
        self.digits, self.first = digits, first
        self.vectors = nn.Parameter(torch.zeros(sum(digits), width))
        self.register_buffer("members", torch.zeros(len(column), sum(digits)).scatter_(1, column, 1.0), False)
        self.members: Tensor

    @torch.no_grad()
    def initialise(self, generator: torch.Generator, std: float) -> None:
        """Fill the vectors: a random walk over each digit's values, as neighbours look alike; their sums have `std`."""
        for vectors in self.vectors.split(self.digits):
            walk = torch.randn(vectors.shape, generator=generator).cumsum(0)
            walk -= walk.mean(0)
            vectors.copy_(walk * (std / len(self.digits) ** 0.5 / walk.square().mean().sqrt()))

    def forward(self, own: Tensor) -> Tensor:
        # Autocast would round the sum to bfloat16; the matrix that is saved is not.
        with torch.autocast(own.device.type, enabled=False):
            shared = self.members @ self.vectors
        before, codes, after = own.split((self.first, len(shared), len(own) - self.first - len(shared)))
        return torch.cat((before, codes + shared, after))


class TextRows(nn.Module):
    """Holds the first `count` rows, those of text, apart from the ones behind: parameters of their own."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, text: Tensor, behind: Tensor) -> Tensor:
        return torch.cat((text, behind))

    def right_inverse(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return rows[: self.count].clone(), rows[self.count :].clone()


def part_text(model: Llama, count: int) -> None:
    """Train the rows of text, the first `count`, and those behind them in embedding and head each in its own way."""
    if not count:
        return
    for layer in (model.embed, model.head):
        parametrize.register_parametrization(layer, "weight", TextRows(count))
    if model.config.tie_word_embeddings:
        head, embed = _parts(model.head), _parts(model.embed)
        head.original0, head.original1 = embed.original0, embed.original1


def _parts(layer: nn.Module) -> Any:
    assert isinstance(layer.parametrizations, nn.ModuleDict)
    return layer.parametrizations["weight"]


def _own_rows(layer: nn.Embedding | nn.Linear, first: int) -> Tensor:
    """Return the rows from `first` on that are a layer's own, which what it shares is added to."""
    if not parametrize.is_parametrized(layer):
        return layer.weight[first:]
    parts = _parts(layer)
    if isinstance(parts[0], TextRows):
        return cast(Tensor, parts.original1)[first - parts[0].count :]
    return cast(Tensor, parts.original)[first:]


def share_digits(model: Llama, digits: tuple[int, ...], first: int, generator: torch.Generator | None = None) -> None:
    """Train embedding and head of `model` through a DigitSum; with a generator, as a new model's.

    Nothing is shared where a code has one digit (EMA VQ). A model with two ranges of codes is given them in turn.
    """
    if len(digits) < 2:
        return
    layers: list[nn.Embedding | nn.Linear] = (
        [model.embed] if model.config.tie_word_embeddings else [model.embed, model.head]
    )
    for layer in layers:
        shared = DigitSum(digits, first, model.config.hidden_size).to(layer.weight.device)
        if generator is not None:
            codes = _own_rows(layer, first)[: len(shared.members)]
            mean = codes.detach().mean(0)
            shared.initialise(generator, float((codes.detach() - mean).square().mean().sqrt()))
            with torch.no_grad():
                # Most of a new code is what it shares.
                codes.lerp_(mean, 0.7)
        parametrize.register_parametrization(layer, "weight", shared)
    if model.config.tie_word_embeddings and layers:
        parametrize.register_parametrization(model.head, "weight", shared)


def merge_rows(model: Llama) -> None:
    """Make embedding and head plain matrices again: what was apart is joined, what was shared is added."""
    # Tied, both are made of the same parts: read both before either takes its place.
    made = [layer for layer in (model.embed, model.head) if parametrize.is_parametrized(layer)]
    plain = [layer.weight.detach().clone() for layer in made]
    for layer, rows in zip(made, plain, strict=True):
        parametrize.remove_parametrizations(layer, "weight")
        layer.weight = nn.Parameter(rows)
    if model.config.tie_word_embeddings:
        model.head.weight = model.embed.weight

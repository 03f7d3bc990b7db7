"""The predictor's embedding while it is trained: what codes have in common is learned once, not once a code."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from framepred.predictor import Llama


class DigitSum(nn.Module):
    """Adds to each code's own vector one vector for each of its digits.

    Rows (V, D) of a vocabulary whose codes start at `first` → rows (V, D). Codes of FSQ, LFQ, BSQ and residual VQ
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
    def initialise(self, generator: torch.Generator, std: float = 0.02) -> None:
        """Fill the vectors: a random walk over each digit's values, as neighbours look alike."""
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
            shared.initialise(generator)
            with torch.no_grad():
                # Most of a new code is what it shares.
                parts: Any = getattr(layer, "parametrizations", None)
                own = parts.weight.original if parts else layer.weight
                own[first : first + len(shared.members)] *= 0.3
        parametrize.register_parametrization(layer, "weight", shared)
    if model.config.tie_word_embeddings and layers:
        parametrize.register_parametrization(model.head, "weight", shared)


def merge_digits(model: Llama) -> None:
    """Make embedding and head plain matrices again: the sums."""
    # Tied, both have one own part: read both sums before either takes its place.
    shared = [layer for layer in (model.embed, model.head) if parametrize.is_parametrized(layer)]
    sums = [layer.weight.detach().clone() for layer in shared]
    for layer, rows in zip(shared, sums, strict=True):
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        layer.weight.data.copy_(rows)
    if model.config.tie_word_embeddings:
        model.head.weight = model.embed.weight

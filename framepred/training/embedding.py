"""The predictor's embedding during training: codes that share a digit share a learned vector."""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from framepred.predictor.llama import Llama


class DigitSum(nn.Module):
    """Adds to each code's own vector one vector for each of its digits.

    Rows (V, D) of a vocabulary whose codes begin at id `first` → rows (V, D). FSQ's codes are numbers of several
    digits, the least significant first, and codes with a common digit look similar in part. Without this, a language
    model learns each id from that id's occurrences only. The factorised tokens of arXiv 2310.05737 serve the same end;
    here a token stays one id, and the trained weights become one plain matrix (`merge_rows`).
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
        """Initialise by a random walk over each digit's values, as neighbours look similar; sums have `std`."""
        for vectors in self.vectors.split(self.digits):
            walk = torch.randn(vectors.shape, generator=generator).cumsum(0)
            walk -= walk.mean(0)
            vectors.copy_(walk * (std / len(self.digits) ** 0.5 / walk.square().mean().sqrt()))

    def forward(self, own: Tensor) -> Tensor:
        # Autocast would round the sum to bfloat16, and the saved matrix is not rounded.
        with torch.autocast(own.device.type, enabled=False):
            shared = self.members @ self.vectors
        before, codes, after = own.split((self.first, len(shared), len(own) - self.first - len(shared)))
        return torch.cat((before, codes + shared, after))


class TextRows(nn.Module):
    """Keeps the first `count` rows, those of text, and the rows after them as separate parameters."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, text: Tensor, rest: Tensor) -> Tensor:
        return torch.cat((text, rest))

    def right_inverse(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return rows[: self.count].clone(), rows[self.count :].clone()


def separate_text(model: Llama, count: int) -> None:
    """Split embedding and head into the `count` rows of text and the rest, which can then learn at different rates."""
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
    """Return a layer's own rows from `first` on, to which the shared vectors are added."""
    if not parametrize.is_parametrized(layer):
        return layer.weight[first:]
    parts = _parts(layer)
    if isinstance(parts[0], TextRows):
        return cast(Tensor, parts.original1)[first - parts[0].count :]
    return cast(Tensor, parts.original)[first:]


def share_digits(model: Llama, digits: tuple[int, ...], first: int, generator: torch.Generator | None = None) -> None:
    """Train the codes' rows of embedding and head through a DigitSum; with a generator, initialise a new model's.

    Codes of one digit (EMA VQ) share nothing. For a model with two ranges of codes, call it once for each range.
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
                # The shared vectors make up most of a new code.
                codes.lerp_(mean, 0.7)
        parametrize.register_parametrization(layer, "weight", shared)
    if model.config.tie_word_embeddings and layers:
        parametrize.register_parametrization(model.head, "weight", shared)


def merge_rows(model: Llama) -> None:
    """Make embedding and head plain matrices again: join separate parts, add shared vectors."""
    # Tied layers are made of the same parts: read both before either is replaced.
    made = [layer for layer in (model.embed, model.head) if parametrize.is_parametrized(layer)]
    plain = [layer.weight.detach().clone() for layer in made]
    for layer, rows in zip(made, plain, strict=True):
        parametrize.remove_parametrizations(layer, "weight")
        layer.weight = nn.Parameter(rows)
    if model.config.tie_word_embeddings:
        model.head.weight = model.embed.weight


def with_plain_rows(model: Llama) -> Llama:
    """Return a view of a model in training whose embedding and head are plain; the layers are the model's own."""
    with torch.device("meta"):
        plain = Llama(model.config)
    plain.layers, plain.norm, plain.cos, plain.sin = model.layers, model.norm, model.cos, model.sin
    plain.embed.weight = nn.Parameter(model.embed.weight.detach(), False)
    tied = model.config.tie_word_embeddings
    plain.head.weight = plain.embed.weight if tied else nn.Parameter(model.head.weight.detach(), False)
    return plain

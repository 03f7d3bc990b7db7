"""Training the temporal tokenizer: near to the frames, sharp to a discriminator, at a price for every bit."""

import math
import warnings

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from framepred.config.recipe import Recipe, TokenizerRecipe
from framepred.errors import FramepredWarning
from framepred.tokenizer.discriminator import Discriminator, judged
from framepred.tokenizer.image import reconstruction_loss, to_uint8
from framepred.tokenizer.temporal import TemporalAutoencoder
from framepred.tokenizer.temporal_net import TemporalNet
from framepred.training.loop import Stage, own_rows
from framepred.training.preview import FRAMES, draw_given_back
from framepred.training.streams import Footage, Streams, chains
from framepred.training.windows import step_generator

_CODED_FROM, _PRICE_FROM, _SHARP_FROM = 0.4, 0.52, 0.61
"""Shares of the budget. How things move is learned from true pictures, without codes: beside codes and from blurred
pictures it is learned many times more slowly (scripts/results/temporal.md). A price from the first codes on collapses
them, and what is not near cannot look real.
"""
_RESTART = 1 / 14
"""The chance that a chain ends at a frame; it is then 14 frames long on average."""
_PRICE_RATE, _PRICE_STEP = 21.0, 0.02
"""How fast the logarithm of a wrong price changes: over the whole budget, and at most in a step."""
_WORSE = 2.5
"""How many times their least error so far pictures may have, 4 dB; what a price takes is less."""
_VALIDATED = 16
"""Frames of the chains that validation codes."""


class InTraining(nn.Module):
    """The network, its discriminator, the chains that it is trained on, and the price of a bit."""

    def __init__(self, net: TemporalNet, footage: Footage, size: int) -> None:
        super().__init__()
        self.net, self.discriminator = net, Discriminator(6, net.shape.widths[0])
        self.streams = Streams(footage, size, net.shape.past, net.shape.past_actions)
        self.register_buffer("price", torch.tensor(1e-5))
        self.register_buffer("done", torch.tensor(0.0))
        self.price: Tensor
        self.done: Tensor

    def forward(
        self, pictures: Tensor, actions: Tensor, frames: Tensor, codeless: Tensor | None, price: Tensor,
        weight: Tensor | None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:  # fmt: skip
        """Return the loss, the frames that chains go on from, and what is worth knowing.

        A `codeless` (B,) chain goes on from what is expected; where it is None, all do, and no code is trained. Without
        `weight`, no frame is judged.
        """
        if codeless is None:
            return self._expect(pictures, actions, frames)
        coded = self.net(pictures, actions, frames)
        last, alone = pictures[:, -1], codeless[:, None, None, None]
        shown = torch.where(alone, coded.expected, coded.picture)
        other = torch.where(alone, coded.picture, coded.expected)
        if weight is None:
            near, loss = shown, _nothing(self.discriminator)
        else:
            near, loss = judged(self.discriminator, shown, frames, weight, last)
        bits = coded.bits.mean()
        recalled = (coded.recalled.float() - F.avg_pool2d(last, 4)).square().mean()
        loss = loss + reconstruction_loss(near, frames) + 0.4 * reconstruction_loss(other, frames)
        loss = loss + 0.002 * coded.prior + 0.1 * recalled + price * bits
        null = (coded.digits == self.net.codes.levels // 2).all(1).float().mean()
        error = (coded.picture.detach() - frames).square().mean()
        return loss, shown.detach(), {"bits": bits.detach(), "null": null, "error": error}

    def _expect(self, pictures: Tensor, actions: Tensor, frames: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        expected = self.net.picture(self.net.past(pictures, actions), None)
        error = (expected.detach() - frames).square().mean()
        none = torch.zeros_like(error)
        loss = reconstruction_loss(expected, frames) + _nothing(self)
        return loss, expected.detach(), {"bits": none, "null": none, "error": error}


def _nothing(module: nn.Module) -> Tensor:
    """Return 0 as a function of all weights: processes that train together want a gradient of every one."""
    return 0.0 * torch.stack([p.sum() for p in module.parameters()]).sum()


def temporal_stage(
    tokenizer: TemporalAutoencoder, train: Footage, held_out: Footage, recipe: Recipe, accelerator: Accelerator
) -> Stage:
    """Train `tokenizer` on single frames given true pictures, then on chains, each coded given what it gave back."""
    tok, seed = recipe.tokenizer, recipe.training.seed
    mine = own_rows(accelerator, tok.batch_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = InTraining(tokenizer.net, train, tok.batch_size).to(accelerator.device)
    watch = _CollapseWatch(tok, accelerator.is_main_process)

    def loss(run: nn.Module, step: int, fraction: float) -> tuple[Tensor, dict[str, float]]:
        generator, streams = step_generator(seed, 1, step), model.streams
        if not step:
            streams.begin(torch.ones_like(streams.blind), generator)
        coding, priced = fraction >= _CODED_FROM, fraction >= _PRICE_FROM
        price = model.price.clone() if priced else torch.zeros_like(model.price)
        # The discriminator begins a little earlier, so that what it says first is worth something.
        judging = tok.adversarial > 0 and fraction >= _SHARP_FROM - 0.05
        weight = torch.tensor(tok.adversarial * (fraction >= _SHARP_FROM), device=price.device) if judging else None
        codeless = streams.codeless[mine].clone() if coding else None
        total, shown, values = run(*streams.batch(mine), codeless, price, weight)
        values = accelerator.reduce(values, "mean")
        # Chains of one frame have a true past.
        streams.advance(accelerator.gather(to_uint8(shown)), _RESTART if coding else 1.0, generator)
        if priced:
            rate = min(_PRICE_STEP, _PRICE_RATE * max(0.0, fraction - float(model.done)))
            model.price.mul_((rate * (values["bits"] / tok.bits - 1).clamp(-1, 1)).exp())
        model.done.fill_(fraction)
        null, bits, error = (float(values[name]) for name in ("null", "bits", "error"))
        if coding:
            watch.count_step(null, bits, error, priced)
        return total, {"bits": bits, "null": null, "psnr": _psnr(error), "price": float(price)}

    def validate(_: nn.Module) -> dict[str, float]:
        return _validated(tokenizer.net, held_out)

    def preview() -> Tensor | None:
        return _preview(tokenizer.net, held_out)

    hidden = tuple(p for p in tokenizer.net.parameters() if p.ndim == 4 and min(p.shape[:2]) >= 16)
    return Stage(
        "tokenizer", model, loss, validate, tok.learning_rate, tok.weight_decay, tok.ema_decay, tok.batch_size,
        "frames", hidden if tok.optimizer == "muon" else (), tuple(model.discriminator.parameters()),
        0.4 * tok.learning_rate, preview=preview,
    )  # fmt: skip


@torch.inference_mode()
def _validated(net: TemporalNet, held_out: Footage) -> dict[str, float]:
    """Return the PSNR of chains of held-out frames as given back, and as expected without codes, and bits a frame."""
    starts = held_out.steps[::_VALIDATED] - 1
    inside = starts + _VALIDATED < len(held_out.first)
    starts = starts[inside][held_out.first[starts[inside]] == held_out.first[starts[inside] + _VALIDATED]][:32]
    if not len(starts):
        return {}
    coded, expected, bits = list[Tensor](), list[Tensor](), list[Tensor]()
    for truth, made, found in chains(net, held_out, starts, _VALIDATED + 1, torch.zeros_like(starts, dtype=torch.bool)):
        for kept, picture in ((coded, made), (expected, to_uint8(found.expected))):
            kept.append((picture.float() - truth.float()).div(255).square().mean())
        bits.append(found.bits.mean())
    # The first frame is known itself.
    errors = (torch.stack(x[1:]).mean().clamp(min=1e-10) for x in (coded, expected))
    psnr, without = (float(-10 * error.log10()) for error in errors)
    return {
        "validation_psnr": psnr,
        "validation_psnr_without_codes": without,
        "validation_bits": float(torch.stack(bits[1:]).mean()),
    }


@torch.inference_mode()
def _preview(net: TemporalNet, held_out: Footage) -> Tensor | None:
    """Draw the beginning of a held-out episode, and as it is given back; None where none is long enough."""
    starts = held_out.first.unique()
    starts = starts[starts + FRAMES <= len(held_out.first)]
    starts = starts[held_out.first[starts + FRAMES - 1] == starts][:1]
    if not len(starts):
        return None
    blind = torch.zeros_like(starts, dtype=torch.bool)
    truth, made = zip(*((true, shown) for true, shown, _ in chains(net, held_out, starts, FRAMES, blind)), strict=True)
    return draw_given_back(torch.cat(truth), torch.cat(made))


class _CollapseWatch:
    """Warns while hardly any code says anything, or pictures are much worse than they were.

    It does so after 200 priced steps, then when their number has doubled. Errors are averaged over about 100 steps.
    """

    def __init__(self, recipe: TokenizerRecipe, warns: bool) -> None:
        self.recipe, self.warns, self.steps, self.next = recipe, warns, 0, 200
        self.error, self.best = 0.0, math.inf

    def count_step(self, null: float, bits: float, error: float, priced: bool) -> None:
        """Count a step in which a share `null` of the tokens said nothing, and a frame's took so many bits.

        `error` is the mean squared error of what was given back, in [-1, 1].
        """
        self.steps += priced
        self.error = 0.99 * self.error + 0.01 * error if self.error else error
        self.best = min(self.best, self.error)
        silent = priced and (null > 0.98 or bits < 0.05 * self.recipe.bits)
        if self.steps < self.next or not self.warns or not (silent or self.error > _WORSE * self.best):
            return
        self.next = 2 * self.steps
        if silent:
            what = f"the codes are collapsing: {null:.1%} of the tokens say nothing, {bits:.1f} bits a frame "
            advice = f"(tokenizer.bits = {self.recipe.bits:g})"
        else:
            now, then = (_psnr(error) for error in (self.error, self.best))
            what = f"the pictures are collapsing: {now:.1f} dB in training, {then:.1f} before "
            advice = f"(tokenizer.bits = {self.recipe.bits:g}, .adversarial = {self.recipe.adversarial:g}: "
            advice += "more bits and less adversarial hold them)"
        warnings.warn(
            FramepredWarning(
                f"{what}{advice}; start anew with a tokenizer.learning_rate below {self.recipe.learning_rate:g}, "
                "or more minutes"
            ),
            stacklevel=3,
        )


def _psnr(error: float) -> float:
    """Return the PSNR in dB of a mean squared error of pictures in [-1, 1]."""
    return -10 * math.log10(max(error / 4, 1e-10))

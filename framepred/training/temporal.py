"""Training the temporal tokenizer: near to the frames, sharp to a discriminator, at a price for every bit."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framepred.tokenizer.temporal_net import TemporalNet
from framepred.training.streams import Footage, Streams, nearness, pooled


@dataclass(frozen=True)
class TemporalTraining:
    """How a temporal tokenizer is trained: `share` counts are parts of the run.

    From `sharp_from` on, looking real weighs `sharp` times as much as being near; from `price_from` on, bits have a
    price that moves until a frame costs `bits`.
    """

    batch: int = 256
    learning_rate: float = 1e-3
    warmup: float = 0.02
    restart: float = 1 / 14
    expected: float = 0.4
    sharp: float = 0.6
    sharp_from: float = 0.35
    price: float = 1e-5
    price_from: float = 0.2
    bits: float = 75.0
    seed: int = 0


class PatchCritic(nn.Module):
    """Says of each patch whether it is a real next frame: pairs (B, 6, H, W) → its features, the verdict last."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        sizes = ((6, width), (width, 2 * width), (2 * width, 4 * width))
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in sizes)
        self.norms = nn.ModuleList([nn.Identity(), nn.GroupNorm(8, 2 * width), nn.GroupNorm(8, 4 * width)])
        self.verdict = nn.Conv2d(4 * width, 1, 3, padding=1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pairs: Tensor) -> list[Tensor]:
        x, features = pairs, []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.leaky_relu(norm(layer(x)), 0.2)
            features.append(x)
        return [*features, self.verdict(x)]


def balanced(picture: Tensor, near: Tensor, real: Tensor, weight: float) -> Tensor:
    """Return the gradient at the picture of being near, plus that of looking real at `weight` times its norm."""
    (first,) = torch.autograd.grad(near, picture, retain_graph=True)
    (second,) = torch.autograd.grad(real, picture)
    return first + second * (weight * first.norm() / (second.norm() + 1e-12))


class TemporalTrainer:
    """A tokenizer in training: `step` moves it by one frame of every stream."""

    def __init__(self, net: TemporalNet, footage: Footage, how: TemporalTraining, compiled: bool = False) -> None:
        device = footage.frames.device
        self.net, self.how, self.device = net, how, device
        generator = torch.Generator(device).manual_seed(how.seed)
        self.streams = Streams(footage, how.batch, net.shape.past, net.shape.past_actions, generator)
        self.critic = PatchCritic().to(device)
        fused = device.type == "cuda"
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=1.0, betas=(0.9, 0.99), weight_decay=0.01, fused=fused)
        self.critic_optimizer = torch.optim.AdamW(
            self.critic.parameters(), lr=4e-4, betas=(0.5, 0.99), weight_decay=0.01, fused=fused
        )
        self.mean = {name: value.detach().clone() for name, value in net.named_parameters()}
        self.price, self.steps = torch.tensor(how.price, device=device), 0
        wrap: Callable[[Any], Any] = torch.compile if compiled else lambda module: module
        self.run, self.judge = wrap(net), wrap(self.critic)

    def _rate(self, done: float) -> float:
        warm = min(1.0, done / self.how.warmup) if self.how.warmup else 1.0
        return self.how.learning_rate * warm * (0.5 + 0.5 * math.cos(math.pi * min(1.0, done)))

    def step(self, done: float) -> dict[str, Tensor]:
        """Train one step; `done` in [0, 1] is how much of the run is over."""
        how = self.how
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(done)
        pictures, actions, frames = self.streams.batch()
        with torch.autocast(self.device.type, torch.bfloat16):
            coded = self.run(pictures, actions, frames)
        near = nearness(coded.picture, frames)
        others = how.expected * nearness(coded.expected, frames) + 0.002 * coded.prior
        others = others + 0.1 * (coded.recalled.float() - pooled(pictures[:, -1])).square().mean()
        bits = coded.bits.mean()
        if done >= how.price_from:
            others = others + self.price.clone() * bits
            self.price *= (0.003 * (bits.detach() / how.bits - 1).clamp(-1, 1)).exp()
        sharp = how.sharp if done >= how.sharp_from and how.sharp else 0.0
        if sharp:
            real = self._looks_real(coded.picture, pictures[:, -1], frames)
            gradient = balanced(coded.picture, near, real, sharp)
            torch.autograd.backward([coded.picture, others], [gradient, torch.ones_like(others)])
        else:
            (near + others).backward()
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._average(done)
        self.streams.advance(coded.picture.clamp(-1, 1), how.restart)
        if how.sharp and done >= how.sharp_from - 0.05:
            self._train_critic(coded.picture.detach(), pictures[:, -1], frames)
        self.steps += 1
        return {"near": near.detach(), "bits": bits.detach(), "prior": coded.prior.detach(), "norm": norm}

    def _looks_real(self, made: Tensor, before: Tensor, frames: Tensor) -> Tensor:
        """Return a loss of pictures (B, 3, H, W) that do not look real after those before: features, then verdict."""
        self.critic.requires_grad_(False)
        with torch.autocast(self.device.type, torch.bfloat16):
            with torch.no_grad():
                wanted = self.judge(torch.cat([before, frames], 1))
            found = self.judge(torch.cat([before, made], 1))
        self.critic.requires_grad_(True)
        alike = sum((a.float() - b.float()).abs().mean() for a, b in zip(found[:-1], wanted[:-1], strict=True))
        return alike - 0.2 * found[-1].float().mean()

    def _train_critic(self, made: Tensor, before: Tensor, frames: Tensor) -> None:
        with torch.autocast(self.device.type, torch.bfloat16):
            real = self.judge(torch.cat([before, frames], 1))[-1].float()
            fake = self.judge(torch.cat([before, made], 1))[-1].float()
        (F.relu(1 - real).mean() + F.relu(1 + fake).mean()).backward()
        self.critic_optimizer.step()
        self.critic_optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _average(self, done: float) -> None:
        """Keep a running mean of the weights, over more steps as the run goes on."""
        decay = min(0.999, (1 + self.steps) / (10 + self.steps))
        names = list(self.mean)
        present = dict(self.net.named_parameters())
        torch._foreach_lerp_([self.mean[n] for n in names], [present[n].detach() for n in names], 1 - decay)

    def take_mean(self) -> None:
        """Make the running mean the network's weights."""
        with torch.no_grad():
            for name, value in self.net.named_parameters():
                value.copy_(self.mean[name])


def watch(trainer: TemporalTrainer, done: Callable[[], float], every: int) -> Iterator[dict[str, float]]:
    """Train until `done` is 1, yielding what each `every` steps say."""
    while (part := done()) < 1:
        values = trainer.step(part)
        if trainer.steps % every == 0:
            yield {"step": trainer.steps, "done": part, "price": float(trainer.price)} | {
                k: float(v) for k, v in values.items()
            }

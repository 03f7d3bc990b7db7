"""Reinforcement with a reward that what really happened verifies: groups of futures of one context, compared.

Of each context several futures are drawn. A future's reward is how near it comes to the true frames and how sharp it
is; its advantage is its reward beside those of its group (GRPO, arXiv 2402.03300), frame by frame, counted from that
frame on. A penalty keeps the distribution near the one that training began with.
"""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from framepred.config.learning import ReinforcementRecipe
from framepred.config.recipe import Recipe
from framepred.errors import FramepredError
from framepred.io.interrupts import interrupts_held
from framepred.training.arithmetic import arithmetic
from framepred.training.log import MetricsLog
from framepred.training.objectives import PredictorObjective
from framepred.training.resume import TrainState
from framepred.training.windows import Windows, step_generator
from framepred.video.gradient import gradient
from framepred.world.goal import feature_distance
from framepred.world.rollout import predict
from framepred.world.run import Run

STATE = "resume-reinforce.safetensors"

Clip = tuple[Tensor, Tensor | None]
"""Frames uint8 (T, 3, H, W), and the actions (≥ T - 1) between them or None."""


@dataclass(frozen=True)
class Reinforced:
    """Training after an update: the group's mean `reward`, and `kl`, nats a token that it has moved from its start.

    `error` is the root mean squared error of its futures over that of copying the last frame, `sharpness` their image
    gradient over the truth's.
    """

    step: int
    fraction: float
    reward: float
    error: float
    sharpness: float
    kl: float


@dataclass(frozen=True)
class Rewards:
    """Of S futures of T frames, float64 (S, T): the reward of each frame, its error over copying's, its sharpness."""

    reward: Tensor
    error: Tensor
    sharpness: Tensor


def score(run: Run, futures: Tensor, truth: Tensor, last: Tensor, weights: ReinforcementRecipe) -> Rewards:
    """Score futures uint8 (S, T, 3, H, W) against the truth (T, 3, H, W) after the frame `last` (3, H, W).

    The reward is minus the error and the distance of features, as shares of copying's over all frames, and minus how
    far the logarithm of the sharpness is from 0, each with its weight.
    """
    made, true, before = (x.double() / 255 for x in (futures, truth, last))
    copied = (true - before).square().mean().sqrt().clamp(min=1e-3)
    error = (made - true).square().mean((2, 3, 4)).sqrt() / copied
    sharpness = gradient(futures) / gradient(truth).clamp(min=1e-6)
    reward = -weights.error * error - weights.sharpness * sharpness.clamp(min=1e-3).log().abs()
    if weights.features:
        copy_far = torch.stack([feature_distance(run, frame)(last[None])[0] for frame in truth]).mean().clamp(min=1e-6)
        far = torch.stack([feature_distance(run, frame)(futures[:, t]) for t, frame in enumerate(truth)], 1)
        reward = reward - weights.features * far.double() / copy_far
    return Rewards(reward, error, sharpness)


def advantages(rewards: Tensor) -> Tensor:
    """Rewards (S, T) → advantages (S, T): what follows from each frame on, beside the other futures of the group."""
    following = rewards.flip(1).cumsum(1).flip(1)
    return (following - following.mean(0)) / following.std(0, correction=0).clamp(min=1e-6)


class Reinforcer:
    """A run whose predictor is reinforced on clips, its start to stay near to, and what it needs to go on."""

    def __init__(
        self, run: Run, episodes: Sequence[Clip], recipe: Recipe, accelerator: Accelerator, folder: Path
    ) -> None:  # fmt: skip
        self.run, self.recipe, self.accelerator = run, recipe, accelerator
        wanted = recipe.reinforcement
        self.length = wanted.context + wanted.horizon
        self.episodes = [clip for clip in episodes if len(clip[0]) >= self.length]
        if self.length > run.window:
            raise FramepredError(
                f"reinforcement.context + horizon = {self.length} is not allowed; the run's window is {run.window}"
            )
        if not self.episodes:
            raise FramepredError(f"no episode has {self.length} frames (reinforcement.context + horizon)")
        self.model, self.start = run.predictor, copy.deepcopy(run.predictor).requires_grad_(False)
        windows = Windows.build([], [], run.layout, run.window, 1.0)
        self.objective = PredictorObjective(windows, windows, recipe, accelerator, None, None)
        parameters = list(self.model.requires_grad_(True).parameters())
        self.optimizer = torch.optim.AdamW(
            parameters, lr=wanted.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        )
        self.state = TrainState.of(self.model, [self.optimizer])
        self.file, self.log_file = folder / STATE, folder / "metrics.jsonl"
        if self.file.exists():
            self.state.load(self.file)

    def updates(self) -> Iterator[Reinforced]:
        """Yield each update.

        The state is saved whenever `save_minutes` have passed, at the end, and where the caller stops between updates.
        """
        log = MetricsLog(self.log_file, "reinforce", self.state.step, True)
        total, saved = self.recipe.reinforcement.updates, time.monotonic()
        try:
            while self.state.step < total:
                with interrupts_held():
                    made = self._update(self.state.step)
                    self.state.count_step(0.0)
                    log.write({"stage": "reinforce", **asdict(made)})
                if time.monotonic() - saved > self.recipe.training.save_minutes * 60:
                    self.state.save(self.file, self.accelerator, 0.0)
                    saved = time.monotonic()
                yield made
        finally:
            self.state.save(self.file, self.accelerator, 0.0)
            log.close()

    def _update(self, step: int) -> Reinforced:
        wanted, loop = self.recipe.reinforcement, self.recipe.training
        generator = step_generator(loop.seed, 7, step)
        groups = [self._group(self._clip(generator), step * wanted.contexts + n) for n in range(wanted.contexts)]
        self.model.train()
        kl = 0.0
        for ids, advantage, _ in groups:
            with arithmetic(self.accelerator, loop):
                loss, moved = self._loss(ids, advantage)
            (loss / wanted.contexts).backward()
            kl += moved / wanted.contexts
        torch.nn.utils.clip_grad_norm_(self.state.parameters, loop.clip_gradient)
        self.optimizer.step()
        self.optimizer.zero_grad()
        reward, error, sharpness = (
            float(torch.stack([getattr(made, name).mean() for _, _, made in groups]).mean())
            for name in ("reward", "error", "sharpness")
        )
        return Reinforced(step + 1, (step + 1) / wanted.updates, reward, error, sharpness, kl)

    def _clip(self, generator: torch.Generator) -> Clip:
        """Draw an episode and where a clip begins in it."""
        frames, actions = self.episodes[int(torch.randint(len(self.episodes), (1,), generator=generator))]
        first = int(torch.randint(len(frames) - self.length + 1, (1,), generator=generator))
        taken = None if actions is None else actions[first : first + self.length - 1]
        return frames[first : first + self.length], taken

    @torch.no_grad()
    def _group(self, clip: Clip, seed: int) -> tuple[Tensor, Tensor, Rewards]:
        """Draw a group of futures → their ids (S, L), the advantages (S, T) of their frames, and their rewards."""
        wanted, run = self.recipe.reinforcement, self.run
        frames, actions = clip
        context = frames[: wanted.context]
        # They still require gradients: packed copies of them would not follow the optimizer.
        self.model.eval()
        known = run.tokenizer.encode(context, actions).cpu()
        sampling = run.sampling(1.0, 0, 1.0, (self.recipe.training.seed << 32) + seed)
        made = list(predict(run, known, actions, wanted.horizon, wanted.group, sampling, first=context))
        futures, tokens = (torch.stack([getattr(m, name) for m in made], 1) for name in ("frames", "tokens"))
        action_ids = run.layout.action_ids(actions, self.length - 1)
        ids = torch.stack([run.layout.pack(torch.cat([known, own]), action_ids) for own in tokens])
        rewards = score(run, futures, frames[wanted.context :], context[-1], wanted)
        return ids, advantages(rewards.reward), rewards

    def _loss(self, ids: Tensor, advantage: Tensor) -> tuple[Tensor, float]:
        """Return the loss of a group of futures, and how far it has moved from its start, in nats a token."""
        wanted, layout = self.recipe.reinforcement, self.run.layout
        frame = torch.arange(ids.shape[1]) // layout.stride
        slot = torch.arange(ids.shape[1]) % layout.stride
        drawn = (frame >= wanted.context) & (slot >= layout.context_tokens) & (slot < layout.row_tokens)
        mask = drawn.expand(len(ids), -1)
        # Only what can be drawn competes: else what a future loses goes to ids that are never drawn.
        legal = sorted({layout.legal(layout.context_tokens + n) for n in range(layout.frame_tokens)})
        losses, places = self.objective.losses(self.model, ids, mask, ranges=legal)
        with torch.no_grad():
            began, _ = self.objective.losses(self.start, ids, mask, ranges=legal)
        row, column = places // ids.shape[1], places % ids.shape[1]
        weight = advantage[row, frame[column] - wanted.context].to(losses.device, losses.dtype)
        # An estimate of the divergence that is never below 0, and not biased (k3).
        difference = losses - began
        kl = difference.exp() - difference - 1
        loss = (weight * losses).mean() + wanted.kl * kl.mean()
        if not math.isfinite(float(loss.detach())):
            raise FramepredError(
                f"the loss became {float(loss.detach())} at update {self.state.step}; "
                f"lower reinforcement.learning_rate (now {wanted.learning_rate})"
            )
        return loss, float(kl.detach().mean())

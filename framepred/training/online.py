"""Learning that goes on after training: episodes come one by one, each is predicted first and then learned from.

The bits that an episode costs before it is learned from are its prequential code length (arXiv 2210.07931): no data is
held back, and what has been learned shows in what the next episode costs. Replay of what is known keeps it known
(arXiv 1811.11682).
"""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from framepred.config.recipe import Recipe
from framepred.io.interrupts import interrupts_held
from framepred.predictor.llama import Llama
from framepred.sequence.layout import SequenceLayout
from framepred.tokens.store import TokenEpisode
from framepred.training.arithmetic import arithmetic
from framepred.training.finetune import add_lora, merge_updates
from framepred.training.log import MetricsLog
from framepred.training.objectives import PredictorObjective
from framepred.training.resume import TrainState
from framepred.training.windows import Windows, split_episodes, step_generator

STATE = "resume-learn.safetensors"
_RECENT = 20
"""Episodes that an episode is compared with, to say whether it is surprising."""


@dataclass(frozen=True)
class Task:
    """Windows of a source's episodes in order: those that are learned from, and those that it is measured on."""

    name: str
    episodes: Windows
    held_out: Windows

    @staticmethod
    def build(name: str, episodes: Sequence[TokenEpisode], layout: SequenceLayout, window: int, share: float) -> "Task":
        """Hold out a `share` of the episodes, by a hash of their names."""
        parts = split_episodes([e.name for e in episodes], share)
        kept, held = (
            Windows.build([episodes[i] for i in part], [name] * len(part), layout, window, 1.0) for part in parts
        )
        return Task(name, kept, held)


@dataclass(frozen=True)
class EpisodeLearned:
    """An episode of a task: its `bits` a frame before it was learned from, and whether it was `learned` from.

    `fraction` of all episodes are done.
    """

    step: int
    fraction: float
    task: str
    episode: int
    frames: int
    bits: float
    learned: bool


@dataclass(frozen=True)
class Measured:
    """Bits a frame on each task's held-out episodes by name, after `step` episodes; `after` names the last task."""

    step: int
    fraction: float
    after: str
    bits: dict[str, float]


def read_learning(file: Path) -> tuple[list[EpisodeLearned], list[Measured]]:
    """Return what a run's metrics.jsonl says of learning: its episodes, and what was measured between them."""
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    found: dict[str, list[dict[str, Any]]] = {"learn": [], "measure": []}
    for row in rows:
        found.get(row.pop("stage"), []).append(row)
    return [EpisodeLearned(**row) for row in found["learn"]], [Measured(**row) for row in found["measure"]]


class OnlineLearner:
    """A predictor that learns from the episodes of tasks, one after the other, and what it needs to go on."""

    def __init__(
        self, model: Llama, tasks: Sequence[Task], known: Sequence[Task], recipe: Recipe, accelerator: Accelerator,
        folder: Path,
    ) -> None:  # fmt: skip
        self.model, self.tasks, self.known, self.recipe, self.accelerator = model, tasks, known, recipe, accelerator
        learning, self.loop = recipe.learning, recipe.training
        model.requires_grad_(not learning.lora_rank)
        if learning.lora_rank:
            add_lora(model, learning.lora_rank, self.loop.seed)
        model.to(accelerator.device)
        windows = tasks[0].episodes
        self.objective = PredictorObjective(windows, tasks[0].held_out, recipe, accelerator, None, None)
        rate = learning.lora_learning_rate if learning.lora_rank else learning.learning_rate
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        self.state = TrainState.of(model, [self.optimizer])
        self.total = sum(len(task.episodes) for task in tasks)
        self.file, self.log_file = folder / STATE, folder / "metrics.jsonl"
        if self.file.exists():
            self.state.load(self.file)

    def learn(self) -> Iterator[EpisodeLearned | Measured]:
        """Yield each episode after it was learned from, and what held-out episodes cost before and after each task.

        The state is saved at the end of a task, whenever `save_minutes` have passed, and where the caller stops between
        two episodes; the same call goes on from it, to the same weights. At the end the model has plain layers again.
        """
        log = MetricsLog(self.log_file, "learn", self.state.step, True)
        earlier, measured = read_learning(self.log_file)
        recent, known_steps = [made.bits for made in earlier], {m.step for m in measured}
        begun, first, saved = self.state.step, 0, time.monotonic()
        try:
            for number, task in enumerate(self.tasks):
                last = first + len(task.episodes)
                if begun <= first and first not in known_steps:
                    yield self._measured(log, "" if number == 0 else self.tasks[number - 1].name)
                for step in range(max(begun, first), last):
                    # Scoring a long episode takes long, and changes nothing.
                    scored = self._bits(task.episodes, step - first)
                    with interrupts_held():
                        made = self._episode(step, number, step - first, scored, recent)
                        self.state.count_step(0.0)
                        log.write({"stage": "learn", **asdict(made)})
                    recent.append(made.bits)
                    if step + 1 == last or time.monotonic() - saved > self.loop.save_minutes * 60:
                        self.state.save(self.file, self.accelerator, 0.0)
                        saved = time.monotonic()
                    yield made
                first = last
            if first not in known_steps:
                yield self._measured(log, self.tasks[-1].name)
        except (GeneratorExit, KeyboardInterrupt):
            # Neither comes in the middle of an episode's updates.
            self.state.save(self.file, self.accelerator, 0.0)
            raise
        finally:
            log.close()
        merge_updates(self.model)

    def _measured(self, log: MetricsLog, after: str) -> Measured:
        bits = {t.name: self._bits_of(t.held_out) for t in (*self.known, *self.tasks) if len(t.held_out)}
        made = Measured(self.state.step, self.state.step / self.total, after, bits)
        log.write({"stage": "measure", **asdict(made)})
        return made

    def _episode(
        self, step: int, number: int, index: int, scored: tuple[float, int], recent: Sequence[float]
    ) -> EpisodeLearned:
        """Learn from an episode of these bits and frames, unless it surprises no more than those before it."""
        task, learning, (bits, frames) = self.tasks[number], self.recipe.learning, scored
        usual = recent[-_RECENT:]
        learns = not (learning.only_surprising and usual and bits <= sum(usual) / len(usual))
        if learns:
            for update in range(learning.steps):
                self._update(step_generator(self.loop.seed, 6, step, update), number, index)
        return EpisodeLearned(step + 1, (step + 1) / self.total, task.name, index, frames, bits, learns)

    def _update(self, generator: torch.Generator, number: int, index: int) -> None:
        ids, real = self._batch(generator, number, index)
        self.model.train()
        with arithmetic(self.accelerator, self.loop):
            loss = self.objective.loss_of(self.model, ids, real, generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.state.parameters, self.loop.clip_gradient)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _batch(self, generator: torch.Generator, number: int, index: int) -> tuple[Tensor, Tensor]:
        """Return windows of an episode; where there is replay, also of earlier episodes and of what is known."""
        learning, task = self.recipe.learning, self.tasks[number]
        pool = [*self.known, *self.tasks[:number]] if self.known else []
        old = round(learning.batch_size * learning.replay) if pool else 0
        new = torch.full((learning.batch_size - old,), index)
        if old:
            # Half of them are of any episode of the task up to this one.
            again = len(new) // 2
            new[:again] = torch.randint(index + 1, (again,), generator=generator)
        parts = [task.episodes.gather(new, task.episodes.draw_offsets(new, generator))]
        if old:
            sizes = torch.tensor([float(t.episodes.lengths.sum()) for t in pool])
            drawn = torch.multinomial(sizes.sqrt(), old, replacement=True, generator=generator)
            counts = torch.bincount(drawn, minlength=len(pool)).tolist()
            parts += [t.episodes.batch(count, generator) for t, count in zip(pool, counts, strict=True) if count]
        ids, real = (torch.cat(rows) for rows in zip(*parts, strict=True))
        return ids, real

    def _bits_of(self, windows: Windows) -> float:
        scored = [self._bits(windows, i) for i in range(len(windows))]
        return sum(bits * frames for bits, frames in scored) / sum(frames for _, frames in scored)

    @torch.inference_mode()
    def _bits(self, windows: Windows, episode: int) -> tuple[float, int]:
        """Return the mean bits of an episode's frames but the first, given those before it, and how many there are."""
        self.model.eval()
        ids, real = windows.covering(episode)
        weights = self.objective.weights(real)
        size, total = self.recipe.learning.batch_size, 0.0
        with arithmetic(self.accelerator, self.loop):
            for part, weight in zip(ids.split(size), weights.split(size), strict=True):
                total += float(self.objective.cross_entropy(self.model, part, weight)) * float(weight.sum())
        frames = int(weights.sum()) // windows.layout.frame_tokens
        return total / math.log(2) / frames, frames

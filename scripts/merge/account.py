"""What a training drew: replayed by the same code that draws it, without computing a loss."""

import hashlib
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from framepred.config.recipe import load_recipe
from framepred.llm.token_names import read_text_files
from framepred.tokens.store import read_store
from framepred.training.held_out import divided, episodes_of, stored_held_out
from framepred.training.initialisation import make_words
from framepred.training.loop import make_accelerator
from framepred.training.objectives import PredictorObjective
from framepred.training.windows import Windows
from framepred.world.run import Run


@dataclass(frozen=True)
class Drawn(Windows):
    """Windows that note which of them were drawn."""

    digest: Any = field(default_factory=hashlib.sha256)

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        episodes, offsets = super().draw(size, generator)
        self.digest.update(torch.stack([episodes, offsets]).numpy().tobytes())
        return episodes, offsets


class _Counting(PredictorObjective):
    """Counts the ids that a loss would be of."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.text = self.frames = self.read = 0

    def cross_entropy(self, run: nn.Module, ids: Tensor, weights: Tensor, seen: Tensor | None = None) -> Tensor:
        words, learned = ids < self.layout.vocabulary.text_size, weights > 0
        self.text += int((words & learned).sum())
        self.frames += int((~words & learned).sum())
        self.read += ids.numel()
        return torch.zeros(())


def account(run: Run, steps: int, store: str, texts: list[str]) -> dict[str, Any]:
    """Return what `steps` steps of a run drew: a hash of the windows in order, and ids by kind.

    `frame_ids` and `text_ids` have a loss, `ids` were read, padding included.
    """
    recipe = load_recipe(run.path / "recipe.toml")
    names = run.layout.actions.names if run.layout.actions else None
    parts = divided(
        episodes_of([store], names, []), stored_held_out(run.path) or (), recipe.data.validation_fraction
    )  # fmt: skip
    built = [
        Windows.build([e for e, _ in part], [s for _, s in part], run.layout, run.window, recipe.data.source_power)
        for part in parts
    ]
    drawn = Drawn(**{f.name: getattr(built[0], f.name) for f in fields(Windows)})
    files = read_text_files(run.path)
    words = make_words(recipe, run.predictor, run.layout, files, [e for e, _ in parts[0]], texts)
    objective = _Counting(drawn, built[1], recipe, make_accelerator(), words, None)
    for step in range(steps):
        objective.loss(run.predictor, step)
    return {
        "steps": steps, "seed": recipe.training.seed, "windows_sha256": drawn.digest.hexdigest(),
        "frames": steps * recipe.predictor.batch_size * run.window, "frame_ids": objective.frames,
        "text_ids": objective.text, "ids": objective.read, "episodes": len(read_store(store)),
    }  # fmt: skip

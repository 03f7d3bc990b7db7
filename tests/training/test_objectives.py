"""What the predictor reads and what it is asked for."""

import pytest
import torch
from torch import Tensor

from framepred.config.recipe import Recipe, apply_settings, load_recipe
from framepred.predictor.llama import Llama
from framepred.sequence.actions import ActionSpace
from framepred.sequence.layout import SequenceLayout
from framepred.sequence.vocabulary import Vocabulary
from framepred.tokens.store import TokenEpisode
from framepred.training.loop import Stage, make_accelerator
from framepred.training.objectives import llama_config, predictor_stage
from framepred.training.windows import Windows, step_generator

CODES, PLACES, CONTEXT = 6, 4, 50
LAYOUT = SequenceLayout(
    Vocabulary(0, CODES * PLACES, 3, CONTEXT), (2, 2), ActionSpace("discrete", ("a",), count=3), (2, 2), cells=True
)


def recipe(noise: float) -> Recipe:
    settings = [
        "training.precision=fp32", "predictor.batch_size=4", "predictor.action_dropout=0", "predictor.width=16",
        "predictor.heads=2", "predictor.kv_heads=2", "predictor.layers=1", f"predictor.context_noise={noise}",
    ]  # fmt: skip
    return apply_settings(load_recipe("tiny"), settings)


def stage_of(noise: float) -> tuple[Stage, Windows]:
    generator = torch.Generator().manual_seed(0)
    episodes = []
    for i in range(3):
        context = torch.randint(0, CONTEXT, (9, 4), generator=generator)
        own = torch.randint(0, CODES, (9, PLACES), generator=generator)
        actions = torch.randint(0, 3, (8,), generator=generator)
        episodes.append(TokenEpisode(f"e{i}", "s", 10.0, torch.cat([context, own], 1).int(), actions))
    windows = Windows.build(episodes, ["s"] * 3, LAYOUT, 4, 1.0)
    torch.manual_seed(0)
    model = Llama(llama_config(recipe(noise).predictor, LAYOUT))
    model.initialise(generator)
    return predictor_stage(model, windows, windows, recipe(noise), make_accelerator()), windows


def test_each_cell_is_asked_among_its_own_codes() -> None:
    stage, windows = stage_of(0.0)
    ids, _ = windows.gather(*windows.draw(4, step_generator(0, 2, 0)))
    assert isinstance(stage.model, Llama)
    with torch.no_grad():
        logits = stage.model(ids)[:, :-1]
        losses = torch.zeros(4, 4, LAYOUT.stride)
        flat = losses.flatten(1)
        for place in range(1, 4 * LAYOUT.stride):
            slot = place % LAYOUT.stride
            if slot < LAYOUT.row_tokens:
                start, stop = LAYOUT.legal(slot)
                chances = logits[:, place - 1, start:stop].log_softmax(-1)
                flat[:, place] = -chances.gather(1, ids[:, place, None] - start)[:, 0]
        # Frames and what they are given weigh alike; a window's first frame follows from nothing.
        wanted = losses[:, 1:, : LAYOUT.row_tokens].mean()
        assert torch.allclose(stage.loss(stage.model, 0)[0], wanted, atol=1e-4)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_noise_changes_context_tokens_that_are_read_and_no_target(noise: float) -> None:
    stage, windows = stage_of(noise)
    ids, _ = windows.gather(*windows.draw(4, step_generator(0, 2, 0)))
    read: list[Tensor] = []

    def run(seen: Tensor, wanted: list[tuple[Tensor, tuple[int, int], Tensor]]) -> list[Tensor]:
        read.append(seen)
        for places, (first, _), right in wanted:
            assert torch.equal(ids.flatten()[places + 1], right + first)
        return [torch.zeros(len(places)) for places, _, _ in wanted]

    stage.loss(run, 0)  # type: ignore[arg-type]
    changed = (read[0] != ids).unflatten(1, (-1, LAYOUT.stride))
    assert not bool(changed[:, :, LAYOUT.context_tokens :].any())
    share = float(changed[:, :, : LAYOUT.context_tokens].float().mean())
    assert share == 0 if noise == 0 else 0.05 < share < 0.5

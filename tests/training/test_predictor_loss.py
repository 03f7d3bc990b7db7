"""The predictor's loss and validation, and the warning of a tokenizer that collapses."""

import warnings

import pytest
import torch
from conftest import TINY_SETTINGS
from torch import nn

from framepred.config.recipe import Recipe, apply_settings, load_recipe
from framepred.predictor.llama import Llama
from framepred.sequence.actions import ActionSpace
from framepred.sequence.layout import SequenceLayout
from framepred.sequence.vocabulary import Vocabulary
from framepred.tokens.store import TokenEpisode
from framepred.training.loop import Stage, make_accelerator
from framepred.training.objectives import _CollapseWatch, llama_config, predictor_stage
from framepred.training.windows import Windows

pytestmark = [
    pytest.mark.filterwarnings("ignore::framepred.errors.FramepredWarning"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.mark.parametrize(
    ("quantizer", "advice"),
    [
        ("fsq", "fewer tokenizer.levels"),
        ("ema", "tokenizer.distance=cosine"),
    ],
)
def test_collapse_is_warned_about_while_it_lasts(quantizer: str, advice: str) -> None:
    watch = _CollapseWatch(apply_settings(Recipe(), [f"tokenizer.quantizer={quantizer}"]).tokenizer, warns=True)
    warned = []
    for step in range(1, 5001):
        healthy = 2500 < step < 3500
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            watch.count_step(900 if healthy else 20, 1000)
        if caught:
            warned.append(step)
            assert f"collapsing: 20 codes in use after {step} steps, of 1000 that a batch could have" in str(
                caught[0].message
            )
            assert advice in str(caught[0].message)
    assert warned == [500, 1000, 2000, 4000]
    silent = _CollapseWatch(Recipe().tokenizer, warns=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(600):
            silent.count_step(0, 1000)


# The predictor's loss.

LAYOUT = SequenceLayout(Vocabulary(0, 6, 3), (1, 2), ActionSpace("discrete", ("a",), count=3))


def token_episode(length: int, seed: int, actions_seed: int = 0) -> TokenEpisode:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 6, (length, 1, 2), generator=generator).int()
    actions = torch.randint(0, 3, (length,), generator=torch.Generator().manual_seed(actions_seed))
    return TokenEpisode(f"e{seed}", "s", 10.0, tokens, actions)


def stage_of(
    episodes: list[TokenEpisode], held: list[TokenEpisode], dropout: float, window: int = 4
) -> tuple[Stage, Llama]:
    settings = (*TINY_SETTINGS, f"predictor.window={window}", f"predictor.action_dropout={dropout}")
    recipe = apply_settings(load_recipe("tiny"), settings)
    model = Llama(llama_config(recipe.predictor, LAYOUT))
    model.initialise(torch.Generator().manual_seed(0))
    for parameter in model.parameters():
        parameter.data.mul_(4 if parameter.ndim > 1 else 1)
    parts = [Windows.build(part, ["s"] * len(part), LAYOUT, window, 1.0) for part in (episodes, held)]
    return predictor_stage(model, *parts, recipe, make_accelerator()), model


def test_loss_is_the_cross_entropy_of_the_real_frames_alone() -> None:
    episode = token_episode(3, 0)
    stage, model = stage_of([episode], [episode], dropout=0.0, window=6)
    ids = LAYOUT.pack(episode.tokens, LAYOUT.action_ids(episode.actions, 2))
    logits = model(ids[None])[0]
    expected = [nn.functional.cross_entropy(logits[p - 1], ids[p]) for p in (3, 4, 6, 7)]
    assert stage.loss(model, 0)[0].item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)
    assert stage.validate(model)["validation_loss"] == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


def test_a_dropped_action_is_not_seen() -> None:
    first, second = ([token_episode(8, 0, actions_seed=s)] for s in (1, 2))
    for dropout, alike in ((0.0, False), (1.0, True)):
        one, other = (stage_of(e, e, dropout) for e in (first, second))
        assert (one[0].loss(one[1], 0)[0].item() == other[0].loss(other[1], 0)[0].item()) is alike
        # Validation shows both, whatever the dropout.
        a, b = one[0].validate(one[1]), other[0].validate(other[1])
        assert a["validation_loss"] != b["validation_loss"]
        assert a["validation_loss_no_actions"] == b["validation_loss_no_actions"]


def test_nothing_held_out_nothing_validated() -> None:
    stage, model = stage_of([token_episode(8, 0)], [], 0.0)
    assert stage.validate(model) == {}

"""A run whose tokenizer sees pictures and actions: stored, loaded, rolled out, with actions and without."""

import json
from pathlib import Path

import pytest
import torch
from conftest import moving_square
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from temporal_run import DISCRETE, SHAPE, make_tokenizer, write_temporal_run
from torch import Tensor

from framepred.decoding.engine import DECODERS
from framepred.decoding.sampling import Sampling
from framepred.errors import FramepredError
from framepred.sequence.actions import ActionSpace
from framepred.tokenizer.checkpoint import load_tokenizer, save_tokenizer
from framepred.tokenizer.contract import actions_before
from framepred.tokenizer.temporal_net import TemporalShape
from framepred.video.read import Clip
from framepred.world.info import describe
from framepred.world.rollout import predict, rollout
from framepred.world.run import Run, load_run

CONTEXT, HORIZON = 4, 7
FRAMES, ACTIONS = moving_square(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_temporal_run(tmp_path_factory.mktemp("temporal") / "run")


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return load_run(folder)


def made(
    run: Run, actions: Tensor | None, decoder: str = "auto", samples: int = 2, first: Tensor = FRAMES[:CONTEXT]
) -> tuple[Tensor, Tensor]:
    """Return frames (S, T, 3, H, W) and tokens (S, T, K + N) after the context."""
    tokens = run.tokenizer.encode(FRAMES[:CONTEXT], None if actions is None else actions[: CONTEXT - 1])
    steps = predict(run, tokens, actions, HORIZON, samples, Sampling(seed=1), decoder, first=first)
    moments = list(steps)
    return torch.stack([m.frames for m in moments], 1), torch.stack([m.tokens for m in moments], 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_stored_tokenizer_is_loaded_as_it_was(tmp_path: Path, dtype: torch.dtype) -> None:
    tokenizer = make_tokenizer()
    save_tokenizer(tmp_path / "t", tokenizer, "", dtype)
    with safe_open(tmp_path / "t" / "model.safetensors", "pt") as stored:
        assert stored.get_tensor("net.from_code.weight").dtype == dtype
    again = load_tokenizer(tmp_path / "t")
    assert again.shape == SHAPE and json.loads((tmp_path / "t" / "config.json").read_text())["recipe"]["past"] == 3
    for name, value in again.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, tokenizer.state_dict()[name].to(dtype).float())


@pytest.mark.parametrize("recipe", [{"past": "three"}, {"unknown": 1}, {"levels": 3}])
def test_a_recipe_that_makes_no_tokenizer_is_refused_in_one_line(tmp_path: Path, recipe: dict[str, object]) -> None:
    save_tokenizer(tmp_path, make_tokenizer(), "")
    config = json.loads((tmp_path / "config.json").read_text()) | {"recipe": recipe}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FramepredError, match="is not the one that"):
        load_tokenizer(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file(load_file(file), file, {"config": json.dumps(config, sort_keys=True)})
    with pytest.raises(FramepredError, match="has no recipe of a temporal tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("space", "shape", "words"),
    [
        (ActionSpace("discrete", ("a",), 5), SHAPE, "has 5 discrete actions, its tokenizer knows 4 discrete"),
        (
            ActionSpace("continuous", ("x", "y"), edges=((0.0,), (1.0,))), SHAPE,
            "has 2 continuous actions, its tokenizer knows 4 discrete",
        ),
        (
            ActionSpace("continuous", ("x",), edges=((0.0,),)),
            TemporalShape(**{**vars(SHAPE), "action_size": 2, "continuous": True}),
            "has 1 continuous actions, its tokenizer knows 2 continuous",
        ),
        (DISCRETE, TemporalShape(**{**vars(SHAPE), "action_names": ("move",)}), "knows .'move'.: train the run again"),
    ],
)  # fmt: skip
def test_a_run_of_other_actions_than_its_tokenizer_is_refused(
    tmp_path: Path, space: ActionSpace, shape: TemporalShape, words: str
) -> None:
    with pytest.raises(FramepredError, match=words):
        load_run(write_temporal_run(tmp_path / "run", space, shape))


@pytest.mark.parametrize("actions", [None, ACTIONS], ids=["no actions", "actions"])
def test_stepping_is_one_call_for_every_decoder(run: Run, actions: Tensor | None) -> None:
    frames, tokens = made(run, actions)
    assert frames.shape == (2, HORIZON, 3, 64, 64) and tokens.shape == (2, HORIZON, 32)
    for decoder in DECODERS:
        again = made(run, actions, decoder)
        assert torch.equal(again[0], frames) and torch.equal(again[1], tokens)
        session = run.session(
            FRAMES[:CONTEXT], None if actions is None else actions[: CONTEXT - 1], samples=2, seed=1, decoder=decoder
        )
        for t in range(HORIZON):
            shown = session.step(None if actions is None else actions[CONTEXT - 1 + t])
            assert torch.equal(shown, frames[:, t]) and torch.equal(session.tokens, tokens[:, t])
    clip = Clip(FRAMES, 10.0)
    whole = torch.stack(list(rollout(run, clip, actions, CONTEXT, HORIZON, 1, 2)), 1)
    assert torch.equal(whole, frames)


def test_the_future_is_what_the_tokenizer_decodes_from_the_first_picture(run: Run) -> None:
    frames, tokens = made(run, ACTIONS, samples=1, first=FRAMES[0])
    known = run.tokenizer.encode(FRAMES[:CONTEXT], ACTIONS)
    decoded = run.tokenizer.decode(torch.cat([known, tokens[0]]), ACTIONS, FRAMES[0])
    assert torch.equal(decoded[CONTEXT:], frames[0])


def test_a_future_is_drawn_from_the_true_pictures_where_they_are_known(run: Run) -> None:
    tokenizer = run.tokenizer
    (frames, tokens), given_back = made(run, ACTIONS, samples=1), made(run, ACTIONS, samples=1, first=FRAMES[0])[0]
    known = FRAMES[CONTEXT - tokenizer.past : CONTEXT][None]
    actions = actions_before(tokenizer, ACTIONS, CONTEXT)
    own = tokens[0, :1, -16:].view(1, *tokenizer.grid)
    assert torch.equal(tokenizer.encode_context(known, actions).flatten(), tokens[0, 0, :16])
    assert torch.equal(tokenizer.decode_next(known, actions, own)[0], frames[0, 0])
    assert not torch.equal(given_back, frames)
    # What was observed is known as well, however it came.
    session = run.session(FRAMES[:1], seed=1)
    for frame, action in zip(FRAMES[1:CONTEXT], ACTIONS, strict=False):
        session.observe(frame, action)
    assert torch.equal(session.step(ACTIONS[CONTEXT - 1])[0], frames[0, 0])


def test_actions_change_the_future(run: Run) -> None:
    other = ACTIONS.clone()
    other[CONTEXT] = (other[CONTEXT] + 1) % 4
    frames, changed, bare = (made(run, a)[0] for a in (ACTIONS, other, None))
    assert torch.equal(frames[:, 0], changed[:, 0])
    assert not torch.equal(frames[:, 1], changed[:, 1])
    assert not torch.equal(frames[:, 0], bare[:, 0])


def test_the_first_picture_is_needed(run: Run) -> None:
    with pytest.raises(FramepredError, match="give the first picture of the clip"):
        next(predict(run, run.tokenizer.encode(FRAMES[:2]), None, 1))


def test_a_tokenizer_without_actions_in_a_run_with_some(tmp_path: Path) -> None:
    shape = TemporalShape(**{**vars(SHAPE), "action_size": 0})
    run = load_run(write_temporal_run(tmp_path / "run", DISCRETE, shape))
    assert run.tokenizer.past_actions == 0
    frames, changed = (made(run, a)[0] for a in (ACTIONS, (ACTIONS + 1) % 4))
    assert frames.shape == changed.shape and not torch.equal(frames, changed)


def test_info_says_what_it_is(folder: Path) -> None:
    facts = describe(str(folder / "tokenizer"))
    assert (facts["quantizer"], facts["past"], facts["actions"]) == ("fsq", 3, "4 discrete ids")
    assert (facts["grid"], facts["context_grid"], facts["codebook_size"]) == ([4, 4], [4, 4], 15)
    assert describe(str(folder))["tokens_per_frame"] == 16

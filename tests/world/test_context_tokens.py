"""Frames coded given the one before: the same futures by every way, and what a predictor learns of them."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from conftest import moving_square
from doubles import Chained
from torch import Tensor

from framepred.config.recipe import Recipe, apply_settings
from framepred.decoding.sampling import Sampling
from framepred.engines.contract import predict_by
from framepred.predictor.config import LlamaConfig
from framepred.predictor.llama import Llama
from framepred.sequence.actions import ActionSpace
from framepred.sequence.layout import SequenceLayout
from framepred.sequence.vocabulary import Vocabulary
from framepred.sources.folder import find_videos
from framepred.tokens.store import TokenEpisode, read_store, read_store_info
from framepred.tokens.tokenize import tokenize
from framepred.training.loop import make_accelerator
from framepred.training.objectives import predictor_stage
from framepred.training.windows import Windows, step_generator
from framepred.world.counterfactual import after_other_actions, after_other_pasts, take_past
from framepred.world.likelihood import token_logits
from framepred.world.rollout import predict
from framepred.world.run import Run
from framepred.world.session import window_start

SIZE, WINDOW, K, N = (32, 32), 5, 16, 4
pytestmark = pytest.mark.usefixtures("one_thread")

SPACE = ActionSpace("discrete", ("action",), count=4)


@pytest.fixture(scope="module")
def tokenizer() -> Chained:
    return Chained()


@pytest.fixture(scope="module")
def run(tokenizer: Chained) -> Run:
    """A run of random weights in float64: no two logits are nearly equal."""
    layout = SequenceLayout(Vocabulary(0, 12, 4, context_size=16), tokenizer.grid, SPACE, tokenizer.context_grid)
    predictor = Llama(LlamaConfig(layout.vocabulary.size, 16, 24, 2, 2, 2, WINDOW * layout.stride))
    generator = torch.Generator().manual_seed(0)
    for parameter in predictor.parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4
    predictor.double().eval().requires_grad_(False)
    return Run(Path("random"), predictor, tokenizer, layout, WINDOW, 10.0, "")


def frames_of(count: int, seed: int = 0) -> Tensor:
    return moving_square(seed, count)[0][:, :, ::2, ::2].contiguous()


def actions_of(count: int = 30) -> Tensor:
    return torch.randint(0, 4, (count,), generator=torch.Generator().manual_seed(1))


def future(run: Run, tokens: Tensor, horizon: int, samples: int = 1, decoder: str = "auto", **more: Any) -> Tensor:
    made = predict(run, tokens, actions_of(), horizon, samples, Sampling(**more), decoder)
    return torch.stack([p.tokens for p in made], 1)


def test_a_later_token_changes_no_earlier_logit(run: Run) -> None:
    tokens = run.tokenizer.encode(frames_of(9))
    before = dict(token_logits(run, tokens, actions_of()))
    assert list(before) == list(range(1, 9))
    assert all(logits.shape == (N, 12) for logits in before.values())
    for frame, place in ((1, 0), (3, 2), (6, 1)):
        changed = tokens.clone()
        changed[frame, K + place] = (changed[frame, K + place] + 1) % 12
        after = dict(token_logits(run, changed, actions_of()))
        assert all(torch.equal(before[f], after[f]) for f in range(1, frame))
        assert torch.allclose(before[frame][: place + 1], after[frame][: place + 1])
        if place < N - 1:
            assert not torch.allclose(before[frame][place + 1 :], after[frame][place + 1 :])


def test_a_frame_is_predicted_from_its_window_and_its_key_and_nothing_before(run: Run) -> None:
    tokens, layout = run.tokenizer.encode(frames_of(9)), run.layout
    ids = layout.action_ids(actions_of(), 9)
    for frame, logits in token_logits(run, tokens, actions_of()):
        start = window_start(frame, WINDOW)
        sequence = layout.pack(tokens[start : frame + 1], ids[start:frame])
        assert sequence[-N - K : -N].tolist() == (tokens[frame, :K] + layout.vocabulary.context[0]).tolist()
        with torch.inference_mode():
            expected = run.predictor(sequence[None])[0, -N - 1 : -1, : layout.vocabulary.visual[1]]
        assert torch.allclose(logits, expected.float(), atol=1e-5)
    other = tokens.clone()
    other[5, :K] = (other[5, :K] + 1) % 16
    after = dict(token_logits(run, other, actions_of()))
    changed = {f for f, v in token_logits(run, tokens, actions_of()) if not torch.allclose(v, after[f])}
    assert changed == {f for f in range(5, 9) if window_start(f, WINDOW) <= 5}


def test_a_frame_is_weighed_after_other_actions_and_other_pasts_with_the_keys_it_would_have(run: Run) -> None:
    tokens, layout = run.tokenizer.encode(frames_of(9)), run.layout
    ids = layout.action_ids(actions_of(), 9)

    def log_p(sequence: Tensor, frame: int) -> Tensor:
        own = layout.steps(tokens)[frame]
        with torch.inference_mode():
            logits = run.predictor(sequence[None])[0, -N - 1 : -1, slice(*layout.vocabulary.visual)]
        return logits.log_softmax(-1)[torch.arange(N), own].sum()

    candidates = torch.arange(*layout.vocabulary.action)[:, None]
    for frame, found in after_other_actions(run, tokens, actions_of(), candidates):
        start = window_start(frame, WINDOW)
        for action, value in zip(candidates, found, strict=True):
            taken = torch.cat([ids[start : frame - 1], action[None]])
            assert torch.allclose(log_p(layout.pack(tokens[start : frame + 1], taken), frame), value, atol=1e-5)

    other = run.tokenizer.encode(frames_of(8, seed=1))
    past = take_past(run, other, actions_of())
    assert past is not None and past.tokens.shape == (1, 4, K + N)
    for frame, found in after_other_pasts(run, tokens, actions_of(), past):
        given = torch.cat([past.tokens[0, 3, :K], layout.steps(tokens)[frame]])
        rows = torch.cat([past.tokens[0, :3], given[None]])
        sequence = layout.pack(rows, torch.cat([past.action_ids[0], ids[frame - 1 : frame]]))
        assert torch.allclose(log_p(sequence, frame), found[0], atol=1e-5)
    assert take_past(run, other[:3], None) is None


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("samples", [1, 3])
def test_decoders_agree_far_beyond_the_window(run: Run, temperature: float, samples: int) -> None:
    tokens = run.tokenizer.encode(frames_of(2))
    slow, fast = (
        future(run, tokens, 9, samples, name, temperature=temperature) for name in ("sequential", "speculative")
    )
    assert slow.shape == (samples, 9, K + N)
    assert torch.equal(slow, fast)
    assert temperature == 0 or len(torch.unique(slow[:, :, K:].flatten(1), dim=0)) == samples


def test_a_rollout_goes_on_where_another_ended(run: Run) -> None:
    tokens = run.tokenizer.encode(frames_of(2))
    made = list(predict(run, tokens, actions_of(), 10, 1, Sampling(seed=4)))
    whole = torch.cat([tokens, *(p.tokens for p in made)])
    frames = torch.cat([p.frames for p in made])
    for cut in (1, 4, 7):
        rest = list(predict(run, whole[: 2 + cut], actions_of(), 10 - cut, 1, Sampling(seed=4)))
        assert torch.equal(torch.cat([p.tokens for p in rest]), whole[2 + cut :])
        assert torch.equal(torch.cat([p.frames for p in rest]), frames[cut:])
    # The tokens of a rollout are those of a clip: they decode to what was shown, and its keys are its frames'.
    assert torch.equal(run.tokenizer.decode(whole)[2:], frames)
    assert torch.equal(run.tokenizer.encode_context(frames[:-1, None], None), whole[3:, :K])


def test_a_sample_does_not_depend_on_the_others(run: Run) -> None:
    tokens = run.tokenizer.encode(frames_of(3))
    many = future(run, tokens, 8, 3, seed=2)
    assert torch.equal(future(run, tokens, 8, 1, seed=2), many[:1])
    assert not torch.equal(many[0], many[1])


def test_another_engine_gives_the_same_greedy_frames(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def engine(run: Run, sampling: Sampling, server: str | None) -> Any:
        def complete(ids: list[int], count: int, legal: tuple[int, int], seed: int) -> list[int]:
            made = list(ids)
            for _ in range(count):
                made.append(int(run.predictor(torch.tensor([made]))[0, -1, slice(*legal)].argmax()) + legal[0])
            return made[len(ids) :]

        return complete

    monkeypatch.setitem(__import__("framepred.engines.contract", fromlist=["ENGINES"]).ENGINES, "double", engine)
    tokens = run.tokenizer.encode(frames_of(2))
    theirs = list(predict_by("double", run, tokens, actions_of(), 6, 1, Sampling(0.0)))
    ours = list(predict(run, tokens, actions_of(), 6, 1, Sampling(0.0)))
    for a, b in zip(theirs, ours, strict=True):
        assert torch.equal(a.tokens, b.tokens) and torch.equal(a.frames, b.frames)


def test_training_windows_are_what_a_rollout_sees(run: Run) -> None:
    layout = run.layout
    clips = [run.tokenizer.encode(frames_of(n, seed)).int() for seed, n in enumerate((8, 3))]
    episodes = [TokenEpisode(f"e{i}", "s", 10.0, rows, actions_of(len(rows))) for i, rows in enumerate(clips)]
    windows = Windows.build(episodes, ["s", "s"], layout, WINDOW, 1.0)
    ids, real = windows.batch(40, step_generator(0))
    assert ids.shape == (40, WINDOW * layout.stride)
    expected = set()
    for rows in clips:
        actions = layout.action_ids(actions_of(len(rows)), len(rows))
        for start in range(max(1, len(rows) - WINDOW + 1)):
            stretch = slice(start, start + WINDOW)
            expected.add(tuple(layout.pack(rows[stretch], actions[stretch]).tolist()))
    assert {tuple(row[: int(m.sum()) * layout.stride].tolist()) for row, m in zip(ids, real, strict=True)} == expected


def test_frames_are_learned_and_what_they_make_of_the_picture_too(run: Run) -> None:
    layout = run.layout
    clips = [run.tokenizer.encode(frames_of(6, seed)).int() for seed in range(4)]
    episodes = [TokenEpisode(f"e{i}", "s", 10.0, rows, actions_of(len(rows))) for i, rows in enumerate(clips)]
    windows = Windows.build(episodes, ["s"] * 4, layout, WINDOW, 1.0)
    settings = ["training.precision=fp32", "predictor.batch_size=4", "predictor.action_dropout=0"]
    settings.append("predictor.context_noise=0")
    model = Llama(run.predictor.config)
    model.load_state_dict(run.predictor.state_dict())
    stage = predictor_stage(model, windows, windows, apply_settings(Recipe(), settings), make_accelerator())

    def nats(ids: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss of frames' tokens and of keys', each among its own, of all frames but each window's first."""
        with torch.no_grad():
            logits = model(ids)[:, :-1]
        steps = [F.pad(x, (1, 0)).unflatten(1, (-1, layout.stride))[:, 1:] for x in (
            -logits[..., slice(*legal)].log_softmax(-1).gather(-1, (ids[:, 1:] - legal[0]).clamp(
                0, legal[1] - legal[0] - 1)[..., None])[..., 0]
            for legal in (layout.vocabulary.visual, layout.vocabulary.context)
        )]  # fmt: skip
        return steps[0][..., K : K + N].mean(), steps[1][..., :K].mean()

    ids, _ = windows.gather(*windows.draw(4, step_generator(0, 2, 0)))
    frames, keys = nats(ids)
    with torch.no_grad():
        assert torch.allclose(stage.loss(model, 0)[0], (frames + keys) / 2, atol=1e-4)
    ids, _ = windows.evenly(4 * apply_settings(Recipe(), settings).training.validation_batches)
    assert stage.validate(model)["validation_loss"] == pytest.approx(float(nats(ids)[0]), abs=1e-4)


def test_a_store_gives_the_tokens_back(tokenizer: Chained, clips_dir: Path, tmp_path: Path) -> None:
    videos = find_videos([clips_dir])[:1]
    list(tokenize(videos, tmp_path / "s", tokenizer, "delta", "a" * 64))
    info = read_store_info(tmp_path / "s")
    assert (info.grid, info.context_grid, info.codebook_size, info.context_codebook_size) == ((2, 2), (4, 4), 12, 16)
    table = pq.read_table(next((tmp_path / "s").glob("*.parquet"))).to_pylist()
    for row, episode, video in zip(table, read_store(tmp_path / "s"), videos, strict=True):
        rows = torch.cat(list(tokenizer.encode_stream(video.stream(SIZE, None))))
        assert torch.equal(episode.tokens.long(), rows)
        # The columns of every store speak of the frames' own tokens; three more hold the keys.
        assert len(row["tokens"]) == row["num_frames"] * row["grid_height"] * row["grid_width"] == 24 * N
        assert row["tokens"] == rows[:, K:].flatten().tolist()
        assert (row["context_height"], row["context_width"]) == (4, 4)
        assert row["context_tokens"] == rows[:, :K].flatten().tolist()

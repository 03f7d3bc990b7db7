"""Frames coded given the one before: one chain however it is cut, few tokens, the same futures by every way."""

import json
import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from conftest import TINY_SETTINGS, moving_square
from safetensors.torch import load_file
from torch import Tensor, nn

from framepred.cli import cli
from framepred.config.recipe import Recipe, apply, apply_settings, load_recipe
from framepred.decoding.sampling import Sampling
from framepred.engines.contract import predict_by
from framepred.errors import FramepredError, FramepredWarning, Interrupted
from framepred.evaluation.metrics import mse
from framepred.evaluation.scores import score_forecast
from framepred.predictor.config import LlamaConfig
from framepred.predictor.llama import Llama
from framepred.sequence.actions import ActionSpace
from framepred.sequence.layout import SequenceLayout
from framepred.sequence.vocabulary import Vocabulary
from framepred.sources.folder import find_videos
from framepred.tokenizer.contract import Tokenizer
from framepred.tokenizer.delta import DeltaAutoencoder, begun
from framepred.tokenizer.image import Autoencoder, to_float
from framepred.tokens.store import TokenEpisode, read_store, read_store_info
from framepred.tokens.tokenize import tokenize
from framepred.training.frames import Frames, sample_frames
from framepred.training.initialisation import tokenizer_to_train
from framepred.training.loop import Budget, fit, make_accelerator
from framepred.training.objectives import predictor_stage, tokenizer_stage
from framepred.training.pipeline import Job, train
from framepred.training.windows import Windows, step_generator
from framepred.video.read import read_video
from framepred.world.counterfactual import after_other_actions, after_other_pasts, take_past
from framepred.world.likelihood import token_logits
from framepred.world.rollout import predict
from framepred.world.run import Run, load_run, load_tokenizer, save_tokenizer
from framepred.world.session import window_start

SIZE, WINDOW, K, N = (32, 32), 5, 16, 4
pytestmark = pytest.mark.usefixtures("one_thread")

SPACE = ActionSpace("discrete", ("action",), count=4)
TABLE = {
    "levels": [4, 4], "delta_levels": [4, 3], "delta_downsampling": 16, "clip_frames": 3, "width": 8,
    "encoder_blocks": 1, "decoder_blocks": 1, "batch_size": 4, "augment": 0.25,
}  # fmt: skip


def recipe_of(size: tuple[int, int] = SIZE, **more: Any) -> Recipe:
    return apply(Recipe(), {"data": {"size": list(size)}, "tokenizer": TABLE | more})


def make_tokenizer() -> DeltaAutoencoder:
    """Return one of random weights whose tokens change the picture: flow and drawing are not asleep."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        tokenizer = DeltaAutoencoder(recipe_of().tokenizer, SIZE)
        for parameter in tokenizer.parameters():
            if parameter.ndim == 4:
                nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    return tokenizer.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tokenizer() -> DeltaAutoencoder:
    return make_tokenizer()


@pytest.fixture(scope="module")
def run(tokenizer: DeltaAutoencoder) -> Run:
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


# The tokenizer.


def test_it_is_a_tokenizer_of_few_tokens(tokenizer: DeltaAutoencoder) -> None:
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.grid, tokenizer.context_grid) == ((2, 2), (4, 4))
    assert (tokenizer.codebook_size, tokenizer.context_codebook_size) == (12, 16)
    tokens = tokenizer.encode(frames_of(4))
    assert (tokens.dtype, tokens.shape) == (torch.int64, (4, K + N))
    assert int(tokens.min()) >= 0
    assert int(tokens[:, :K].max()) < 16
    assert int(tokens[:, K:].max()) < 12
    decoded = tokenizer.decode(tokens)
    assert (decoded.dtype, decoded.shape) == (torch.uint8, (4, 3, *SIZE))
    assert tokenizer.encode(frames_of(4)[:0]).shape == (0, K + N)
    assert tokenizer.decode(tokens[:0]).shape == (0, 3, *SIZE)


def test_a_clip_is_coded_alike_in_any_chunks_and_of_any_length(tokenizer: DeltaAutoencoder) -> None:
    frames = frames_of(7)
    whole = tokenizer.encode(frames)
    for sizes in ([1] * 7, [3, 4], [0, 7], [5, 0, 2]):
        parts = list(tokenizer.encode_stream(frames.split(sizes)))
        assert [len(p) for p in parts] == sizes
        assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(tokenizer.encode(frames[:3]), whole[:3])
    assert torch.equal(tokenizer.decode(whole[:3]), tokenizer.decode(whole)[:3])


def test_each_frame_is_given_the_one_before_as_it_was_given_back(tokenizer: DeltaAutoencoder) -> None:
    frames = frames_of(5)
    tokens = tokenizer.encode(frames)
    decoded = tokenizer.decode(tokens)
    assert len(torch.unique(decoded, dim=0)) == 5
    keys, grids = tokens[:, :K], tokens[:, K:].view(-1, *tokenizer.grid)
    assert torch.equal(keys[:1], tokenizer.encode_context(frames[:1, None], None))
    assert torch.equal(keys[1:], tokenizer.encode_context(decoded[:-1, None], None))
    assert torch.equal(tokenizer.decode_next(decoded[:-1, None], None, grids[1:]), decoded[1:])
    first = tokenizer.key.decode(keys[:1].view(1, 4, 4))
    assert torch.equal(tokenizer.decode_next(first[:, None], None, grids[:1]), decoded[:1])
    # Another past, another frame from the same tokens.
    assert not torch.equal(tokenizer.decode_next(decoded[1:2, None], None, grids[1:2]), decoded[1:2])


def test_decoding_begins_anywhere_from_what_the_key_gives_back(tokenizer: DeltaAutoencoder) -> None:
    tokens = tokenizer.encode(frames_of(5))
    given = tokenizer.key.decode(tokens[2:3, :K].view(1, 4, 4))
    expected = [tokenizer.decode_next(given[:, None], None, tokens[2:3, K:].view(1, 2, 2))]
    expected.append(tokenizer.decode_next(expected[0][:, None], None, tokens[3:4, K:].view(1, 2, 2)))
    assert torch.equal(tokenizer.decode(tokens[2:4]), torch.cat(expected))


def test_the_loss_sees_the_chain_that_decoding_makes(tokenizer: DeltaAutoencoder) -> None:
    frames = frames_of(3)
    with torch.no_grad():
        made, ids, _ = tokenizer(to_float(begun(frames.flatten(0, 1)[None])))
    made = made[:, 3:]
    assert (made.shape, ids.shape) == ((1, 9, *SIZE), (3, 1, 2, 2))
    # Training does not round pictures, decoding does; the first of a chain differs by no more than that.
    tokens = tokenizer.encode(frames)
    assert float((ids[0].flatten() == tokens[0, K:]).float().mean()) >= 0.75
    given = to_float(tokenizer.key.decode(tokens[:1, :K].view(1, 4, 4)))
    with torch.no_grad():
        drawn = tokenizer._draw(given, tokenizer.quantizer.lookup(ids[0]))
    assert torch.allclose(drawn, made[:, :3], atol=0.2)


def test_a_wrong_frame_size_is_an_error(tokenizer: DeltaAutoencoder) -> None:
    with pytest.raises(ValueError, match=r"frames are \(16, 32\), the tokenizer takes \(32, 32\)"):
        tokenizer.encode(frames_of(2)[:, :, ::2])


def test_the_picture_before_cannot_drown_the_code() -> None:
    model = make_tokenizer()
    before, code = to_float(frames_of(1)), torch.rand(2, 2, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    plain = [model._draw(before, c) for c in code.split(1)]
    model.before.register_forward_hook(lambda _, __, features: [100 * f for f in features])
    loud = [model._draw(before, c) for c in code.split(1)]
    assert not torch.allclose(plain[0], plain[1], atol=0.05)
    assert all(torch.allclose(a, b, atol=0.02) for a, b in zip(plain, loud, strict=True))


def test_it_comes_back_from_its_folder(tokenizer: DeltaAutoencoder, tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "t", tokenizer, "")
    again = load_tokenizer(tmp_path / "t")
    assert isinstance(again, DeltaAutoencoder)
    assert json.loads((tmp_path / "t" / "config.json").read_text())["kind"] == "framepred-delta"
    assert torch.equal(again.encode(frames_of(3)), tokenizer.encode(frames_of(3)))


def test_on_a_plain_tokenizer_it_begins_with_what_that_knows(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        plain = Autoencoder(recipe_of(delta_downsampling=0).tokenizer, SIZE)
        for parameter in plain.parameters():
            nn.init.normal_(parameter, std=0.1)
    save_tokenizer(tmp_path / "plain", plain, "")
    delta = tokenizer_to_train(recipe_of(), str(tmp_path / "plain"))
    assert isinstance(delta, DeltaAutoencoder)
    frames, others = to_float(frames_of(2)), to_float(frames_of(2, seed=1))
    features = plain.encoder[:3](frames)
    for seen in (delta.before(frames), *(delta.encoder(torch.cat([frames, x], 1)) for x in (frames, others))):
        assert torch.allclose(seen[0], features, atol=1e-5)
    drawn = torch.randn(2, *delta.drawing[0].weight.shape[1:2], 8, 8)
    colours = plain.decoder[-7:](drawn)
    assert torch.allclose(delta.drawing(delta.norm(drawn))[:, :3], colours, atol=1e-5)


def test_one_clip_in_four_is_trained_to_meet_a_cut(
    tokenizer: DeltaAutoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = list[Tensor]()
    kept = tokenizer._code

    def code(frames: Tensor, before: Tensor) -> Tensor:
        given.append(before.clone())
        return kept(frames, before)

    monkeypatch.setattr(tokenizer, "_code", code)
    clips = torch.stack([frames_of(2, seed).flatten(0, 1) for seed in range(4)])
    own = tokenizer.key(to_float(clips[:, :3]))[0]
    made = tokenizer(to_float(begun(clips)))[0]
    assert made.shape == (4, 3 * 3, *SIZE)
    assert torch.allclose(made[:, :3], own[[3, 1, 2, 3]], atol=1e-5)
    assert torch.equal(given[0], made[:, :3].clamp(-1, 1))
    assert torch.equal(given[1], made[:, 3:6].clamp(-1, 1))


def test_the_ceiling_is_of_the_clip_not_of_a_new_beginning(tokenizer: DeltaAutoencoder) -> None:
    frames = frames_of(6)
    decoded = tokenizer.decode(tokenizer.encode(frames))
    scores = score_forecast(frames[None, 2:], frames[2:], frames[:2], tokenizer)
    assert torch.equal(scores.rows["ceiling"].mse, mse(decoded[2:], frames[2:]))


# The sequence and the rollout.


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
    stage = predictor_stage(model, windows, windows, apply_settings(recipe_of(), settings), make_accelerator())

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
    ids, _ = windows.evenly(4 * apply_settings(recipe_of(), settings).training.validation_batches)
    assert stage.validate(model)["validation_loss"] == pytest.approx(float(nats(ids)[0]), abs=1e-4)


# The store.


def test_a_store_gives_the_tokens_back(tokenizer: DeltaAutoencoder, clips_dir: Path, tmp_path: Path) -> None:
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


# Training.


def test_clips_are_frames_in_a_row_of_one_video(clips_dir: Path) -> None:
    videos = find_videos([clips_dir])
    found = sample_frames(videos, (64, 64), 60, 3, False)
    assert found.runs == (24, 24, 24)
    assert len(found.starts) == len(found.groups) == 3 * 22
    assert found.starts.tolist() == [r * 24 + t for r in range(3) for t in range(22)]
    clips = found.clips(torch.tensor([0, 21, 22]), 3)
    assert clips.shape == (3, 9, 64, 64)
    for clip, first in zip(clips, (0, 21, 24), strict=True):
        assert torch.equal(clip.unflatten(0, (3, 3)), found.frames[first : first + 3])
    assert sample_frames(videos, (64, 64), 60, 25, False).starts.tolist() == []


def test_a_long_video_is_read_in_stretches(clips_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = torch.arange(1200)[:, None, None, None].expand(-1, 3, 1, 1).to(torch.int16)

    class Long:
        path, source = clips_dir / "clip0.mp4", "s"

        def stream(self, size: tuple[int, int], fps: float | None) -> Iterator[Tensor]:
            return iter(frames.split(64))

    monkeypatch.setattr("framepred.training.frames.probe_video", lambda _: type("Info", (), {"num_frames": 1200}))
    found = sample_frames([Long()], (1, 1), 300, 4, False)  # type: ignore[list-item]
    assert found.runs == (16,) * 19
    for start in found.starts.tolist():
        assert found.frames[start : start + 4, 0, 0, 0].diff().tolist() == [1, 1, 1]
    single = sample_frames([Long()], (1, 1), 300, 1, False)  # type: ignore[list-item]
    assert single.runs == (300,)
    assert single.frames[:, 0, 0, 0].tolist() == list(range(0, 1200, 4))


def stage_frames(seed: int = 0) -> Frames:
    frames = torch.cat([frames_of(12, seed), frames_of(12, seed + 1)])
    starts = torch.tensor([r * 12 + t for r in range(2) for t in range(10)])
    return Frames(frames, (12, 12), starts, ("s",) * 20)


def test_a_stopped_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    recipe = apply_settings(recipe_of(), ["training.precision=fp32", "training.validate_every=3"])

    def weights(run: Path, stop: int | None) -> dict[str, Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = DeltaAutoencoder(recipe.tokenizer, SIZE)
        stage = tokenizer_stage(model, stage_frames(), stage_frames(2), recipe, make_accelerator())

        def loss(runner: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
            if step == stop:
                raise KeyboardInterrupt
            return stage.loss(runner, step)

        run.mkdir(exist_ok=True)
        list(fit(replace(stage, loss=loss), make_accelerator(), Budget(6), recipe.training, run))
        return {name: value.clone() for name, value in model.state_dict().items()}

    straight = weights(tmp_path / "straight", None)
    with pytest.raises(Interrupted, match="stopped in tokenizer step 3"):
        weights(tmp_path / "stopped", 3)
    resumed = weights(tmp_path / "stopped", None)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_training_moves_every_part(tmp_path: Path) -> None:
    recipe = apply_settings(recipe_of(), ["training.precision=fp32"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DeltaAutoencoder(recipe.tokenizer, SIZE)
    stage = tokenizer_stage(model, stage_frames(), stage_frames(2), recipe, make_accelerator())
    loss, values = stage.loss(model, 0)
    loss.backward()
    # A block's second convolution starts at zero, and so does the flow: what lies behind them waits a step.
    waiting = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert all(".conv1." in n or ".norm" in n for n in waiting), waiting
    assert model.flow.weight.grad is not None and bool(model.flow.weight.grad.any())
    assert 0 < values["usage"] <= 1
    assert stage.items_per_step == 4 * 3
    assert math.isfinite(stage.validate(model)["validation_psnr"])


def delta_recipe(*more: str) -> Recipe:
    settings = (
        "tokenizer.width=8", "tokenizer.delta_downsampling=16", "tokenizer.delta_levels=[4, 4]",
        "tokenizer.clip_frames=3", "tokenizer.batch_size=2", "training.tokenizer_steps=6",
        "training.predictor_steps=6", "training.validate_every=6",
    )  # fmt: skip
    return apply_settings(load_recipe("tiny"), (*TINY_SETTINGS, *settings, *more))


@pytest.fixture(scope="module")
def delta_run(clips_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("delta") / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FramepredWarning)
        for _ in train(Job([str(clips_dir)], out, delta_recipe())):
            pass
    return out


def test_a_run_is_trained_from_videos(delta_run: Path) -> None:
    run = load_run(delta_run)
    layout = run.layout
    assert (layout.grid, layout.context_grid) == ((4, 4), (8, 8))
    assert (layout.vocabulary.visual, layout.vocabulary.context) == ((0, 16), (16, 80))
    assert run.predictor.config.max_position_embeddings == 6 * (64 + 16 + 1) == run.window * layout.stride
    rows = [json.loads(line) for line in (delta_run / "metrics.jsonl").read_text().splitlines()]
    assert {r["stage"] for r in rows if any(k.startswith("validation") for k in r)} == {
        "keys",
        "tokenizer",
        "predictor",
    }


@pytest.mark.parametrize("stage", ["keys", "tokenizer"])
def test_a_new_tokenizer_stopped_in_its_keys_or_after_resumes_to_the_same(
    clips_dir: Path, tmp_path: Path, stage: str
) -> None:
    def job(name: str, resume: bool = False) -> Job:
        return Job([str(clips_dir)], tmp_path / name, delta_recipe(), only="tokenizer", resume=resume)

    for _ in train(job("whole")):
        pass
    stopped = train(job("stopped"))
    for progress in stopped:
        if getattr(progress, "stage", "") == stage and progress.step == 2:  # type: ignore[union-attr]
            stopped.close()
    assert not (tmp_path / "stopped" / "tokenizer").exists()
    for _ in train(job("stopped", resume=True)):
        pass
    # Two whole trainings differ in a last digit, too: a kernel rounds by where its arrays happen to lie.
    again, whole = (load_file(tmp_path / name / "tokenizer" / "model.safetensors") for name in ("stopped", "whole"))
    assert all(torch.allclose(again[name], whole[name], rtol=0, atol=1e-6) for name in whole)


def call(*arguments: object) -> Any:
    result = CliRunner().invoke(cli, [*map(str, arguments)], prog_name="framepred")
    assert result.exit_code == 0, (result.stderr, result.exception)
    return json.loads(result.stdout) if "--json" in arguments else result.stdout


def test_every_command_takes_a_delta_run(delta_run: Path, clips_dir: Path, tmp_path: Path) -> None:
    clip = clips_dir / "clip0.mp4"
    about = call("info", delta_run, "--json")
    assert (about["tokens_per_frame"], about["context_grid"], about["context_codebook_size"]) == (16, [8, 8], 64)
    store = call("tokenize", clips_dir, "-o", tmp_path / "store", "--tokenizer", delta_run, "--json")
    assert (store["episodes"], store["frames"], store["tokens_per_frame"]) == (5, 120, 16)
    assert call("info", tmp_path / "store", "--json")["grid"] == [4, 4]

    made = call("rollout", clip, "--model", delta_run, "-o", tmp_path / "a.npz", "--horizon", 7, "--json")
    assert len(made["psnr"]["ceiling"]) == 7
    arrays = np.load(tmp_path / "a.npz")
    layout = load_run(delta_run).layout
    assert arrays["tokens"].shape == (1, 7, 4, 4)
    keys, grids, _ = layout.unpack(torch.from_numpy(arrays["ids"]))
    assert np.array_equal(grids[-7:].numpy(), arrays["tokens"][0])
    shown = torch.from_numpy(arrays["frames"][0, :-1])
    assert torch.equal(keys[-6:], load_run(delta_run).tokenizer.encode_context(shown[:, None], None))
    assert torch.equal(keys[:1], load_run(delta_run).tokenizer.encode_context(read_video(clip).frames[:1, None], None))

    mean = call("rollout", clip, "--model", delta_run, "-o", tmp_path / "m.npz", "--ensemble", 3, "--json")
    assert (mean["samples"], mean["ensemble"]) == (1, 3)
    assert np.load(tmp_path / "m.npz")["tokens"].shape == (1, 16, 4, 4)
    table = call("eval", clips_dir, "--model", delta_run, "--context", 2, "--horizon", 3,
                 "--set", "bootstrap=20", "--set", "max_clips=2", "--json")  # fmt: skip
    assert table["groups"][0]["rows"]["ceiling"]["clips"] == 2
    surprise = call("surprise", clip, "--model", delta_run, "-o", tmp_path / "s.npz", "--inverse", "--json")
    assert surprise["surprise"][0] is None and len(surprise["surprise"]) == 24
    assert np.load(tmp_path / "s.npz")["nll"].shape == np.load(tmp_path / "s.npz")["tokens"].shape == (24, 4, 4)
    call("calibrate", clips_dir, "--model", delta_run, "-o", tmp_path / "c.json")
    call("surprise", clip, "--model", delta_run, "--calibration", tmp_path / "c.json", "-o", tmp_path / "s.gif")
    call("export", delta_run, "-o", tmp_path / "hf", "--format", "hf")
    names = json.loads((tmp_path / "hf" / "tokenizer.json").read_text())["model"]["vocab"]
    assert (names["<|v_0015|>"], names["<|k_0000|>"], names["<|a_0|>"]) == (15, 16, 80)


def test_a_plain_tokenizer_becomes_the_keys(clips_dir: Path, tmp_path: Path) -> None:
    recipe = delta_recipe("training.tokenizer_steps=1")
    with torch.random.fork_rng():
        torch.manual_seed(9)
        plain = Autoencoder(recipe.tokenizer, (64, 64))
    save_tokenizer(tmp_path / "plain", plain, "")
    job = Job([str(clips_dir)], tmp_path / "run", recipe, str(tmp_path / "plain"), only="tokenizer")
    for _ in train(job):
        pass
    made = load_tokenizer(tmp_path / "run")
    assert isinstance(made, DeltaAutoencoder)
    # One step of a warm-up moves it little.
    for name, value in plain.state_dict().items():
        assert torch.allclose(made.key.state_dict()[name], value, atol=0.01)


# Errors.


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("tokenizer.delta_downsampling=8", "tokenizer.delta_downsampling = 8 is not allowed; it must be 0 (each frame"),
        ("tokenizer.delta_levels=[]", "tokenizer.delta_levels = () is not allowed; it must be one or more whole"),
        ("tokenizer.clip_frames=1", "tokenizer.clip_frames = 1 is not allowed; it must be at least 2"),
        ("data.size=[48, 72]", "data.size = (48, 72) is not allowed; it must be multiples of "
         "tokenizer.delta_downsampling = 16"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_is_named(setting: str, words: str) -> None:
    with pytest.raises(FramepredError) as caught:
        apply_settings(recipe_of(), [setting])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "tokenizer", "words"),
    [
        (["tokenizer.clip_frames=30"], None, "no training video has 30 frames in a row (tokenizer.clip_frames)"),
        (
            ["tokenizer.width=16"],
            "plain",
            "does not have the shape that the recipe gives context tokens: give --recipe its levels",
        ),
    ],
)
def test_a_training_that_cannot_be_is_refused(
    settings: list[str], tokenizer: str | None, words: str, clips_dir: Path, tmp_path: Path
) -> None:
    save_tokenizer(tmp_path / "plain", Autoencoder(delta_recipe().tokenizer, (64, 64)), "")
    given = str(tmp_path / tokenizer) if tokenizer else None
    job = Job([str(clips_dir)], tmp_path / "run", delta_recipe(*settings), given, only="tokenizer")
    with pytest.raises(FramepredError) as caught:
        list(train(job))
    assert words in str(caught.value)


def test_a_run_whose_keys_are_another_tokenizers_is_refused(delta_run: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(delta_run, tmp_path / "run")
    about = json.loads((tmp_path / "run" / "framepred.json").read_text())
    about["vocabulary"] |= {"context": [16, 79], "action": [79, 83], "special": {"no_action": 83}}
    (tmp_path / "run" / "framepred.json").write_text(json.dumps(about))
    with pytest.raises(FramepredError, match="vocabulary, weights and tokenizer do not fit each other"):
        load_run(tmp_path / "run")

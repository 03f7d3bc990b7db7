"""Folders ⇄ runs: safetensors only, every hash verified."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from framepred.config.action_names import values_of
from framepred.config.frame_size import fit_of
from framepred.config.recipe import check_sampling
from framepred.decoding.engine import Engine, LlamaEngine
from framepred.decoding.sampling import Sampling
from framepred.errors import FramepredError
from framepred.io import zoo
from framepred.io.files import load_into, read_json, read_weights, replace_files
from framepred.predictor import gguf as gguf_file
from framepred.predictor.config import LlamaConfig
from framepred.predictor.huggingface import from_hugging_face, to_hugging_face
from framepred.predictor.llama import Llama
from framepred.sequence.actions import ActionSpace
from framepred.sequence.layout import SequenceLayout
from framepred.tokenizer.checkpoint import load_tokenizer, tokenizer_sha256
from framepred.tokenizer.contract import Tokenizer, actions_before, last_pictures
from framepred.tokenizer.temporal import TemporalAutoencoder
from framepred.tokenizer.temporal_net import TemporalShape
from framepred.video.resize import fit_frames
from framepred.world.session import Moment, Session, window_start


@dataclass(frozen=True)
class Run:
    """A trained run, ready to predict: everything that `rollout` needs.

    `window` is the model's context in frames; `fps` the rate of the frames it was trained on; `temperature` the one it
    is sampled at where nothing else is said.
    """

    path: Path
    predictor: Llama
    tokenizer: Tokenizer
    layout: SequenceLayout
    window: int
    fps: float
    tokenizer_sha256: str
    temperature: float = 1.0

    def session(
        self, context: Tensor, actions: Tensor | None = None, samples: int = 1, seed: int = 0,
        temperature: float | None = None, top_k: int = 0, top_p: float = 1.0, prompt: Tensor | None = None,
        decoder: str = "auto", engine: Engine | None = None,
    ) -> Session:  # fmt: skip
        """Step into the world after frames uint8 (T, 3, H, W) and the T - 1 actions between them, or None.

        `prompt` (P,) are the ids of words before the frames. What is drawn is decided by the sampling settings and the
        seed; with an `engine` of one's own, by that.
        """
        frames = fit_frames(context, self.tokenizer.frame_size)
        tokens, sampling = self.tokenizer.encode(frames, actions), self.sampling(temperature, top_k, top_p, seed)
        return self.session_after(tokens, actions, samples, sampling, prompt, decoder, engine, frames)

    def session_after(
        self, tokens: Tensor, actions: Tensor | None, samples: int = 1, sampling: Sampling | None = None,
        prompt: Tensor | None = None, decoder: str = "auto", engine: Engine | None = None, first: Tensor | None = None,
    ) -> Session:  # fmt: skip
        """Step into the world after the tokens of T frames and the T - 1 actions between them, or None.

        `first` uint8 (3, H, W) is the first picture, which a tokenizer needs that sees more than one (`Tokenizer`), or
        (T, 3, H, W) all pictures: the next frame is then drawn from the true ones.
        """
        made = self.token_session(tokens, actions, samples, sampling, prompt, decoder, engine)
        device, begun = self.predictor.embed.weight.device, made.mark()
        space, count = self.layout.actions, self.tokenizer.past_actions
        given = actions_before(self.tokenizer, actions, len(tokens) - 1)
        if given is None and space is not None and count:
            discrete = space.kind == "discrete"
            given = torch.full((1, count), -1) if discrete else torch.full((1, count, space.slots), torch.nan)
        begin = first[0] if first is not None and first.ndim == 4 else first
        coded = last_pictures(self.tokenizer, tokens.to(device), actions, begin)
        pictures = coded if begin is first else last_pictures(self.tokenizer, tokens.to(device), actions, first)
        taken = None if given is None else given.to(device)
        made.rewind(replace(begun, pictures=pictures, coded=coded, actions=taken))
        return made

    def token_session(
        self, tokens: Tensor, actions: Tensor | None, samples: int = 1, sampling: Sampling | None = None,
        prompt: Tensor | None = None, decoder: str = "auto", engine: Engine | None = None,
    ) -> Session:  # fmt: skip
        """Return a session that decodes no pictures: it can observe tokens alone."""
        layout, device = self.layout, self.predictor.embed.weight.device
        words = torch.empty(0, dtype=torch.int64) if prompt is None else prompt.cpu()
        start = window_start(len(tokens), self.window)
        action_ids = layout.action_ids(actions, len(tokens) - 1)[start:]
        ids = torch.cat([words, layout.pack(tokens[start:].cpu(), action_ids)])[None]
        moment = Moment(len(tokens), start, ids.to(device), tokens[-1:].flatten(1).to(device))
        driver = engine or self.engine(sampling or Sampling(), samples, len(words), decoder)
        return Session(self.tokenizer, layout, self.window, driver, samples, moment, len(words))

    def engine(self, sampling: Sampling, samples: int, words: int = 0, decoder: str = "auto") -> LlamaEngine:
        """Return framepred's own engine, with room for so many ids of words and a window of frames."""
        room = words + self.window * self.layout.stride
        return LlamaEngine(self.predictor, self.layout, sampling, samples, room, decoder)

    def sampling(self, temperature: float | None, top_k: int, top_p: float, seed: int) -> Sampling:
        """Return how tokens are drawn; a temperature of None is the run's own."""
        return Sampling(self.temperature if temperature is None else temperature, top_k, top_p, seed)


def save_run(
    folder: Path, predictor: Llama, layout: SequenceLayout, window: int, fps: float, frame_size: tuple[int, int],
    sha256: str, dtype: torch.dtype = torch.float32, text_files: Mapping[str, str] | None = None,
    temperature: float = 1.0,
) -> None:  # fmt: skip
    """Write the Hugging Face checkpoint, framepred.json and the text tokenizer's files into a run's folder."""
    about = {
        "kind": "run",
        **layout.to_json(),
        "window": window,
        "fps": fps,
        "frame_size": list(frame_size),
        "fit": fit_of(frame_size),
        "tokenizer_sha256": sha256,
        "temperature": temperature,
    }
    weights = {
        k: v.detach().cpu().to(dtype) for k, v in to_hugging_face(predictor.state_dict(), predictor.config).items()
    }
    files = dict(text_files or {}) | {
        "config.json": json.dumps(predictor.config.to_json(), indent=1) + "\n",
        "framepred.json": json.dumps(about, indent=1) + "\n",
    }
    replace_files(folder, files, weights, {})


def weights_file(folder: Path) -> Path:
    """Return where a run keeps its weights: model.safetensors, or model.gguf in a GGUF export."""
    file, exported = folder / "model.safetensors", folder / gguf_file.NAME
    return exported if exported.is_file() and not file.is_file() else file


def load_predictor(folder: Path) -> Llama:
    """Load a Llama checkpoint, model.safetensors in the Hugging Face format or else model.gguf, in fp32."""
    config, file = read_json(folder / "config.json", "run"), weights_file(folder)
    weights = gguf_file.read_gguf(file) if file.name == gguf_file.NAME else read_weights(file)[0]
    return make_predictor(config, weights, file)


def make_predictor(config_json: dict[str, Any], weights: dict[str, Tensor], file: Path) -> Llama:
    """Make a Llama of a config.json and LlamaForCausalLM's weights; errors name the `file` they are from."""
    try:
        config = LlamaConfig.from_json(config_json)
        predictor = Llama(config)
        load_into(predictor, from_hugging_face(weights, config), file)
    except TypeError as error:
        raise FramepredError(f"{file.parent}/config.json is not whole ({error}): restore it") from error
    except KeyError as error:
        raise FramepredError(f"{file} lacks {error}: it is not the checkpoint of its config.json") from error
    return predictor.eval().requires_grad_(False)


def load_run(name_or_dir: str | Path = zoo.DEFAULT, device: str = "cpu") -> Run:
    """Load a run by its name in the zoo or its folder, verifying that its tokenizer is its own."""
    folder = zoo.resolve("models", name_or_dir)
    about = read_json(folder / "framepred.json", "run")
    if about.get("kind") != "run":
        raise FramepredError(f"{folder} is a token store, not a run: train a model on it with framepred train")
    sha256 = tokenizer_sha256(folder / "tokenizer")
    if sha256 != about.get("tokenizer_sha256"):
        raise FramepredError(
            f"{folder}/tokenizer has sha256 {sha256[:12]}, the run was trained with "
            f"{str(about.get('tokenizer_sha256'))[:12]}: restore the tokenizer that belongs to it"
        )
    tokenizer = load_tokenizer(folder / "tokenizer")
    predictor = load_predictor(folder)
    try:
        layout = SequenceLayout.from_json(about)
        window, fps = int(about["window"]), float(about["fps"])
        temperature = float(about.get("temperature", 1.0))
        check_sampling(temperature, 0, 1.0, 0, f"{folder}/framepred.json: ")
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise FramepredError(f"{folder}/framepred.json is not valid ({error!r}): restore it") from error
    sizes = layout.vocabulary.visual_size, layout.vocabulary.context_size
    cells = layout.frame_tokens if layout.cells else 1
    codes = tokenizer.codebook_size * cells, tokenizer.context_codebook_size
    if layout.vocabulary.size > predictor.config.vocab_size or sizes != codes:
        raise FramepredError(f"{folder}: vocabulary, weights and tokenizer do not fit each other; restore the run")
    if isinstance(tokenizer, TemporalAutoencoder):
        _check_known_actions(folder, layout.actions, tokenizer.shape)
    return Run(folder, predictor.to(device), tokenizer.to(device), layout, window, fps, sha256, temperature)


def _check_known_actions(folder: Path, actions: ActionSpace | None, shape: TemporalShape) -> None:
    """Raise FramepredError unless the tokenizer, where it knows actions, knows all of the run's."""
    if actions is None or not shape.action_size:
        return
    mine = (actions.count, "discrete") if actions.kind == "discrete" else (actions.slots, "continuous")
    known = shape.action_size, "continuous" if shape.continuous else "discrete"
    if mine[1] != known[1] or mine[0] > known[0] or (shape.continuous and mine != known):
        raise FramepredError(
            f"{folder}: the run has {mine[0]} {mine[1]} actions, its tokenizer knows {known[0]} {known[1]}: "
            "train the run again, with a tokenizer of its actions"
        )
    named = actions.names, shape.action_names
    if named[0] == named[1]:
        named = values_of(named[0]), values_of(named[1])
    if all(named) and named[0] != named[1]:
        raise FramepredError(
            f"{folder}: the run's actions are {list(named[0])}, its tokenizer knows {list(named[1])}: "
            "train the run again, with a tokenizer of its actions"
        )

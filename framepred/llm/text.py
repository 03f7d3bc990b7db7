"""Text ⇄ ids, for a run whose vocabulary has a range of text."""

from typing import Any

import torch
from torch import Tensor

from framepred.errors import FramepredError
from framepred.llm.token_names import TOKENIZER_JSON, read_text_files, text_ids, text_tokenizer
from framepred.world.run import Run


def require_text(run: Run) -> None:
    """Raise FramepredError unless a run knows text."""
    if not run.layout.vocabulary.text_size:
        raise FramepredError(f"{run.path} knows no text: train a run with --init-from a Llama that does")


def prompt_ids(run: Run, prompt: str) -> Tensor:
    """A prompt → ids int64 (P,) that stand before a run's frames, with the marker that ends text.

    Raises FramepredError where the run knows no text, and where words and frames are more than its context.
    """
    require_text(run)
    layout, most = run.layout, run.predictor.config.max_position_embeddings
    ids = encode_text(run, prompt)
    room = most - run.window * layout.stride - 1
    if not 1 <= len(ids) <= room:
        raise FramepredError(f"prompt {prompt[:40]!r} is {len(ids)} tokens of text: give 1 to {room}")
    return torch.tensor([*ids, layout.vocabulary.markers[0]])


def encode_text(run: Run, text: str) -> list[int]:
    """Text → its ids."""
    return text_ids(_tokenizer(run), text)


def decode_text(run: Run, ids: list[int]) -> str:
    """Ids → text."""
    text: str = _tokenizer(run).decode(ids)
    return text.strip()


def _tokenizer(run: Run) -> Any:
    files = read_text_files(run.path)
    if TOKENIZER_JSON not in files:
        raise FramepredError(f"{run.path} has no {TOKENIZER_JSON}: copy that of its LLM there")
    return text_tokenizer(files[TOKENIZER_JSON])

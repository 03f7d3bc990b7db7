"""The smallest proof that a merged run is one model: llama.cpp reads its GGUF, tells a caption and predicts a frame."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from framepred.decoding.sampling import Sampling
from framepred.engines.contract import ENGINES, predict_by
from framepred.engines.export import export
from framepred.errors import FramepredError
from framepred.llm.caption import caption, frames_to_read
from framepred.llm.text import decode_text, encode_text
from framepred.tokens.store import TokenEpisode
from framepred.world.rollout import Prediction, predict
from framepred.world.run import Run, load_run

MERGED = "mixed-50"
"""The arm that is exported."""
GREEDY, MOST = Sampling(temperature=0), 32


def prove(folder: Path, out: Path, episode: TokenEpisode) -> dict[str, Any]:
    """Export a run to OUT as GGUF; return what llama.cpp makes of an episode's first frames beside framepred.

    Where llama.cpp is not installed, `missing` says so, and nothing else is there.
    """
    exported = load_run(out) if out.exists() else export(folder, out, "gguf")
    own, tokens = load_run(folder), episode.tokens[: exported.window - 1].long()
    told = caption(own, tokens, None, 1, GREEDY, MOST)[0]
    try:
        said = caption_by_llama_cpp(exported, tokens, len(encode_text(own, told)))
        there = _frame(predict_by("llama.cpp", exported, tokens, None, 1, 1, GREEDY, first=episode.first))
    except FramepredError as error:
        return {"missing": str(error)}
    here = _frame(predict(own, tokens, None, 1, 1, GREEDY, first=episode.first))
    return {
        "episode": episode.name, "frames": len(tokens), "caption": said, "own_caption": told,
        "equal_tokens": int((here == there).sum()), "tokens": here.numel(),
    }  # fmt: skip


def caption_by_llama_cpp(run: Run, tokens: Tensor, count: int) -> str:
    """Return the `count` ids that llama.cpp makes, greedily, behind frames, int64 (T, h, w), as text.

    Asked by framepred it never ends a text by itself, and it leaves out what is no whole character.
    """
    complete = ENGINES["llama.cpp"](run, GREEDY, None)
    past = frames_to_read(run, tokens, None, MOST)[0].tolist()
    return decode_text(run, complete(past, max(1, count), (0, run.layout.vocabulary.text_size), 0))


def _frame(predictions: Iterable[Prediction]) -> Tensor:
    return torch.cat([moment.tokens.flatten(1) for moment in predictions])

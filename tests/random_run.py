"""A run with random weights, made in no time: its greedy frames are all different, unlike a trained one's."""

from dataclasses import replace
from pathlib import Path

import torch
from conftest import tiny_recipe

from framepred.predictor.llama import Llama
from framepred.sequence.actions import ActionSpace
from framepred.sequence.layout import SequenceLayout
from framepred.sequence.vocabulary import Vocabulary
from framepred.tokenizer.checkpoint import save_tokenizer
from framepred.tokenizer.image import Autoencoder
from framepred.training.objectives import llama_config
from framepred.world.run import save_run

WINDOW = 6


def write_random_run(folder: Path, text_size: int = 0, spare: int = 0) -> Path:
    """Write a run of 4x4 interlaced tokens a frame, four actions, `text_size` text ids and `spare` unused rows."""
    recipe = tiny_recipe()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = Autoencoder(recipe.tokenizer, (32, 32))
    sha256 = save_tokenizer(folder / "tokenizer", tokenizer, "")
    layout = SequenceLayout(
        Vocabulary(text_size, tokenizer.codebook_size, 4), tokenizer.grid, ActionSpace("discrete", ("action",), 4),
        scan="interlaced",
    )  # fmt: skip
    config = llama_config(replace(recipe.predictor, window=WINDOW, kv_heads=1), layout)
    model = Llama(replace(config, vocab_size=config.vocab_size + spare))
    model.initialise(torch.Generator().manual_seed(4))
    with torch.no_grad():
        for parameter in model.layers.parameters():
            parameter.mul_(8 if parameter.ndim == 2 else 1)
    save_run(folder, model, layout, WINDOW, 10.0, (32, 32), sha256)
    return folder


def random_context(run_frames: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Return context tokens int64 (T, 4, 4) and actions int64 (40,)."""
    generator = torch.Generator().manual_seed(2)
    return (
        torch.randint(0, 64, (run_frames, 4, 4), generator=generator),
        torch.randint(0, 4, (40,), generator=generator),
    )

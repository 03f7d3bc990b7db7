"""A run with a temporal tokenizer, both of random weights: its frames follow from tokens, pictures and actions."""

from pathlib import Path

import torch

from framepred.predictor.config import LlamaConfig
from framepred.predictor.llama import Llama
from framepred.sequence.actions import ActionSpace
from framepred.sequence.layout import SequenceLayout
from framepred.sequence.vocabulary import Vocabulary
from framepred.tokenizer.checkpoint import save_tokenizer
from framepred.tokenizer.temporal import TemporalAutoencoder
from framepred.tokenizer.temporal_net import TemporalShape
from framepred.world.run import save_run

WINDOW = 6
DISCRETE = ActionSpace("discrete", ("action",), 4)
SHAPE = TemporalShape(
    frame_size=(64, 64), action_size=4, widths=(16, 16, 16), blocks=1, condition=16, levels=(5, 3),
    context_levels=(4, 4),
)  # fmt: skip


def make_tokenizer(shape: TemporalShape = SHAPE) -> TemporalAutoencoder:
    """Return a tokenizer none of whose layers is zero: what it is given changes what it gives."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = TemporalAutoencoder(shape)
        for parameter in tokenizer.parameters():
            torch.nn.init.normal_(parameter, std=2 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.3)
    return tokenizer.eval().requires_grad_(False)


def write_temporal_run(folder: Path, space: ActionSpace | None = DISCRETE, shape: TemporalShape = SHAPE) -> Path:
    """Write a run of 4x4 context tokens and 4x4 tokens a frame."""
    tokenizer = make_tokenizer(shape)
    sha256 = save_tokenizer(folder / "tokenizer", tokenizer, "")
    size = tokenizer.codebook_size * tokenizer.grid[0] * tokenizer.grid[1]
    vocabulary = Vocabulary(0, size, space.size if space else 0, tokenizer.context_codebook_size)
    layout = SequenceLayout(vocabulary, tokenizer.grid, space, tokenizer.context_grid, cells=True)
    model = Llama(LlamaConfig(vocabulary.size, 32, 64, 2, 2, 2, WINDOW * layout.stride))
    generator = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4
    save_run(folder, model, layout, WINDOW, 10.0, tokenizer.frame_size, sha256)
    return folder

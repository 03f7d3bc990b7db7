"""Weights that make no numbers: what is drawn means nothing, and drawing it ends."""

import pytest
import torch
from test_decoding import LAYOUTS, build, decode

from framepred.decoding.sampling import Sampling


@pytest.mark.parametrize("kind", ["discrete", "cells"])
@pytest.mark.parametrize("value", [float("nan"), 1e200])
def test_decoding_ends_in_as_many_passes_as_there_are_tokens_at_most(kind: str, value: float) -> None:
    layout = LAYOUTS[kind]
    model = build(layout)
    first, _ = layout.vocabulary.visual
    # Only some of the codes, so that a pass may read numbers where the one before read none.
    model.embed.weight.data[first : first + 6] = value
    guess = torch.arange(layout.frame_tokens)[None] % 12
    for sampling in (Sampling(0), Sampling(1.0)):
        tokens, _, passes = decode("speculative", model, layout, sampling, 1, guess)
        assert tokens.shape == guess.shape and passes <= layout.frame_tokens

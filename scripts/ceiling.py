"""What a tokenizer gives back of frames: the ceiling of any prediction that is made of its tokens."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from framepred.evaluation.metrics import mse, psnr_of, ssim
from framepred.tokenizer.contract import Tokenizer


@dataclass(frozen=True)
class Ceiling:
    """What a tokenizer gives back of T frames: errors and SSIM float64 (T,), how often it used each code (V,).

    Context tokens are not counted: a frame's own codes are.
    """

    mse: Tensor
    ssim: Tensor
    counts: Tensor

    @property
    def psnr(self) -> float:
        """Return the PSNR of the mean error over all frames, in dB."""
        return float(psnr_of(self.mse.mean()))

    @property
    def used(self) -> float:
        """Return the share of the codes that were used at all."""
        return float((self.counts > 0).double().mean())

    @property
    def perplexity(self) -> float:
        """Return how many codes, used alike, would say as much as these do."""
        shares = self.counts[self.counts > 0].double() / self.counts.sum()
        return float((-shares * shares.log()).sum().exp())


def measure_ceiling(tokenizer: Tokenizer, clips: Iterable[Tensor]) -> Ceiling:
    """Encode and decode clips of frames uint8 (T, 3, H, W), one or more, and see what is left of them."""
    errors, likeness = [], []
    counts = torch.zeros(tokenizer.codebook_size, dtype=torch.int64)
    for frames in clips:
        tokens = tokenizer.encode(frames)
        decoded = tokenizer.decode(tokens, None, frames[0]).cpu()
        own = tokens.flatten(1)[:, -math.prod(tokenizer.grid) :]
        counts += torch.bincount(own.flatten().cpu(), minlength=len(counts))
        errors.append(mse(decoded, frames))
        likeness.append(ssim(decoded, frames))
    return Ceiling(torch.cat(errors), torch.cat(likeness), counts)

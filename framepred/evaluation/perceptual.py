"""LPIPS, FID and FVD, where the user has the weights; every score names its variant and the file's hash."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from framepred.errors import FramepredError
from framepred.tokenizer.lpips import Net, load_lpips

NEEDS_WEIGHTS = "needs weights"
Features = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Perceptual:
    """What the user's weights allow; `facts` names variant and file hash of each, or says that it needs weights.

    `lpips` (prediction, truth) uint8 (T, 3, H, W) → (T,); `fid` frames (T, 3, H, W) → features (T, D);
    `fvd` one video (T, 3, H, W) → features (1, D).
    """

    lpips: Callable[[Tensor, Tensor], Tensor] | None
    fid: Features | None
    fvd: Features | None
    facts: dict[str, Any]


def load_perceptual(
    lpips: Path | None, fid: Path | None, fvd: Path | None, net: Net, device: str = "cpu"
) -> Perceptual:
    """Load what is given: LPIPS' backbone as safetensors of torchvision's names, the others as TorchScript.

    FID takes the detector that StyleGAN-ADA published as TorchScript (uint8 frames, `return_features`),
    FVD the I3D of StyleGAN-V (float video (1, 3, T, H, W), `rescale, resize, return_features`).
    """
    facts = {
        "lpips": _fact(lpips, f"{net} backbone, linear heads of torchmetrics, frames in [-1, 1]"),
        "fid": _fact(fid, "TorchScript detector, first sample, future frames"),
        "fvd": _fact(fvd, "TorchScript detector, all samples, frames as the protocol counts them"),
    }
    return Perceptual(
        _scorer(load_lpips(lpips, net).to(device), device) if lpips else None,
        _detector(fid, device, _frame_features) if fid else None,
        _detector(fvd, device, _video_features) if fvd else None,
        facts,
    )


def _fact(path: Path | None, variant: str) -> Any:
    if path is None:
        return NEEDS_WEIGHTS
    if not path.is_file():
        raise FramepredError(f"weights {path} do not exist: give the file")
    with path.open("rb") as file:
        return {"variant": variant, "file": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _scorer(model: nn.Module, device: str) -> Callable[[Tensor, Tensor], Tensor]:
    @torch.inference_mode()
    def score(prediction: Tensor, truth: Tensor) -> Tensor:
        pair = [x.to(device).float() / 127.5 - 1 for x in (prediction, truth)]
        return model(*pair).flatten().double().cpu()

    return score


def _detector(path: Path, device: str, call: Callable[[nn.Module, Tensor], Tensor]) -> Features:
    try:
        model = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise FramepredError(
            f"{path} is no TorchScript file ({str(error).splitlines()[0]}): give the detector as TorchScript"
        ) from error

    @torch.inference_mode()
    def features(frames: Tensor) -> Tensor:
        try:
            return call(model, frames.to(device)).float().cpu()
        except (RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split())[-200:]
            raise FramepredError(f"{path} cannot score {len(frames)} frames ({reason}): give the right file") from error

    return features


def _frame_features(model: nn.Module, frames: Tensor) -> Tensor:
    return model(frames, return_features=True)


def _video_features(model: nn.Module, frames: Tensor) -> Tensor:
    return model(frames.transpose(0, 1)[None].float(), rescale=True, resize=True, return_features=True)


class Moments:
    """Count, mean and covariance of features, added in parts: what a Fréchet distance needs, and no more."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: Any = 0.0
        self._products: Any = 0.0

    def add(self, features: "np.ndarray[Any, Any]") -> None:
        """Add features (n, D)."""
        x = features.astype(np.float64)
        self.count += len(x)
        self._sum = self._sum + x.sum(0)
        self._products = self._products + x.T @ x

    def distance(self, other: "Moments") -> float | None:
        """Return the Fréchet distance of Gaussians fitted to both; None with fewer than two features in one."""
        if min(self.count, other.count) < 2:
            return None
        (mean_x, cov_x), (mean_y, cov_y) = self._gaussian(), other._gaussian()
        # The trace of the root of a product is the sum of the roots of its eigenvalues.
        roots = np.sqrt(np.linalg.eigvals(cov_x @ cov_y).astype(complex)).real.sum()
        return float(np.square(mean_x - mean_y).sum() + np.trace(cov_x) + np.trace(cov_y) - 2 * roots)

    def _gaussian(self) -> tuple[Any, Any]:
        mean = self._sum / self.count
        return mean, (self._products - self.count * np.outer(mean, mean)) / (self.count - 1)

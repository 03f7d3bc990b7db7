"""(prediction, truth) → per-frame tensors, and the baselines they stand beside."""

import torch
import torch.nn.functional as F
from torch import Tensor

PSNR_CAP = 100.0


def mse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error of uint8 (…, T, 3, H, W) frames, as pixels in [0, 1] → float64 (…, T)."""
    return ((prediction.double() - truth.double()) / 255).square().mean((-3, -2, -1))


def psnr_of(error: Tensor) -> Tensor:
    """Mean squared error (pixels in [0, 1]) → decibels, capped at 100."""
    return -10 * error.clamp(min=10 ** (-PSNR_CAP / 10)).log10()


def psnr(prediction: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB (capped at 100) of uint8 (…, T, 3, H, W) → float64 (…, T)."""
    return psnr_of(mse(prediction, truth))


def ssim(prediction: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of uint8 (T, 3, H, W), 11-pixel Gaussian window, σ 1.5 → float64 (T,).

    Wang et al. 2004, the mean over channels and over windows that lie inside the frame. Frames
    under 11 pixels take the largest odd window that fits.
    """
    side = min(11, *((s - 1) // 2 * 2 + 1 for s in truth.shape[-2:]))
    offsets = torch.arange(side, dtype=torch.float64, device=truth.device) - side // 2
    gauss = torch.exp(-offsets.square() / (2 * 1.5**2))
    gauss = gauss / gauss.sum()

    def blur(x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)[:, None]
        rows = F.conv2d(flat, gauss.view(1, 1, side, 1))
        return F.conv2d(rows, gauss.view(1, 1, 1, side)).view(*x.shape[:2], *(s - side + 1 for s in x.shape[-2:]))

    x, y = prediction.double() / 255, truth.double() / 255
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return similarity.mean((-3, -2, -1))


def change(frames: Tensor, before: Tensor) -> Tensor:
    """Mean absolute difference of frames uint8 (…, T, 3, H, W) to the frame before, pixels in [0, 1] → float64 (…, T).

    `before` (3, H, W) precedes the first frame.
    """
    first = before.expand(*frames.shape[:-4], 1, *before.shape)
    earlier = torch.cat([first, frames[..., :-1, :, :, :]], -4)
    return ((frames.double() - earlier.double()) / 255).abs().mean((-3, -2, -1))


def motion(frames: Tensor) -> float:
    """Mean absolute change from frame to frame of uint8 (T, 3, H, W), as pixels in [0, 1]."""
    return float(change(frames[1:], frames[0]).mean()) if len(frames) > 1 else 0.0


def copy_last(context: Tensor, horizon: int) -> Tensor:
    """The baseline that predicts nothing: the last context frame, `horizon` times."""
    return context[-1:].expand(horizon, *context.shape[1:])


def extrapolate(context: Tensor, horizon: int) -> Tensor:
    """The baseline whose pixels go on as they changed last: context uint8 (C, 3, H, W) → (horizon, 3, H, W).

    A context of one frame has no last change: this is then `copy_last`.
    """
    last = context[-1].int()
    change = last - context[-2].int() if len(context) > 1 else torch.zeros_like(last)
    steps = torch.arange(1, horizon + 1, device=context.device).view(-1, 1, 1, 1)
    return (last + steps * change).clamp(0, 255).to(torch.uint8)


def moving_error(prediction: Tensor, truth: Tensor, before: Tensor) -> Tensor:
    """Squared error of uint8 (…, T, 3, H, W) where the truth (T, 3, H, W) moves → weighted error float64 (…, T).

    A pixel's weight is how much it changed from the true frame before; `before` (3, H, W) precedes the
    first. The mean weight of a frame is `change(truth, before)`: the motion-weighted error of a set of frames is
    the sum of these errors over the sum of those weights.
    """
    earlier = torch.cat([before[None], truth[:-1]])
    weight = ((truth.double() - earlier.double()) / 255).abs().mean(-3)
    squares = ((prediction.double() - truth.double()) / 255).square().mean(-3)
    return (squares * weight).mean((-2, -1))

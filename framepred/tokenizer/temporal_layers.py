"""The layers of the temporal autoencoder: convolutions steered by actions, quantized grids, moved pictures."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framepred.tokenizer.quantizers import FSQ


class ConditionedBlock(nn.Module):
    """Norm, 3x3 convolution, twice, with a skip; a condition (B, C) scales and shifts the second norm's output.

    The second convolution starts at zero, so that the block starts as identity.
    """

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.steer = nn.Linear(condition, 2 * width)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.steer.weight)
        nn.init.zeros_(self.steer.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.steer(condition)[:, :, None, None].chunk(2, 1)
        return x + self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))


class Stage(nn.Module):
    """A layer that leads to a resolution, what is added there (`skip`), and blocks."""

    def __init__(self, entry: nn.Module, width: int, blocks: int, condition: int) -> None:
        super().__init__()
        self.entry = entry
        self.blocks = nn.ModuleList(ConditionedBlock(width, condition) for _ in range(blocks))

    def forward(self, x: Tensor, condition: Tensor, skip: Tensor | None = None) -> Tensor:
        x = self.entry(x)
        if skip is not None:
            x = x + skip
        for block in self.blocks:
            x = block(x, condition)
        return x


class Grid(FSQ):
    """Finite scalar quantization by tanh; with odd levels, id `null` is the code of all zeros."""

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__(levels)
        self.null = int(self.ids(self.levels[None] // 2))

    def places(self, z: Tensor) -> Tensor:
        return (torch.tanh(z.float()) + 1) / 2 * (self.levels - 1)


class ContextNet(nn.Module):
    """Context tokens: a few tokens of what the past shows, and what they tell of the next frame's codes.

    They are trained to say as much as they can of the codes, and to remember the last picture at a quarter of its size.
    """

    def __init__(
        self, features: int, width: int, condition: int, grid: tuple[int, int], levels: tuple[int, ...], context: Grid
    ) -> None:
        super().__init__()
        self.codes, self.levels = context, levels
        self.squeeze = Stage(nn.Conv2d(features, width, 2, stride=2), width, 1, condition)
        self.to_code = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, context.dim, 1))
        self.place = nn.Parameter(torch.zeros(1, width, *grid))
        self.read = Stage(nn.Conv2d(context.dim, width, 3, padding=1), width, 2, condition)
        self.to_prior = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, sum(levels), 1))
        self.recall = nn.Sequential(
            nn.Conv2d(context.dim, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 48, 3, padding=1),
            nn.PixelShuffle(4),
        )

    def tokens(self, features: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, C, 2h, 2w) → codes float32 (B, D, h, w), whose gradient passes, and ids int64 (B, h, w)."""
        code, digits = self.codes.rounded(self.to_code(self.squeeze(features, condition)))
        return code, self.codes.ids(digits)

    def prior(self, code: Tensor, condition: Tensor) -> list[Tensor]:
        """Codes → log-probabilities float32 (B, levels, h, w) of each digit of the frame's codes."""
        logits = self.to_prior(self.read(code.to(condition.dtype), condition, self.place)).float()
        return [part.log_softmax(1) for part in logits.split(self.levels, 1)]


def move(pictures: Tensor, flow: Tensor) -> Tensor:
    """Move float pictures (B, 3, H, W) by a flow (B, 2, H, W), in halves of their width and height."""
    still = torch.eye(2, 3, device=pictures.device).expand(len(pictures), -1, -1)
    grid = F.affine_grid(still, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid + flow.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)

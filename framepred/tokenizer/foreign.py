"""Tokenizers of other libraries: `diffusers` and `transformers` folders as framepred's contract.

The contract gives every frame its own tokens, so that an action can stand between any two frames and a
predicted frame can be shown at once. Models that take frames in groups (Emu3, VidTok) are therefore used
as they are for single pictures: a frame is a group of its own.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from framepred.errors import FramepredError
from framepred.io.compat import ensure_torchvision
from framepred.tokenizer.contract import FrameByFrame
from framepred.tokenizer.image import decode_in_parts, encode_in_parts

_CHUNK = 16
_SIZE = (256, 256)


class AdaptedTokenizer(FrameByFrame, nn.Module):
    """A foreign model as a Tokenizer: a subclass says how float frames in [-1, 1] become ids and come back.

    `stride` is how many pixels a token is wide and high; `group` how many frames the model takes at once.
    """

    group = 1

    def __init__(
        self, name: str, model: nn.Module, codebook_size: int, stride: int, frame_size: tuple[int, int] | None
    ) -> None:
        super().__init__()
        height, width = size = frame_size or _SIZE
        if height % stride or width % stride:
            raise FramepredError(
                f"{name} makes a token of {stride}x{stride} pixels, frames are {height}x{width}: "
                f"give a size in multiples of {stride}, such as "
                f"{max(1, height // stride) * stride}x{max(1, width // stride) * stride}"
            )
        self.name, self.model, self.codebook_size = name, model, codebook_size
        self.frame_size, self.grid = size, (height // stride, width // stride)

    def to_ids(self, frames: Tensor) -> Tensor:
        """Float frames (B, 3, H, W) in [-1, 1] → ids (B, h, w) or (B, h · w)."""
        raise NotImplementedError

    def to_frames(self, ids: Tensor) -> Tensor:
        """Ids int64 (B, h, w) → float frames (B, 3, H, W)."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @torch.inference_mode()
    def encode(self, frames: Tensor, actions: Tensor | None = None) -> Tensor:
        """Frames uint8 (T, 3, H, W) → tokens int64 (T, h, w) in [0, V)."""
        return encode_in_parts(self, frames, _CHUNK, self.to_ids)

    @torch.inference_mode()
    def decode(self, tokens: Tensor, actions: Tensor | None = None, first: Tensor | None = None) -> Tensor:
        """Tokens int64 (T, h, w) in [0, V) → frames uint8 (T, 3, H, W)."""
        return decode_in_parts(self, tokens, _CHUNK, self.to_frames)


class VQModelTokenizer(AdaptedTokenizer):
    """`diffusers` VQModel: a frame is H/f x W/f tokens, f halving once less than it has blocks."""

    def __init__(self, model: Any, frame_size: tuple[int, int] | None) -> None:
        _require_channels("VQModel", model.config.in_channels, model.config.out_channels)
        stride = 2 ** (len(model.config.block_out_channels) - 1)
        super().__init__("VQModel", model, model.config.num_vq_embeddings, stride, frame_size)

    def to_ids(self, frames: Tensor) -> Tensor:
        model: Any = self.model
        return model.quantize(model.encode(frames).latents)[2][2].view(len(frames), -1)

    def to_frames(self, ids: Tensor) -> Tensor:
        model: Any = self.model
        # By hand: what its `decode` takes depends on two flags of its configuration.
        codes = model.quantize.embedding(ids).movedim(-1, 1).contiguous()
        return model.decoder(model.post_quant_conv(codes), codes if model.config.norm_type == "spatial" else None)


class VidTokTokenizer(AdaptedTokenizer):
    """`diffusers` AutoencoderVidTok with FSQ (arXiv 2412.13061), causal, used as for a video's first frame.

    As published, a video has H/8 x W/8 tokens for its first frame and for each 4 after it; here each frame has.
    """

    def __init__(self, model: Any, frame_size: tuple[int, int] | None) -> None:
        config = model.config
        _require_channels("AutoencoderVidTok", config.in_channels, config.out_channels)
        if config.regularizer != "fsq":
            raise FramepredError(
                f"AutoencoderVidTok with regularizer {config.regularizer!r} has no tokens: give a checkpoint with 'fsq'"
            )
        if not config.is_causal:
            raise FramepredError(
                f"AutoencoderVidTok that is not causal takes {model.num_sample_frames_batch_size} frames at once, "
                "and no frame has tokens of its own: give a causal checkpoint (is_causal true)"
            )
        stride = 2 ** len(model.encoder.spatial_ds)
        super().__init__("AutoencoderVidTok", model, model.regularization.codebook_size, stride, frame_size)
        self.group = model.temporal_compression_ratio

    def to_ids(self, frames: Tensor) -> Tensor:
        model: Any = self.model
        # The library fills the group of a video's first frame with that frame, and drops the copies again.
        return model.encode(frames[:, :, None].expand(-1, -1, self.group, -1, -1))[1]

    def to_frames(self, ids: Tensor) -> Tensor:
        model: Any = self.model
        return model.decode(ids[:, None], decode_from_indices=True)[:, :, 0]


class Emu3Tokenizer(AdaptedTokenizer):
    """`transformers` Emu3VQVAE (arXiv 2409.18869), as for pictures: a frame is repeated to fill its group.

    As published, a video has H/8 x W/8 tokens for each 4 frames; here each frame has.
    """

    def __init__(self, model: Any, frame_size: tuple[int, int] | None) -> None:
        _require_channels("Emu3VQVAE", model.config.in_channels, model.config.out_channels)
        super().__init__("Emu3VQVAE", model, model.config.codebook_size, model.spatial_scale_factor, frame_size)
        self.group = model.config.temporal_downsample_factor

    def to_ids(self, frames: Tensor) -> Tensor:
        model: Any = self.model
        sizes = torch.tensor([frames.shape[-2:]] * len(frames))
        return torch.stack(model.encode(frames, image_sizes=sizes).image_tokens)

    def to_frames(self, ids: Tensor) -> Tensor:
        model: Any = self.model
        return model.decode(ids)


class JanusTokenizer(AdaptedTokenizer):
    """`transformers` JanusVQVAE (arXiv 2410.13848): square frames of the one size it was made for."""

    def __init__(self, model: Any, frame_size: tuple[int, int] | None) -> None:
        config = model.config
        _require_channels("JanusVQVAE", config.in_channels, config.out_channels)
        stride = 2 ** (len(config.channel_multiplier) - 1)
        side = config.num_patches * stride
        if frame_size is not None and frame_size != (side, side):
            raise FramepredError(
                f"JanusVQVAE of {config.num_patches}x{config.num_patches} tokens takes frames of {side}x{side} only, "
                f"not {frame_size[0]}x{frame_size[1]}: give that size"
            )
        super().__init__("JanusVQVAE", model, config.num_embeddings, stride, (side, side))

    def to_ids(self, frames: Tensor) -> Tensor:
        model: Any = self.model
        return model.encode(frames).image_tokens

    def to_frames(self, ids: Tensor) -> Tensor:
        model: Any = self.model
        return model.decode(ids.flatten(1))


def _require_channels(name: str, incoming: int, outgoing: int) -> None:
    if (incoming, outgoing) != (3, 3):
        raise FramepredError(
            f"{name} takes {incoming} channels and gives {outgoing}, frames have 3 (RGB): give a checkpoint for RGB"
        )


ADAPTERS: dict[str, tuple[str, Callable[[Any, tuple[int, int] | None], AdaptedTokenizer]]] = {
    "VQModel": ("diffusers", VQModelTokenizer),
    "AutoencoderVidTok": ("diffusers", VidTokTokenizer),
    "Emu3VQVAE": ("transformers", Emu3Tokenizer),
    "JanusVQVAE": ("transformers", JanusTokenizer),
}


def is_foreign(config: dict[str, Any]) -> bool:
    """Say whether a config.json is one that `diffusers` or `transformers` wrote."""
    return "_class_name" in config or "architectures" in config


def load_adapted(folder: Path, config: dict[str, Any], frame_size: tuple[int, int] | None) -> AdaptedTokenizer:
    """Load the foreign tokenizer of a folder for frames of a size; None is the model's own, or 256x256.

    Only safetensors are read and only the library's own classes run. Raises FramepredError for a model
    that is no tokenizer, a library that is not there, and weights that are not whole.
    """
    name = _class_name(folder, config)
    home, adapter = ADAPTERS[name]
    if not any(folder.glob("*.safetensors")):
        raise FramepredError(
            f"{folder} has no safetensors: pickled weights can run code and are not read; "
            f"load them where you trust them and write safetensors with {name}.save_pretrained"
        )
    ensure_torchvision()
    try:
        library = importlib.import_module(home)
        model_class = getattr(library, name)
    except (ImportError, AttributeError, RuntimeError) as error:
        raise FramepredError(
            f"{folder} is a {name} of {home} ({str(error).splitlines()[0]}): pip install -U 'framepred[adapters]'"
        ) from error
    try:
        with _quietly(library):
            model, about = model_class.from_pretrained(
                str(folder), use_safetensors=True, local_files_only=True, output_loading_info=True
            )
    # What can be wrong with a checkpoint is raised as nearly anything.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise FramepredError(f"{folder} is not a whole {name} ({reason}): restore it from where it came") from error
    wrong = [*map(str, about["missing_keys"]), *map(str, about["mismatched_keys"])]
    if wrong:
        raise FramepredError(
            f"{folder} is not a whole {name}: its weights lack or do not fit {len(wrong)} entries, "
            f"such as {wrong[0]}: restore it from where it came"
        )
    return adapter(model.float(), frame_size).eval().requires_grad_(False)


def _class_name(folder: Path, config: dict[str, Any]) -> str:
    names = [config.get("_class_name"), *(config.get("architectures") or [])]
    known = next((n for n in names if n in ADAPTERS), None)
    if known:
        return str(known)
    said = next((str(n) for n in names if n), "nothing")
    if said.startswith("Chameleon"):
        raise FramepredError(
            f"{folder} is a {said}: Chameleon's tokenizer only encodes, no frame can come back from it"
        )
    if said in ("Emu3ForConditionalGeneration", "JanusForConditionalGeneration"):
        raise FramepredError(
            f"{folder} is a whole {said}: save its tokenizer alone, model.model.vqmodel.save_pretrained(DIR), "
            "and give DIR"
        )
    raise FramepredError(
        f"{folder} is no tokenizer that framepred can use: its config.json says {said}; "
        f"it reads its own and {', '.join(ADAPTERS)}"
    )


@contextmanager
def _quietly(library: Any) -> Iterator[None]:
    """Keep a library's own progress bars and advice off stderr while it loads."""
    logging = library.utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()

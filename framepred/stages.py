"""The two things that are trained: the tokenizer on frames, the predictor on token windows."""

import warnings

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from framepred.adaptation import inherited
from framepred.config import PredictorRecipe, Recipe, TokenizerRecipe
from framepred.data.augment import augment
from framepred.data.windows import Windows, step_generator
from framepred.errors import FramepredError, FramepredWarning
from framepred.predictor import Llama, LlamaConfig
from framepred.sequence import SequenceLayout
from framepred.tokenizer.autoencoder import Autoencoder, reconstruction_loss, to_float
from framepred.training import Stage, arithmetic


def _share(accelerator: Accelerator, batch: int) -> slice:
    """Return this process's rows of the global batch: the result must not depend on how many there are."""
    each, rest = divmod(batch, accelerator.num_processes)
    if rest:
        raise FramepredError(
            f"a batch of {batch} cannot be shared by {accelerator.num_processes} processes: "
            "set tokenizer.batch_size and predictor.batch_size to multiples of them"
        )
    return slice(accelerator.process_index * each, (accelerator.process_index + 1) * each)


def tokenizer_stage(
    model: Autoencoder, frames: Tensor, weights: Tensor, held_out: Tensor, recipe: Recipe, accelerator: Accelerator
) -> Stage:
    """Train `model` to reconstruct `frames` uint8 (T, 3, H, W), drawn by `weights` (T,)."""
    tok, seed = recipe.tokenizer, recipe.training.seed
    mine = _share(accelerator, tok.batch_size)
    seen = torch.zeros(model.codebook_size)
    watch = _CollapseWatch(tok, accelerator.is_main_process)

    def loss(run: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(seed, 1, step)
        index = torch.multinomial(weights, tok.batch_size, replacement=True, generator=generator)
        drawn = augment(frames[index], tok.augment, generator)[mine]
        batch = to_float(drawn.to(accelerator.device))
        reconstruction, ids, auxiliary = run(batch)
        seen.mul_(0.98).add_(torch.bincount(ids.flatten().cpu(), minlength=len(seen)))
        used = int((seen > 1e-3).sum())
        watch.look(used, min(len(seen), ids.numel()))
        shares = seen / seen.sum()
        perplexity = float(torch.exp(-(shares * shares.clamp(min=1e-12).log()).sum()))
        return reconstruction_loss(reconstruction, batch) + auxiliary, {
            "usage": used / len(seen),
            "perplexity": perplexity,
        }

    def validate(_: nn.Module) -> dict[str, float]:
        if not len(held_out):
            return {}
        error = (model.decode(model.encode(held_out)).cpu().float() - held_out.float()).div(255).square().mean()
        return {"validation_psnr": float(-10 * error.clamp(min=1e-10).log10())}

    return Stage(
        "tokenizer", model, loss, validate, tok.learning_rate, tok.weight_decay, tok.ema_decay, tok.batch_size, "frames"
    )  # fmt: skip


class _CollapseWatch:
    """Warns while few codes are in use: at 500 steps, then each time the steps have doubled."""

    def __init__(self, recipe: TokenizerRecipe, speaks: bool) -> None:
        self.recipe, self.speaks, self.steps, self.next = recipe, speaks, 0, 500

    def look(self, used: int, reachable: int) -> None:
        """Take note of a step: `used` codes were drawn lately, where a batch alone has room for `reachable`."""
        self.steps += 1
        if self.steps < self.next or used >= 0.1 * reachable or not self.speaks:
            return
        self.next = 2 * self.steps
        tok = self.recipe
        advice = {
            "fsq": "fewer tokenizer.levels",
            "ema": f"tokenizer.distance=cosine, a tokenizer.codebook_size below {tok.codebook_size}",
            "residual": f"a tokenizer.codebook_size below {tok.codebook_size}",
            "lfq": f"a tokenizer.entropy_weight above {tok.entropy_weight}",
            "bsq": f"a tokenizer.entropy_weight above {tok.entropy_weight}",
        }[tok.quantizer]
        other = "" if tok.quantizer == "fsq" else ", or tokenizer.quantizer=fsq"
        warnings.warn(
            FramepredWarning(
                f"the codebook is collapsing: {used} codes in use after {self.steps} steps, of {reachable} that a "
                f"batch could have; start anew with a tokenizer.learning_rate below {tok.learning_rate:g}, "
                f"{advice}{other}"
            ),
            stacklevel=3,
        )


def llama_config(recipe: PredictorRecipe, layout: SequenceLayout) -> LlamaConfig:
    """Return the Llama for a layout: its context is `window` whole frames with their actions."""
    return LlamaConfig(
        vocab_size=layout.vocabulary.size,
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp_width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=recipe.window * layout.stride,
    )


def predictor_stage(model: Llama, train: Windows, held_out: Windows, recipe: Recipe, accelerator: Accelerator) -> Stage:
    """Train `model` to predict each frame's tokens from the frames and actions before it."""
    pred, loop, layout = recipe.predictor, recipe.training, train.layout
    mine = _share(accelerator, pred.batch_size)
    # The first frame has nothing to be predicted from, and actions are given, not predicted.
    grid = torch.arange(1, train.window)[:, None] * layout.stride + torch.arange(layout.frame_tokens)
    targets = grid.flatten().to(accelerator.device)

    def cross_entropy(run: nn.Module, ids: Tensor, real: Tensor) -> Tensor:
        logits = run(ids, targets - 1)
        wanted = ids[:, targets].masked_fill(~real[:, 1:].repeat_interleave(layout.frame_tokens, 1), -100)
        return F.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten())

    def without_actions(ids: Tensor, rows: Tensor) -> Tensor:
        steps = ids.view(len(ids), -1, layout.stride).clone()
        steps[rows, :, layout.frame_tokens :] = layout.vocabulary.no_action
        return steps.flatten(1)

    def loss(run: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(loop.seed, 2, step)
        ids, real = train.batch(pred.batch_size, generator)
        dropped = torch.rand(len(ids), generator=generator) < pred.action_dropout
        ids = without_actions(ids, dropped)
        return cross_entropy(run, ids[mine].to(accelerator.device), real[mine].to(accelerator.device)), {}

    @torch.inference_mode()
    def validate(run: nn.Module) -> dict[str, float]:
        if not len(held_out):
            return {}
        ids, real = held_out.spread(pred.batch_size * loop.validation_batches)
        values = {}
        variants = {"validation_loss": ids}
        if layout.action_slots:
            variants["validation_loss_no_actions"] = without_actions(ids, torch.ones(len(ids), dtype=torch.bool))
        for name, rows in variants.items():
            parts = zip(rows.split(pred.batch_size), real.split(pred.batch_size), strict=True)
            with arithmetic(accelerator, loop):
                losses = [cross_entropy(run, i.to(accelerator.device), r.to(accelerator.device)) for i, r in parts]
            values[name] = float(torch.stack(losses).mean())
        return values

    tokens = pred.batch_size * train.window * layout.stride
    # Muon is for whole matrices, not for the thin factors of their updates.
    by_muon = pred.optimizer == "muon" and recipe.llm.trained != "lora"
    hidden = tuple(p for p in model.layers.parameters() if p.ndim == 2 and p.requires_grad) if by_muon else ()
    return Stage(
        "predictor", model, loss, validate, pred.learning_rate, pred.weight_decay, pred.ema_decay, tokens, "tokens",
        hidden, inherited(model) if layout.vocabulary.text_size else (), recipe.llm.learning_rate,
    )  # fmt: skip

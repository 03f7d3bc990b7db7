"""What is trained: the tokenizer on frames, the predictor on windows of tokens."""

import warnings
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from framepred.config.recipe import PredictorRecipe, Recipe, TokenizerRecipe
from framepred.errors import FramepredError, FramepredWarning
from framepred.predictor.config import LlamaConfig
from framepred.predictor.llama import Llama
from framepred.sequence.layout import SequenceLayout
from framepred.tokenizer.delta import DeltaAutoencoder, begun
from framepred.tokenizer.discriminator import WithAdversary, as_pictures
from framepred.tokenizer.image import Autoencoder, reconstruction_loss, to_float
from framepred.tokenizer.lpips import load_lpips
from framepred.training.augment import augment
from framepred.training.finetune import inherited
from framepred.training.frames import Frames
from framepred.training.loop import Stage, arithmetic
from framepred.training.windows import Windows, group_weights, step_generator
from framepred.training.words import Words


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
    model: Autoencoder | DeltaAutoencoder, train: Frames, held_out: Frames, recipe: Recipe, accelerator: Accelerator
) -> Stage:
    """Train `model` to reconstruct clips of frames, single ones where it codes each by itself."""
    tok, seed = recipe.tokenizer, recipe.training.seed
    mine = _share(accelerator, tok.batch_size)
    weights = group_weights(train.groups, [1] * len(train.groups), recipe.data.source_power)
    seen = torch.zeros(model.codebook_size)
    watch = _CollapseWatch(tok, accelerator.is_main_process)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trained = WithAdversary(model, tok.width).to(accelerator.device) if tok.adversarial else model
    lpips = load_lpips(Path(tok.perceptual), tok.perceptual_net).to(accelerator.device) if tok.perceptual else None

    def loss(run: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(seed, 1, step)
        index = torch.multinomial(weights, tok.batch_size, replacement=True, generator=generator)
        # The frames of a clip are varied alike, for they are channels of one picture.
        drawn = augment(train.clips(index, model.clip_frames), tok.augment, generator)
        if isinstance(model, DeltaAutoencoder):
            drawn = begun(drawn)
        batch = to_float(drawn[mine].to(accelerator.device))
        weight = torch.tensor(tok.adversarial if step >= tok.adversarial_after else 0.0, device=batch.device)
        reconstruction, ids, auxiliary = run(batch, weight) if tok.adversarial else run(batch)
        if lpips:
            pair = (as_pictures(x.float().clamp(-1, 1)) for x in (reconstruction, batch))
            auxiliary = auxiliary + tok.perceptual_weight * lpips(*pair).mean()
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
        runs = [run for run in held_out.frames.split(held_out.runs) if len(run)]
        if not runs:
            return {}
        decoded = torch.cat([model.decode(model.encode(run)).cpu() for run in runs])
        error = (decoded.float() - held_out.frames.float()).div(255).square().mean()
        return {"validation_psnr": float(-10 * error.clamp(min=1e-10).log10())}

    shown = tok.batch_size * model.clip_frames
    # What meets pixels and codes has few channels at one of its ends.
    hidden = tuple(p for p in model.parameters() if p.ndim == 4 and min(p.shape[:2]) >= 32 and p.requires_grad)
    return Stage(
        "tokenizer", trained, loss, validate, tok.learning_rate, tok.weight_decay, tok.ema_decay, shown, "frames",
        hidden if tok.optimizer == "muon" else (),
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


def predictor_stage(
    model: Llama, train: Windows, held_out: Windows, recipe: Recipe, accelerator: Accelerator,
    words: Words | None = None, held_out_words: Words | None = None,
) -> Stage:  # fmt: skip
    """Train `model` to predict each frame's tokens from the frames and actions before it, and the `words`."""
    pred, loop, layout = recipe.predictor, recipe.training, train.layout
    mine = _share(accelerator, pred.batch_size)

    # Where words and context stand is given, never drawn. So they are learned among themselves, and frames among all
    # other ids: a language model's many words cost frames no time, and no frame makes a word less likely.
    vocabulary = layout.vocabulary
    first, last = vocabulary.visual
    ranges = (first, last if layout.context_tokens else vocabulary.size), vocabulary.context, (0, vocabulary.text_size)
    kinds = [(first, stop) for first, stop in ranges if first < stop]

    def cross_entropy(run: nn.Module, ids: Tensor, weights: Tensor) -> Tensor:
        """Return the mean over the ids (B, L) that have weights (B, L), by them."""
        wanted, weight, device = ids.flatten(), weights.flatten(), accelerator.device
        places = [((weight > 0) & (first <= wanted) & (wanted < stop)).nonzero()[:, 0] for first, stop in kinds]
        asked = [
            ((at - 1).to(device), legal, (wanted[at] - legal[0]).to(device))
            for at, legal in zip(places, kinds, strict=True)
        ]
        losses = run(ids.to(device), asked)
        by = weight[torch.cat(places)].to(device)
        return (torch.cat(losses) * by).sum() / by.sum().clamp(min=1e-6)

    def without_actions(ids: Tensor, rows: Tensor) -> Tensor:
        ids = ids.clone()
        ids.unflatten(1, (-1, layout.stride))[rows, :, layout.row_tokens :] = layout.vocabulary.no_action
        return ids

    # What contexts say is given, too; but by saying it a model learns what the few tokens of a frame make of a picture.
    # Together they weigh as much as a frame.
    context_weight = layout.frame_tokens / max(1, layout.context_tokens)

    def weigh(real: Tensor, contexts: float = 0.0) -> Tensor:
        """Frames that are real (B, window) → weights (B, window · stride) of their tokens, and of their contexts'."""
        weights = torch.zeros(*real.shape, layout.stride)
        # The first frame has nothing to be predicted from; actions are given, not predicted.
        weights[:, 1:, : layout.context_tokens] = contexts * real[:, 1:, None]
        weights[:, 1:, layout.context_tokens : layout.row_tokens] = real[:, 1:, None].float()
        return weights.flatten(1)

    def loss(run: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(loop.seed, 2, step)
        places = train.draw(pred.batch_size, generator)
        ids, real = train.gather(*places)
        dropped = torch.rand(len(ids), generator=generator) < pred.action_dropout
        ids, weights = without_actions(ids, dropped), weigh(real, context_weight)
        if words:
            ids, weights = words.add(ids, weights, real, *places, generator)
        return cross_entropy(run, ids[mine], weights[mine]), {}

    @torch.inference_mode()
    def mean_loss(run: nn.Module, ids: Tensor, weights: Tensor) -> float:
        parts = zip(ids.split(pred.batch_size), weights.split(pred.batch_size), strict=True)
        with arithmetic(accelerator, loop):
            return float(torch.stack([cross_entropy(run, i, w) for i, w in parts]).mean())

    def validate(run: nn.Module) -> dict[str, float]:
        if not len(held_out):
            return {}
        ids, real = held_out.spread(pred.batch_size * loop.validation_batches)
        values = {"validation_loss": mean_loss(run, ids, weigh(real))}
        if layout.action_slots:
            bare = without_actions(ids, torch.ones(len(ids), dtype=torch.bool))
            values["validation_loss_no_actions"] = mean_loss(run, bare, weigh(real))
        if held_out_words and (captioned := held_out_words.captioned(held_out, len(ids))):
            values["validation_caption_loss"] = mean_loss(run, *captioned)
        return values

    tokens = pred.batch_size * train.window * layout.stride
    # Muon is for whole matrices, not for the thin factors of their updates.
    by_muon = pred.optimizer == "muon" and recipe.llm.trained != "lora"
    hidden = tuple(p for p in model.layers.parameters() if p.ndim == 2 and p.requires_grad) if by_muon else ()
    return Stage(
        "predictor", model, loss, validate, pred.learning_rate, pred.weight_decay, pred.ema_decay, tokens, "tokens",
        hidden, inherited(model) if layout.vocabulary.text_size else (), recipe.llm.learning_rate,
    )  # fmt: skip

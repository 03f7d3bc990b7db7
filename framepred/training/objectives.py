"""The losses: of the tokenizer on frames, of the predictor on windows of tokens."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from framepred.config.recipe import PredictorRecipe, Recipe, TokenizerRecipe
from framepred.errors import FramepredWarning
from framepred.predictor.config import LlamaConfig
from framepred.predictor.llama import Llama
from framepred.sequence.layout import SequenceLayout
from framepred.tokenizer.discriminator import WithAdversary
from framepred.tokenizer.image import Autoencoder, reconstruction_loss, to_float
from framepred.tokenizer.lpips import load_lpips
from framepred.training.arithmetic import arithmetic
from framepred.training.augment import augment
from framepred.training.finetune import inherited
from framepred.training.frames import Frames
from framepred.training.loop import Stage, own_rows
from framepred.training.preview import FRAMES, draw_given_back
from framepred.training.windows import Windows, group_weights, step_generator
from framepred.training.words import Words


def tokenizer_stage(
    model: Autoencoder, train: Frames, held_out: Frames, recipe: Recipe, accelerator: Accelerator
) -> Stage:
    """Train `model` to reconstruct frames."""
    tok, seed = recipe.tokenizer, recipe.training.seed
    mine = own_rows(accelerator, tok.batch_size)
    weights = group_weights(train.groups, [1] * len(train.groups), recipe.data.source_power)
    seen = torch.zeros(model.codebook_size)
    watch = _CollapseWatch(tok, accelerator.is_main_process)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trained = WithAdversary(model, tok.width).to(accelerator.device) if tok.adversarial else model
    lpips = load_lpips(Path(tok.perceptual), tok.perceptual_net).to(accelerator.device) if tok.perceptual else None

    def loss(run: nn.Module, step: int, fraction: float = 0.0) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(seed, 1, step)
        index = torch.multinomial(weights, tok.batch_size, replacement=True, generator=generator)
        drawn = augment(train.frames[index], tok.augment, generator)
        batch = to_float(drawn[mine].to(accelerator.device))
        weight = torch.tensor(tok.adversarial if step >= tok.adversarial_after else 0.0, device=batch.device)
        reconstruction, ids, auxiliary = run(batch, weight) if tok.adversarial else run(batch)
        if lpips:
            pair = (x.float().clamp(-1, 1) for x in (reconstruction, batch))
            auxiliary = auxiliary + tok.perceptual_weight * lpips(*pair).mean()
        seen.mul_(0.98).add_(torch.bincount(ids.flatten().cpu(), minlength=len(seen)))
        used = int((seen > 1e-3).sum())
        watch.count_step(used, min(len(seen), ids.numel()))
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

    def preview() -> Tensor | None:
        frames = held_out.frames[:: -(-len(held_out.frames) // FRAMES) or 1]
        return draw_given_back(frames, model.decode(model.encode(frames))) if len(frames) else None

    # Layers next to pixels or codes have few channels on one side: AdamW trains them.
    hidden = tuple(p for p in model.parameters() if p.ndim == 4 and min(p.shape[:2]) >= 32 and p.requires_grad)
    return Stage(
        "tokenizer", trained, loss, validate, tok.learning_rate, tok.weight_decay, tok.ema_decay, tok.batch_size,
        "frames",
        hidden if tok.optimizer == "muon" else (),
        preview=preview,
    )  # fmt: skip


class _CollapseWatch:
    """Warns while few codes are in use: after 500 steps, then each time the number of steps has doubled."""

    def __init__(self, recipe: TokenizerRecipe, warns: bool) -> None:
        self.recipe, self.warns, self.steps, self.next = recipe, warns, 0, 500

    def count_step(self, used: int, reachable: int) -> None:
        """Count a step: `used` codes occurred in the last steps; a batch can hold at most `reachable` codes."""
        self.steps += 1
        if self.steps < self.next or used >= 0.1 * reachable or not self.warns:
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
    """Return the Llama for a layout; its context is `window` frames with their actions."""
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
    """Train `model` to predict each frame's tokens from the frames and actions before it, and text in `words`."""
    pred, layout = recipe.predictor, train.layout
    objective = PredictorObjective(train, held_out, recipe, accelerator, words, held_out_words)
    # Muon is for full matrices, not for the low-rank factors of their updates.
    by_muon = pred.optimizer == "muon" and recipe.llm.trained != "lora"
    return Stage(
        "predictor", model, objective.loss, objective.validate, pred.learning_rate, pred.weight_decay, pred.ema_decay,
        items_per_step=pred.batch_size * train.window * layout.stride,
        unit="tokens",
        matrices=tuple(p for p in model.layers.parameters() if p.ndim == 2 and p.requires_grad) if by_muon else (),
        inherited=inherited(model) if layout.vocabulary.text_size else (),
        inherited_rate=recipe.llm.learning_rate,
    )  # fmt: skip


class PredictorObjective:
    """The cross-entropy of frame tokens, context tokens and text, given everything before each of them."""

    def __init__(
        self, train: Windows, held_out: Windows, recipe: Recipe, accelerator: Accelerator, words: Words | None,
        held_out_words: Words | None,
    ) -> None:  # fmt: skip
        self.train, self.held_out, self.words, self.held_out_words = train, held_out, words, held_out_words
        self.pred, self.loop, self.accelerator, self.layout = (
            recipe.predictor,
            recipe.training,
            accelerator,
            train.layout,
        )
        self.mine = own_rows(accelerator, self.pred.batch_size)
        # Where text and context tokens stand is known, never sampled. So each kind of token competes only with its own
        # kind, and frame tokens with all ids that are not text: a large text vocabulary costs frames no time, and no
        # frame makes a word less likely.
        vocabulary = self.layout.vocabulary
        first, last = vocabulary.visual
        frames = [(first, last if self.layout.context_tokens else vocabulary.size)]
        if self.layout.cells:
            frames = [self.layout.legal(self.layout.context_tokens + slot) for slot in range(self.layout.frame_tokens)]
        ranges = *frames, vocabulary.context, (0, vocabulary.text_size)
        self.ranges = [(first, stop) for first, stop in ranges if first < stop]
        # Context tokens are known too, but by predicting them a model learns what the few tokens of a frame change in a
        # picture. Together they weigh as much as a frame.
        self.context_weight = self.layout.frame_tokens / max(1, self.layout.context_tokens)

    def loss(self, run: nn.Module, step: int, fraction: float = 0.0) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a step's batch, with the actions of some windows left out."""
        generator = step_generator(self.loop.seed, 2, step)
        places = self.train.draw(self.pred.batch_size, generator)
        ids, real = self.train.gather(*places)
        ids, weights, seen = self._prepared(ids, real, generator)
        if self.words:
            ids, weights = self.words.add(ids, weights, real, *places, generator)
            seen = ids
        return self.cross_entropy(run, ids[self.mine], weights[self.mine], seen[self.mine]), {}

    def loss_of(self, run: nn.Module, ids: Tensor, real: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of given windows, in the form of `Windows.gather`, which this process reads alone."""
        return self.cross_entropy(run, *self._prepared(ids, real, generator))

    def _prepared(self, ids: Tensor, real: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return windows' ids with some actions left out, their weights, and what the model reads of them."""
        dropped = torch.rand(len(ids), generator=generator) < self.pred.action_dropout
        ids = self._without_actions(ids, dropped)
        return ids, self.weights(real, self.context_weight), self._corrupted(ids, generator)

    def validate(self, run: nn.Module) -> dict[str, float]:
        """Return the losses of windows spread evenly over the held-out episodes: with actions, without, of captions."""
        if not len(self.held_out):
            return {}
        ids, real = self.held_out.evenly(self.pred.batch_size * self.loop.validation_batches)
        weights = self.weights(real)
        values = {"validation_loss": self._mean_loss(run, ids, weights)}
        if self.layout.action_slots:
            bare = self._without_actions(ids, torch.ones(len(ids), dtype=torch.bool))
            values["validation_loss_no_actions"] = self._mean_loss(run, bare, weights)
        if self.held_out_words and (captioned := self.held_out_words.captioned(self.held_out, len(ids))):
            values["validation_caption_loss"] = self._mean_loss(run, *captioned)
        return values

    def _corrupted(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        """Replace context tokens of ids (B, L) by random ones, in each window a share of up to `context_noise`.

        A rollout's own pictures are not those of training; a model that has seen wrong ones leans less on them.
        """
        layout, most = self.layout, self.pred.context_noise
        if not (most and layout.context_tokens):
            return ids
        rows = ids.unflatten(1, (-1, layout.stride)).clone()
        share = most * torch.rand(len(ids), 1, 1, generator=generator)
        context = rows[:, :, : layout.context_tokens]
        wrong = torch.rand(context.shape, generator=generator) < share
        drawn = torch.randint(*layout.vocabulary.context, context.shape, generator=generator)
        rows[:, :, : layout.context_tokens] = torch.where(wrong, drawn, context)
        return rows.flatten(1)

    def cross_entropy(self, run: nn.Module, ids: Tensor, weights: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the weighted mean over the ids int64 (B, L) whose weights float32 (B, L) are not 0.

        The model reads `seen` (B, L), the ids themselves where it is None.
        """
        losses, places = self.losses(run, ids, weights > 0, seen)
        by = weights.flatten()[places].to(losses.device)
        return (losses * by).sum() / by.sum().clamp(min=1e-6)

    def losses(
        self, run: nn.Module, ids: Tensor, mask: Tensor, seen: Tensor | None = None,
        ranges: Sequence[tuple[int, int]] = (),
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return the cross-entropy float32 (P,) of the ids int64 (B, L) in a mask (B, L), and their flat places (P,).

        Each id competes with those of its one of the `ranges`, by default those of training.
        """
        flat, wanted, device = ids.flatten(), mask.flatten(), self.accelerator.device
        kinds = ranges or self.ranges
        places = [(wanted & (first <= flat) & (flat < stop)).nonzero()[:, 0] for first, stop in kinds]
        asked = [
            ((at - 1).to(device), legal, (flat[at] - legal[0]).to(device))
            for at, legal in zip(places, kinds, strict=True)
        ]
        return torch.cat(run((ids if seen is None else seen).to(device), asked)), torch.cat(places)

    @torch.inference_mode()
    def _mean_loss(self, run: nn.Module, ids: Tensor, weights: Tensor) -> float:
        parts = zip(ids.split(self.pred.batch_size), weights.split(self.pred.batch_size), strict=True)
        with arithmetic(self.accelerator, self.loop):
            return float(torch.stack([self.cross_entropy(run, i, w) for i, w in parts]).mean())

    def _without_actions(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Replace the actions of these rows, bool (B,), by the id of no action."""
        ids, layout = ids.clone(), self.layout
        ids.unflatten(1, (-1, layout.stride))[rows, :, layout.row_tokens :] = layout.vocabulary.no_action
        return ids

    def weights(self, real: Tensor, contexts: float = 0.0) -> Tensor:
        """Which frames are real, bool (B, window) → loss weights (B, window · stride): 1 for their tokens.

        `contexts` is the weight of their context tokens.
        """
        layout = self.layout
        weights = torch.zeros(*real.shape, layout.stride)
        # The first frame has nothing to be predicted from; actions are given, not predicted.
        weights[:, 1:, : layout.context_tokens] = contexts * real[:, 1:, None]
        weights[:, 1:, layout.context_tokens : layout.row_tokens] = real[:, 1:, None].float()
        return weights.flatten(1)

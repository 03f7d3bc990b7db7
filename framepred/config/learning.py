"""Settings of what goes on after training, sections of a recipe."""

from dataclasses import dataclass

from framepred.config.constraints import above_zero_below_one, allow, at_least, below_one


@dataclass(frozen=True)
class LearningRecipe:
    """Learning that goes on after training (`framepred learn`)."""

    steps: int = at_least(0, 8, "updates after each episode; 0 only predicts")
    batch_size: int = at_least(2, 8, "windows of an update")
    learning_rate: float = above_zero_below_one(1e-4, "of all weights, by AdamW, the same throughout")
    lora_rank: int = at_least(0, 0, "rank of low-rank updates of the matrices; 0 learns all weights", words="0 or more")
    lora_learning_rate: float = above_zero_below_one(5e-4, "of low-rank updates, by AdamW")
    only_surprising: bool = allow(False, about="learn only from episodes that cost more bits than those before them")
    replay: float = below_one(0.5, "share of an update's windows that are of what was known or learned before")
    held_out: float = below_one(0.1, "share of each source's episodes that are never learned from, to measure on")


@dataclass(frozen=True)
class ReinforcementRecipe:
    """Reinforcement by what really happened (`framepred reinforce`)."""

    updates: int = at_least(1, 200, "updates in all")
    contexts: int = at_least(1, 2, "contexts of an update")
    group: int = at_least(2, 8, "futures of a context, which are compared")
    context: int = at_least(1, 4, "true frames before a future")
    horizon: int = at_least(1, 4, "frames of a future")
    learning_rate: float = above_zero_below_one(1e-5, "of AdamW, the same throughout")
    kl: float = at_least(0, 0.1, "weight of the divergence from where it began")
    error: float = at_least(0, 1.0, "weight of the error, as a share of copying's")
    features: float = at_least(0, 0.0, "weight of the distance of the tokenizer's features, as a share of copying's")
    sharpness: float = at_least(0, 0.3, "weight of how far the sharpness is from the truth's")

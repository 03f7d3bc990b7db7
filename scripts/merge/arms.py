"""The trainings that are compared, as data: what each begins from, what it sees, and what of it is measured."""

import hashlib
from dataclasses import dataclass

# 16 tokens a frame, so that a small machine sees many; a frame's token weighs a tenth of a word's, for there are many.
COMMON = (
    "tokenizer.downsampling=16", "tokenizer.levels=[8,8,4,4,4]", "predictor.optimizer=adamw",
    "text.frame_weight=0.1", "training.validate_every=1000000000",
)  # fmt: skip
FRAMES = ("text.alone=0.0", "text.captioned=0.0", "text.frame_weight=1.0")
BARE = ("predictor.action_dropout=1.0",)
MIXES = (25, 50, 75)
PART = 0.25
"""The steps of a training on a new scenario or on few captions, as a share of all others'."""


def mixed(percent: int) -> tuple[str, ...]:
    """Return the settings of batches of which so many percent of the rows hold words, a quarter of those no frames."""
    words = percent / 100
    return f"text.alone={words / 4:g}", f"text.captioned={3 * words / 4:g}"


def both(*rates: float) -> tuple[tuple[str, ...], ...]:
    """Return settings in which all weights have one learning rate, one for each of `rates`."""
    return tuple((f"predictor.learning_rate={rate}", f"llm.learning_rate={rate}") for rate in rates)


def inherited(*rates: float) -> tuple[tuple[str, ...], ...]:
    """Return settings in which the language model's weights have one of `rates`, and the added rows 0.001."""
    return tuple(("predictor.learning_rate=0.001", f"llm.learning_rate={rate}") for rate in rates)


OWN_SHAPE = (
    "predictor.width=256", "predictor.layers=6", "predictor.heads=4", "predictor.kv_heads=4", "predictor.mlp_width=704",
    "predictor.optimizer=muon", "predictor.learning_rate=0.004",
)  # fmt: skip
"""framepred's own default predictor."""
KEPT = inherited(0.0001, 0.0003, 0.001)
DRAWN = both(0.0003, 0.001, 0.003)
NEW = (
    ("predictor.learning_rate=0.001",), ("predictor.optimizer=muon", "predictor.learning_rate=0.004"), OWN_SHAPE,
)  # fmt: skip
AGAIN = (("predictor.learning_rate=0.0003",), ("predictor.learning_rate=0.001",), ("predictor.learning_rate=0.003",))


@dataclass(frozen=True)
class Arm:
    """A training.

    `start`: "llm" (its weights), "random" (others of its shape), "new" (its shape without text ids, unless the settings
    say another), or the arm that it goes on from. `store`: "train", "shuffled" (captions of other frames), "new"
    (another scenario), "few" (few captions of it). `texts`: it also reads text alone. `candidates`: the settings of
    which the best by `judged`, losses that are added, is taken on a seed that is not reported. `part` is its share of
    the steps; with `timed` it gets as many as take the time of the first arm's. `measured`: see `measures.py`.
    """

    name: str
    start: str
    settings: tuple[str, ...]
    candidates: tuple[tuple[str, ...], ...]
    measured: tuple[str, ...]
    judged: tuple[str, ...] = ("validation_loss",)
    store: str = "train"
    texts: bool = False
    part: float = 1.0
    timed: bool = False


_VIDEO, _WORDS = ("bits", "rollout"), ("bits", "text", "cloze", "facts")
_BY_FRAMES, _BY_WORDS = "validation_loss_no_actions", ("validation_caption_loss", "text_loss")

ARMS = (
    Arm("video-llm", "llm", FRAMES, KEPT, (*_VIDEO, "text", "cloze")),
    Arm("video-random", "random", FRAMES, DRAWN, _VIDEO),
    Arm("video-new", "new", (), NEW, _VIDEO),
    Arm("video-new-timed", "new", (), NEW, _VIDEO, timed=True),
    Arm("video-bare", "llm", FRAMES + BARE, KEPT, (*_VIDEO, "text"), (_BY_FRAMES,)),
    Arm("text", "llm", (*BARE, "text.alone=1.0", "text.captioned=0.0"), KEPT, ("text", "cloze"), ("text_loss",),
        texts=True),
    *(
        Arm(f"mixed-{percent}", "llm", BARE + mixed(percent), KEPT, _WORDS, (_BY_FRAMES, *_BY_WORDS), texts=True)
        for percent in MIXES
    ),
    Arm("mixed-actions", "llm", mixed(50), KEPT, _WORDS, ("validation_loss", *_BY_WORDS), texts=True),
    Arm("captions", "llm", BARE + mixed(50) + ("text.frame_weight=0.0",), KEPT, ("text", "cloze", "facts"), _BY_WORDS,
        texts=True),
    Arm("shuffled", "llm", BARE + mixed(50), KEPT, _WORDS, (_BY_FRAMES, *_BY_WORDS), store="shuffled", texts=True),
    *(
        Arm(f"adapt-{start}", f"video-{start}", () if start == "new" else FRAMES, AGAIN if start == "new" else rates,
            ("bits-new",), store="new", part=PART)
        for start, rates in (("llm", KEPT), ("random", DRAWN), ("new", ()))
    ),
    Arm("scratch-llm", "llm", FRAMES, KEPT, ("bits-new",), store="new", part=PART),
    *(
        Arm(f"words-{name}", start, (*BARE, "text.alone=0.0", "text.captioned=1.0"), KEPT, ("facts-new",),
            ("validation_caption_loss",), store="few", part=PART)
        for name, start in (("llm", "llm"), ("video", "video-bare"))
    ),
)  # fmt: skip


SMALL = (
    "data.size=32", "tokenizer.downsampling=8", "tokenizer.width=32", "tokenizer.levels=[8,8,4]", "predictor.window=6",
    "predictor.batch_size=4",
)  # fmt: skip
"""For a part of one core, in an hour: enough to see that all of it works, not to decide anything."""


@dataclass(frozen=True)
class Size:
    """How large the experiment is: of the LLM its first `layers` and `words` (0: all), and how much is measured.

    `episodes` of each scenario are recorded for training, and for measuring a clip of each of `clips` ones.
    """

    layers: int
    words: int
    settings: tuple[str, ...]
    episodes: int
    clips: int
    captions: int
    cloze: int
    minutes: float
    tuning: float
    """The steps of a training that chooses a learning rate, as a share of all others'."""


SIZES = {
    "tiny": Size(2, 4096, SMALL, 30, 48, 120, 200, 1.0, 0.25),
    "cut": Size(4, 8192, ("predictor.window=8", "predictor.batch_size=12"), 100, 96, 1200, 800, 4.0, 0.2),
    "135m": Size(0, 0, ("predictor.window=12", "predictor.batch_size=48"), 200, 96, 1200, 800, 10.0, 0.1),
}


def tables_sha256(size: Size) -> str:
    """Return a hash of all that these tables say of an experiment of a size."""
    return hashlib.sha256(repr((COMMON, size, ARMS)).encode()).hexdigest()

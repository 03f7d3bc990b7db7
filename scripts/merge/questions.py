"""What is asked, written before the runs: measures, smallest effects that matter, how many items show them, who loses.

`python -m merge.questions`, in scripts/, prints the page scripts/results/merge/questions.md.
"""

from dataclasses import dataclass

from merge.statistics import half_width, needed, share_spread


@dataclass(frozen=True)
class Measure:
    """What is measured of a run: in which `unit`, over which `items`, and whether more is better (1) or less (-1).

    `matters` is the smallest difference that would matter; `spread` is what was expected, before the runs, as the
    standard deviation of an item's difference between two arms. `ratio`: a score that is best at 1; the measure is then
    how far from 1 it is, over all items together.
    """

    label: str
    unit: str
    items: str
    better: int
    matters: float
    spread: float
    expected_from: str
    ratio: str = ""


_KEPT_NONE = "a guess: the first look kept no scores of single clips"
# 32 clips of one future against copying: half of the interval is 0.59 dB (scripts/results/eval.md).
_PSNR_SPREAD = 0.59 * 32**0.5 / 1.96
MEASURES = {
    "bits": Measure("bits a frame, held out, given the actions", "bits", "clips", -1, 1.5, 5.0, _KEPT_NONE),
    "bits-bare": Measure("bits a frame, held out, no actions given", "bits", "clips", -1, 1.5, 5.0, _KEPT_NONE),
    "bits-new": Measure("bits a frame of the new scenario, held out", "bits", "clips", -1, 1.5, 5.0, _KEPT_NONE),
    "psnr": Measure("PSNR of one future of 8 frames", "dB", "clips", 1, 0.5, round(_PSNR_SPREAD, 2),
                    "scripts/results/eval.md, against copying"),
    "sharpness-error": Measure("distance to 1 of the image gradient over the true one", "", "clips", -1, 0.05, 0.15,
                               "a guess", "sharpness"),
    "motion-error": Measure("distance to 1 of the change from frame to frame over the true one", "", "clips", -1, 0.1,
                            0.3, "a guess", "motion"),
    "text": Measure("held-out text, nats a token", "nats", "files", -1, 0.1, 0.3,
                    "a guess: the first look kept no losses of single files"),
    "cloze": Measure("missing last words found, of four", "", "sentences", 1, 0.07, round(share_spread(0.6, 0.6), 2),
                     "two shares of 0.6 that know nothing of each other"),
    "fact-action": Measure("what was pressed, told by likelihood", "", "captions", 1, 0.06,
                           round(share_spread(0.396, 0.366), 2), "the shares of the first look"),
    "fact-event": Measure("what happened, told by likelihood", "", "captions", 1, 0.06,
                          round(share_spread(0.964, 0.927), 2), "the shares of the first look"),
    "fact-action-new": Measure("what was pressed, new scenario, few captions", "", "captions", 1, 0.06,
                               round(share_spread(0.396, 0.366), 2), "the shares of the first look"),
    "fact-event-new": Measure("what happened, new scenario, few captions", "", "captions", 1, 0.06,
                              round(share_spread(0.964, 0.927), 2), "the shares of the first look"),
}  # fmt: skip
BEFORE = "before"
"""In the place of an arm: the language model before any of them."""


@dataclass(frozen=True)
class Comparison:
    """`ours` against `theirs` (arms) in a measure; `against` where that of the other has another name."""

    ours: str
    theirs: str
    measure: str
    against: str = ""


def compare(ours: str, theirs: str, *measures: str) -> tuple[Comparison, ...]:
    """Return the comparisons of two arms in several measures."""
    return tuple(Comparison(ours, theirs, measure) for measure in measures)


@dataclass(frozen=True)
class Question:
    """A question, its comparisons (the first one decides), when the bet loses, and what the answer does not show."""

    name: str
    asks: str
    decides: tuple[Comparison, ...]
    loses: str
    not_shown: str


_ROLLOUT = ("bits", "psnr", "sharpness-error", "motion-error")
QUESTIONS = (
    Question(
        "start", "Do the weights of a language model help to predict video, at equal tokens?",
        compare("video-llm", "video-random", *_ROLLOUT),
        "The weights are not 1.5 bits a frame better than random ones of the same shape.",
        "Whether they would still help after many more frames, when random weights have caught up.",
    ),
    Question(
        "time", "Do they help against the best new model without text, at equal time and at equal tokens?",
        (*compare("video-llm", "video-new-timed", *_ROLLOUT), *compare("video-llm", "video-new", *_ROLLOUT)),
        "At equal time the new model is not worse: then the language model costs more than it brings.",
        "Time on another machine: the new model gets the steps that take as long where the experiment ran.",
    ),
    Question(
        "forgetting", "What does predicting video do to the words?",
        (
            *compare("mixed-50", "captions", "text", "cloze"), *compare("mixed-50", "text", "text", "cloze"),
            *compare("mixed-50", BEFORE, "text", "cloze"), *compare("video-llm", BEFORE, "text", "cloze"),
        ),
        "A loss on frames costs over 0.1 nats of text against the same words without one: then frames push words out.",
        "General knowledge: the text is documentation and licences, and a cut model knows little to forget.",
    ),
    Question(
        "mixing", "What do words in the batch cost the frames, at three shares?",
        tuple(Comparison(f"mixed-{share}", "video-bare", "bits-bare") for share in (50, 25, 75))
        + compare("mixed-actions", "video-llm", "bits"),
        "With half of the rows words a frame costs over 1.5 bits more: then words and frames compete for the weights.",
        "Equal frames: a mixed batch has as many rows, so fewer of them are frames.",
    ),
    Question(
        "grounding", "Does predicting frames connect words to what frames show?",
        (
            *compare("mixed-50", "captions", "fact-action", "fact-event"),
            *compare("mixed-50", "shuffled", "fact-action", "fact-event"),
            *compare("mixed-50", "mixed-actions", "fact-action"),
        ),
        "With a loss on frames no more facts are told than without one. Where not even shuffled captions are worse, "
        "no words were connected to frames at all.",
        "Words that no caption has: captions are made from the game's buttons and variables.",
    ),
    Question(
        "actions", "What are actions worth to a frame?",
        (
            Comparison("video-llm", "video-bare", "bits", "bits-bare"),
            Comparison("video-llm", "video-bare", "bits-bare"),
            Comparison("video-llm", "video-bare", "psnr", "psnr-bare"),
        ),
        "Given actions save less than 1.5 bits, or training with them costs as much where none are given.",
        "Control: whether the right thing happens after an action is measured by `framepred eval --replay`.",
    ),
    Question(
        "scenario", "Does the language model's start learn a new scenario from fewer frames?",
        (
            *compare("adapt-llm", "adapt-random", "bits-new"), *compare("adapt-llm", "adapt-new", "bits-new"),
            *compare("adapt-llm", "scratch-llm", "bits-new"),
        ),
        "After other scenarios, a start from random weights learns the new one as well.",
        "Scenarios of another game: all are VizDoom's, with the same pictures on their walls.",
    ),
    Question(
        "words", "Does a model that learned to predict frames learn new captions from fewer examples?",
        compare("words-video", "words-llm", "fact-action-new", "fact-event-new"),
        "From few captions of a new scenario it tells no more facts than the language model itself would.",
        "Other numbers of examples than the one that was given.",
    ),
)  # fmt: skip


def count_rows() -> list[list[str]]:
    """Return, for each measure, how many items show the smallest effect that matters."""
    rows = []
    for name, m in MEASURES.items():
        count = needed(m.spread, m.matters)
        width = half_width(m.spread, count)
        rows.append(
            [name, m.label, f"{m.matters:g} {m.unit}".strip(), f"{m.spread:g}", m.expected_from,
             f"{count} {m.items}", f"±{width:.2g}"]
        )  # fmt: skip
    return rows


def table(headers: list[str], rows: list[list[str]]) -> list[str]:
    """Return a table as lines of Markdown."""
    return [f"| {' | '.join(row)} |" for row in [headers, ["---"] * len(headers), *rows]]


def describe(one: Comparison) -> str:
    """Return a comparison in words."""
    theirs = f", whose {one.against} counts" if one.against else ""
    return f"{one.ours} against {one.theirs}{theirs}: {one.measure}"


_INTRODUCTION = """
# The merge: what is asked

Written and committed before the runs; `python -m merge.questions`, in scripts/, prints this page. What is decided after
seeing data is marked so, here and in [merge.md](merge.md). The arms are in `scripts/merge/arms.py`.

An answer is *seen* where the 95% intervals over items and over seeds leave out 0 and the difference is at least the
smallest effect that matters; *not there* where they stay below that effect; else *open*. One seed has no interval over
seeds: all it can be is open. The first comparison of a question decides it.

## Decided after seeing data

One seed of video-llm and video-random at the size tiny had been measured when these were changed.

- Sharpness and motion count by |ratio - 1|, less is better. Before, more counted as better; but pictures moved 3.5
  times as much as the true ones, where more is worse. It is not |log ratio|, which has no value for a picture that
  stands still. The ratio is that of all clips together, for a clip where nothing moves has none. The smallest effects
  that matter are the same.
- The items needed, in [merge.md](merge.md), are from the spread over resampled clips, which every measure has.

## How many items

To see the smallest effect that matters in 80 of 100 experiments; ± is half of the 95% interval then. For facts, ±0.04
takes 1,150 captions: at least 1,200 are asked, as many of each kind of event as there are.
"""


def questions_page() -> str:
    """Return the questions as Markdown."""
    headers = ["measure", "what", "matters", "spread of a difference", "from", "needed", "interval"]
    lines = [*_INTRODUCTION.strip().splitlines(), "", *table(headers, count_rows()), ""]
    for question in QUESTIONS:
        lines += [
            f"## {question.name}: {question.asks}", "",
            *(f"- {describe(one)}" for one in question.decides), "",
            f"The bet loses if: {question.loses}", "", f"It does not show: {question.not_shown}", "",
        ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(questions_page(), end="")

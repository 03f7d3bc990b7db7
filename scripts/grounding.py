"""Whether words are grounded: what a run says of frames it was not trained on, fact by fact."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from framepred.decoding.sampling import Sampling
from framepred.llm.caption import frames_to_read
from framepred.llm.text import encode_text, require_text
from framepred.recording.narration import EVENTS, FACTS, join_facts
from framepred.sources.captions_csv import Caption
from framepred.tokens.store import TokenEpisode
from framepred.world.run import Run


@dataclass(frozen=True)
class Answer:
    """What a run answers of one fact of a caption: whether it is right behind the frames, and behind other frames.

    `chance` is what a blind choice among the alternatives would have right.
    """

    caption: int
    kind: str
    fact: str
    right: bool
    guessed: bool
    chance: float


@dataclass(frozen=True)
class FactAccuracy:
    """Of `count` facts of a kind, the share that the frames tell (`accuracy`), and `guessed` from other frames.

    Each fact counts alike, however often it is told: to say always the commonest is worth no more than `chance`.
    """

    count: int
    accuracy: float
    guessed: float
    chance: float


def fact_answers(
    run: Run, episodes: Sequence[TokenEpisode], most: int = 100, kinds: Sequence[str] = FACTS
) -> list[Answer]:
    """Ask a run which scene, action or event it sees, in at most `most` captions, as many of each event as there are.

    A caption as it is stands against the same caption with one fact, the first of its kind, swapped for each other
    one that is told of in the episodes; the likeliest behind the frames is the answer. Actions are not given, or
    they would be read off. The same question behind the frames of another caption says what the words alone give
    away. A kind of which all say the same is left out.
    """
    asked = [(frames, facts_of(caption.text)) for e in episodes for caption, frames in _windows(run, e)]
    known = {kind: sorted({facts[kind][0] for _, facts in asked if kind in facts}) for kind in kinds}
    chosen = evenly([facts.get("event", [""])[0] for _, facts in asked], most)
    answers = []
    for place, i in enumerate(chosen):
        frames, facts = asked[i]
        others = asked[chosen[(place + len(chosen) // 2) % len(chosen)]][0]
        options = {kind: _swapped(facts, kind, known[kind]) for kind in facts if kind in kinds}
        texts = [join_facts(facts), *(text for kind in options for text in options[kind])]
        seen, unseen = (log_likelihoods(run, f, None, texts) for f in (frames, others))
        first = 1
        for kind, swapped in options.items():
            if swapped:
                mine = slice(first, first + len(swapped))
                right, guessed = (bool(scores[0] > scores[mine].max()) for scores in (seen, unseen))
                answers.append(Answer(i, kind, facts[kind][0], right, guessed, 1 / (1 + len(swapped))))
            first += len(swapped)
    return answers


def evenly(groups: Sequence[str], most: int) -> list[int]:
    """Return the places of at most `most` of the items, in their order, as many of each group as there are.

    A group that has fewer than its share gives all; the others share what is left. Within a group they are spread
    evenly.
    """
    places: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    taken, left = list[int](), most
    for done, group in enumerate(sorted(places, key=lambda g: len(places[g]))):
        mine = places[group]
        share = min(len(mine), left // (len(places) - done))
        taken += [mine[i * len(mine) // share] for i in range(share)]
        left -= share
    return sorted(taken)


def fact_accuracy(run: Run, episodes: Sequence[TokenEpisode], most: int = 100) -> dict[str, FactAccuracy]:
    """Return the shares of `fact_answers` by their kind, each fact counted alike."""
    answers = fact_answers(run, episodes, most)
    found = {}
    for kind in FACTS:
        mine = [a for a in answers if a.kind == kind]
        if mine:
            by_fact = [[a for a in mine if a.fact == fact] for fact in sorted({a.fact for a in mine})]
            accuracy, guessed, chance = (
                fmean(fmean(getattr(a, name) for a in told) for told in by_fact)
                for name in ("right", "guessed", "chance")
            )
            found[kind] = FactAccuracy(len(mine), accuracy, guessed, chance)
    return found


def _windows(run: Run, episode: TokenEpisode) -> Iterable[tuple[Caption, Tensor]]:
    """Yield each caption and the tokens of a window of frames, at least half of which it speaks of, as in training."""
    for caption in episode.captions:
        first, stop = (int(seconds * episode.fps + 0.5) for seconds in (caption.start, caption.end))
        start = max(0, min(first, len(episode.tokens) - run.window))
        frames = episode.tokens[start : start + run.window]
        if len(frames) >= 2 and min(stop, start + len(frames)) - first >= len(frames) / 2:
            yield caption, frames


def _swapped(facts: dict[str, list[str]], kind: str, known: Sequence[str]) -> list[str]:
    """Return the caption with another first fact of a kind, in all ways that do not say what it says already."""
    return [join_facts(facts | {kind: [other, *facts[kind][1:]]}) for other in known if other not in facts[kind]]


def facts_of(caption: str) -> dict[str, list[str]]:
    """Return a caption's phrases by their kind: the inverse of `join_facts`."""
    facts: dict[str, list[str]] = {}
    for place, sentence in enumerate(caption.strip().removesuffix(".").split(". ")):
        phrases = f"{sentence[:1].lower()}{sentence[1:]}".split(", ")
        event = phrases[0] in {words for _, _, words in EVENTS}
        facts["event" if event else "action" if place else "scene"] = phrases
    return facts


@torch.inference_mode()
def log_likelihoods(run: Run, tokens: Tensor, actions: Tensor | None, texts: Sequence[str]) -> Tensor:
    """Return the log-likelihood, float64 (n,) in nats, of each of n texts behind frames, tokens int64 (T, h, w).

    A text ends with the id that ends text, which counts too: a short text is not likelier for being short.
    """
    require_text(run)
    end = run.predictor.config.end_of_text
    said = [torch.tensor([*encode_text(run, text), *([] if end is None else [end])]) for text in texts]
    wanted = pad_sequence(said, batch_first=True, padding_value=-1).to(run.predictor.embed.weight.device)
    past = frames_to_read(run, tokens, actions, wanted.shape[1])
    engine = run.engine(Sampling(temperature=0), len(texts), past.shape[1] + wanted.shape[1])
    logits = engine.score(past, wanted.clamp(min=0), (0, run.layout.vocabulary.text_size))
    losses = F.cross_entropy(logits.double().transpose(1, 2), wanted, reduction="none", ignore_index=-1)
    return -losses.sum(1).cpu()

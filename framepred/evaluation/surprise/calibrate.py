"""Held-out videos and a run → its calibration."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from framepred.errors import FramepredError
from framepred.evaluation.surprise.baseline import Baseline
from framepred.evaluation.surprise.calibration import Calibration, Condition
from framepred.evaluation.surprise.features import Features, FrameScores, score_frames
from framepred.evaluation.surprise.reliability import BINS, Reliability, bin_confidence
from framepred.io.progress import Progress
from framepred.sources.contract import StoredEpisode
from framepred.sources.episode import check_action_count
from framepred.world.counterfactual import join_pasts, take_past
from framepred.world.footage import rate_of_run
from framepred.world.run import Run

_OTHER_PASTS = 4


class _Tally:
    """Scores of many frames, kept as sums and the features of each frame: memory does not grow with their tokens."""

    def __init__(self) -> None:
        self.sums = torch.zeros(3, BINS, dtype=torch.float64)
        self.nll = 0.0
        self.features: list[Features] = []

    def add(self, frame: FrameScores) -> None:
        self.sums += bin_confidence(frame.confidence, frame.right)
        self.nll += float(frame.nll.double().sum())
        self.features.append(frame.features)

    def condition(self) -> Condition:
        tokens = float(self.sums[0].sum())
        accuracy = float(self.sums[2].sum()) / tokens
        return Condition(self.nll / tokens, accuracy, Reliability.of(self.sums), Baseline.of(self.features))


def calibrate(run: Run, videos: Sequence[StoredEpisode]) -> Iterator[Progress | Calibration]:
    """Score every frame of `videos` without actions, and with them where the run and all videos have some.

    Yields progress after each frame, and at last the calibration. Raises FramepredError for what is no video, too
    short, or has actions that do not fit.
    """
    if run.layout.actions is not None:
        videos = [video.ordered(run.layout.actions.names) for video in videos]
    with_actions = run.layout.actions is not None and all(v.actions_from for v in videos)
    rates = [rate_of_run(video, run) for video in videos]
    places = sorted({i * len(videos) // _OTHER_PASTS for i in range(_OTHER_PASTS)}) if len(videos) > 1 else []
    taken = {i: take_past(run, *_read(run, videos[i], rates[i], with_actions)) for i in places}
    owners = [i for i, past in taken.items() if past]
    pasts = join_pasts([past for past in taken.values() if past])
    tallies = {"no_actions": _Tally()} | ({"actions": _Tally()} if with_actions else {})
    count = 0
    for done, video in enumerate(videos):
        tokens, actions = _read(run, video, rates[done], with_actions)
        # A video's own past is not a past of another video.
        others = pasts.without(owners.index(done) if done in owners else None) if pasts else None
        bare = others and others.without_actions(run.layout)
        # Where actions are told to the tokenizer too, other tokens say what they do not.
        coded_bare = with_actions and run.tokenizer.past_actions
        bare_tokens = _read(run, video, rates[done], False)[0] if coded_bare else tokens
        for name, tally in tallies.items():
            known = (tokens, actions, others) if name == "actions" else (bare_tokens, None, bare)
            for _, frame in score_frames(run, *known):
                tally.add(frame)
                count += 1
                yield Progress(done, len(videos), f"{video.name}, {count} frames")
    made = {name: tally.condition() for name, tally in tallies.items()}
    yield Calibration(len(videos), pasts, made["no_actions"], made.get("actions"))


def _read(run: Run, video: StoredEpisode, rate: float | None, with_actions: bool) -> tuple[Tensor, Tensor | None]:
    """Return a video's tokens and its actions, checked against each other."""
    loaded = video.actions() if with_actions else None
    actions = None
    if loaded is not None and run.layout.actions is not None:
        actions = loaded[0]
        run.layout.actions.encode(actions, str(video.actions_from))
    chunks = video.stream(run.tokenizer.frame_size, rate)
    tokens = torch.cat([part.cpu() for part in run.tokenizer.encode_stream(chunks, actions)])
    if len(tokens) < 2:
        raise FramepredError(f"{video.where} has {len(tokens)} frame, 2 are needed: give longer videos")
    check_action_count(actions, len(tokens), str(video.actions_from))
    return tokens, actions

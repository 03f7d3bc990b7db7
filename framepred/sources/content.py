"""What an episode holds, whatever it is called and wherever it is."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence

from framepred.config.action_names import ActionNames, values_of
from framepred.errors import FramepredError, FramepredWarning
from framepred.sources.actions import order_actions
from framepred.sources.contract import StoredEpisode


def content_of(episode: StoredEpisode) -> str:
    """Return a hash of all that is stored of an episode: frames, actions, captions.

    Raises FramepredError where it cannot be read.
    """
    parts: list[object] = [episode.content, episode.said]
    if loaded := episode.own_actions():
        actions, names = loaded
        ordered = sorted(names)
        rows = order_actions(actions, names, ActionNames(ordered, values_of(names)), episode.where)
        parts += [rows.dtype, list(rows.shape), ordered, values_of(names)]
        parts.append(hashlib.sha256(rows.contiguous().numpy().tobytes()).hexdigest())
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def distinct(episodes: Sequence[StoredEpisode]) -> list[StoredEpisode]:
    """Return episodes without those that hold what an earlier one holds, with a warning."""
    same_size = Counter(episode.num_bytes for episode in episodes)
    kept: list[StoredEpisode] = []
    first: dict[str, StoredEpisode] = {}
    again = list[str]()
    for episode in episodes:
        try:
            what = content_of(episode) if same_size[episode.num_bytes] > 1 else episode.key
        except FramepredError:
            # Its own error comes when it is its turn, and stops only it.
            what = episode.key
        if first.setdefault(what, episode) is episode:
            kept.append(episode)
        else:
            again.append(f"{episode.where} holds what {first[what].where} holds")
    if again:
        more = f", and {len(again) - 1} more" if len(again) > 1 else ""
        warnings.warn(FramepredWarning(f"{again[0]}{more}: taken once"), stacklevel=2)
    return kept

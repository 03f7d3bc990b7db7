"""The VizDoom scenarios of the experiments: recorded with the actions of MyWayHome, which doom-64 was trained on."""

from pathlib import Path

from framepred.recording.gym import Recording, record
from framepred.sources.find import find_episodes
from framepred.tokens.tokenize import tokenize
from framepred.world.run import Run

KNOWN = "MyWayHome"


def record_scenario(scenario: str, folder: Path, episodes: int, steps: int, seed: int) -> Path:
    """Record what is missing of a scenario's episodes, and return their folder."""
    other = None if scenario == KNOWN else f"Vizdoom{KNOWN}-v1"
    recording = Recording(f"Vizdoom{scenario}-v1", episodes, steps, frame_skip=4, seed=seed, actions_of=other)
    for _ in record(recording, folder):
        pass
    return folder


def tokenized(videos: Path, store: Path, run: Run) -> Path:
    """Tokenize what is missing of a folder's episodes, and return the store."""
    for _ in tokenize(find_episodes([str(videos)]), store, run.tokenizer, "doom-64", run.tokenizer_sha256):
        pass
    return store

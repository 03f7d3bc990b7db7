"""A Minari dataset of two episodes, written through minari itself."""

import warnings
from pathlib import Path

import numpy as np

STEPS = (5, 8)


def pictures(episode: int) -> np.ndarray:
    return np.random.default_rng(episode).integers(0, 256, (STEPS[episode] + 1, 16, 24, 3), np.uint8)


def write_minari(folder: Path) -> Path:
    """Write pictures and four discrete actions, and return the dataset's folder."""
    import minari
    import pytest
    from gymnasium import spaces
    from minari.data_collector import EpisodeBuffer

    buffers = [
        EpisodeBuffer(
            observations=list(pictures(i)), actions=[np.int64(t % 4) for t in range(n)], rewards=[0.0] * n,
            terminations=[False] * n, truncations=[False] * (n - 1) + [True], infos={},
        )
        for i, n in enumerate(STEPS)
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # It says so of each field that a dataset does not fill in.
        warnings.simplefilter("ignore", UserWarning)
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        minari.create_dataset_from_buffers(
            "test/set-v0", buffers, observation_space=spaces.Box(0, 255, (16, 24, 3), np.uint8),
            action_space=spaces.Discrete(4), jpeg_encoding=False,
        )  # fmt: skip
    return folder / "test/set-v0"

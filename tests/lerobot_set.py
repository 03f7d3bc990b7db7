"""LeRobot datasets made from the format's definition, without lerobot and without framepred."""

import io
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

FPS = 10
LENGTHS = (7, 4, 9)
NAMES = ["x", "y", "gripper"]
TASKS = ["push the cube", "lift it"]


def frames_of(episode: int, length: int) -> torch.Tensor:
    """Return uint8 (T, 3, 32, 48) frames of which no two of a set are alike."""
    t = torch.arange(length) + 20 * episode
    frames = torch.full((length, 3, 32, 48), 128, dtype=torch.uint8)
    frames[:, 0, :16] = (40 + 2 * t)[:, None, None].to(torch.uint8)
    frames[:, 1, 16:] = (230 - 2 * t)[:, None, None].to(torch.uint8)
    frames[:, 2, :, :24] = (60 + 3 * t)[:, None, None].to(torch.uint8)
    return frames


def actions_of(episode: int, length: int) -> np.ndarray:
    steps = np.arange(length) ** 2 % 7
    return (100 * episode + steps[:, None] + np.array([0.0, 0.25, 0.5])).astype(np.float32)


def video(path: Path, frames: torch.Tensor, codec: str = "libsvtav1", start: int = 0) -> None:
    """Write frames at FPS; `start` is the first frame's time in ticks of 1 / 12800 s."""
    exact = codec == "libx264rgb"
    options = {"qp": "0", "bf": "2", "g": "5"} if exact else {"crf": "20", "g": "4", "preset": "12"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[2:], "rgb24" if exact else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 12800)
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
            picture.pts, picture.time_base = start + i * 12800 // FPS, Fraction(1, 12800)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def features(cameras: dict[str, str], discrete: bool = False) -> dict[str, Any]:
    action = {"dtype": "float32", "shape": [3], "names": {"motors": NAMES}}
    pictures = {
        key: {"dtype": kind, "shape": [32, 48, 3], "names": ["height", "width", "channels"], "info": {}}
        for key, kind in cameras.items()
    }
    numbers = {key: {"dtype": "int64", "shape": [1], "names": None} for key in ("episode_index", "index", "task_index")}
    return {
        **pictures,
        "action": {"dtype": "int64", "shape": [1], "names": None} if discrete else action,
        "observation.state": {"dtype": "float32", "shape": [2], "names": ["a", "b"]},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **numbers,
    }


def rows(episode: int, length: int, images: Sequence[str] = (), discrete: bool = False) -> dict[str, Any]:
    """Return the columns of a data file for one episode; its second half is another task."""
    actions = actions_of(episode, length)
    made: dict[str, Any] = {
        "action": (np.arange(length) % 4).tolist() if discrete else actions.tolist(),
        "observation.state": (-actions[:, :2]).tolist(),
        "timestamp": (np.arange(length) / FPS).astype(np.float32),
        "frame_index": np.arange(length),
        "episode_index": np.full(length, episode),
        "index": np.arange(length),
        "task_index": (np.arange(length) >= length // 2).astype(np.int64),
    }
    return made | {key: [png(frame) for frame in frames_of(episode, length)] for key in images}


def png(frame: torch.Tensor) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(frame.permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def write(path: Path, table: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path)


def write_v3(
    root: Path, cameras: dict[str, str], codec: str = "libsvtav1", drift: float = 0.0, discrete: bool = False
) -> Path:
    """Write LENGTHS episodes: all in one data file, all but the last in the first video file of each camera.

    `drift` seconds are added to from_timestamp for each episode. The video's clock begins at 77 ticks.
    """
    videos = [key for key, kind in cameras.items() if kind == "video"]
    images = [key for key, kind in cameras.items() if kind == "image"]
    parts = [rows(i, n, images, discrete) for i, n in enumerate(LENGTHS)]
    write(
        root / "data/chunk-000/file-000.parquet", {k: [v for p in parts for v in p[k]] for k in parts[0]},
    )  # fmt: skip
    write(root / "meta/tasks.parquet", {"task_index": list(range(len(TASKS))), "__index_level_0__": TASKS})
    every = torch.cat([frames_of(i, n) for i, n in enumerate(LENGTHS)])
    for key in videos:
        video(root / f"videos/{key}/chunk-000/file-000.mp4", every, codec, 77)
    starts = np.cumsum([0, *LENGTHS])[:-1]
    about: dict[str, Any] = {
        "episode_index": list(range(len(LENGTHS))), "length": list(LENGTHS), "tasks": [TASKS] * len(LENGTHS),
        "dataset_from_index": starts, "dataset_to_index": starts + LENGTHS,
        "data/chunk_index": [0] * len(LENGTHS), "data/file_index": [0] * len(LENGTHS),
        "stats/action/mean": [[0.0]] * len(LENGTHS),
    }  # fmt: skip
    for key in videos:
        at = starts / FPS + drift * np.arange(len(LENGTHS))
        about |= {f"videos/{key}/{name}": [0] * len(LENGTHS) for name in ("chunk_index", "file_index")}
        about |= {f"videos/{key}/from_timestamp": at, f"videos/{key}/to_timestamp": at + np.array(LENGTHS) / FPS}
    write(root / "meta/episodes/chunk-000/file-000.parquet", about)
    info(root, "v3.0", features(cameras, discrete), "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
         "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4")  # fmt: skip
    return root


def write_v21(root: Path, cameras: dict[str, str], codec: str = "libx264rgb") -> Path:
    """Write LENGTHS episodes of one file each."""
    images = [key for key, kind in cameras.items() if kind == "image"]
    for i, n in enumerate(LENGTHS):
        write(root / f"data/chunk-000/episode_{i:06d}.parquet", rows(i, n, images))
        for key in (key for key, kind in cameras.items() if kind == "video"):
            video(root / f"videos/chunk-000/{key}/episode_{i:06d}.mp4", frames_of(i, n), codec)
    meta = root / "meta"
    meta.mkdir()
    episodes = [{"episode_index": i, "tasks": TASKS, "length": n} for i, n in enumerate(LENGTHS)]
    (meta / "episodes.jsonl").write_text("".join(json.dumps(e) + "\n" for e in episodes))
    tasks = [{"task_index": i, "task": task} for i, task in enumerate(TASKS)]
    (meta / "tasks.jsonl").write_text("".join(json.dumps(t) + "\n" for t in tasks))
    info(root, "v2.1", features(cameras), "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
         "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4")  # fmt: skip
    return root


def info(root: Path, version: str, columns: dict[str, Any], data: str, videos: str) -> None:
    about = {
        "codebase_version": version, "fps": FPS, "total_episodes": len(LENGTHS), "total_frames": sum(LENGTHS),
        "chunks_size": 1000, "data_path": data, "video_path": videos, "features": columns,
    }  # fmt: skip
    (root / "meta/info.json").write_text(json.dumps(about))

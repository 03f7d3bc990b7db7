"""Videos → rows of a token store, in this process or in several; a video is the work of one process."""

import multiprocessing
import signal
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from torch import Tensor

from framepred.errors import FramepredError, FramepredWarning
from framepred.sources.content import content_of
from framepred.sources.contract import StoredEpisode, VideoInfo
from framepred.sources.episode import check_action_count
from framepred.tokenizer.contract import Tokenizer
from framepred.tokens.store import to_png


@dataclass(frozen=True)
class Workers:
    """How many processes encode, and how each of them loads the tokenizer (it must be picklable)."""

    count: int
    load: Callable[[], Tokenizer]


@dataclass(frozen=True)
class News:
    """What happened to video `index`: `frames` more are encoded, `share` of it is done.

    The last of a video has its `row`, or the `error` that it cannot be tokenized for.
    """

    index: int
    frames: int = 0
    share: float = 1.0
    row: dict[str, Any] | None = None
    error: FramepredError | None = None

    @property
    def last(self) -> bool:
        return self.row is not None or self.error is not None


def encode_here(
    videos: Sequence[StoredEpisode], tokenizer: Tokenizer, fps: float | None
) -> Generator[News, None, None]:
    """Encode videos one after the other; a video is streamed, so it may be longer than memory."""
    for index, video in enumerate(videos):
        try:
            info, rate, loaded = video.info(), video.resampled_to(fps), video.actions()
            actions = loaded[0] if loaded else None
            parts, times, firsts = list[Tensor](), list[Tensor](), list[Tensor]()
            seen = 0
            chunks = _noting(video.stream_timed(tokenizer.frame_size, fps), times, firsts)
            for tokens in tokenizer.encode_stream(_ahead(chunks), actions):
                parts.append(tokens.to(torch.int32).cpu())
                seen += len(tokens)
                yield News(index, len(tokens), min(1.0, seen / _expected_frames(info, rate, seen)))
            row = _row(video, torch.cat(parts).flatten(1), torch.cat(times), tokenizer, rate or info.fps, actions)
            yield News(index, row=row | ({"first": to_png(firsts[0])} if tokenizer.past > 1 else {}))
        except FramepredError as error:
            yield News(index, error=error)


def _noting(chunks: Iterator[tuple[Tensor, Tensor]], times: list[Tensor], firsts: list[Tensor]) -> Iterator[Tensor]:
    """Yield the frames of chunks, and add their times and the first of all frames to lists."""
    for frames, seconds in chunks:
        times.append(seconds)
        if not firsts:
            firsts.append(frames[0].clone())
        yield frames


def _ahead(chunks: Iterator[Tensor]) -> Iterator[Tensor]:
    """Yield chunks of frames, decoding the next one while one is encoded."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = pool.submit(next, chunks, None)
            yield chunk


def _expected_frames(info: VideoInfo, rate: float | None, seen: int) -> float:
    if rate and info.seconds:
        return max(seen, info.seconds * rate)
    return max(seen, info.num_frames or 2 * seen)


def _row(
    video: StoredEpisode, tokens: Tensor, times: Tensor, tokenizer: Tokenizer, rate: float, actions: Tensor | None
) -> dict[str, Any]:
    (height, width), (context_height, context_width) = tokenizer.grid, tokenizer.context_grid
    contexts, steps = tokens.split((context_height * context_width, height * width), 1)
    check_action_count(actions, len(tokens), str(video.actions_from))
    captions = video.captions(times, rate)
    return {
        "episode": video.name,
        "source": video.key,
        "fps": rate,
        "num_frames": len(tokens),
        "times": times.numpy(),
        "grid_height": height,
        "grid_width": width,
        "tokens": steps.flatten().numpy(),
        "context_height": context_height,
        "context_width": context_width,
        "context_tokens": contexts.flatten().numpy(),
        "actions": None if actions is None else actions.tolist(),
        "captions": [vars(caption) for caption in captions] or None,
        "content": video.content,
        "key": content_of(video),
    }


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    index: int | None = None


def encode_in_processes(
    videos: Sequence[StoredEpisode], workers: Workers, fps: float | None
) -> Generator[News, None, None]:
    """Encode videos in processes of their own, the largest files first, in no order of their ends.

    A worker that dies takes only its video with it. Nothing of them outlives this process or this generator.
    """
    waiting = deque(sorted(range(len(videos)), key=lambda i: -videos[i].num_bytes))
    count = min(workers.count, len(videos))
    threads = max(1, torch.get_num_threads() // count)
    team: dict[Connection, _Worker] = {}

    def start() -> None:
        # Forked, a process would inherit the locks of torch's threads.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, workers.load, fps, threads), daemon=True)
        with _interrupts_held():
            process.start()
        theirs.close()
        team[ours] = _Worker(process, ours)

    try:
        for _ in range(count):
            start()
        while team:
            for pipe in wait(list(team)):
                assert isinstance(pipe, Connection)
                worker = team[pipe]
                try:
                    said = pipe.recv()
                except (EOFError, OSError):
                    del team[pipe]
                    yield News(_lost(worker, videos), error=_death(worker, videos))
                    if waiting:
                        start()
                    continue
                if isinstance(said, News):
                    assert worker.index is not None
                    yield replace(said, index=worker.index)
                elif isinstance(said, str):
                    warnings.warn(FramepredWarning(said), stacklevel=2)
                    continue
                if said is None or said.last:
                    worker.index = waiting.popleft() if waiting else None
                    if worker.index is None:
                        pipe.close()
                        del team[pipe]
                    else:
                        # One that died since it spoke is found out by its silence.
                        with suppress(OSError):
                            pipe.send(videos[worker.index])
    finally:
        for worker in team.values():
            worker.process.terminate()
            worker.pipe.close()


def _lost(worker: _Worker, videos: Sequence[StoredEpisode]) -> int:
    """Return the video that a dead worker had; one that never had any could not even start."""
    worker.process.join()
    if worker.index is None:
        raise FramepredError(
            f"a worker ended before its first video (exit code {worker.process.exitcode}): "
            "what it said is above; try --workers 1"
        )
    return worker.index


def _death(worker: _Worker, videos: Sequence[StoredEpisode]) -> FramepredError:
    assert worker.index is not None
    return FramepredError(
        f"{videos[worker.index].where} ended its worker (exit code {worker.process.exitcode}; killed, or out of "
        "memory?): give the same command again, with fewer --workers if memory is short"
    )


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Start a process deaf to Ctrl-C, which a terminal sends to all: the parent ends it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _work(pipe: Connection, load: Callable[[], Tokenizer], fps: float | None, threads: int) -> None:
    """Be a worker: say None when ready, take a video, send its News and warnings; end with the parent."""
    torch.set_num_threads(threads)
    tokenizer = load()

    def tell(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, FramepredWarning):
            pipe.send(str(message))

    with warnings.catch_warnings(), suppress(EOFError, BrokenPipeError, ConnectionResetError):
        warnings.showwarning = tell  # type: ignore[assignment]
        warnings.simplefilter("always", FramepredWarning)
        pipe.send(None)
        while True:
            video = pipe.recv()
            for news in encode_here([video], tokenizer, fps):
                pipe.send(news)

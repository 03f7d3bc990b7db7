"""Videos and stores behind URLs: the same rows as from disk, on an S3 server on this machine."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import doubles
import pytest
import torch
from click.testing import CliRunner
from conftest import TINY_SETTINGS

from framepred.cli import cli
from framepred.errors import FramepredError
from framepred.sources.find import find_episodes
from framepred.tokens.store import is_store, read_store
from framepred.tokens.tokenize import tokenize
from framepred.video.write import write_video

pytest.importorskip("s3fs", reason="needs the extra cluster")
moto = pytest.importorskip("moto.server", reason="needs moto[server]")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(3):
        frames = torch.full((6 + i, 3, 16, 16), 60 * i, dtype=torch.uint8)
        write_video(folder / "deep" / f"v{i}.mp4", frames, 10.0, lossless=True)
    (folder / "deep" / "v1.actions.csv").write_text("move\n" + "left\nright\n" * 3)
    (folder / "deep" / "v1.captions.csv").write_text("start,end,text\n0,0.3,grey\n")
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An S3 server on this machine."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(videos: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The videos in a bucket of their own."""
    import s3fs

    for name, value in (
        ("AWS_ENDPOINT_URL", server), ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_DEFAULT_REGION", "us-east-1"), ("AWS_MAX_ATTEMPTS", "1"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{abs(hash(tmp_path))}"
    s3fs.S3FileSystem().mkdir(name)
    s3fs.S3FileSystem().put(str(videos), f"{name}/videos", recursive=True)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()


def run(source: object, out: object, **more: Any) -> int:
    steps = tokenize(find_episodes([str(source)]), str(out), doubles.Blocks(), "double", "a" * 64, **more)
    return max((step.frames for step in steps), default=0)


def rows(store: object) -> list[tuple[Any, ...]]:
    found = [
        (e.name, e.tokens.flatten().tolist(), None if e.actions is None else e.actions.tolist(), e.captions, e.key)
        for e in read_store(str(store))
    ]
    return sorted(found, key=lambda row: row[0])


def test_the_same_store_from_s3_and_from_disk(bucket: str, videos: Path, tmp_path: Path) -> None:
    assert run(videos, tmp_path / "s") == 21
    assert run(f"{bucket}/videos", tmp_path / "from") == 21
    assert run(f"{bucket}/videos", f"{bucket}/tokens", shard=(1, 2)) + run(
        f"{bucket}/videos", f"{bucket}/tokens", shard=(2, 2)
    ) == 21  # fmt: skip
    assert rows(f"{bucket}/tokens") == rows(tmp_path / "from") == rows(tmp_path / "s")
    # A video is what it holds: from whichever side it comes, it is there.
    assert run(videos, f"{bucket}/tokens") == run(f"{bucket}/videos", tmp_path / "s") == 0
    assert is_store(f"{bucket}/tokens") and not is_store(f"{bucket}/videos")


def test_a_video_that_was_replaced_takes_its_place(bucket: str, videos: Path, tmp_path: Path) -> None:
    import s3fs

    run(f"{bucket}/videos", f"{bucket}/tokens")
    write_video(tmp_path / "v0.mp4", torch.full((4, 3, 16, 16), 200, dtype=torch.uint8), 10.0, lossless=True)
    s3fs.S3FileSystem().put(str(tmp_path / "v0.mp4"), f"{bucket}/videos/deep/v0.mp4")
    assert run(f"{bucket}/videos", f"{bucket}/tokens") == 4
    assert [(name, len(tokens)) for name, tokens, *_ in rows(f"{bucket}/tokens")] == [("v0", 4), ("v1", 7), ("v2", 8)]


def test_the_command_on_urls(bucket: str, tiny_run: Path, tmp_path: Path) -> None:
    def invoke(*arguments: object) -> Any:
        return CliRunner().invoke(cli, [str(a) for a in arguments])

    made = invoke("tokenize", f"{bucket}/videos/#1:", "-o", f"{bucket}/t", "--tokenizer", tiny_run, "--json")
    assert made.exit_code == 0, made.output
    assert '"episodes": 2, "frames": 15' in made.stdout
    settings = [part for setting in TINY_SETTINGS for part in ("--set", setting)]
    trained = invoke(
        "train", f"{bucket}/t", "-o", tmp_path / "run", "--tokenizer", tiny_run, "--init-from", "none", *settings,
        "--steps", 2, "--set", "predictor.window=3",
    )  # fmt: skip
    assert trained.exit_code == 0, trained.output
    for source, says in (
        (f"{bucket}/nothing", f"{bucket}/nothing is not there, or holds no video"),
        ("s3://nobody/videos", "s3://nobody/videos"),
        ("nosuch://bucket/videos", "nosuch://bucket/videos cannot be reached"),
    ):
        made = invoke("tokenize", source, "-o", tmp_path / "s", "--tokenizer", tiny_run)
        assert made.exit_code == 1 and says in made.output and made.output.count("\n") == 1, made.output
    assert not (tmp_path / "s").exists()


def test_a_bucket_that_cannot_be_reached(
    bucket: str, videos: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    (found,) = find_episodes([f"{bucket}/videos/deep/v2.mp4"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    # Not skipped as a video that is broken would be: it is not, and is wanted next time.
    with pytest.raises(FramepredError, match=rf"{bucket}/videos/deep/v2\.mp4 cannot be reached"):
        list(tokenize([found, *find_episodes([videos])], tmp_path / "s", doubles.Blocks(), "double", "a" * 64))
    for source, out in ((f"{bucket}/videos", tmp_path / "t"), (videos, f"{bucket}/t")):
        made = CliRunner().invoke(cli, ["tokenize", str(source), "-o", str(out), "--tokenizer", str(tiny_run)])
        assert made.exit_code == 1 and "cannot be reached" in made.output and made.output.count("\n") == 1, made.output
    assert not (tmp_path / "t").exists()

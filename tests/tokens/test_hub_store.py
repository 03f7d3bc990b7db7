"""Videos and stores on the Hugging Face Hub, through fsspec: one in memory in place of the Hub's own files."""

import importlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import doubles
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from framepred.cli import cli
from framepred.errors import FramepredError
from framepred.io.remote import place
from framepred.sources.find import find_episodes
from framepred.tokens import mapped
from framepred.tokens.store import is_store, read_store
from framepred.tokens.tokenize import tokenize
from framepred.video.write import write_video

pytest.importorskip("upath", reason="needs the extra cluster")
fsspec: Any = pytest.importorskip("fsspec")
registry: Any = importlib.import_module("fsspec.registry")
VIDEOS, STORE = "hf://datasets/me/clips/videos", "hf://datasets/me/clips/tokens"


@pytest.fixture
def hub() -> Iterator[Any]:
    """The files of a Hub in memory, by paths without a leading slash, as HfFileSystem has them."""
    from fsspec import AbstractFileSystem
    from fsspec.implementations.dirfs import DirFileSystem
    from fsspec.implementations.memory import MemoryFileSystem

    class HubFiles(DirFileSystem):
        protocol = "hf"
        sep, root_marker, cachable = "/", "", False

        def __init__(self) -> None:
            super().__init__(path="/hub", fs=MemoryFileSystem())

        def info(self, path: str, **_: Any) -> dict[str, Any]:
            """As of the Hub: what is in a file, and not when it was written."""
            about = super().info(path)
            known = {"name": path.rstrip("/"), "size": about["size"], "type": about["type"]}
            return known | ({"blob_id": hash(self.cat_file(path))} if about["type"] == "file" else {})

        def ukey(self, path: str) -> str:
            return AbstractFileSystem.ukey(self, path)

    before = registry.registry.get("hf")
    fsspec.register_implementation("hf", HubFiles, clobber=True)
    yield HubFiles()
    MemoryFileSystem().rm("/hub", recursive=True)
    if before is None:
        registry._registry.pop("hf")
    else:
        fsspec.register_implementation("hf", before, clobber=True)


def put_video(hub: Any, folder: Path, name: str, length: int) -> None:
    frames = torch.full((length, 3, 16, 16), 20 * length, dtype=torch.uint8)
    write_video(folder / f"{name}.mp4", frames, 10.0, lossless=True)
    hub.put_file(str(folder / f"{name}.mp4"), f"datasets/me/clips/videos/{name}.mp4")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def lengths(store: str) -> dict[str, int]:
    return {e.name: len(e.tokens) for e in read_store(store)}


def test_the_same_store_from_the_hub_and_from_disk(hub: Any, tiny_run: Path, tmp_path: Path) -> None:
    for name, length in (("a", 4), ("b", 6)):
        put_video(hub, tmp_path / "videos", name, length)
    actions = "move\n" + "left\nright\n" * 3
    (tmp_path / "videos" / "b.actions.csv").write_text(actions)
    hub.pipe_file("datasets/me/clips/videos/b.actions.csv", actions.encode())
    made = invoke("tokenize", VIDEOS, "-o", STORE, "--tokenizer", tiny_run, "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["frames"] == 10
    assert invoke("tokenize", tmp_path / "videos", "-o", tmp_path / "s", "--tokenizer", tiny_run).exit_code == 0
    assert is_store(STORE) and not is_store(VIDEOS)
    for far, near in zip(read_store(STORE), read_store(tmp_path / "s"), strict=True):
        assert torch.equal(far.tokens, near.tokens) and (far.name, far.key) == (near.name, near.key)
        assert (far.actions is None) == (near.actions is None) == (far.name == "a")
    # A video is what it holds: it is there, from whichever side it comes.
    for source in (VIDEOS, tmp_path / "videos"):
        again = invoke("tokenize", source, "-o", STORE, "--tokenizer", tiny_run, "--json")
        assert json.loads(again.stdout)["frames"] == 0, again.output


def test_a_video_that_was_replaced_on_the_hub_takes_its_place(hub: Any, tmp_path: Path) -> None:
    def fill() -> int:
        steps = tokenize(find_episodes([VIDEOS]), STORE, doubles.Blocks(), "double", "a" * 64)
        return max((step.frames for step in steps), default=0)

    put_video(hub, tmp_path, "a", 4)
    assert fill() == 4 and len(hub.ls("datasets/me/clips/tokens")) == 2
    put_video(hub, tmp_path, "a", 7)
    assert fill() == 7
    # The file that held it alone is deleted.
    assert lengths(STORE) == {"a": 7} and len(hub.ls("datasets/me/clips/tokens")) == 2


def test_a_file_on_the_hub_that_changed_is_mapped_anew(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for content in (b"one", b"two"):
        hub.pipe_file("datasets/me/clips/file", content)
        columns = [(np.uint8, 3)], [[np.frombuffer(content, np.uint8)]]
        assert bytes(mapped.joined([place("hf://datasets/me/clips/file")], *columns)[0]) == content
    assert len(list(tmp_path.glob(".tokens-*.mapped"))) == 2


def test_a_hub_that_cannot_be_reached(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    fsspec.get_filesystem_class("hf").clear_instance_cache()
    write_video(tmp_path / "v.mp4", torch.zeros(4, 3, 16, 16, dtype=torch.uint8), 10.0)
    for source, out, named in ((VIDEOS, tmp_path / "s", VIDEOS), (tmp_path / "v.mp4", STORE, STORE)):
        made = invoke("tokenize", source, "-o", out, "--tokenizer", tiny_run)
        assert made.exit_code == 1 and f"{named} cannot be reached" in made.output, made.output
        assert made.output.count("\n") == 1 and not (tmp_path / "s").exists(), made.output
    fsspec.get_filesystem_class("hf").clear_instance_cache()


@pytest.mark.parametrize(
    ("protocol", "kind", "fix"),
    [
        ("gs", "nobodys_cloud.Files", "pip install nobodys_cloud"),
        ("sftp", "fsspec.implementations.nobodys.Files", "install that"),
    ],
)
def test_what_is_not_installed_is_named(
    protocol: str, kind: str, fix: str, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "Please install nobodys_cloud to use this"
    monkeypatch.setitem(registry.known_implementations, protocol, {"class": kind, "err": said})
    monkeypatch.delitem(registry._registry, protocol, raising=False)
    url = f"{protocol}://bucket/videos"
    with pytest.raises(FramepredError) as raised:
        place(url)
    assert str(raised.value) == f"{url} needs a package that is not installed ({said}): {fix}"
    made = invoke("tokenize", url, "-o", tmp_path / "s", "--tokenizer", tiny_run)
    assert made.exit_code == 1 and made.output.count("\n") == 1 and fix in made.output, made.output


def test_gcsfs_is_asked_for_by_its_name() -> None:
    """The package of gs:// as fsspec knows it."""
    assert registry.known_implementations["gs"]["class"].partition(".")[0] == "gcsfs"

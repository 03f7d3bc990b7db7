"""Tokenizing by datatrove's executors: whoever runs the shards, and dies, the rows are those of one process."""

import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import doubles
import pytest
import torch
from click.testing import CliRunner

from framepred.cli import cli
from framepred.errors import FramepredError
from framepred.sources.folder import find_videos
from framepred.tokens.cluster import LOGS, Plan, make_executor, run_tasks
from framepred.tokens.shards import shard_files
from framepred.tokens.store import read_store, read_store_info
from framepred.tokens.tokenize import Agreed, store_info, tokenize
from framepred.video.write import write_video

pytest.importorskip("datatrove", reason="needs the extra cluster")
ORIGIN = "double", "a" * 64, ""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips, of which the fourth is white, and two have actions whose words differ."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(5):
        frames = torch.full((8 + i, 3, 16, 16), 255 if i == 3 else 20 * i, dtype=torch.uint8)
        write_video(folder / f"v{i}.mp4", frames, 10.0, lossless=True)
    (folder / "v1.actions.csv").write_text("move\n" + "right\nstay\nup\n" * 3)
    (folder / "v4.actions.csv").write_text("move\n" + "down\nright\n" * 6)
    return folder


@pytest.fixture(scope="module")
def one(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that one process makes."""
    out = tmp_path_factory.mktemp("one") / "store"
    for _ in tokenize(find_videos([videos]), out, doubles.Blocks(), *ORIGIN):
        pass
    return out


def rows(store: Path | str) -> list[tuple[Any, ...]]:
    found = [
        (e.name, e.fps, e.tokens.flatten().tolist(), e.times.tolist(), e.key, e.content,
         None if e.actions is None else e.actions.tolist())
        for e in read_store(store)
    ]  # fmt: skip
    return sorted(found, key=lambda row: row[0])


def plan(videos: Path, store: Path, load: Any = doubles.Blocks) -> Plan:
    agreed = Agreed.on(find_videos([videos]), store)
    return Plan(
        agreed, str(store), store_info(agreed, store, doubles.Blocks(), ORIGIN, None), load, ORIGIN, None, threads=1
    )


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["terminal", "background"])
def started(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a shell starts in the background ignores Ctrl-C."""
    had = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, had)


def test_two_local_workers_one_of_which_is_killed(videos: Path, one: Path, tmp_path: Path, started: None) -> None:
    store, fuse = tmp_path / "s", tmp_path / "fuse"
    fuse.touch()
    work = plan(videos, store, partial(doubles.Deadly, fuse))
    with pytest.raises(FramepredError, match=r"a worker was killed, or out of memory: .* give the same command again"):
        run_tasks(make_executor(work, "local", 2, {"tasks": 5}))
    assert all(e.name != "v3" for e in read_store(store))
    before = {file: file.stat().st_mtime_ns for file in shard_files(store)}
    fuse.unlink()
    assert run_tasks(make_executor(work, "local", 2, {"tasks": 5}))
    assert rows(store) == rows(one)
    assert before.items() <= {file: file.stat().st_mtime_ns for file in shard_files(store)}.items()
    assert read_store_info(store) == read_store_info(one)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster of this machine, whose workers import what this process can."""
    module = pytest.importorskip("ray", reason="needs the extra cluster")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    had = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        except Exception as error:
            # Ray itself gives its processes 30 seconds, which one core among many users does not always do.
            if "timed out during startup" not in str(error):
                raise
            pytest.skip(f"Ray cannot start here: {error}")
        yield module
        module.shutdown()
    # Ray leaves a handler of its own.
    signal.signal(signal.SIGTERM, had)


@pytest.mark.slow
def test_a_ray_cluster(videos: Path, one: Path, tmp_path: Path, ray: Any) -> None:
    assert run_tasks(make_executor(plan(videos, tmp_path / "s"), "ray", 2, {"mem_per_cpu_gb": 0.1}))
    assert rows(tmp_path / "s") == rows(one)
    assert [f.name for f in shard_files(tmp_path / "s")] == ["episodes-1of2-00000.parquet",
                                                            "episodes-2of2-00000.parquet"]  # fmt: skip


@pytest.mark.slow
def test_a_ray_cluster_one_of_whose_workers_is_killed(videos: Path, one: Path, tmp_path: Path, ray: Any) -> None:
    store, fuse = tmp_path / "s", tmp_path / "fuse"
    fuse.touch()
    work = plan(videos, store, partial(doubles.Deadly, fuse))
    with pytest.raises(FramepredError, match=r"1 of 5 tasks did not complete: .* give the same command again"):
        run_tasks(make_executor(work, "ray", 2, {"tasks": 5, "mem_per_cpu_gb": 0.1}))
    assert sorted(e.name for e in read_store(store)) == ["v0", "v1", "v2", "v4"]
    before = {file: file.stat().st_mtime_ns for file in shard_files(store)}
    fuse.unlink()
    assert run_tasks(make_executor(work, "ray", 2, {"tasks": 5, "mem_per_cpu_gb": 0.1}))
    assert rows(store) == rows(one)
    assert before.items() <= {file: file.stat().st_mtime_ns for file in shard_files(store)}.items()


def fake(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_what_is_submitted_to_slurm(videos: Path, one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no SLURM here: sbatch keeps its script, and each task of the array is then run as SLURM would."""
    import dill

    sent, store = tmp_path / "sent", tmp_path / "s"
    fake(tmp_path / "bin", "sbatch", f'for file; do :; done; cat "$file" >> {sent}; echo Submitted batch job 7')
    fake(tmp_path / "bin", "scontrol", "echo node1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    settings = {"tasks": 3, "time": "01:00:00", "partition": "cpu", "sbatch_args": {"account": "lab"}}
    assert not run_tasks(make_executor(plan(videos, store), "slurm", 2, settings))
    script = sent.read_text()
    for line in ("time=01:00:00", "partition=cpu", "account=lab", "array=0-2%2"):
        assert f"#SBATCH --{line}\n" in script
    (pickled,) = set(re.findall(r"srun .* launch_pickled_pipeline (\S+)", script))
    monkeypatch.setenv("SLURM_NODELIST", "node1")
    for number in (2, 0, 1):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(number))
        with Path(pickled).open("rb") as file:
            dill.load(file).run()
    assert rows(store) == rows(one)


def test_options_that_do_not_fit(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = plan(videos, tmp_path / "s")
    with pytest.raises(FramepredError, match=r"--executor slurm needs --set time=\.\.\., --set partition=\.\.\."):
        make_executor(work, "slurm", 2, {})
    with pytest.raises(FramepredError, match="--executor local has no option 'nodes': it has tasks, start_method"):
        make_executor(work, "local", 2, {"nodes": 3})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FramepredError, match=r"there is no sbatch on this machine: .*launch_script\.slurm"):
        run_tasks(make_executor(work, "slurm", 2, {"time": "1:00:00", "partition": "cpu"}))
    for arguments in (["--shard", "1/2"], ["--overwrite"]):
        made = CliRunner().invoke(
            cli, ["tokenize", str(videos), "-o", str(tmp_path / "t"), "--executor", "local", *arguments]
        )
        assert made.exit_code == 2 and not (tmp_path / "t").exists()


def test_the_command(videos: Path, tiny_run: Path, tmp_path: Path) -> None:
    common = ["tokenize", str(videos), "--tokenizer", str(tiny_run), "-o"]
    made = CliRunner().invoke(cli, [*common, str(tmp_path / "s"), "--executor", "local", "--set", "tasks=2"])
    assert made.exit_code == 0, made.output
    assert f"{tmp_path / 's'}: 5 episodes, 50 frames added, 64 tokens a frame" in made.stdout
    assert CliRunner().invoke(cli, [*common, str(tmp_path / "one")]).exit_code == 0
    assert rows(tmp_path / "s") == rows(tmp_path / "one")
    again = CliRunner().invoke(cli, [*common, str(tmp_path / "s"), "--executor", "local", "--set", "tasks=2"])
    assert "5 episodes, 0 frames added" in again.stdout
    assert (tmp_path / "s" / LOGS).is_dir()

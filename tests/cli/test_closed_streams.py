"""Standard streams as they may be: closed, full, a pipe that nobody reads on, a locale that lacks letters."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = f'"{sys.executable}" -m framepred'


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    words = ["bash", "-o", "pipefail", "-c", line]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | environment
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_a_reader_that_has_enough_ends_the_program_in_peace(tmp_path: Path) -> None:
    done = shell(f"{COMMAND} info --json | true", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    # More than a pipe holds, so that it is still writing when nobody reads on.
    program = "import click; from framepred.cli import main, cli; cli.callback = lambda: click.echo('x' * 1000000); "
    program += "cli.invoke_without_command = True; cli.no_args_is_help = False; main()"
    done = shell(f'"{sys.executable}" -c "{program}" | head -c 1', tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "x", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_stdout_is_one_line(tmp_path: Path) -> None:
    done = shell(f"{COMMAND} info > /dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "framepred: cannot write the result to stdout (No space left on device): the rest of it is lost\n"
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "2> /dev/full"])
def test_closed_streams_stop_nothing_and_are_not_written_into_files(
    clips_dir: Path, tiny_run: Path, tmp_path: Path, closed: str
) -> None:
    # It warns while the output is open: nothing of that may be in the output.
    shutil.copy(clips_dir / "clip0.mp4", tmp_path / "a.mp4")
    line = f"{COMMAND} rollout a.mp4 --model '{tiny_run}' -o out.gif --horizon 2 {closed}"
    done = shell(line, tmp_path)
    assert done.returncode == 0, done.stderr
    data = (tmp_path / "out.gif").read_bytes()
    assert data.startswith(b"GIF8")
    assert b"passes" not in data


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_name_that_cannot_be_printed_is_printed_in_escapes(clips_dir: Path, tmp_path: Path, encoding: str) -> None:
    shutil.copy(clips_dir / "clip0.mp4", tmp_path / "фильм.mp4")
    done = shell(f"{COMMAND} info фильм.mp4", tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert ("\\u0444\\u0438" if encoding == "latin-1" else "фильм") in done.stdout
    done = shell(f"{COMMAND} info $'missing-\\xff.mp4'", tmp_path, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr.count("\n"), "Traceback" in done.stderr) == (1, 1, False)

"""Action files: what is written reads back, and every damaged row is named."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framepred.errors import FramepredError
from framepred.sources.actions_csv import actions_path, read_actions, write_actions
from framepred.sources.episode import Episode

_NAMES = st.text("abcXYZ_ ,\"'é日\n", min_size=1, max_size=12).map(str.strip).filter(bool)
_FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def _file(folder: Path, text: str) -> Path:
    path = folder / "a.actions.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(st.integers(0, 65_535), min_size=1, max_size=40), name=_NAMES)
def test_discrete_actions_survive_the_file(tmp_path: Path, ids: list[int], name: str) -> None:
    actions = torch.tensor(ids, dtype=torch.int64)
    write_actions(tmp_path / "a.csv", actions, [name])
    read, names = read_actions(tmp_path / "a.csv")
    assert (read.dtype, names) == (torch.int64, (name,))
    assert torch.equal(read, actions)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), columns=st.integers(1, 4), rows=st.integers(1, 20))
def test_continuous_actions_survive_the_file_bit_for_bit(tmp_path: Path, data, columns: int, rows: int) -> None:
    values = data.draw(st.lists(st.lists(_FLOATS, min_size=columns, max_size=columns), min_size=rows, max_size=rows))
    names = data.draw(st.lists(_NAMES, min_size=columns, max_size=columns, unique=True))
    actions = torch.tensor(values, dtype=torch.float32)
    write_actions(tmp_path / "a.csv", actions, names)
    read, read_names = read_actions(tmp_path / "a.csv")
    assert (read.dtype, read_names) == (torch.float32, tuple(names))
    assert torch.equal(read, actions)


def test_one_integer_column_is_discrete_and_all_else_continuous(tmp_path: Path) -> None:
    assert read_actions(_file(tmp_path, "action\n1\n0\n3\n"))[0].tolist() == [1, 0, 3]
    assert read_actions(_file(tmp_path, "action\n1\n0.5\n3\n"))[0].tolist() == [[1.0], [0.5], [3.0]]
    two, names = read_actions(_file(tmp_path, "x, y\n1,2\n3,4\n"))
    assert (two.tolist(), two.dtype, names) == ([[1.0, 2.0], [3.0, 4.0]], torch.float32, ("x", "y"))


def test_spreadsheet_habits_are_read(tmp_path: Path) -> None:
    # A byte-order mark, Windows line ends, spaces, a blank last line.
    actions, names = read_actions(_file(tmp_path, "\ufeffaction\r\n 1\r\n2 \r\n\r\n"))
    assert (actions.tolist(), names) == ([1, 2], ("action",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no rows"),
        ("action\n", "no rows"),
        ("0\n1\n2\n", "no header"),
        ("x,y\n1,2\n3\n", r"line 3.*1 column"),
        ("x,y\n1,2\n3,4,5\n", r"line 3.*3 column"),
        ("action\n1\n-2\n", "id -2 is not allowed; ids are 0"),
        ("action\n1\nnan\n", "line 3.*'nan'"),
        ("action\n1\ninf\n", "line 3.*'inf'"),
        ("x,y\n1,\n", "line 2.*''"),
        ("action\n1\nleft\n", "line 3.*'left'"),
        ("x\n0.5\n1e39\n", "line 3.*'1e39'"),
        ("action\n1\n99999999999999999999\n", "99999999999999999999"),
        ("action\n1\n²\n", "line 3"),
        ("x,y\n1,2\n\n\n3\n", "line 3: a blank row"),
        ("action\n\udcff\udcfe", "not CSV text"),
        ("action\n1\n \n2\n", "line 3: a blank row"),
        ("x,y\n1,2\n,\n3,4\n", "line 3: a blank row"),
        ("\naction\n1\n", "line 1: a blank row"),
        (",action\n0,4\n1,4\n", "column 1 has no name"),
        ("action,\n4,0.5\n4,0.1\n", "column 2 has no name"),
        ("Unnamed: 0,action\n0,4\n1,4\n", "column 1 has no name .'Unnamed: 0'"),
        ("steer,Unnamed: 2.1\n0,4\n1,4\n", "column 2 has no name"),
        ("0,steer\n0,4\n1,4\n", "column 1 has no name .'0'"),
        ("steer,gas,steer\n0,4,1\n1,4,2\n", "two columns are named 'steer'"),
        ("index,action\n0,4\n1,4\n", "column 'index' only counts up"),
        ("frame_idx,steer\n3,0.1\n9,0.1\n", "column 'frame_idx' only counts up"),
        ("steer,Time (s)\n0.5,0.033\n0.1,0.071\n", "column 'Time .s.' only counts up"),
        ("steer,timestamp\n0.5,1700000000.25\n0.1,1700000000.5\n", "column 'timestamp' only counts up"),
        ("steer,t_ms\n0.5,33\n0.1,71\n", "column 't_ms' only counts up"),
        ("timestep,steer\n0,0.5\n1,0.1\n2,0.1\n", "column 'timestep' only counts up"),
        ("nothing,steer\n" + "".join(f"{i + 7},0.5\n" for i in range(9)), "column 'nothing' only counts up"),
        ("action\n" + "".join(f"{i}\n" for i in range(9)), "column 'action' only counts up"),
        ("left\nleft\nright\n", "no header row: the first row is the action 'left'"),
        ("action\nleft\n1\n", "line 3: '1' is no name of an action like 'left'"),
        ("action\nleft\nN/A\n", "line 3: 'N/A' is no name"),
        ("action\nleft\n\nright\n", "line 3: a blank row"),
        ("steer;gas\n0.5;1\n0.25;1\n", "line 2: '0.5;1' is not a finite number"),
        ("file\n" + "".join(f"frame_{i}.png\n" for i in range(9)), "column 'file' differs in every row"),
    ],
)
def test_a_bad_file_is_refused_with_what_and_where(tmp_path: Path, text: str, says: str) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(FramepredError, match=says) as caught:
        read_actions(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.one_of(st.binary(max_size=80), st.text("a,1-.e\n\"' ;\t", max_size=60).map(str.encode)))
def test_any_bytes_are_actions_or_one_clear_error(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "junk.csv"
    path.write_bytes(junk)
    try:
        actions, names = read_actions(path)
    except FramepredError:
        return
    assert len(actions) >= 1
    assert actions.ndim == 1 or actions.shape[1] == len(names)
    assert bool(actions.isfinite().all())


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(FramepredError, match="does not exist"):
            read_actions(path)


def test_the_file_stands_beside_the_video() -> None:
    assert actions_path("a/b.c.mp4") == Path("a/b.c.actions.csv")


def test_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    write_actions(tmp_path / "a.actions.csv", torch.tensor([1, 2]), ["action"])
    assert [p.name for p in tmp_path.iterdir()] == ["a.actions.csv"]


@pytest.mark.parametrize(("rows", "fits"), [(4, False), (5, False), (6, True), (7, True), (8, False)])
def test_an_episode_has_an_action_between_every_two_frames(rows: int, fits: bool) -> None:
    frames = torch.zeros(7, 3, 8, 8, dtype=torch.uint8)
    actions = torch.zeros(rows, dtype=torch.int64)
    if fits:
        assert Episode("a", frames, torch.arange(len(frames)) / 10, 10.0, actions).actions is actions
        return
    with pytest.raises(FramepredError, match=f"{rows} actions for 7 frames.*6 or 7"):
        Episode("a", frames, torch.arange(len(frames)) / 10, 10.0, actions)


def test_what_python_alone_reads_as_a_number_is_none(tmp_path: Path) -> None:
    for row in ("1_5", "1_000.5"):
        with pytest.raises(FramepredError, match=f"line 3: '{row}' is not a finite number"):
            read_actions(_file(tmp_path, f"steer\n1\n{row}\n"))

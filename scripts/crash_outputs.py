"""What scripts/crash_test compares: the contents of an output, without what depends on the clock."""

import hashlib
from pathlib import Path

import pyarrow.parquet as pq

# What tells of the last session: times, and what was left to do.
_TIMED = ("metrics.jsonl", "resume-", "start.json")


def contents(folder: Path) -> dict[str, str] | None:
    """Return name → hash of what an output holds; None where it is missing.

    Left out is what holds times; the rows of a store count, not the files that they are in.
    """
    if not folder.is_dir():
        return None
    parts = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.is_dir() or file.name.startswith(_TIMED) or file.suffix == ".parquet":
            continue
        parts[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    for store in sorted({file.parent for file in folder.rglob("*.parquet")}):
        rows = [row for file in store.glob("*.parquet") for row in pq.read_table(file).to_pylist()]
        text = repr(sorted(rows, key=lambda row: row["source"]))
        parts[f"{store.relative_to(folder)}/*.parquet"] = hashlib.sha256(text.encode()).hexdigest()
    return parts


def difference(found: dict[str, str] | None, wanted: dict[str, str]) -> str:
    """Return the names whose content differs."""
    names = wanted.keys() | (found or {}).keys()
    return ", ".join(sorted(name for name in names if (found or {}).get(name) != wanted.get(name)))


def left_over(trial: Path, like: Path) -> list[str]:
    """Return what lies in a trial's folder beside its output, and what in the output an undisturbed one has not."""
    known = {str(p.relative_to(like)) for p in like.rglob("*")}
    inside = {str(p.relative_to(trial / "out")) for p in (trial / "out").rglob("*")}
    extra = [name for name in sorted(inside - known) if not name.endswith(".parquet") or "/." in f"/{name}"]
    return extra + [p.name for p in trial.iterdir() if p.name != "out"]

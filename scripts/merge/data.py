"""What all trainings see and are measured on: recorded games with captions, texts, and their token stores."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from documents import documents

from framepred.cli.console import consume
from framepred.errors import FramepredError
from framepred.io.atomic import write_text, writing_folder
from framepred.recording.gym import Recording, record
from framepred.sources.folder import find_videos
from framepred.tokenizer.checkpoint import load_tokenizer, tokenizer_sha256
from framepred.tokens.shards import shard_files
from framepred.tokens.store import read_store
from framepred.tokens.tokenize import tokenize
from framepred.training.windows import split_episodes, step_generator

SCENARIOS = ("VizdoomHealthGathering-v1", "VizdoomDefendCenter-v1", "VizdoomDeadlyCorridor-v1")
UNSEEN = "VizdoomDefendLine-v1"
PARTS = ("train", "held-out", "new", "new-held-out")
HELD_OUT, DEVELOPED = 0.2, 0.05
"""The shares of the texts that are measured on, and that learning rates are chosen on."""
FEW = 4
"""The episodes of the new scenario whose captions are few."""


def cached(file: Path, make: Callable[[], Any]) -> Any:
    """Return what a JSON file holds, after making it where it is not there."""
    if not file.is_file():
        write_text(file, json.dumps(make(), indent=1, allow_nan=False) + "\n")
    return json.loads(file.read_text())


def record_games(folder: Path, episodes: int, held_out: int) -> None:
    """Record what is missing below a folder: so many episodes of each scenario, as many ids as the last one's."""
    for part, seed, count in zip(PARTS, (1_000_000, 5000, 1_000_000, 5000), (episodes, held_out) * 2, strict=True):
        for env in SCENARIOS if part in PARTS[:2] else (UNSEEN,):
            many = count * (len(SCENARIOS) if env == UNSEEN else 1)
            recording = Recording(env, many if part == "new-held-out" else count, seed=seed, actions_of=SCENARIOS[-1])
            consume(record(recording, folder / part / env), lambda path: (0.5, f"recording {path.name}"))


def split_texts(sources: Sequence[str], out: Path) -> dict[str, Any]:
    """Copy texts into OUT/train, OUT/developed and OUT/held-out, by a hash of their names; return what they are."""
    found = {re.sub(r"[^\w.-]", "-", name): text for name, text in documents(sources)}
    names = sorted(found)
    if len(names) < 3:
        raise FramepredError(f"--text {' '.join(sources)} holds {len(names)} texts: give folders with 3 or more")
    rest, held = split_episodes(names, HELD_OUT)
    kept, developed = split_episodes([names[i] for i in rest], DEVELOPED)
    parts = {"train": [rest[i] for i in kept], "developed": [rest[i] for i in developed], "held-out": held}
    facts: dict[str, Any] = {"sources": [Path(s).name for s in sources]}
    for part, chosen in parts.items():
        for i in chosen:
            write_text(out / part / f"{names[i]}.txt", found[names[i]])
        whole = "\n".join(found[names[i]] for i in chosen)
        sha256 = hashlib.sha256(whole.encode()).hexdigest()
        facts[part] = {"files": len(chosen), "characters": len(whole), "sha256": sha256}
    return facts


def make_stores(data: Path, out: Path, tokenizer: Path, device: str) -> None:
    """Make the token stores below OUT that are missing: of each part of the data, and those with changed captions."""
    loaded, sha256 = load_tokenizer(tokenizer, device=device), tokenizer_sha256(tokenizer)
    for part in PARTS:
        made = tokenize(
            find_videos([str(data / part)]), out / part, loaded, tokenizer.name, sha256, str(tokenizer.resolve())
        )
        consume(made, lambda p: (p.done / p.total, f"tokens: {p.done} of {p.total} videos"))
        if not any(e.captions for e in read_store(out / part)):
            raise FramepredError(f"{data / part} has no captions: record it with framepred record, which writes them")
    if not (out / "shuffled").is_dir():
        change_captions(out / "train", out / "shuffled", shuffled)
    if not (out / "few").is_dir():
        change_captions(out / "new", out / "few", lambda captions: captions, FEW)


def shuffled(captions: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """Give every caption of all episodes the text of another, its time as it was."""
    texts = [caption["text"] for episode in captions for caption in episode]
    order = iter(torch.randperm(len(texts), generator=step_generator(0, 7)).tolist())
    return [[caption | {"text": texts[next(order)]} for caption in episode] for episode in captions]


def change_captions(
    store: Path, out: Path, change: Callable[[list[list[dict[str, Any]]]], list[list[dict[str, Any]]]], most: int = 0
) -> None:
    """Write the first `most` episodes (0: all) of a token store with other captions; all else stays as it is."""
    tables = [pq.read_table(file) for file in shard_files(store)]
    table = pa.concat_tables(tables)
    table = table.slice(0, most) if most else table
    place = table.schema.get_field_index("captions")
    told = [episode or [] for episode in table["captions"].to_pylist()]
    changed = pa.array(change(told), table.schema.field(place).type)
    table = table.set_column(place, table.schema.field(place), changed)
    with writing_folder(out) as folder:
        pq.write_table(table, folder / "episodes-00000.parquet")
        (folder / "framepred.json").write_text((store / "framepred.json").read_text())

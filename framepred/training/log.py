"""RUN/metrics.jsonl: one line a training step."""

import json
from pathlib import Path
from typing import Any

from framepred.io.atomic import cannot_write, write_text


class MetricsLog:
    """Appends to a log; lines of the stage after the step that training resumes from are dropped first."""

    def __init__(self, file: Path, stage: str, step: int, writes: bool) -> None:
        self._file = None
        if not writes:
            return
        kept = []
        if file.exists():
            lines = [line for line in file.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in lines if (row := json.loads(line))["stage"] != stage or row["step"] <= step]
        write_text(file, "".join(line + "\n" for line in kept))
        self._file = file.open("a", buffering=1)

    def write(self, row: dict[str, Any]) -> None:
        if self._file:
            try:
                self._file.write(json.dumps(row) + "\n")
            except OSError as error:
                raise cannot_write(Path(self._file.name), error) from error

    def close(self) -> None:
        if self._file:
            self._file.close()

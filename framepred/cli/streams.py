"""Standard streams as they may be: closed, full, a pipe that nobody reads on, a locale that lacks letters."""

import codecs
import io
import os
import sys
from typing import Any

from framepred.errors import FramepredError


class _Results(io.TextIOWrapper):
    """Stdout. Where its reader has gone (`| head -1`) the program ends in peace; any other failure is an error."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise self._given_up(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise self._given_up(error) from error

    def _given_up(self, error: OSError) -> BaseException:
        # What is still held is written at the very end, where it would fail once more.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        if isinstance(error, BrokenPipeError):
            return SystemExit(0)
        return FramepredError(f"cannot write the result to stdout ({error.strerror}): the rest of it is lost")


def prepare_streams() -> None:
    """Put the standard streams in order, before anything is read or written."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The next file that is opened would take the number, and what others say would be written into it.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    stderr: Any = sys.stderr
    stderr.reconfigure(errors="backslashreplace")
    stdout: Any = sys.stdout
    # A terminal that says ASCII is one that says nothing: click writes UTF-8 to it, past this stream.
    encoding = "utf-8" if codecs.lookup(stdout.encoding).name == "ascii" else stdout.encoding
    lines = stdout.line_buffering
    sys.stdout = _Results(stdout.detach(), encoding=encoding, errors="backslashreplace", line_buffering=lines)

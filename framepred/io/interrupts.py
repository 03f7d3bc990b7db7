"""Signals that end a program: those that come while something must not be cut in two wait until it is done."""

import signal
import threading
from _thread import interrupt_main
from collections.abc import Iterator
from contextlib import contextmanager

from framepred.errors import Interrupted

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_CAME: list[signal.Signals] = []


@contextmanager
def interrupts_noted() -> Iterator[None]:
    """Let SIGTERM (of a scheduler) and SIGHUP (of a closed terminal) end a block as Ctrl-C does; note all three."""
    # What is ignored (nohup) or has a handler of its own stays so.
    before = {number: signal.getsignal(number) for number in ENDING}
    before = {n: had for n, had in before.items() if had in (signal.SIG_DFL, signal.default_int_handler)}
    _CAME.clear()
    try:
        for number in before:
            signal.signal(number, _stop)
        yield
    finally:
        for number, had in before.items():
            signal.signal(number, had)


def _stop(number: int, _: object) -> None:
    _CAME.append(signal.Signals(number))
    raise KeyboardInterrupt


def interrupt_again() -> None:
    """Let the signal that came last come once more, to the main thread; Ctrl-C's own may be ignored."""
    interrupt_main(_CAME[-1] if _CAME else signal.SIGINT)


def is_interrupt(error: BaseException) -> bool:
    """Say whether an error is an interrupt, or what code that is not Python made of one that came in its middle."""
    if isinstance(error, KeyboardInterrupt | Interrupted):
        return True
    return bool(_CAME) and isinstance(error, Exception)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP wait until the block has ended; then they do what they would have done."""
    if threading.current_thread() is not threading.main_thread():
        # Python's signal handlers run in the main thread only.
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in ENDING}
    # An ignored signal stays ignored (nohup), and what is not Python's own handler is not known here.
    handlers = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in handlers:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)

"""TERM and Ctrl-C while something goes on that should first be brought to a good end."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

STATUS: dict[int, int] = {signal.SIGTERM: 143, signal.SIGINT: 130}
"""Signal -> exit status of a command that ended well because of it, as shells count: 128 and its number."""


class Interrupted(Exception):
    """A training ended early at a signal, with all that it needs to go on.

    Args:
        number: of the signal.
        reached: says how far it came.
    """

    def __init__(self, number: int, reached: str) -> None:
        super().__init__(reached)
        self.number = number


class PendingSignal:
    """Whether a signal came, and which."""

    number: int | None = None


@contextlib.contextmanager
def catch_signals() -> Iterator[PendingSignal]:
    """Within the body, the first TERM or Ctrl-C is noted only; another one does what it always does.

    Signals are Python's to handle in the main thread alone: elsewhere nothing is noted.
    """
    notice = PendingSignal()
    if threading.current_thread() is not threading.main_thread():
        yield notice
        return
    usual = {number: signal.getsignal(number) for number in STATUS}

    def note(number: int, frame: FrameType | None) -> None:
        notice.number = number
        restore()

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    # An ignored signal stays ignored: what a shell starts in the background ignores Ctrl-C.
    for number in [number for number, handler in usual.items() if handler is not signal.SIG_IGN]:
        signal.signal(number, note)
    try:
        yield notice
    finally:
        restore()

"""What is printed: lines, commands to be pasted into a shell, and the progress of a training with its clock."""

import contextlib
import os
import shlex
import string
import sys
import time
from collections.abc import Iterator
from typing import Any


def echo(line: str, file: Any = None, end: str = "\n") -> None:
    """Print `line` at once; where nobody listens any more (a terminal or `tee` that is gone), that stops nothing."""
    stream = file or sys.stdout
    try:
        print(line, end=end, file=stream, flush=True)
    except OSError:  # what is left in its buffer would fail once more at the end of the process
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def printable(text: str) -> str:
    """`text` as a terminal may be sent it: signs that would steer it are written out, lines stay lines."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else repr(sign)[1:-1] for sign in text)


def command_line(*words: str | os.PathLike[str]) -> str:
    """`words` as one line that a person can paste into a shell, which then reads the very same words.

    A word with signs that no terminal shows as they are, such as a newline or bytes that are no UTF-8, is written as
    `$'...'`, which bash and zsh read.
    """
    return " ".join(_quoted(os.fspath(word)) for word in words)


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    plain = {ord(" ")} | {ord(sign) for sign in string.ascii_letters + string.digits + string.punctuation} - set(b"\\'")
    return f"$'{''.join(chr(byte) if byte in plain else f'{chr(92)}x{byte:02x}' for byte in os.fsencode(word))}'"


class Stopwatch:
    """Seconds since it was made, without those under `paused`."""

    def __init__(self) -> None:
        self._made = self._started = time.monotonic()
        self.saving_s = 0.0
        """Seconds under `saving`."""

    def elapsed_s(self) -> float:
        """Seconds on the clock."""
        return time.monotonic() - self._started

    def total_s(self) -> float:
        """Seconds since it was made, with all pauses."""
        return time.monotonic() - self._made

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The clock stands still for the body."""
        paused = time.monotonic()
        yield
        self._started += time.monotonic() - paused

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """What the body takes counts as spent on checkpoints."""
        began = time.monotonic()
        yield
        self.saving_s += time.monotonic() - began


class Progress:
    """Says how far a run is: rewrites one line on a terminal, prints a line now and then into a log file.

    Args:
        title: stands in front, e.g. `predrnnpp seed=1`.
        steps: steps of the whole run.
        done: steps that an earlier process did.
        unit: what a step is called.
    """

    LOG_EVERY_S = 15.0

    def __init__(self, title: str, steps: int, done: int, unit: str = "step") -> None:
        self.title, self.steps, self.first, self.unit = title, steps, done, unit
        self.started = self.said = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def elapsed_s(self) -> float:
        """Seconds since this process began to train."""
        return time.monotonic() - self.started

    def show(self, step: int, loss: float, clips_per_s: float) -> None:
        """Show the state of a training, see `tell`."""
        self.tell(step, f"loss {loss:.4g} | {clips_per_s:.3g} clips/s")

    def tell(self, step: int, what: str) -> None:
        """Show the state after `step` steps; in a log file at most every `LOG_EVERY_S` and at the end."""
        now = time.monotonic()
        if not self.terminal and now - self.said < self.LOG_EVERY_S and step < self.steps:
            return
        self.said = now
        left_s = round(self.elapsed_s() / max(step - self.first, 1) * (self.steps - step))
        width = len(str(self.steps))
        line = (
            f"{self.title} | {self.unit} {step:>{width}}/{self.steps} | {what}"
            f" | {left_s // 3600}:{left_s // 60 % 60:02}:{left_s % 60:02} left"
        )
        end = "\n" if not self.terminal or step == self.steps else "\x1b[K\r"
        echo(line, sys.stderr, end)

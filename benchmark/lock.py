"""Advisory locks that die with their holder: one writer a folder, named to whoever comes second."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from benchmark.errors import UserError


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` for the body; released by the kernel when the process dies, however it dies.

    Raises:
        UserError: a living process holds it (names its pid), or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a+")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror}); choose another results folder") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UserError(
                f"{folder}: in use by {lock.read().strip() or 'another process'}; wait for it or end it"
            ) from None
        lock.truncate(0)
        lock.write(f"pid {os.getpid()}")
        lock.flush()
        yield

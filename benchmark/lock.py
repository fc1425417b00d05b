"""Advisory locks that die with their holder: one writer a folder, named to whoever comes second."""

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmark.errors import UserError
from benchmark.files import storing

LONGEST = 200
"""Bytes that a holder says of itself at most."""


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` for the body; released by the kernel when the process dies, however it dies.

    Raises:
        UserError: a living process holds it (names its pid and program), or it cannot be written to.
    """
    with contextlib.ExitStack() as held:
        with storing(folder, f"{LONGEST} bytes are"):
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
            held.callback(os.close, handle)
            if holder := take(handle, f"pid {os.getpid()} ({program()})"):
                raise UserError(f"{folder}: in use by {holder}; wait for it or end it")
        yield


def take(handle: int, words: str) -> str | None:
    """Lock the open file `handle` and write into it who holds it; where another process does, what that one wrote."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(handle)
    os.ftruncate(handle, 0)
    os.pwrite(handle, words.encode()[:LONGEST], 0)
    return None


def is_held(folder: Path) -> bool:
    """Whether a living process holds the lock of `folder`, without touching it.

    Linux lists its locks; where none are listed, a lock that was ever taken counts as held.
    """
    lock, listed = folder / ".lock", Path("/proc/locks")
    if not lock.exists():
        return False
    return not listed.exists() or any(
        fields[1] == "FLOCK" and fields[5].rsplit(":", 1)[1] == str(lock.stat().st_ino)
        for fields in map(str.split, listed.read_text().splitlines())
        if fields[1] != "->"  # one that waits
    )


def program() -> str:
    """What this process runs, for whoever finds a lock of it."""
    path = Path(sys.argv[0])
    name = path.parent.name if path.name == "__main__.py" else path.name
    return "python" if name in ("", "-c") else name


def _read(handle: int) -> str:
    """Who holds the lock; it may have taken it this moment and not have said so yet."""
    for _ in range(20):
        if text := os.pread(handle, LONGEST, 0).decode(errors="replace"):
            return text
        time.sleep(0.05)
    return "another process"

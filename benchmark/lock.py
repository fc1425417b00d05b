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


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` for the body; released by the kernel when the process dies, however it dies.

    Raises:
        UserError: a living process holds it (names its pid and program), or it cannot be written to.
    """
    with contextlib.ExitStack() as held:
        with storing(folder, f"{len(_holder())} bytes are"):
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
            held.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{folder}: in use by {_read(handle)}; wait for it or end it") from None
            os.ftruncate(handle, 0)
            os.pwrite(handle, _holder(), 0)
        yield


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


def _holder() -> bytes:
    """What the file of a lock says: pid and program of this process."""
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    return f"pid {os.getpid()} ({'python' if name in ('', '-c') else name})".encode()


def _read(handle: int) -> str:
    """Who holds the lock; it may have taken it this moment and not have said so yet."""
    for _ in range(20):
        if text := os.pread(handle, 200, 0).decode(errors="replace"):
            return text
        time.sleep(0.05)
    return "another process"

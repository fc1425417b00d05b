"""Advisory locks that die with their holder: one writer a folder, named to whoever comes second."""

import contextlib
import errno
import fcntl
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmark.system.errors import UserError
from benchmark.system.files import storing

LONGEST = 400
"""Bytes that a holder says of itself at most."""
_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What a disk says that was mounted without them."""


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` for the body; released by the kernel when the process dies, however it dies.

    On a disk of several machines it holds for all of them where the disk shares its locks: NFS does, Lustre if mounted
    with `-o flock`.

    Raises:
        UserError: a living process holds it (names its pid, program and machine), it cannot be written to, or the disk
            knows no locks.
    """
    with contextlib.ExitStack() as held:
        with storing(folder, f"{LONGEST} bytes are"):
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
            held.callback(os.close, handle)
            try:
                holder = take(handle, f"pid {os.getpid()} ({program()})")
            except OSError as error:
                if error.errno not in _WITHOUT_LOCKS:
                    raise
                raise UserError(
                    f"{folder}: this disk takes no locks ({os.strerror(error.errno)}), which part two writers;"
                    " mount it with locks (Lustre: -o flock) or choose another folder"
                ) from error
            if holder:
                raise UserError(f"{folder}: in use by {holder}; wait for it or end it")
        yield


def take(handle: int, words: str) -> str | None:
    """Lock the open file `handle` and write into it who holds it; where another process does, what that one wrote."""
    for wait_s in (0.05, 0.1, 0):  # `is_held` of another machine may have it for a moment
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(wait_s)
    else:
        return _read(handle)
    os.ftruncate(handle, 0)
    os.pwrite(handle, words.encode()[: LONGEST - len(_here().encode())] + _here().encode(), 0)
    return None


def is_held(folder: Path) -> bool:
    """Whether a living process holds the lock of `folder`.

    Of this machine's processes Linux tells, without touching the lock; where it lists none, one that was ever taken
    counts as held. One that another machine took last, over a network disk, is tried for a moment.
    """
    lock, listed = folder / ".lock", Path("/proc/locks")
    if not lock.exists():
        return False
    return (
        not listed.exists()
        or any(
            fields[1] == "FLOCK" and fields[5].rsplit(":", 1)[1] == str(lock.stat().st_ino)
            for fields in map(str.split, listed.read_text().splitlines())
            if fields[1] != "->"  # one that waits
        )
        or _is_held_elsewhere(lock)
    )


def program() -> str:
    """What this process runs, for whoever finds a lock of it."""
    path = Path(sys.argv[0])
    name = path.parent.name if path.name == "__main__.py" else path.name
    return "python" if name in ("", "-c") else name


def _is_held_elsewhere(lock: Path) -> bool:
    """Whether a process of another machine, which took it last, holds it still."""
    with lock.open("rb") as handle:
        said = handle.read().decode(errors="replace")
        if not said or said.endswith(_here()):
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _here() -> str:
    """What ends the text of a lock that this machine took."""
    return f" on {platform.node()}"


def _read(handle: int) -> str:
    """Who holds the lock, and where if not here; it may have taken it this moment and not have said so yet."""
    for _ in range(20):
        if text := os.pread(handle, LONGEST, 0).decode(errors="replace"):
            return text.removesuffix(_here())
        time.sleep(0.05)
    return "another process"

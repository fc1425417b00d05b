"""Advisory locks that die with their holder: one writer a folder, named to whoever comes second.

The only module that calls `flock`.
"""

import contextlib
import errno
import fcntl
import os
import platform
import pwd
import re
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmark.system.errors import UserError
from benchmark.system.storage import open_no_link, report_storage_errors

LONGEST_DESCRIPTION = 400
"""Bytes that a holder writes of itself at most."""
_DESCRIPTION = re.compile(r"pid (\d{1,10}) \(.+")
"""How a holder begins; what follows may be cut off."""
_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What a disk says that was mounted without them."""


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` for the body; released by the kernel when the process dies, however it dies.

    On a disk of several machines it holds for all of them where the disk shares its locks: NFS does, Lustre if mounted
    with `-o flock`.

    Raises:
        UserError: a living process holds it (names its pid, program and machine), it cannot be written to, its file is
            a symbolic link, or the disk knows no locks.
    """
    with contextlib.ExitStack() as held:
        path = folder / ".lock"
        with report_storage_errors(folder, f"{LONGEST_DESCRIPTION} bytes are"):
            folder.mkdir(parents=True, exist_ok=True)
            handle = open_no_link(path, os.O_RDWR | os.O_CREAT)
            held.callback(os.close, handle)
            holder = claim(path, handle, f"pid {os.getpid()} ({program()})")
            if holder:
                raise UserError(f"{folder}: in use by {holder}; wait for it or end it")
        yield


@contextlib.contextmanager
def wait_and_hold(path: Path) -> Iterator[None]:
    """Wait for the lock file `path` and hold it for the body; the kernel releases it when the process dies.

    Raises:
        UserError: it cannot be written to, is a symbolic link, or the disk knows no locks.
    """
    with report_storage_errors(path, "one file more is"):
        handle = open_no_link(path, os.O_RDWR | os.O_CREAT)
    try:
        _flock(path, handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def try_lock(path: Path, handle: int) -> bool:
    """Lock the file at `path`, open as `handle`, until that is closed; False where another process has it."""
    return _flock(path, handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def claim(path: Path, handle: int, description: str, *, writes: bool = True) -> str | None:
    """Lock the file at `path` and write into it who holds it; where another process does, who that is.

    Args:
        path: for messages.
        handle: its descriptor.
        description: `pid PID (PROGRAM)`.
        writes: whether `handle` may be written to; a lock needs no more than a descriptor to read.
    """
    for wait_s in (0.05, 0.1, 0):  # `is_held` of another machine may have it for a moment
        if try_lock(path, handle):
            break
        time.sleep(wait_s)
    else:
        return _holder(handle)
    if writes:
        here = _on_this_machine()
        os.ftruncate(handle, 0)
        os.pwrite(handle, description.encode(errors="replace")[: LONGEST_DESCRIPTION - len(here)] + here, 0)
    return None


def is_held(folder: Path) -> bool:
    """Whether a living process holds the lock of `folder`.

    Of this machine's processes Linux tells, without touching the lock; where it lists none, one that was ever taken
    counts as held. One that another machine took last, over a network disk, is tried for a moment.
    """
    try:
        handle = open_no_link(folder / ".lock", os.O_RDONLY)
    except OSError:  # there is none, or what is there is no lock of ours
        return False
    try:
        listed = Path("/proc/locks").exists()
        return not listed or _listed_pid(handle) is not None or _is_held_elsewhere(folder / ".lock", handle)
    finally:
        os.close(handle)


def program() -> str:
    """What this process runs, for whoever finds a lock of it."""
    path = Path(sys.argv[0])
    name = path.parent.name if path.name == "__main__.py" else path.name
    return "python" if name in ("", "-c") else name


def _flock(path: Path, handle: int, operation: int) -> bool:
    """Whether `operation` was granted."""
    try:
        fcntl.flock(handle, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        raise UserError(
            f"{path.parent}: this disk takes no locks ({os.strerror(error.errno)}), which part two writers;"
            " mount it with locks (Lustre: -o flock) or choose another folder"
        ) from error
    return True


def _is_held_elsewhere(path: Path, handle: int) -> bool:
    """Whether a process of another machine, which took it last, holds it still."""
    text = os.pread(handle, LONGEST_DESCRIPTION, 0)
    if not text or text.endswith(_on_this_machine()):
        return False
    try:
        return not _flock(path, handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (UserError, OSError):
        return True


def _on_this_machine() -> bytes:
    """What ends the text of a lock that this machine took."""
    return f" on {platform.node()}".encode()


def _holder(handle: int) -> str:
    """Who holds the lock, and where if not here; it may have taken it this moment and not have written that yet.

    Who may write to the folder may put any text into the file. So it is believed only in its own form, from a file that
    not everybody may write to, of the user and the process that the kernel names, where it names one.
    """
    for _ in range(20):
        if text := os.pread(handle, LONGEST_DESCRIPTION, 0).decode(errors="replace"):
            break
        time.sleep(0.05)
    status, pid = os.fstat(handle), _listed_pid(handle)
    user = _user_of(pid)
    form = _DESCRIPTION.fullmatch(text) if text.isprintable() else None
    named = pid is None or (form and int(form[1]) == pid and user in (None, status.st_uid))
    if form and named and not status.st_mode & stat.S_IWOTH:
        return text.removesuffix(_on_this_machine().decode())
    return "another process" if pid is None else f"pid {pid}{'' if user is None else f' of user {_user_name(user)}'}"


def _listed_pid(handle: int) -> int | None:
    """The process of this machine that holds the lock, as the kernel lists it."""
    listed, inode = Path("/proc/locks"), str(os.fstat(handle).st_ino)
    for fields in map(str.split, listed.read_text().splitlines() if listed.exists() else ()):
        if fields[1] == "FLOCK" and fields[5].rsplit(":", 1)[1] == inode:  # in place of FLOCK, `->` is one that waits
            return int(fields[4])
    return None


def _user_of(pid: int | None) -> int | None:
    """The user that runs a process, if that can be seen."""
    try:
        return None if pid is None else os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def _user_name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)

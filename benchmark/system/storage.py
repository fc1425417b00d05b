"""Disks and folders: what can be written where, and what is said where it cannot."""

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmark.system.errors import UserError

_FULL = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "disk quota used up",
    errno.EFBIG: "above the file size limit (ulimit -f)",
}
_ELSEWHERE = "choose another folder or change that"
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


class StorageError(UserError, OSError):
    """A file could not be stored; what stood at its path before is unharmed."""


@contextlib.contextmanager
def report_storage_errors(path: Path, needed: str) -> Iterator[None]:
    """Turn a full disk, or a folder that may not be written to, into an error that says so of `path`.

    Args:
        path: what is being written.
        needed: the space it takes, in words.

    Raises:
        StorageError: in place of the operating system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError(
                f"{path}: {_FULL[error.errno]}: {needed} needed, {free_bytes(path):,} bytes are free; what stood there "
                f"is unchanged; free some and give the same command again"
            ) from error
        if error.errno in _REFUSED:
            raise StorageError(f"{path}: cannot be written to ({os.strerror(error.errno)}); {_ELSEWHERE}") from error
        raise


def is_storage_error(error: OSError) -> bool:
    """Whether `error` says that a disk is full or a folder may not be written to."""
    return error.errno in _FULL.keys() | _REFUSED


def open_no_link(path: Path, flags: int, mode: int = 0o666, *, folder: int | None = None) -> int:
    """Open the file at `path`, and never what a symbolic link there points to: others may write to its folder.

    Args:
        flags: as of `os.open`.
        mode: of a file that is made, less what the umask takes away.
        folder: open descriptor of the folder of `path`, where that must be the very one that was looked at.

    Returns:
        A descriptor, which programs started from here do not inherit.

    Raises:
        StorageError: `path` is a link, or no regular file; nothing was written.
        OSError: as of `os.open`.
    """
    name = path if folder is None else path.name
    try:  # without O_NONBLOCK, a pipe put there would make this wait for ever
        handle = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StorageError(
                f"{path}: is a symbolic link, and what it points to is not written to; remove the link"
            ) from error
        if error.errno == errno.ENXIO:
            raise StorageError(f"{path}: is no regular file; remove it") from error
        raise
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise StorageError(f"{path}: is no regular file; remove it")


def free_bytes(path: Path) -> int:
    """The space that is left to this user where `path` lies or would lie."""
    system = os.statvfs(nearest_existing(path))
    return system.f_bavail * system.f_frsize


def nearest_existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.absolute().parents) if os.path.exists(place))


def check_writable(folder: Path) -> None:
    """Refuse a folder that files cannot be written to, before hours are spent on what shall go there.

    Raises:
        UserError: names `folder`, or the folder above it in which it cannot be made.
    """
    place = nearest_existing(folder)
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return
    above = "" if place == folder else f", since {place}"
    why = "is read-only for this user" if place.is_dir() else "is a file"
    raise UserError(f"{folder}: cannot be written to{above} {why}; {_ELSEWHERE}")


def check_output(output: Path) -> None:
    """Raise UserError if a file `output` cannot be written, before anything is computed for it."""
    try:
        if output.is_dir():
            raise IsADirectoryError(0, "is a folder")
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        reason = error.strerror
        raise UserError(f"--output: {output} cannot be written ({reason}); name a file in a folder of yours") from None

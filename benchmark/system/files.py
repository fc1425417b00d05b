"""Files that are written whole or not at all, and logs that are only appended to."""

import contextlib
import errno
import fcntl
import glob
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmark.system.checksums import BLANK, add_checksum, verify_checksum
from benchmark.system.errors import UserError

_CHECKSUM = "checksum"
_PLAIN_LIST = re.compile(r'\[\s(?:[^\[\]{}"]|"\w*")*\]')
"""In indented JSON, a list of numbers or of words without spaces."""

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
def storing(path: Path, needed: str) -> Iterator[None]:
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


def free_bytes(path: Path) -> int:
    """The space that is left to this user where `path` lies or would lie."""
    system = os.statvfs(existing(path))
    return system.f_bavail * system.f_frsize


def existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.absolute().parents) if os.path.exists(place))


def check_writable(folder: Path) -> None:
    """Refuse a folder that files cannot be written to, before hours are spent on what shall go there.

    Raises:
        UserError: names `folder`, or the folder above it in which it cannot be made.
    """
    place = existing(folder)
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


@contextlib.contextmanager
def atomic_path(path: Path, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path` that replaces it on success and is removed on failure.

    For writers that need a path; where a writer takes a file, `atomic_buffer` knows how much space is needed.

    Args: `size`: how many bytes will be written, if that is known.
    Raises:
        StorageError: the disk is full, or the folder may not be written to.
    """
    with storing(path, "more space is" if size is None else f"{size:,} bytes are"), _temporary(path) as temporary:
        yield temporary


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    temporary = Path(name)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # says to `_sweep` that its writer lives
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def _sweep(path: Path) -> None:
    """Remove the temporary files that killed writers of `path` have left."""
    for name in path.parent.glob(f".{glob.escape(path.stem)}-????????{glob.escape(path.suffix)}"):
        with contextlib.suppress(OSError), name.open("rb") as left:
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
            name.unlink()


def flush_to_disk(path: Path) -> None:
    """Bring what was written to `path`, if it is there, onto the disk, so that a power cut does not take it."""
    if path.exists():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


@contextlib.contextmanager
def atomic_buffer(path: Path) -> Iterator[io.BytesIO]:
    """Yield a file in memory that on success is written to `path`, whole or not at all.

    Raises:
        StorageError: as `write_atomic`.
    """
    buffer = io.BytesIO()
    yield buffer
    write_atomic(path, buffer.getbuffer())


def write_atomic(path: Path, data: bytes | memoryview | str) -> None:
    """Write `data` to `path`, whole or not at all.

    Raises:
        StorageError: the disk is full, and by how much; or the folder may not be written to.
    """
    data = data.encode() if isinstance(data, str) else data
    with atomic_path(path, len(data)) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as indented JSON with a stable key order, and beside its keys the checksum of the file.

    A list of numbers or short words takes one line.
    """
    text = json.dumps(value | {_CHECKSUM: BLANK}, indent=2, sort_keys=True) + "\n"
    text = _PLAIN_LIST.sub(lambda found: re.sub(r"\s+", " ", found[0]).replace("[ ", "[").replace(" ]", "]"), text)
    write_atomic(path, add_checksum(text.encode()))


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` stored in `path`.

    Raises:
        UserError: the file is damaged, or was written by something else.
    """
    content = path.read_bytes()
    verify_checksum(path, content, "remove it and run the command that makes it again")
    value = json.loads(content)
    del value[_CHECKSUM]
    return value


def append_json_line(path: Path, value: dict[str, Any]) -> None:
    """Append `value` as one line to the log `path`; where only a part fits, it is taken back.

    Raises:
        StorageError: the disk is full, or the log may not be written to.
    """
    line = (json.dumps(value) + "\n").encode()
    with storing(path, f"{len(line):,} bytes are"), path.open("ab", buffering=0) as log:
        before, written = log.tell(), 0
        try:
            while written < len(line):
                written += log.write(line[written:])
        except OSError:
            log.truncate(before)
            raise


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of the log `path`; a torn last line, left by a kill while writing, is dropped.

    Raises:
        UserError: any other line is no mapping of JSON; names it.
    """
    if not path.exists():
        return []
    *whole, _torn = path.read_bytes().split(b"\n")
    return [_mapping(line, f"{path}: line {number}") for number, line in enumerate(whole, start=1)]


def _mapping(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: is damaged: no JSON ({error}); remove the line") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: is damaged: no mapping of JSON; remove the line")
    return value

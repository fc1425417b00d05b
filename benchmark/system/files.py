"""Files that are written whole or not at all, and logs that are only appended to."""

import contextlib
import glob
import io
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmark.system import locks
from benchmark.system.checksums import BLANK, add_checksum, verify_checksum
from benchmark.system.errors import UserError
from benchmark.system.storage import StorageError, open_no_link, report_storage_errors

_CHECKSUM = "checksum"
_PLAIN_LIST = re.compile(r'\[\s(?:[^\[\]{}"]|"\w*")*\]')
"""In indented JSON, a list of numbers or of words without spaces."""


@contextlib.contextmanager
def atomic_path(path: Path, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path` that replaces it on success and is removed on failure.

    For writers that need a path; where a writer takes a file, `atomic_buffer` knows how much space is needed.

    Args: `size`: how many bytes will be written, if that is known.
    Raises:
        StorageError: the disk is full, or the folder may not be written to.
    """
    with _temporary(path, "more space is" if size is None else f"{size:,} bytes are") as (temporary, _):
        yield temporary


@contextlib.contextmanager
def _temporary(path: Path, needed: str) -> Iterator[tuple[Path, int]]:
    """A file beside `path`, readable by whom the umask says, and its descriptor; it takes the place of `path`."""
    with report_storage_errors(path, needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
        handle = open_no_link(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            locks.try_lock(temporary, handle)  # says to `_sweep` that its writer lives
            yield temporary, handle
            os.fsync(handle)
            if not os.path.samestat(os.fstat(handle), os.lstat(temporary)):
                raise StorageError(f"{path}: not written: another program put a file in place of {temporary}; end it")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)


def _sweep(path: Path) -> None:
    """Remove the temporary files that killed writers of `path` have left."""
    for name in path.parent.glob(f".{glob.escape(path.stem)}-????????{glob.escape(path.suffix)}"):
        with contextlib.suppress(OSError):
            handle = open_no_link(name, os.O_RDONLY)
            try:
                if locks.try_lock(name, handle):
                    name.unlink()
            finally:
                os.close(handle)


def flush_to_disk(path: Path) -> None:
    """Bring what was written to `path`, if it is there, onto the disk, so that a power cut does not take it."""
    if path.exists():
        handle = open_no_link(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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
    with _temporary(path, f"{len(data):,} bytes are") as (_, handle), open(handle, "wb", closefd=False) as file:
        file.write(data)


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
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    with (
        report_storage_errors(path, f"{len(line):,} bytes are"),
        open(open_no_link(path, flags), "ab", buffering=0) as log,
    ):
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

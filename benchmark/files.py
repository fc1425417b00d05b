"""Files that are written whole or not at all."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmark.errors import UserError
from benchmark.seal import BLANK, check_seal, sealed

_CHECKSUM = "checksum"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path` that replaces it on success and is removed on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as indented JSON with a stable key order, and beside its keys the checksum of the file."""
    text = json.dumps(value | {_CHECKSUM: BLANK}, indent=2, sort_keys=True) + "\n"
    write_atomic(path, sealed(text.encode()))


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` stored in `path`.

    Raises:
        UserError: the file is damaged, or was written by something else.
    """
    content = path.read_bytes()
    check_seal(path, content, "remove it and run the command that makes it again")
    value = json.loads(content)
    del value[_CHECKSUM]
    return value


def append_json_line(path: Path, value: dict[str, Any]) -> None:
    """Append `value` as one line to the log `path`."""
    with path.open("a") as log:
        log.write(json.dumps(value) + "\n")


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

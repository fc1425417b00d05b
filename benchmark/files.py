"""Files that are written whole or not at all."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


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


def remove_leftovers(folder: Path, *names: str) -> None:
    """Remove what `atomic_path` left of these files where a kill cut it off; for the one process that writes them."""
    for path in map(Path, names):
        for temporary in folder.glob(f".{path.stem}-*{path.suffix}"):
            temporary.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Bring what was written to `path`, if it is there, onto the disk, so that a power cut does not take it."""
    if path.exists():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a stable key order."""
    write_atomic(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """The value stored in the JSON file `path`."""
    return json.loads(path.read_text())


def append_json_line(path: Path, value: dict[str, Any]) -> None:
    """Append `value` as one line to the log `path`."""
    with path.open("a") as log:
        log.write(json.dumps(value) + "\n")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of the log `path`; a torn last line, left by a kill while writing, is dropped."""
    if not path.exists():
        return []
    *whole, _torn = path.read_text().split("\n")
    return [json.loads(line) for line in whole]

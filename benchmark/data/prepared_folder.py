"""The prepared folder of a protocol: `digits.npz`, `data.json`. Imports torch only after checking files."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.data.npz import read_npz
from benchmark.data.published_files import PUBLIC_TEST
from benchmark.system.errors import UserError
from benchmark.system.files import read_json, write_json

PUBLIC = f"public {PUBLIC_TEST.name}"


def write_record(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Write `data.json` into `folder`; returns what it holds, with the hash of it all."""
    record = record | {"data_hash": _record_hash(record)}
    write_json(folder / "data.json", record)
    return record


def read_arrays(folder: Path, *names: str) -> list[np.ndarray]:
    """Arrays of `digits.npz`.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / "digits.npz"
    try:
        return read_npz(path, *names)
    except UserError as error:
        raise UserError(f"{error}; run the command `data` again") from None


def read_data_record(folder: Path) -> dict[str, Any]:
    """What `data.json` of a prepared folder holds; its `data_hash` stands for all of it.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / "data.json"
    try:
        record = read_json(path)
        stated = record.pop("data_hash")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run the command `data` first") from error
    if stated != _record_hash(record):
        raise UserError(f"{path}: was changed after it was written; run the command `data` again")
    return record | {"data_hash": stated}


def _record_hash(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

"""The prepared folder of a protocol: `digits.npz`, `data.json`. Imports torch only after checking files."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.data.digits import ORIGINALS, DigitBank, damaged, load_bank
from benchmark.data.download import fetch
from benchmark.data.npz import read_npz
from benchmark.data.originals import PUBLIC_TEST
from benchmark.errors import UserError
from benchmark.files import atomic_buffer, read_json, write_json
from benchmark.sections import DigitsConfig

PUBLIC = f"public {PUBLIC_TEST.name}"
_PUBLIC_CLIPS, _PUBLIC_FRAMES = 10_000, 20


def prepare(data: DigitsConfig, data_dir: Path, folder: Path, download: bool = False) -> dict[str, Any]:
    """Write `digits.npz` (and in it the public test clips, if used) and `data.json` to `folder`.

    Args:
        data: what the clips are.
        data_dir: where published files lie.
        folder: made if needed.
        download: fetch published files that are not there.

    Returns:
        What `data.json` holds: source, sizes, hashes, and which test clips there are. No path.

    Raises:
        UserError: a published file is missing, damaged or could not be downloaded.
    """
    _check_public_test(data)
    if download:
        for original in ORIGINALS[data.digits] + ((PUBLIC_TEST,) if data.public_test else ()):
            fetch(original, data_dir)
    bank = load_bank(data.digits, data.digit_size, data_dir)
    public = data.public_test and _has_public_test(data_dir)

    from benchmark.data.clips import clips_hash, fixed_clips, public_clips

    test = public_clips(data_dir, data) if public else fixed_clips(bank, data, "test")
    record = {
        "source": bank.source,
        "digit_size": data.digit_size,
        "split_sizes": {split: len(digits) for split, digits in bank.splits.items()},
        "digits_sha256": bank.sha256,
        "validation_sha256": clips_hash(fixed_clips(bank, data, "validation")),
        "test_sha256": clips_hash(test),
        "test_set": PUBLIC if public else "generated",
    }
    arrays = bank.splits | ({"public_test": test.numpy()} if public else {})  # pyright: ignore[reportAttributeAccessIssue]  # digits are in memory
    with atomic_buffer(folder / "digits.npz") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]  # no array has the name of the flag
    return write_record(folder, record)


def write_record(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Write `data.json` into `folder`; returns what it holds, with the hash of it all."""
    record = record | {"data_hash": _record_hash(record)}
    write_json(folder / "data.json", record)
    return record


def load_digits(folder: Path) -> DigitBank:
    """The digit bank of a prepared folder, checked against its `data.json`.

    Raises:
        UserError: a file is missing or damaged.
    """
    record = read_record(folder)
    bank = DigitBank(record["source"], *read_arrays(folder, "train", "validation", "test"))
    if bank.sha256 != record["digits_sha256"]:
        raise UserError(f"{folder / 'digits.npz'}: its digits are not those of data.json; run the verb `data` again")
    return bank


def read_arrays(folder: Path, *names: str) -> list[np.ndarray]:
    """Arrays of `digits.npz`.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / "digits.npz"
    try:
        return read_npz(path, *names)
    except UserError as error:
        raise UserError(f"{error}; run the verb `data` again") from None


def read_record(folder: Path) -> dict[str, Any]:
    """What `data.json` of a prepared folder holds; its `data_hash` stands for all of it.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / "data.json"
    try:
        record = read_json(path)
        stated = record.pop("data_hash")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run the verb `data` first") from error
    if stated != _record_hash(record):
        raise UserError(f"{path}: was changed after it was written; run the verb `data` again")
    return record | {"data_hash": stated}


def _record_hash(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _check_public_test(data: DigitsConfig) -> None:
    frames = data.context + data.horizon
    if data.public_test and (frames > _PUBLIC_FRAMES or data.test_clips > _PUBLIC_CLIPS):
        raise UserError(
            f"public_test: {PUBLIC_TEST.name} has {_PUBLIC_CLIPS} clips of {_PUBLIC_FRAMES} frames, "
            f"not {data.test_clips} (test_clips) of {frames} (context + horizon); ask for less, or false"
        )


def _has_public_test(data_dir: Path) -> bool:
    path = PUBLIC_TEST.find(data_dir)
    if path is None:
        missing = PUBLIC_TEST.destination(data_dir)
        print(f"public_test: {missing} not found; test clips are generated instead", file=sys.stderr)
        return False
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    if md5 != PUBLIC_TEST.content_md5:
        raise damaged(path, f"MD5 {md5}", PUBLIC_TEST.content_md5)
    return True

"""Digit banks: still digits of three sources, split into train, validation and test. Imports no torch."""

import gzip
import hashlib
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmark.data.counter_rng import Domain, counter_hash
from benchmark.data.pixels import resize_area
from benchmark.data.prepared_folder import read_arrays, read_data_record
from benchmark.data.published_files import MNIST_TEST, MNIST_TRAIN, Original
from benchmark.system.errors import UserError

ORIGINALS = {"mnist": (MNIST_TRAIN, MNIST_TEST), "mnist-t10k": (MNIST_TEST,), "optdigits": ()}
SPLITS = {
    "mnist": (55_000, 5_000, 10_000),
    "mnist-t10k": (7_000, 1_000, 2_000),
    "optdigits": (1_257, 180, 360),
}
_IDX_IMAGES = 2051
_MNIST_SIZE = 28
_LARGEST_BYTES = 16 + 60_000 * _MNIST_SIZE**2


@dataclass(frozen=True)
class DigitBank:
    """Digits of one source, one size.

    Attributes:
        source: `mnist`, `mnist-t10k` or `optdigits`.
        train, validation, test: uint8 (n, d, d), no digit in two of them.
    """

    source: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def splits(self) -> dict[str, np.ndarray]:
        """The digits by name of their split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @cached_property
    def sha256(self) -> str:
        """Checksum of the shapes and pixels of the three splits."""
        digest = hashlib.sha256()
        for digits in self.splits.values():
            digest.update(str(digits.shape).encode())
            digest.update(np.ascontiguousarray(digits))  # pyright: ignore[reportArgumentType]  # an array is a buffer
        return digest.hexdigest()


def load_bank(source: str, digit_size: int, data_dir: Path) -> DigitBank:
    """Read the digits of `source`, permuted by a fixed seed, split and resized to `digit_size` pixels.

    Raises:
        UserError: a file below `data_dir` is missing or damaged.
    """
    sizes = SPLITS[source]
    if source == "optdigits":
        digits = _permuted(_optdigits())
    elif source == "mnist-t10k":
        digits = _permuted(read_original(MNIST_TEST, data_dir))
    else:
        digits = np.concatenate([_permuted(read_original(MNIST_TRAIN, data_dir)), read_original(MNIST_TEST, data_dir)])
    assert len(digits) == sum(sizes), f"{source} has {len(digits)} digits, its splits {sum(sizes)}"
    train, validation, test = np.split(resize_area(digits, digit_size), np.cumsum(sizes)[:-1])
    return DigitBank(source, train, validation, test)


def read_original(original: Original, data_dir: Path) -> np.ndarray:
    """Read an MNIST image file, zipped or not, after checking it.

    Returns:
        uint8 (n, 28, 28).

    Raises:
        UserError: the file is missing, truncated, no MNIST image file, or not the published one.
    """
    path = original.find(data_dir)
    if path is None:
        raise UserError(
            f"data_dir: {original.destination(data_dir)} not found; "
            f"put the published file in {data_dir / original.folders[0]} or run with --config download=true"
        )
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)  # no further, whatever the file unpacks to
    except (EOFError, zlib.error, OSError) as error:
        raise damaged(path, f"not a whole file ({error})", f"MD5 {original.md5}") from error
    if len(content) < 16:
        raise damaged(path, f"{len(content)} bytes of content", "a 16-byte header and images")
    magic, count, rows, columns = struct.unpack(">4I", content[:16])
    if magic != _IDX_IMAGES:
        raise damaged(path, f"starts with {magic}", f"{_IDX_IMAGES}, the mark of an IDX image file")
    if (rows, columns) != (_MNIST_SIZE, _MNIST_SIZE) or len(content) != 16 + count * rows * columns:
        found = f"{len(content)} bytes for {count} images of {rows}x{columns}"
        raise damaged(path, found, f"{16 + count * _MNIST_SIZE**2} bytes of {_MNIST_SIZE}x{_MNIST_SIZE} images")
    md5 = hashlib.md5(content).hexdigest()
    if md5 != original.content_md5:
        raise damaged(path, f"content has MD5 {md5}", original.content_md5)
    return np.frombuffer(content, np.uint8, offset=16).reshape(count, rows, columns)


def damaged(path: Path, found: str, expected: str) -> UserError:
    """The error for a published file that is not what it should be."""
    return UserError(
        f"data_dir: {path} is damaged: {found}, expected {expected}; "
        "delete it, then put the published file there or run with --config download=true"
    )


def _optdigits() -> np.ndarray:
    from sklearn.datasets import load_digits

    return np.rint(load_digits().images * (255 / 16)).astype(np.uint8)  # pyright: ignore[reportAttributeAccessIssue]  # a Bunch, since return_X_y is not asked for


def _permuted(digits: np.ndarray) -> np.ndarray:
    return digits[np.argsort(counter_hash(0, Domain.DIGIT_ORDER, np.arange(len(digits))))]


def load_digits(folder: Path) -> DigitBank:
    """The digit bank of a prepared folder, checked against its `data.json`.

    Raises:
        UserError: a file is missing or damaged.
    """
    record = read_data_record(folder)
    bank = DigitBank(record["source"], *read_arrays(folder, "train", "validation", "test"))
    if bank.sha256 != record["digits_sha256"]:
        raise UserError(f"{folder / 'digits.npz'}: its digits are not those of data.json; run the command `data` again")
    return bank

"""A frame bank: the frames of videos in one array on disk, and which windows of them are clips. Imports no torch."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Int64, UInt8

from benchmark.data.npz import read_npz
from benchmark.system.errors import UserError
from benchmark.system.files import atomic_path

FRAMES, WINDOWS = "frames.npy", "windows.npz"
SPLITS = ("train", "validation", "test")
"""In the order in which their frames lie on disk."""
_AT_ONCE = 2**24


@dataclass(frozen=True)
class FrameBank:
    """The frames of a set of videos, of which only what is read is in memory.

    Attributes:
        frames: uint8 (n, side, side), mapped from disk.
        starts: split -> the first frame of each of its clips.
        lengths: split -> frames that each of its clips has at least.
        sha256: checksum of all that training sees.
    """

    frames: np.ndarray
    starts: dict[str, np.ndarray]
    lengths: dict[str, int]
    sha256: str


def load_frames(folder: Path, record: dict[str, Any], training: bool) -> FrameBank:
    """The frame bank in `folder`, whose `data.json` holds `record`.

    Args: `training`: check the frames of training too, which reads them all once; fixed clips have hashes of their own.

    Raises:
        UserError: a file is missing or damaged.
    """
    path, again = folder / FRAMES, "run the command `data` again"
    try:
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {again}") from None
    counts, side = record["frames"], record["frame_size"]
    if frames.dtype != np.uint8 or frames.shape != (sum(counts.values()), side, side):
        raise UserError(f"{path}: holds {frames.dtype} {frames.shape}, not the frames of data.json; {again}")
    try:
        starts: dict[str, np.ndarray] = dict(zip(SPLITS, read_npz(folder / WINDOWS, *SPLITS), strict=True))
    except UserError as error:
        raise UserError(f"{error}; {again}") from None
    if windows_hash(starts) != record["windows_sha256"]:
        raise UserError(f"{folder / WINDOWS}: its windows are not those of data.json; {again}")
    if training and frames_hash(frames[: counts["train"]]) != record["frames_sha256"]["train"]:
        raise UserError(f"{path}: its frames are not those of data.json; {again}")
    return FrameBank(frames, starts, record["window_frames"], bank_hash(record))


def bank_hash(record: dict[str, Any]) -> str:
    """Checksum of all that training sees."""
    seen = record["frames_sha256"]["train"], record["windows_sha256"], record["window_frames"]["train"]
    return hashlib.sha256("\n".join(map(str, seen)).encode()).hexdigest()


def windows_hash(starts: dict[str, Int64[np.ndarray, " clips"]]) -> str:
    """Checksum of the first frames of all clips."""
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(f"{split} {len(starts[split])}\n".encode())
        digest.update(starts[split].astype("<i8").tobytes())
    return digest.hexdigest()


def frames_hash(frames: UInt8[np.ndarray, "n side side"]) -> str:
    """Checksum of the pixels, read part by part."""
    digest, at_once = hashlib.sha256(), max(1, _AT_ONCE // frames[:1].size) if len(frames) else 1
    for first in range(0, len(frames), at_once):
        digest.update(np.ascontiguousarray(frames[first : first + at_once]).data)
    return digest.hexdigest()


class FrameWriter:
    """Adds frames at the end of an array on disk, and keeps a checksum of what came since `begin`."""

    def __init__(self, file: IO[bytes], side: int) -> None:
        self.count, self._file, self._side = 0, file, side
        self._write_header()

    def begin(self) -> None:
        """Start the checksum anew."""
        self._digest = hashlib.sha256()

    def add(self, frames: UInt8[np.ndarray, "n side side"]) -> None:
        """Add `frames`."""
        pixels = np.ascontiguousarray(frames)
        self._file.write(pixels.data)
        self._digest.update(pixels.data)
        self.count += len(frames)

    def sha256(self) -> str:
        """Checksum of the frames since `begin`."""
        return self._digest.hexdigest()

    def finish(self) -> None:
        """Say in front how many frames there are."""
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        shape = (self.count, self._side, self._side)
        np.lib.format.write_array_header_1_0(self._file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        self._length = getattr(self, "_length", self._file.tell())
        assert self._file.tell() == self._length, "numpy leaves room for the count to grow"


@contextlib.contextmanager
def written_frames(path: Path, side: int) -> Iterator[FrameWriter]:
    """Yield what writes the array at `path`, which gets its name only once it is whole.

    Raises:
        StorageError: the disk is full, or the folder may not be written to.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        writer = FrameWriter(file, side)
        yield writer
        writer.finish()

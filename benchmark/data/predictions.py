"""Predictions that other code has made for the test clips: read in parts, and checked before they are scored."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from torch import Tensor

from benchmark.data.npz import map_member, names_in, read_npz
from benchmark.data.tensors import to_float
from benchmark.data.videos.clip_files import open_clips
from benchmark.data.videos.single_clips import entries_of, map_array
from benchmark.system.errors import UserError

ARRAY, HASH = "predictions", "test_sha256"
"""Arrays of an npz: the predicted frames; the hash of the test clips, which may be left out."""
LOWEST, HIGHEST = -1.0, 2.0
"""Floats beyond are no frames with 0 for black and 1 for white; metrics see values between them as they are."""
AT_ONCE = 64
"""Clips that are in memory at a time."""


@dataclass(frozen=True)
class Predictions:
    """Frames predicted for the test clips, in their order."""

    read: Callable[[range], Shaped[np.ndarray, "clips T 1 H W"]]

    def of(self, first: int, count: int) -> Float32[Tensor, "clips T 1 H W"]:
        """The frames of `count` clips from number `first` on, counted from 0; uint8 becomes [0, 1]."""
        frames = torch.from_numpy(np.array(self.read(range(first, first + count))))
        return to_float(frames) if frames.dtype == torch.uint8 else frames.float()


def open_predictions(path: Path, shape: tuple[int, int, int, int], test_sha256: str) -> Predictions:
    """The predictions at `path`, all read once.

    Args:
        path: a .npy, a .npz with an array `predictions`, a folder of one .npy a clip, or of one folder of PNG a clip.
        shape: (clips, predicted frames, height, width) that they must have.
        test_sha256: of the clips that they must be of, where the .npz says it.

    Raises:
        UserError: it is missing, damaged or of other clips, or has another shape, type or values than frames have.
    """
    if path.is_dir():
        read = _read_folder(path, shape)
    elif path.suffix.lower() in (".npy", ".npz"):
        if not path.is_file():
            raise UserError(f"{path}: no such file; the command `clips` says what to hand back")
        read = _read_array(path, _array_in(path, test_sha256), shape)
    else:
        raise UserError(f"{path}: is no .npy, no .npz and no folder; the command `clips` says what to hand back")
    _check_values(path, read, shape[0])
    return Predictions(read)


def wanted(shape: tuple[int, int, int, int]) -> str:
    """The shape that predictions must have, in words."""
    clips, frames, height, width = shape
    return f"({clips}, {frames}, {height}, {width}): clips, predicted frames, height, width"


def _array_in(path: Path, test_sha256: str) -> np.ndarray:
    if path.suffix.lower() == ".npy":
        return map_array(path)
    names = names_in(path)
    if ARRAY not in names:
        raise UserError(f"{path}: holds {', '.join(names) or 'nothing'}; name the array of predicted frames {ARRAY}")
    if HASH in names:
        (stored,) = read_npz(path, HASH)
        if str(stored) != test_sha256:
            raise UserError(
                f"{path}: predicts clips of {HASH} {str(stored)[:12]}, the test clips here have {test_sha256[:12]};"
                " predict those that the command `clips` writes now"
            )
    return map_member(path, ARRAY)


def _read_array(path: Path, array: np.ndarray, shape: tuple[int, int, int, int]) -> Callable[[range], np.ndarray]:
    _check_form(path, array, shape)
    whole = array.reshape(shape[0], shape[1], 1, *shape[2:])
    return lambda numbers: whole[numbers.start : numbers.stop]


def _read_folder(path: Path, shape: tuple[int, int, int, int]) -> Callable[[range], np.ndarray]:
    entries = entries_of(path)
    if len(entries) != shape[0]:
        raise UserError(f"{path}: holds {len(entries)} entries, one for each of the {shape[0]} test clips is needed")
    if all(entry.is_file() and entry.suffix.lower() == ".npy" for entry in entries):
        arrays = [map_array(entry) for entry in entries]
        for entry, array in zip(entries, arrays, strict=True):
            _check_form(entry, array[None], (1, *shape[1:]))
            if array.dtype != arrays[0].dtype:
                raise UserError(f"{entry}: holds {array.dtype}, {entries[0].name} {arrays[0].dtype}; give all one type")
        return lambda numbers: np.stack([arrays[number].reshape(shape[1], 1, *shape[2:]) for number in numbers])
    if not all(entry.is_dir() for entry in entries):
        raise UserError(f"{path}: a folder of predictions holds one .npy a clip, or one folder of PNG frames a clip")
    clips = open_clips(path, 1)
    if {*clips.lengths} != {shape[1]} or clips.frame != (1, *shape[2:]):
        channels, height, width = clips.frame
        raise UserError(
            f"{path}: has clips of {min(clips.lengths)} to {max(clips.lengths)} frames of {height}x{width} pixels and"
            f" {channels} channel(s); needed are {wanted(shape)}, in grey"
        )
    return lambda numbers: clips.read(numbers, shape[1])


def _check_form(path: Path, array: np.ndarray, shape: tuple[int, int, int, int]) -> None:
    """Raise UserError for another shape, with or without an axis for the one channel, or another type than frames."""
    if array.shape not in (shape, (*shape[:2], 1, *shape[2:])):
        raise UserError(f"{path}: has shape {array.shape}; needed is {wanted(shape)}")
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{path}: holds {array.dtype}; needed are uint8 with 255 for white, or floats with 1 for white")


def _check_values(path: Path, read: Callable[[range], np.ndarray], count: int) -> None:
    """Raise UserError for values that are not finite, or have another white than their type says."""
    highest = 0.0
    for first in range(0, count, AT_ONCE):
        pixels = read(range(first, min(first + AT_ONCE, count)))
        finite = np.isfinite(pixels).all(axis=(1, 2, 3, 4))
        if not finite.all():
            raise UserError(f"{path}: clip {first + int(finite.argmin()) + 1} has values that are not finite")
        low, high = float(pixels.min()), float(pixels.max())
        if pixels.dtype != np.uint8 and not LOWEST <= low <= high <= HIGHEST:
            raise UserError(
                f"{path}: has {pixels.dtype} values from {low:g} to {high:g}; 0 is black and 1 is white, so divide"
                " those of 0 to 255 by 255, or hand back uint8"
            )
        highest = max(highest, high)
    if pixels.dtype == np.uint8 and highest == 1:
        raise UserError(f"{path}: all uint8 values are 0 or 1; 255 is white, so multiply by 255, or hand back floats")

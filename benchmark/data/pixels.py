"""Frames resized and turned grey, in numpy."""

import numpy as np
from jaxtyping import UInt8

from benchmark.data.videos.layouts import Part
from benchmark.system.errors import UserError


def resize_area(images: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 (n, h, w) to uint8 (n, size, size) by exact area averaging, halves rounded to even.

    Note:
        Overlaps are counted in integers, which float64 adds exactly in any order, so that the pixels are the
        same on every machine; scikit-image's `resize_local_mean` rounds before that, which decides ties.
    """
    height, width = images.shape[-2:]
    if height == width == size:
        return images
    rows, columns = (_overlaps(old, size) for old in (height, width))
    resized = np.empty((len(images), size, size), np.uint8)
    for start in range(0, len(images), 4096):
        part = slice(start, start + 4096)
        resized[part] = np.rint(rows @ images[part].astype(np.float64) @ columns.T / (height * width))
    return resized


def _overlaps(old: int, new: int) -> np.ndarray:
    """How far each of `new` cells of length `old` covers each of `old` cells of length `new`; rows add up to `old`."""
    new_edge, old_edge = np.arange(new)[:, None] * old, np.arange(old)[None] * new
    overlap = np.minimum(new_edge + old, old_edge + new) - np.maximum(new_edge, old_edge)
    return overlap.clip(0).astype(np.float64)


def to_grey(part: Part) -> UInt8[np.ndarray, "part H W"]:
    """Frames in one channel as bytes: floats times 255, colour as 0.299 R + 0.587 G + 0.114 B, rounded (ITU-R BT.601).

    The one conversion to grey, of data as of what `predict --fit` is handed, so that a network is given the very greys
    that it would be trained on. Rounding moves a grey by at most half a level, 0.002 of the range.

    Note:
        Counted in integers, which are the same on every machine.
    """
    if part.dtype != np.uint8:
        part = np.rint(255 * part).astype(np.uint8)
    if part.shape[1] == 1:
        return part[:, 0]
    red, green, blue = part.astype(np.uint32).transpose(1, 0, 2, 3)
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8)


def to_square(frames: UInt8[np.ndarray, "n H W"], square: str | None, name: str) -> UInt8[np.ndarray, "n A B"]:
    """The frames, or the middle square of them; whoever resizes them to a square stretches the others.

    Raises:
        UserError: they are not square, and nothing says how they become so.
    """
    height, width = frames.shape[1:]
    if square is None and height != width:
        raise UserError(
            f"{name}: has frames of {width}x{height} pixels; say with data.square how they become square:"
            " stretch (whatever their aspect) or crop (the middle)"
        )
    if square != "crop":
        return frames
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return frames[:, top : top + side, left : left + side]

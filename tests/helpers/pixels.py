"""Looks for frames in pictures, pixel for pixel."""

import numpy as np


def places(image: np.ndarray, patch: np.ndarray) -> list[tuple[int, int]]:
    """Where (x, y) in a grey image a patch stands, pixel for pixel."""
    height, width = patch.shape
    first = patch[0].tobytes()
    found = []
    for y in range(len(image) - height + 1):
        row, x = image[y].tobytes(), -1
        while (x := row.find(first, x + 1)) >= 0:
            if np.array_equal(image[y : y + height, x : x + width], patch):
                found.append((x, y))
    return found


def enlarged(frame: np.ndarray, scale: int) -> np.ndarray:
    """A grey frame (H, W, 1) with each pixel a square of `scale` pixels (H, W)."""
    return frame[..., 0].repeat(scale, axis=0).repeat(scale, axis=1)

"""Eq. 7 to 9 of docs/equations.md in plain loops, for one clip; shares nothing with `models`."""

from collections.abc import Callable

import numpy as np

from tests.reference.cells import CELLS, Weights, conv1x1, highway


def to_patches(frame, p):
    """Fold the patches of a frame (C, H, W) into channels."""
    channels, height, width = frame.shape
    folded = np.zeros((p * p * channels, height // p, width // p), dtype=frame.dtype)
    for c, row, column in np.ndindex(frame.shape):
        u, v = row % p, column % p
        folded[(u * p + v) * channels + c, row // p, column // p] = frame[c, row, column]
    return folded


def to_frame(folded, p):
    """The inverse of `to_patches`."""
    channels = len(folded) // p**2
    frame = np.zeros((channels, folded.shape[1] * p, folded.shape[2] * p), dtype=folded.dtype)
    for c, row, column in np.ndindex(frame.shape):
        u, v = row % p, column % p
        frame[c, row, column] = folded[(u * p + v) * channels + c, row // p, column // p]
    return frame


def inside(w: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): value for name, value in w.items() if name.startswith(prefix)}


def held_constant(array):
    """Without its dependence on whatever a complex step has nudged."""
    return array.real


def roll_out(
    w: Weights,
    d,
    frames: np.ndarray,
    feed_mask: np.ndarray,
    *,
    cell: str,
    widths: tuple[int, ...],
    patch_size: int,
    slot: int = 0,
    highway_width: int = 0,
    visit: Callable = lambda name, layer, t, value: value,
    kept: str = "all",
    context: int = 0,
) -> np.ndarray:
    """The predictions (T-1, C, H, W) of frames 2 to T, from frames (T, C, H, W) and a feed mask (T-1,).

    `visit` sees every state as it is made and gives back what takes its place. `kept` is `memory` or `frames` to hold
    the other path constant at steps after `context`.
    """
    top = len(widths)
    grid = to_patches(frames[0], patch_size).shape[1:]
    H = {k: np.zeros((widths[k - 1], *grid)) for k in range(1, top + 1)}
    C = {k: np.zeros((widths[k - 1], *grid)) for k in range(1, top + 1)}
    M = {top: np.zeros((widths[-1], *grid))}
    Z = np.zeros((highway_width, *grid))
    last, predictions = None, []
    for t in range(1, len(feed_mask) + 1):
        if t > context and kept == "memory":
            last = held_constant(last)
        if t > context and kept == "frames":
            H = {k: held_constant(state) for k, state in H.items()}
            C = {k: held_constant(state) for k, state in C.items()}
            M = {k: held_constant(state) for k, state in M.items()}
            Z = held_constant(Z)
        shown = to_patches(frames[t - 1], patch_size)
        x = shown if feed_mask[t - 1] == 1 else last  # 7
        M[0] = M[top]
        for k in range(1, top + 1):  # 8
            H[k], C[k], M[k] = CELLS[cell](
                inside(w, f"cells.{k - 1}."), d, x, H[k], C[k], M[k - 1], lambda name, v, k=k, t=t: visit(name, k, t, v)
            )
            x = H[k]
            if k == slot:
                Z, switch = highway(inside(w, "highway."), d, H[k], Z)
                visit("S", k, t, switch)
                Z = visit("Z", k, t, Z)
                x = Z
        last = conv1x1(w, d, "to_frame", H[top])  # 9
        predictions.append(to_frame(last, patch_size))
    return np.stack(predictions)

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


def zero_states(grid, widths, highway_width):
    """All states at t = 0: H, C and M by layer, and Z."""
    layers = range(1, len(widths) + 1)
    H, C, M = ({k: np.zeros((widths[k - 1], *grid)) for k in layers} for _ in "HCM")
    return H, C, M, np.zeros((highway_width, *grid))


def step(w: Weights, d, x, states, *, cell, slot, visit: Callable = lambda name, layer, value: value):
    """Eq. 8 and 9: the prediction of the next frame, in patches, and the states one step later."""
    H, C, M, Z = states
    H, C, M = dict(H), dict(C), dict(M)
    M[0] = M[len(H)]
    for k in range(1, len(H) + 1):  # 8
        inner = inside(w, f"cells.{k - 1}.")
        H[k], C[k], M[k] = CELLS[cell](inner, d, x, H[k], C[k], M[k - 1], lambda name, v, k=k: visit(name, k, v))
        x = H[k]
        if k == slot:
            Z, switch = highway(inside(w, "highway."), d, H[k], Z)
            visit("S", k, switch)
            Z = visit("Z", k, Z)
            x = Z
    return conv1x1(w, d, "to_frame", H[len(H)]), (H, C, M, Z)  # 9


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
    states = zero_states(to_patches(frames[0], patch_size).shape[1:], widths, highway_width)
    last, predictions = None, []
    for t in range(1, len(feed_mask) + 1):
        if t > context and kept == "memory":
            last = held_constant(last)
        if t > context and kept == "frames":
            H, C, M, Z = states
            H, C, M = ({k: held_constant(state) for k, state in each.items()} for each in (H, C, M))
            states = (H, C, M, held_constant(Z))
        x = to_patches(frames[t - 1], patch_size) if feed_mask[t - 1] == 1 else last  # 7
        last, states = step(
            w, d, x, states, cell=cell, slot=slot, visit=lambda name, k, value, t=t: visit(name, k, t, value)
        )
        predictions.append(to_frame(last, patch_size))
    return np.stack(predictions)

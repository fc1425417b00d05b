"""Eq. F1 to F3 of docs/floor.md in plain loops over every start and direction; shares nothing with `benchmark`."""

from collections import defaultdict
from itertools import chain, product

import numpy as np


def walk(start, step, unit, frames):
    """Positions in frames 1 to T of a coordinate that is clamped and turned round at 0 and `unit`."""
    path = []
    for _ in range(frames):
        start += step
        if start <= 0:
            start, step = 0, -step
        elif start >= unit:
            start, step = unit, -step
        path.append(start)
    return path


def paths(steps, unit, room, frames):
    """(direction, start down, start right) -> pixels, a pair a frame, of all there are."""
    found = {}
    for number, (down, right) in enumerate(steps):
        for y, x in product(range(unit), repeat=2):
            ways = walk(y, down, unit, frames), walk(x, right, unit, frames)
            found[number, y, x] = [tuple(at * room // unit for at in place) for place in zip(*ways, strict=True)]
    return found


def agreeing(every, seen):
    """What is seen in some frames -> the paths that show it."""
    groups = defaultdict(list)
    for key, path in every.items():
        groups[tuple(path[t - 1] for t in seen)].append(key)
    return groups


def frame(digits, places, size):
    """A frame with `digits` at `places`."""
    shown = np.zeros((size, size))
    for digit, (top, left) in zip(digits, places, strict=True):
        for y, x in np.ndindex(digit.shape):
            shown[top + y, left + x] = max(shown[top + y, left + x], digit[y, x])
    return shown


def floor(every, images, size, context, k, known):
    """Eq. F1 for one digit: error in each frame after the context of the mean of all clips that agree."""
    horizon = len(next(iter(every.values()))) - context
    total = np.zeros(horizon)
    for group in agreeing(every, range(context - k + 1, context + 1)).values():
        for h in range(horizon):
            t = context + h
            shown = [[frame([image], [every[key][t]], size) for key in group] for image in images]
            for clips in shown if known else [list(chain(*shown))]:
                mean = sum(clips) / len(clips)
                for clip in clips:
                    total[h] += ((clip - mean) ** 2).sum()
    return total / (len(every) * len(images))


def line_weights(context, horizon):
    """Eq. F3, from the normal equations."""
    columns = np.array([[1.0, t] for t in range(1, context + 1)])
    return np.array([1.0, context + horizon]) @ np.linalg.inv(columns.T @ columns) @ columns.T

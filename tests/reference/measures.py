"""Eq. 10 to 13 and 18 to 23 of docs/equations.md in plain loops; shares nothing with `benchmark`."""

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from tests.reference.complex_step import STEP


def training_loss(prediction, target, loss, reduction):
    """Eq. 10."""
    total = 0.0
    for place in np.ndindex(target.shape):
        error = float(prediction[place]) - float(target[place])
        total += error**2 + (abs(error) if loss == "l1+l2" else 0.0)
    return total / target.size if reduction == "mean" else total / 2


def decoupling(adapter, increments):
    """Eq. 10c: the second term without beta.

    Args:
        adapter: W_a, (D, D).
        increments: those of C and of M, (D, h, w) each, of every clip, layer and step.
    """
    total, count = 0.0, 0
    for of_c, of_m in increments:
        u, v = (np.einsum("od,dyx->oyx", adapter, one) for one in (of_c, of_m))
        for channel in range(len(adapter)):
            size = math.sqrt((u[channel] ** 2).sum()) * math.sqrt((v[channel] ** 2).sum())
            total += abs((u[channel] * v[channel]).sum()) / size
            count += 1
    return total / count


def gradient_norms(run: Callable, frames: np.ndarray, context: int, direction: np.ndarray | None) -> dict:
    """Eq. 11 by one complex step for every single element.

    Args:
        run: (frames, visit) -> predictions; the free-running network.
        frames: one clip (T, C, H, W).
        direction: U of `fixed`; None for the squared error.

    Returns:
        (state, layer, t) -> norm; ("X", 0, t) for context frames.
    """
    states: dict = {}

    def scalar(frames_used, visit):
        last = run(frames_used, visit)[-1]
        return ((last - frames[-1]) ** 2).sum() if direction is None else (last * direction).sum()

    def note(name, layer, t, value):
        if name in {*"HCMZ"}:
            states[name, layer, t] = value.shape
        return value

    scalar(frames, note)
    squares = dict.fromkeys([*(("X", 0, t) for t in range(1, context + 1)), *states], 0.0)
    for t in range(1, context + 1):
        for place in np.ndindex(frames.shape[1:]):
            nudged = frames.astype(complex)
            nudged[(t - 1, *place)] += 1j * STEP
            squares["X", 0, t] += (scalar(nudged, lambda *made: made[-1]).imag / STEP) ** 2
    for key, shape in states.items():
        for place in np.ndindex(shape):

            def visit(name, layer, t, value, key=key, place=place):
                if (name, layer, t) != key:
                    return value
                nudged = value.astype(complex)
                nudged[place] += 1j * STEP
                return nudged

            squares[key] += (scalar(frames, visit).imag / STEP) ** 2
    return {key: math.sqrt(square) for key, square in squares.items()}


def reach(norms):
    """Eq. 12, from norms (B, K)."""
    product = 1.0
    for clip in norms:
        product *= clip[0] / clip[-1]
    return product ** (1 / len(norms))


def half_life(norms):
    """Eq. 13, from norms (B, K); None for no decay."""
    clips, frames = norms.shape
    age = [frames - t for t in range(1, frames + 1)]
    level = [sum(math.log2(norms[b, t]) for b in range(clips)) / clips for t in range(frames)]
    mean_age, mean_level = sum(age) / frames, sum(level) / frames
    spread = sum((a - mean_age) ** 2 for a in age)
    q = sum((a - mean_age) * (v - mean_level) for a, v in zip(age, level, strict=True)) / spread
    left = sum((v - mean_level - q * (a - mean_age)) ** 2 for a, v in zip(age, level, strict=True))
    error = math.sqrt(left / (frames - 2) / spread)
    return -1 / q if q + stats.t.ppf(0.975, frames - 2) * error < 0 else None


def root_mean_square(norms: list) -> dict:
    """Eq. 18, from what `gradient_norms` gives for each direction."""
    return {key: math.sqrt(sum(one[key] ** 2 for one in norms) / len(norms)) for key in norms[0]}


def time_constants(kept: list) -> list:
    """Eq. 19, a value a channel, from the share kept (D, h, w) at each step of each clip."""
    found = []
    for channel in range(len(kept[0])):
        logs = [math.log(share) for one in kept for share in one[channel].flatten()]
        found.append(-1 / (sum(logs) / len(logs)))
    return found


def quantile(values: list, share: float) -> float:
    """Eq. 19, the second part."""
    return min(one for one in values if sum(other <= one for other in values) / len(values) >= share)


def influence(run: Callable, frames: np.ndarray, exchanged: np.ndarray) -> tuple[list, list]:
    """Eq. 20 for one clip; `run`: frames -> predictions, `exchanged` (K, C, H, W)."""
    changes, errors = [], []
    for t, other in enumerate(exchanged):
        given = frames.copy()
        given[t] = other
        before, after = run(frames)[-1], run(given)[-1]
        change = error = 0.0
        for place in np.ndindex(before.shape):
            change += (after[place] - before[place]) ** 2
            error += (after[place] - frames[-1][place]) ** 2 - (before[place] - frames[-1][place]) ** 2
        changes.append(math.sqrt(change / before.size))
        errors.append(error)
    return changes, errors


def lyapunov(step: Callable, state: np.ndarray, directions: np.ndarray, warm_up: int, steps: int) -> list:
    """Eq. 21 with the whole Jacobian, by one complex step for each of its columns, and Gram and Schmidt for QR."""
    n, count = directions.shape
    logs = [0.0] * count
    for t in range(warm_up + steps):
        jacobian = np.zeros((n, n))
        for column in range(n):
            nudged = state.astype(complex)
            nudged[column] += 1j * STEP
            jacobian[:, column] = step(nudged).imag / STEP
        orthonormal = []
        for i in range(count):
            pushed = jacobian @ directions[:, i]
            for other in orthonormal:
                pushed = pushed - (other @ pushed) * other
            length = math.sqrt(pushed @ pushed)
            logs[i] += math.log(length) / steps if t >= warm_up else 0.0
            orthonormal.append(pushed / length)
        directions, state = np.stack(orthonormal, axis=1), step(state)
    return sorted(logs, reverse=True)


def mean_curve(norms):
    """Geometric mean over clips, from norms (B, K)."""
    clips, frames = norms.shape
    return [math.prod(norms[b, t] for b in range(clips)) ** (1 / clips) for t in range(frames)]


def inner_slope(norms):
    """Eq. 22."""
    curve = mean_curve(norms)
    places = [(len(curve) - t, math.log2(curve[t - 1])) for t in range(2, len(curve))]
    mean_age, mean_level = (sum(column) / len(places) for column in zip(*places, strict=True))
    spread = sum((age - mean_age) ** 2 for age, _ in places)
    return sum((age - mean_age) * (level - mean_level) for age, level in places) / spread


def second_over_last(norms):
    """Eq. 23a."""
    curve = mean_curve(norms)
    return curve[1] / curve[-1]


def first_three_over_last(norms):
    """Eq. 23b."""
    curve = mean_curve(norms)
    return (curve[0] + curve[1] + curve[2]) / (curve[-3] + curve[-2] + curve[-1])


def next_three_over_last(norms):
    """Eq. 23c."""
    curve = mean_curve(norms)
    return (curve[1] + curve[2] + curve[3]) / (curve[-3] + curve[-2] + curve[-1])


def share_of_older_half(norms):
    """Eq. 23d."""
    curve = mean_curve(norms)
    older = sum(norm for t, norm in enumerate(curve, start=1) if t <= len(curve) / 2)
    return older / sum(curve)

"""How fast gradient norms fall with age: reach and half-life (our Eq. 12 and 13). Imports no torch.

The further definitions of reach are of one curve a network, its geometric mean over clips, as records keep it. Each
takes `log_norm`, the natural log of the norm at t = 1, ..., K, and is NaN where that is not finite or K is too small.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64
from scipy import stats

Curve = Float64[np.ndarray, " K"]
WINDOW = 3
"""Frames of a mean in place of a single frame."""


def summarise_norms(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Reach and half-life by measure, from the norms of X (our Eq. 12 and 13)."""
    frames = table[table["state"] == "X"]
    return {
        str(name): decay(group.pivot(index="clip", columns="t", values="norm"))
        for name, group in frames.groupby("measure")
    }


def decay(norms: pd.DataFrame) -> dict[str, Any]:
    """How the norm falls with age over the context.

    Args:
        norms: one row a clip, one column a context frame t = 1, ..., K.

    Returns:
        `reach`: geometric mean over clips of norm at t = 1 / norm at t = K. `slope`: of log2(norm) per frame of age,
        with its 95 % interval `slope_low`, `slope_high` and `r2`. `half_life`: frames, None where the interval of the
        slope does not lie below 0 (`no decay`). All None where a norm is 0 or not finite; only `reach` where there
        are fewer than 3 frames.
    """
    empty = dict.fromkeys(("reach", "slope", "slope_low", "slope_high", "r2", "half_life"))
    values = norms.to_numpy()
    if not (np.isfinite(values).all() and (values > 0).all()):
        return empty  # pyright: ignore[reportReturnType]  # all None
    log2 = np.log2(values).mean(axis=0)  # (K,)
    reach = float(2.0 ** (log2[0] - log2[-1]))
    if len(log2) < 3:
        return empty | {"reach": reach}
    age = len(log2) - np.arange(1, len(log2) + 1)
    fit = stats.linregress(age, log2)
    margin = float(stats.t.ppf(0.975, len(log2) - 2) * fit.stderr)  # pyright: ignore[reportAttributeAccessIssue]  # of a named tuple that scipy makes
    low, high = fit.slope - margin, fit.slope + margin  # pyright: ignore[reportAttributeAccessIssue]  # of a named tuple that scipy makes
    found = {
        "reach": reach,
        "slope": fit.slope,  # pyright: ignore[reportAttributeAccessIssue]  # of a named tuple that scipy makes
        "slope_low": low,
        "slope_high": high,
        "r2": fit.rvalue**2,  # pyright: ignore[reportAttributeAccessIssue]  # of a named tuple that scipy makes
        "half_life": -1.0 / fit.slope if high < 0 else None,  # pyright: ignore[reportAttributeAccessIssue]  # of a named tuple that scipy makes
    }
    return {key: None if value is None else float(value) for key, value in found.items()}


def inner_slope(log_norm: Curve) -> float:
    """Least-squares slope of log2(norm) per frame of age over t = 2, ..., K - 1; Eq. 22.

    At t = 1 all states are zero, and t = K stands next to the network's own predictions: both ends are left out.
    """
    inner = log_norm[1:-1] / math.log(2)
    age = -np.arange(len(inner), dtype=float)
    age -= age.mean() if len(age) else 0
    return float(age @ inner / (age @ age)) if len(inner) > 1 and np.isfinite(log_norm).all() else math.nan


def second_over_last(log_norm: Curve) -> float:
    """Norm at t = 2 over that at t = K, K at least 3; Eq. 23a."""
    return ratio_of(log_norm, slice(1, 2), slice(-1, None), 3)


def first_three_over_last(log_norm: Curve) -> float:
    """Mean norm at t = 1, 2, 3 over that at t = K - 2, K - 1, K, K at least 6; Eq. 23b."""
    return ratio_of(log_norm, slice(0, WINDOW), slice(-WINDOW, None), 2 * WINDOW)


def next_three_over_last(log_norm: Curve) -> float:
    """Mean norm at t = 2, 3, 4 over that at t = K - 2, K - 1, K, K at least 7; Eq. 23c."""
    return ratio_of(log_norm, slice(1, 1 + WINDOW), slice(-WINDOW, None), 2 * WINDOW + 1)


def share_of_older_half(log_norm: Curve) -> float:
    """Sum of the norms at t <= K / 2 over that of all, K at least 2; Eq. 23d."""
    return ratio_of(log_norm, slice(0, len(log_norm) // 2), slice(0, None), 2) * (len(log_norm) // 2) / len(log_norm)


def ratio_of(log_norm: Curve, one: slice, other: slice, fewest: int) -> float:
    """Mean norm over the frames `one` over that over `other`; NaN below `fewest` frames or where one is not finite."""
    if len(log_norm) < fewest or not np.isfinite(log_norm).all():
        return math.nan
    norms = np.exp(log_norm - log_norm.max())  # whose scale cancels
    return float(norms[one].mean() / norms[other].mean())


FURTHER: dict[str, Callable[[Curve], float]] = {
    "inner_slope": inner_slope,
    "second_over_last": second_over_last,
    "first_three_over_last": first_three_over_last,
    "next_three_over_last": next_three_over_last,
    "share_of_older_half": share_of_older_half,
}
"""Name in tables -> definition of reach, besides that of Eq. 12."""

"""What may be said of a handful of seeds. The seed is the unit; scipy does the arithmetic."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

SMALLEST_N = 3
"""Fewer seeds get no interval."""


@dataclass(frozen=True)
class Summary:
    """Mean of n seeds, and from two on its standard deviation, from three on its 95 % t interval; else NaN."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


def summarise(values: list[float]) -> Summary:
    """Summarise one value a seed; no values give NaN."""
    n = len(values)
    mean = float(np.mean(values)) if n else math.nan
    sd = float(np.std(values, ddof=1)) if n > 1 else math.nan
    if n < SMALLEST_N:
        return Summary(n, mean, sd, math.nan, math.nan)
    margin = float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - margin, mean + margin)

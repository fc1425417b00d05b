"""Reach against test error over the runs of a protocol: the points, and how they are correlated."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from benchmark.evaluation.gradient_decay import inner_slope
from benchmark.reporting.finished_runs import FinishedRun
from benchmark.reporting.statistics import LEVEL

COTANGENTS = {"residual": "of the squared error", "fixed": "of a fixed random direction"}
"""Measure -> whose gradient it is, in words."""
FEWEST = 5
"""Fewer points than this have no rank correlation worth a number."""
RESAMPLES = 2000
REACH_AND_ERROR = ("log_reach", "mse")


def reach_and_error(runs: Sequence[FinishedRun]) -> pd.DataFrame:
    """One row a run that has learnt and a measure: its `reach`, `log_reach` and `mse`, NaN where it has none."""
    trained = [run for run in runs if run.config and run.learnt and not run.diverged]
    rows = [
        (run.variant, measure, run.probe["trained"][measure]["reach"] or math.nan, float(run.scores["mse"]))
        for run in trained
        for measure in COTANGENTS
    ]
    points = pd.DataFrame(rows, columns=["variant", "measure", "reach", "mse"]).astype({"reach": float, "mse": float})
    return points.assign(log_reach=np.log(points["reach"]))


def slope_and_score(runs: Sequence[FinishedRun], stage: str, metric: str) -> pd.DataFrame:
    """One row a run that was trained: its `slope` at a stage of the probe and its final `score`, learnt or not."""
    rows = [
        (run.variant, inner_slope(run.frame_curves[stage, "residual"]), float(run.scores[metric]))
        for run in runs
        if run.config and not run.diverged
    ]
    points = pd.DataFrame(rows, columns=["variant", "slope", "score"]).astype({"slope": float, "score": float})
    return points[np.isfinite(points["slope"]) & np.isfinite(points["score"])]


def usable_points(points: pd.DataFrame) -> pd.DataFrame:
    """The rows with a finite reach and error."""
    return points[np.isfinite(points["log_reach"]) & np.isfinite(points["mse"])]


def variant_means(points: pd.DataFrame, columns: Sequence[str] = REACH_AND_ERROR) -> pd.DataFrame:
    """Means of the variants, one row each, in their order."""
    return points.groupby("variant", sort=False)[[*columns]].mean()


def deviations(points: pd.DataFrame, columns: Sequence[str] = REACH_AND_ERROR) -> pd.DataFrame:
    """Runs minus the mean of their variant, of variants with at least two of them."""
    by_variant = points.groupby("variant")
    several = by_variant[columns[0]].transform("size") > 1
    return (points[[*columns]] - by_variant[[*columns]].transform("mean"))[several]


def correlation(points: pd.DataFrame) -> dict[str, float]:
    """`spearman` of two columns, `low` and `high` of its bootstrap interval; NaN for few or constant points."""
    if len(points) < FEWEST or (points.nunique() < 2).any():
        return dict.fromkeys(("spearman", "low", "high"), math.nan)
    x, y = (points[column].to_numpy() for column in points.columns)
    resampled = np.random.default_rng(0).integers(len(points), size=(RESAMPLES, len(points)))
    tails = 100 * LEVEL / 2, 100 * (1 - LEVEL / 2)
    low, high = np.nanpercentile(spearman(x[resampled], y[resampled]), tails)  # NaN: one point was taken every time
    return {"spearman": float(spearman(x, y)), "low": float(low), "high": float(high)}


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray | float:
    """Rank correlation along the last axis: that of the ranks, ties sharing their mean; NaN for constants."""
    ranks = [stats.rankdata(values, axis=-1) for values in (x, y)]
    one, other = (rank - rank.mean(axis=-1, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore"):
        return (one * other).sum(axis=-1) / np.sqrt((one**2).sum(axis=-1) * (other**2).sum(axis=-1))

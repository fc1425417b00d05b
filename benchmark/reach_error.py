"""Reach against test error over the runs of a protocol: the points, and how they are correlated."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from benchmark.config import Protocol
from benchmark.notes import data_note, diverged_notes, seed_note
from benchmark.rendering import MISSING, Table, interval
from benchmark.runs import FinishedRun
from benchmark.statistics import LEVEL

COTANGENTS = {"residual": "of the squared error", "fixed": "of a fixed random direction"}
"""Measure -> whose gradient it is, in words."""
FEWEST_TO_RANK = 5
"""Fewer points than this have no rank correlation worth a number."""
RESAMPLES = 2000
SCOPES = {"between": "between variants", "within": "within variants"}
COLUMNS = ["scope", "measure", "n", "spearman", "low", "high"]


def reach_error_table(protocol: Protocol, runs: Sequence[FinishedRun]) -> Table:
    """Rank correlation of reach after training with test MSE, between variants and between seeds of one variant."""
    usable = usable_points(reach_and_error(runs))
    values = []
    for measure in COTANGENTS:
        own = usable[usable["measure"] == measure]
        for scope, points in {"between": variant_means(own), "within": deviations(own)}.items():
            values.append({"scope": scope, "measure": measure, "n": len(points), **correlation(points)})
    table = pd.DataFrame(values, columns=COLUMNS)
    cells = [
        {
            "Points": f"{row.n} {'variants' if row.scope == 'between' else 'runs'}",
            "Scope": SCOPES[row.scope],
            "Gradient": COTANGENTS[row.measure],
            "Rank correlation": interval(row.spearman, row.low, row.high, 2, signed=True),
        }
        for row in table.itertuples()
    ]
    notes = [
        "Reach after training against test MSE; below 0: who reaches further back errs less. Between variants: means"
        " over seeds (reach: geometric). Within: runs, each minus the mean of its variant, of variants with two seeds"
        " and more.",
        f"Spearman's rank correlation with 95 % percentile bootstrap interval over the points. {MISSING}: fewer than"
        f" {FEWEST_TO_RANK} points. All of it is exploratory, and variants share cells, so that they are fewer"
        " independent points than their number.",
        seed_note(protocol),
        data_note(protocol, list(runs)),
        *diverged_notes(list(runs)),
    ]
    return Table("Reach against error", table, pd.DataFrame(cells), notes)


def reach_and_error(runs: Sequence[FinishedRun]) -> pd.DataFrame:
    """One row a run that did not diverge and a measure: `variant`, `measure`, `log_reach`, `mse`; NaN: it has none."""
    rows = [
        (run.variant, measure, math.log(reach) if (reach := run.probe["trained"][measure]["reach"]) else math.nan, mse)
        for run in runs
        if run.config and not run.diverged
        for measure, mse in [(measure, float(run.scores["mse"])) for measure in COTANGENTS]
    ]
    return pd.DataFrame(rows, columns=["variant", "measure", "log_reach", "mse"]).astype(
        {"log_reach": float, "mse": float}
    )


def usable_points(points: pd.DataFrame) -> pd.DataFrame:
    """The rows with a finite reach and error."""
    return points[np.isfinite(points["log_reach"]) & np.isfinite(points["mse"])]


def variant_means(points: pd.DataFrame) -> pd.DataFrame:
    """Means of the variants, one row each, in their order."""
    return points.groupby("variant", sort=False)[["log_reach", "mse"]].mean()


def deviations(points: pd.DataFrame) -> pd.DataFrame:
    """Runs minus the mean of their variant, of variants with at least two of them."""
    by_variant = points.groupby("variant")[["log_reach", "mse"]]
    several = points.groupby("variant")["mse"].transform("size") > 1
    return (points[["log_reach", "mse"]] - by_variant.transform("mean"))[several]


def correlation(points: pd.DataFrame) -> dict[str, float]:
    """`spearman` of reach and error, `low` and `high` of its bootstrap interval; NaN for few or constant points."""
    if len(points) < FEWEST_TO_RANK or (points.nunique() < 2).any():
        return dict.fromkeys(("spearman", "low", "high"), math.nan)
    x, y = points["log_reach"].to_numpy(), points["mse"].to_numpy()
    drawn = np.random.default_rng(0).integers(len(points), size=(RESAMPLES, len(points)))
    tails = 100 * LEVEL / 2, 100 * (1 - LEVEL / 2)
    low, high = np.nanpercentile(spearman(x[drawn], y[drawn]), tails)  # NaN: one point was drawn every time
    return {"spearman": float(spearman(x, y)), "low": float(low), "high": float(high)}


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray | float:
    """Spearman's rank correlation along the last axis: that of the ranks, ties sharing their mean; NaN for constants."""
    ranks = [stats.rankdata(values, axis=-1) for values in (x, y)]
    one, other = (rank - rank.mean(axis=-1, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore"):
        return (one * other).sum(axis=-1) / np.sqrt((one**2).sum(axis=-1) * (other**2).sum(axis=-1))

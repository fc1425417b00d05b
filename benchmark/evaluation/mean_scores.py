"""From the scores of every clip and frame to their means. Imports no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmark.config.metrics import METRICS


def mean_scores(frames: pd.DataFrame, by: Sequence[str] = ("variant", "seed")) -> pd.DataFrame:
    """Mean of every metric of `frames` (rows of frames.parquet) within each group of `by`.

    Returns: one row a metric and group: metric, the columns of `by`, mean, frames (number the group has) and
    infinite (number of those left out of the mean, the infinite PSNR of identical frames; where there are no
    others the mean is infinite). One NaN makes the mean NaN.
    """
    names = [name for name in frames.columns if name in METRICS]
    values, keys = frames[names], [frames[key] for key in by]
    infinite = (values == math.inf) & [METRICS[name].identical == math.inf for name in names]
    parts = values.mask(infinite, 0.0), infinite, values.isna()
    total, left_out, undefined = (part.groupby(keys).sum() for part in parts)
    count = values.groupby(keys).size()
    mean = (total / left_out.rsub(count, axis=0)).mask(undefined > 0).mask(left_out.eq(count, axis=0), math.inf)
    table = mean.melt(ignore_index=False, var_name="metric", value_name="mean")
    table["frames"] = np.tile(count, len(names))
    table["infinite"] = left_out.to_numpy().ravel(order="F")
    return table.reset_index()[["metric", *by, "mean", "frames", "infinite"]]


@dataclass(frozen=True)
class ScoreSummary:
    """What the scores of one run, one baseline or one file of weights come to."""

    frames: pd.DataFrame
    """The rows that the means are of: where a bar hides a digit, those without it."""
    mean: pd.Series
    """Metric -> mean over clips and predicted frames."""
    per_frame: pd.DataFrame
    """Mean over clips: one row a predicted frame 1, 2, ..., one column a metric."""
    box_mse: pd.Series
    """Occlusion length in frames -> error in the box of the hidden digit; empty where nothing is hidden."""


def summarise_scores(frames: pd.DataFrame) -> ScoreSummary:
    """The means of `frames` (`frames.parquet`: clip, frame, a column a metric, and `gap` where a bar hides a digit)."""
    box_mse = pd.Series(dtype=float)
    if "gap" in frames:
        box_mse = frames.groupby("gap")["box_mse"].mean()
        frames = frames[frames["gap"] == 0].drop(columns="gap")
    by_frame = mean_scores(frames, by=["frame"]).pivot(index="frame", columns="metric", values="mean")
    whole = mean_scores(frames.assign(whole=0), by=["whole"])
    return ScoreSummary(frames, whole.set_index("metric")["mean"], by_frame, box_mse)

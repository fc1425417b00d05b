"""From the scores of every clip and frame to their means. Imports no torch."""

import math
from collections.abc import Sequence

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

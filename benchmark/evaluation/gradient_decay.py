"""How fast gradient norms fall with age: reach and half-life (our Eq. 12 and 13). Imports no torch."""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats


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

"""The table of what a network keeps: one long form for all measures, and what a record holds of it. No torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

MEMORY = "memory.parquet"
"""Its name in a run folder."""
QUANTILES = (0.5, 0.9, 0.99)
"""Of the time constants of a layer's units."""
_NOWHERE = {"clip": 0, "state": "", "layer": 0, "unit": 0, "t": 0}
"""What a row has in the columns that do not concern it; clips, units and steps are counted from 1."""
COLUMNS = ("stage", "step", "measure", *_NOWHERE, "value")


def memory_rows(measure: str, values: np.ndarray, axes: Sequence[str], **place: Any) -> pd.DataFrame:
    """One row for each of `values`.

    Args:
        measure: `time_constant`, `influence`, `error_change` or `lyapunov`.
        values: one axis for each of `axes`.
        axes: columns that count along them.
        place: other columns of all rows.
    """
    counted = pd.MultiIndex.from_product([np.arange(1, size + 1) for size in values.shape], names=[*axes])
    rows = counted.to_frame(index=False)
    return rows.assign(**{key: value for key, value in (_NOWHERE | place).items() if key not in axes}).assign(
        measure=measure, value=values.ravel()
    )


def summarise_memory(table: pd.DataFrame) -> dict[str, Any]:
    """What a record keeps of one stage; what was not measured is left out.

    Args: `table`: the rows of `memory.parquet` of that stage.

    Returns:
        `time_constants`: memory and layer, such as `C1` -> `QUANTILES` over its units; for each t = 1, 2, ...
        `influence`: root mean square over clips and pixels, and `error_change`: mean over clips; `lyapunov`: the
        leading exponents, each a mean over clips.
    """
    by_measure = {str(name): rows for name, rows in table.groupby("measure")}
    found: dict[str, Any] = {}
    if "time_constant" in by_measure:
        layers = by_measure["time_constant"].groupby(["state", "layer"], sort=True)["value"]
        found["time_constants"] = {f"{state}{layer}": quantiles(values.to_numpy()) for (state, layer), values in layers}  # pyright: ignore[reportGeneralTypeIssues]  # keys of a group
    if "influence" in by_measure:
        rows = by_measure["influence"]
        found["influence"] = rows.assign(value=rows["value"] ** 2).groupby("t")["value"].mean().pow(0.5).tolist()
        found["error_change"] = by_measure["error_change"].groupby("t")["value"].mean().tolist()
    if "lyapunov" in by_measure:
        of_clips = by_measure["lyapunov"].pivot(index="clip", columns="unit", values="value")
        found["lyapunov"] = of_clips.mean(skipna=False).tolist()
    return found


def quantiles(values: np.ndarray) -> list[float]:
    """For each of `QUANTILES` the least value that so many do not exceed: one of them, also where some are inf."""
    return np.quantile(values, QUANTILES, method="inverted_cdf").tolist()

"""What the probe of a run says of its gates, as one number a stage."""

import numpy as np

from benchmark.reporting.finished_runs import FinishedRun
from benchmark.reporting.statistics import summarise_seeds


def mean_openness(run: FinishedRun, stage: str) -> float | None:
    """Openness of the highway, its carry gate (1 - S), at a probe stage: mean over frames; None without a highway."""
    by_frame = run.probe[stage]["openness"]
    return float(np.mean(by_frame)) if by_frame else None


def saturated_share(run: FinishedRun, stage: str) -> float:
    """Share of saturated gates at a probe stage: mean over layers, then over gates."""
    return summarise_seeds([float(np.mean(layers)) for layers in run.probe[stage]["saturated"].values()]).mean

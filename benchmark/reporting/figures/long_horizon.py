"""Figure of the long-horizon evaluation: error and similarity by predicted frame, to the horizon and past it."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import pandas as pd

from benchmark.config.metrics import METRICS
from benchmark.reporting.figures.figure_data import FigureData
from benchmark.reporting.figures.style import (
    BASELINE_LINES,
    GREY,
    cut_note,
    draw_seeds,
    finish,
    handles,
    limit_to_lines,
    page,
    time_axis,
)

PANELS = (
    ("mse", True, "MSE, with the baselines"),
    ("mse", False, "MSE, variants alone"),
    ("ssim", True, METRICS["ssim"].head),
)
"""Metric, whether the baselines are drawn, title."""


def beyond_horizon(data: FigureData, title: str, paths: Sequence[Path]) -> None:
    """MSE and SSIM of each predicted frame of the long-horizon evaluation, of all variants and baselines."""
    runs, setting = data.kept, data.readable
    horizon, cut = setting.frames - setting.context, False
    baselines = [run for run in runs if not run.config]
    with page(paths, height=2.9) as figure:
        legend = handles(setting.looks)
        for axes, (metric, with_baselines, head) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
            curves = pd.DataFrame({(run.variant, run.seed): run.beyond[metric] for run in runs})  # pyright: ignore[reportOptionalSubscript]  # drawn where the protocol has it
            for run, line in zip(baselines if with_baselines else (), cycle(BASELINE_LINES), strict=False):
                style = {"color": GREY, "linestyle": line, "label": run.label, "zorder": 1.5}
                handle = axes.plot(curves[run.variant, run.seed], **style)
                legend += handle if axes is figure.axes[0] else []
            means = [value for run in baselines if with_baselines for value in curves[run.variant, run.seed]]
            for number, (variant, look) in enumerate(setting.looks.items()):
                means += draw_seeds(axes, curves[variant].T, look, number)  # pyright: ignore[reportArgumentType]  # a column of the first level is a table
            cut |= limit_to_lines(axes, means)
            axes.set_title(head)
            axes.set_xlabel("predicted frame")
            time_axis(axes, 1, len(curves), horizon)
        figure.axes[0].set_ylabel("MSE per frame ↓\n(squared error summed over pixels)")
        facts = [setting.seed_note("mean", interval="band"), cut_note(cut, setting)]
        finish(figure, title, facts, legend)

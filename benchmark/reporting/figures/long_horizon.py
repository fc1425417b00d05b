"""Figure of the longer roll-out: error and similarity by predicted frame, to the horizon and past it."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmark.config.metrics import METRICS
from benchmark.reporting.figures.style import (
    BASELINE_LINES,
    GREY,
    Setting,
    draw_seeds,
    finish,
    handles,
    page,
    time_axis,
)
from benchmark.reporting.finished_runs import FinishedRun

PANELS = (
    ("mse", True, "MSE, with the baselines"),
    ("mse", False, "MSE, variants alone"),
    ("ssim", True, METRICS["ssim"].head),
)
"""Metric, whether the baselines are drawn, title."""


def beyond_horizon(runs: Sequence[FinishedRun], setting: Setting, paths: Sequence[Path]) -> None:
    """MSE and SSIM of each predicted frame of the longer roll-out, of all variants and baselines."""
    horizon = setting.frames - setting.context
    baselines = [run for run in runs if not run.config]
    with page(paths, height=2.9) as figure:
        legend = handles(setting.looks)
        for axes, (metric, with_baselines, title) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
            curves = pd.DataFrame({(run.variant, run.seed): run.beyond[metric] for run in runs})  # pyright: ignore[reportOptionalSubscript]  # drawn where the protocol has it
            for run, line in zip(baselines if with_baselines else (), BASELINE_LINES, strict=False):
                style = {"color": GREY, "linestyle": line, "label": run.label, "zorder": 1.5}
                handle = axes.plot(curves[run.variant, run.seed], **style)
                legend += handle if axes is figure.axes[0] else []
            for number, (variant, look) in enumerate(setting.looks.items()):
                draw_seeds(axes, curves[variant].T, look, number)  # pyright: ignore[reportArgumentType]  # a column of the first level is a table
            axes.set_title(title)
            axes.set_xlabel("predicted frame")
            time_axis(axes, 1, len(curves), horizon)
        figure.axes[0].set_ylabel("MSE per frame ↓\n(squared error summed over pixels)")
        notes = [
            f"Grey: past frame {horizon}, where the horizon of training ends; the same weights go on with their own"
            " predictions.",
            "Mean over the test clips, which go on. MSE: prediction clipped to [0, 1]; SSIM: on uint8 frames, 7x7"
            " window.",
            setting.seed_note("mean", interval="band"),
        ]
        finish(figure, "Beyond the horizon", notes, legend)

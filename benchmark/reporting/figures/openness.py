"""Figures of how open the highway is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from benchmark.config.probe_stages import ENDS
from benchmark.reporting.figures.figure_data import FigureData
from benchmark.reporting.figures.reach import draw_by_cell, turning_handles
from benchmark.reporting.figures.style import (
    Look,
    draw_seeds,
    empty_figure,
    finish,
    handles,
    lighten,
    page,
    time_axis,
)
from benchmark.reporting.finished_runs import FinishedRun
from benchmark.reporting.statistics import summarise_seeds

UNTRAINED_STYLE: dict[str, Any] = {"linestyle": (0, (3, 2)), "linewidth": 0.8}
UNTRAINED_HANDLE = Line2D([], [], color="#666666", label=ENDS["init"], **UNTRAINED_STYLE)
OPENNESS_AXIS = "openness of the highway:\nmean of 1 \N{MINUS SIGN} S"


def openness_by_frame(data: FigureData, title: str, paths: Sequence[Path]) -> None:
    """Openness of the highway by frame of the variants that have one; after training in full, before it dashed."""
    setting = data.probed
    runs = [run for run in data.shown if run.learnt and run.config and run.config.model.highway_slot]
    shown = {variant: look for variant, look in setting.looks.items() if variant in {run.variant for run in runs}}
    if not runs:
        empty_figure(title, "No variant shown here has a highway.", setting, paths)
        return
    stage, words = setting.last_stage
    with page(paths, height=2.4) as figure:
        axes = figure.subplots()
        curves = openness_curves(runs, stage)
        for number, (variant, look) in enumerate(shown.items()):
            draw_seeds(axes, curves[variant].T, look, number)  # pyright: ignore[reportArgumentType]  # a column of the first level is a table
        if stage != "init":
            draw_untrained(axes, openness_curves(runs, "init"), shown)
        axes.set_xlabel("frame t")
        time_axis(axes, 1, setting.frames - 1, setting.context)
        axes.set_ylabel(OPENNESS_AXIS)
        axes.set_ylim(0, 1)
        facts = [setting.seed_note("mean", interval="band")]
        legend = [*handles(shown), *([] if stage == "init" else [UNTRAINED_HANDLE])]
        finish(figure, f"{title}, {words}", facts, legend)


def openness_curves(runs: Sequence[FinishedRun], stage: str) -> pd.DataFrame:
    """Openness at a probe stage: one row a frame from 1 on, one column a variant and seed."""
    curves = pd.DataFrame({(run.variant, run.seed): run.probe[stage]["openness"] for run in runs})
    curves.index += 1
    return curves


def draw_untrained(axes: Axes, curves: pd.DataFrame, shown: Mapping[str, Look]) -> None:
    """Draw the means over seeds before training, thin and dashed."""
    for variant, look in shown.items():
        mean = curves[variant].mean(axis="columns")  # pyright: ignore[reportCallIssue, reportArgumentType]  # a column of the first level is a table
        axes.plot(mean.index, mean, color=lighten(look.color, 0.3), **UNTRAINED_STYLE)


def openness_over_training(data: FigureData, title: str, paths: Sequence[Path]) -> None:
    """Openness of the highway by training step, and the share of saturated gates of all variants."""
    setting = data.readable
    if not setting.looks:
        empty_figure(title, "Every run diverged.", setting, paths)
        return
    rows = {OPENNESS_AXIS: mean_openness, "share of\nsaturated gates": saturated_share}
    with page(paths, height=3.6) as figure:
        for first, *_ in draw_by_cell(figure, data, rows):  # bands may leave what a share can be
            low, high = first.get_ylim()
            first.set_ylim(max(low, 0), min(high, 1))
        legend = [*handles(setting.looks), *turning_handles(data.protocol)]
        finish(figure, title, [setting.seed_note("mean", interval="band")], legend)


def mean_openness(run: FinishedRun, stage: str) -> float | None:
    """Openness of the highway, its carry gate (1 - S), at a probe stage: mean over frames; None without a highway."""
    by_frame = run.probe[stage]["openness"]
    return float(np.mean(by_frame)) if by_frame else None


def saturated_share(run: FinishedRun, stage: str) -> float | None:
    """Share of saturated gates at a probe stage: mean over layers, then over gates; None without gates."""
    if not run.probe[stage]["saturated"]:
        return None
    return summarise_seeds([float(np.mean(layers)) for layers in run.probe[stage]["saturated"].values()]).mean

"""Figures of how open the highway is."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmark.config.protocol import Protocol
from benchmark.reporting.figures.gradient_norms import HORIZON_NOTE
from benchmark.reporting.figures.reach import STEP_NOTE, draw_by_cell, saturated
from benchmark.reporting.figures.reach import openness as openness_of
from benchmark.reporting.figures.style import Setting, draw_seeds, empty_figure, finish, handles, page, time_axis
from benchmark.reporting.finished_runs import FinishedRun


def openness(runs: Sequence[FinishedRun], setting: Setting, paths: Sequence[Path]) -> None:
    """Highway openness by step, before and after training, of the variants with a highway."""
    runs = [run for run in runs if run.config and run.config.model.highway_slot]
    shown = {variant: look for variant, look in setting.looks.items() if variant in {run.variant for run in runs}}
    title = "Openness of the highway"
    if not runs:
        empty_figure(title, "No variant shown here has a highway.", setting, paths)
        return
    with page(paths, height=2.2) as figure:
        grid = figure.subplots(1, len(setting.stages), sharey=True, squeeze=False)[0]
        for axes, (stage, words) in zip(grid, setting.stages.items(), strict=True):
            curves = pd.DataFrame({(run.variant, run.seed): run.probe[stage]["openness"] for run in runs})
            curves.index += 1
            for number, (variant, look) in enumerate(shown.items()):
                draw_seeds(axes, curves[variant].T, look, number)  # pyright: ignore[reportArgumentType]  # a column of the first level is a table
            axes.set_title(words)
            axes.set_xlabel("frame t")
            time_axis(axes, 1, setting.frames - 1, setting.context)
        grid[0].set_ylabel("openness: mean of 1 \N{MINUS SIGN} S")
        grid[0].set_ylim(0, 1)
        notes = [
            "S: switch gate of the highway, mean over units and clips.",
            "At openness 1 the highway keeps its past, at 0 it replaces it.",
            HORIZON_NOTE,
            setting.seed_note("mean", interval="band"),
        ]
        finish(figure, title, notes, handles(shown))


SATURATED_NOTE = (
    "Saturated: a sigmoid below 0.05 or above 0.95, a tanh beyond 0.9; share of units over steps and clips, mean over"
    " layers and gates."
)


def openness_over_training(
    protocol: Protocol, runs: Sequence[FinishedRun], setting: Setting, paths: Sequence[Path]
) -> None:
    """Openness of the highway by training step, and the share of saturated gates of all variants."""
    title = "Gates over training"
    if not setting.looks:
        empty_figure(title, "Every run diverged.", setting, paths)
        return
    rows = {"openness of the highway:\nmean of 1 \N{MINUS SIGN} S": openness_of, "share of\nsaturated gates": saturated}
    with page(paths, height=3.6) as figure:
        for first, *_ in draw_by_cell(figure, protocol, runs, setting, rows):  # bands may leave what a share can be
            low, high = first.get_ylim()
            first.set_ylim(max(low, 0), min(high, 1))
        notes = [
            "S: switch gate of the highway, mean over units, steps and clips; at openness 1 it keeps its past, at 0 it"
            " replaces it.",
            SATURATED_NOTE,
            STEP_NOTE,
            setting.seed_note("mean", interval="band"),
        ]
        finish(figure, title, notes, handles(setting.looks))

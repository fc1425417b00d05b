"""Figure of forward influence: how much the last predicted frame changes when one context frame was another."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from benchmark.reporting.figures.figure_data import FigureData
from benchmark.reporting.figures.style import (
    Look,
    draw_seeds,
    empty_figure,
    finish,
    limit_to_lines,
    log_ticks,
    page,
    time_axis,
)
from benchmark.reporting.finished_runs import FinishedRun

MOST_LINES = 6
"""In a panel."""
LABEL_POINTS = 6.5


def influence(data: FigureData, title: str, paths: Sequence[Path]) -> None:
    """A row of panels a stage, a panel for the variants of one cell, a line with its name a variant."""
    setting = data.readable
    runs = [run for run in data.shown if any("influence" in found for found in run.memory.values())]
    setting = setting.only({run.variant for run in runs})
    if not runs:
        empty_figure(title, "No run has a forward influence.", setting, paths)
        return
    panels = panels_of(data, setting.looks)
    with page(paths, height=0.3 + 1.9 * len(setting.stages)) as figure:
        grid = figure.subplots(len(setting.stages), len(panels), sharey="row", squeeze=False)
        for row, (stage, words) in zip(grid, setting.stages.items(), strict=True):
            drawn = [draw_panel(axes, runs, stage, looks) for axes, looks in zip(row, panels, strict=True)]
            limit_to_lines(row[0], [value for means in drawn for curve in means.values() for value in curve])
            log_ticks(row[0], "y")
            for axes, looks, means in zip(row, panels, drawn, strict=True):
                label_lines(axes, means, looks)
            row[0].set_ylabel(f"{words}\nRMS change of the last frame")
        for axes in grid[-1]:
            axes.set_xlabel("exchanged context frame t")
        finish(figure, title, [setting.seed_note("geometric mean", interval="band")])


def panels_of(data: FigureData, looks: Mapping[str, Look]) -> list[dict[str, Look]]:
    """The variants of each cell, at most `MOST_LINES` together."""
    cells: dict[str, list[str]] = {}
    for variant in looks:
        cells.setdefault(data.protocol.first_run(variant).model.cell, []).append(variant)
    parts = [
        variants[first : first + MOST_LINES]
        for variants in cells.values()
        for first in range(0, len(variants), MOST_LINES)
    ]
    return [{variant: looks[variant] for variant in part} for part in parts]


def draw_panel(
    axes: Axes, runs: Sequence[FinishedRun], stage: str, looks: Mapping[str, Look]
) -> dict[str, list[float]]:
    """Draw the variants of `looks`; returns what was drawn of each."""
    means = {}
    for place, (variant, look) in enumerate(looks.items()):
        curves = [run.memory[stage]["influence"] for run in runs if run.variant == variant and stage in run.memory]
        with np.errstate(divide="ignore"):
            table = pd.DataFrame(np.log(curves), columns=range(1, len(curves[0]) + 1))
        means[variant] = draw_seeds(axes, table, look, place, log=True)
    axes.set_yscale("log", nonpositive="mask")
    time_axis(axes, 1, len(next(iter(means.values()))))
    return means


def label_lines(axes: Axes, curves: Mapping[str, Sequence[float]], looks: Mapping[str, Look]) -> None:
    """Write the name of each line beside its last point, moved apart where two would overlap."""
    height = axes.get_window_extent().height * 72 / axes.figure.dpi  # points, about: the layout is made at the end
    ends = {variant: (len(curve), curve[-1]) for variant, curve in curves.items() if 0 < curve[-1] < np.inf}
    shares = {variant: (axes.transScale + axes.transLimits).transform(end)[1] for variant, end in ends.items()}
    ordered = sorted(shares, key=shares.__getitem__)
    places = spread([shares[variant] for variant in ordered], 1.25 * LABEL_POINTS / height)
    for variant, place in zip(ordered, places, strict=True):
        color = looks[variant].color
        axes.annotate(
            looks[variant].label,
            xy=ends[variant],
            xytext=(1.08, place),
            textcoords="axes fraction",
            color=color,
            fontsize=LABEL_POINTS,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": color,
                "linewidth": 0.5,
                "relpos": (0, 0.5),
                "shrinkA": 1,
                "shrinkB": 2,
            },
        )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places moved apart to at least `gap`, each group about where it was."""
    groups: list[list[float]] = []
    for place in places:
        groups.append([place])
        while len(groups) > 1 and centre(groups[-1]) - centre(groups[-2]) < gap * len(groups[-1] + groups[-2]) / 2:
            last = groups.pop()
            groups[-1] += last
    return [centre(group) + gap * (n - (len(group) - 1) / 2) for group in groups for n in range(len(group))]


def centre(group: Sequence[float]) -> float:
    """Mean of the places in a group."""
    return sum(group) / len(group)

"""Figures of reach over training and against error, and of the gates that decide it."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, NullLocator

from benchmark.config.metrics import METRICS
from benchmark.config.probe_stages import stages
from benchmark.config.protocol import Protocol
from benchmark.reporting.figures.figure_data import FigureData
from benchmark.reporting.figures.style import (
    BASELINE_LINES,
    GREY,
    Look,
    draw_seeds,
    empty_figure,
    finish,
    handles,
    lighten,
    log_ticks,
    page,
)
from benchmark.reporting.finished_runs import FinishedRun
from benchmark.reporting.reach_and_error import COTANGENTS, correlation, reach_and_error, usable_points, variant_means
from benchmark.reporting.tables.rendering import interval

PEAK = 0.3
"""Share of the steps after which the learning rate of one-cycle is largest, as PyTorch's `OneCycleLR` has it."""
StageValue = Callable[[FinishedRun, str], float | None]
"""A number of a run at a stage; None where it has none."""


def reach_against_error(data: FigureData, title: str, paths: Sequence[Path]) -> None:
    """One dot a run: its error by its reach after training, for both cotangents; larger, the variants' means."""
    runs, setting = data.kept, data.readable
    points = reach_and_error([run for run in runs if run.variant in setting.looks])
    usable = usable_points(points)
    if not len(usable):
        empty_figure(title, "No run has both a reach and an error.", setting, paths)
        return
    with page(paths, height=2.8) as figure:
        panels = list(figure.subplots(1, len(COTANGENTS), sharex=True, sharey=True))
        ranks = []
        for axes, (measure, words) in zip(panels, COTANGENTS.items(), strict=True):
            rows = usable[usable["measure"] == measure]
            draw_dots(axes, rows, setting.looks)
            axes.set_xscale("log")
            axes.set_title(f"gradient {words}")
            axes.set_xlabel("reach after training")
            means = variant_means(rows)
            found = correlation(means)
            if math.isfinite(found["spearman"]):
                ranks.append(f"{interval(*found.values(), 2, signed=True)} ({words.removeprefix('of ')})")  # pyright: ignore[reportCallIssue]  # estimate, low, high
        for axes in panels:
            log_ticks(axes, "x")
        panels[0].set_ylabel(METRICS["mse"].head)
        lines, far = draw_baselines(panels, [run for run in runs if not run.config])
        facts = [
            f"Rank correlation (Spearman) of the {len(means)} variants' means: {', '.join(ranks)}." if ranks else "",
            missing_note(len(points) - len(usable)),
            far,
            setting.seed_note("each a dot"),
        ]
        finish(figure, title, facts, [*(dot_handle(look) for look in setting.looks.values()), *lines])


def draw_dots(axes: Axes, rows: pd.DataFrame, looks: Mapping[str, Look]) -> None:
    """Draw runs small and the means of variants large."""
    means = variant_means(rows)
    for variant, look in looks.items():
        own = rows[rows["variant"] == variant]
        if not len(own):
            continue
        small = {"linestyle": "", "marker": look.marker, "markersize": 3.4, "color": lighten(look.color, 0.35)}
        if len(own) > 1:
            axes.plot(np.exp(own["log_reach"]), own["mse"], markeredgewidth=0, **small)
        axes.plot(math.exp(means["log_reach"][variant]), means["mse"][variant], **dot_style(look))


def dot_style(look: Look) -> dict[str, Any]:
    """Keywords for `Axes.plot` of the mean of a variant: filled where its line is solid, so without a highway."""
    face = look.color if look.line == "-" else "white"
    style = {"marker": look.marker, "color": look.color, "markerfacecolor": face}
    return style | {"linestyle": "", "markersize": 6.5, "markeredgewidth": 1.2, "zorder": 3}


def dot_handle(look: Look) -> Line2D:
    """Entry of the legend."""
    return Line2D([], [], label=look.label, **dot_style(look))


def draw_baselines(panels: Sequence[Axes], baselines: Sequence[FinishedRun]) -> tuple[list[Line2D], str]:
    """Draw a line for each baseline that lies within half of the runs' span from them; the others in a sentence.

    Returns:
        Entries of the legend, and the sentence.
    """
    low, high = panels[0].get_ylim()
    margin = 0.5 * (high - low)
    lines, far = [], []
    for run, line in zip(baselines, cycle(BASELINE_LINES), strict=False):
        value = float(run.scores["mse"])
        if not low - margin <= value <= high + margin:
            far.append(f"{run.label} {value:.1f}")
            continue
        style = {"color": GREY, "linestyle": line, "zorder": 1}
        lines += [axes.axhline(value, label=run.label, **style) for axes in panels][:1]
    return lines, f"Off the axis: {', '.join(far)}." if far else ""


def missing_note(count: int) -> str:
    """A sentence that counts the dots that cannot be drawn."""
    return f"Not drawn, since a norm is 0 or an error not finite: {count} dots." if count else ""


def reach_over_training(data: FigureData, title: str, paths: Sequence[Path]) -> None:
    """Reach by training step, for both cotangents."""
    setting = data.readable
    if not setting.looks:
        empty_figure(title, "Every run diverged.", setting, paths)
        return
    rows = {f"reach, gradient\n{words}": log_reach(measure) for measure, words in COTANGENTS.items()}
    with page(paths, height=3.6) as figure:
        for axes in draw_by_cell(figure, data, rows, log=True).flat:
            axes.set_yscale("log")
        legend = [*handles(setting.looks), *turning_handles(data.protocol)]
        finish(figure, title, [setting.seed_note("geometric mean", interval="band")], legend)


def draw_by_cell(figure: Figure, data: FigureData, rows: Mapping[str, StageValue], *, log: bool = False) -> np.ndarray:
    """Draw a row for each value, by what its axis says, and a column for each cell, which its first variant names.

    Returns:
        The panels.
    """
    protocol, setting = data.protocol, data.readable
    cells: dict[str, list[str]] = {}
    for variant in setting.looks:
        cells.setdefault(protocol.first_run(variant).model.cell, []).append(variant)
    grid = figure.subplots(len(rows), len(cells), sharex=True, sharey="row", squeeze=False)
    for row, (words, value) in zip(grid, rows.items(), strict=True):
        for axes, variants in zip(row, cells.values(), strict=True):
            draw_over_training(axes, protocol, data.shown, setting.only(variants).looks, value, log=log)
        row[0].set_ylabel(words)
    for axes, (first, *_) in zip(grid[0], cells.values(), strict=True):
        axes.set_title(setting.looks[first].label)
    for axes in grid[-1]:
        axes.set_xlabel("training step")
    return grid


def draw_over_training(
    axes: Axes,
    protocol: Protocol,
    runs: Sequence[FinishedRun],
    looks: Mapping[str, Look],
    value: StageValue,
    *,
    log: bool = False,
) -> None:
    """Draw `value` by training step, a line a variant that has it, on an axis that stretches the first steps."""
    ticks: dict[int, None] = {}
    for number, (variant, look) in enumerate(looks.items()):
        own = [run for run in runs if run.variant == variant]
        steps = [own[0].probe[stage]["step"] for stage in stages(protocol)]
        ticks |= dict.fromkeys(steps)
        table = pd.DataFrame(
            [[value(run, stage) for stage in stages(protocol)] for run in own if run.learnt], columns=steps, dtype=float
        )
        if table.notna().any(axis=None):
            draw_seeds(axes, table, look, number, log=log)
    for step, style in turning_points(protocol).values():
        axes.axvline(step, zorder=0, **style)
    axes.set_xscale("symlog", linthresh=min(step for step in ticks if step), linscale=0.5)
    places = sorted(ticks)
    close = [2 * step > after > step for step, after in pairwise(places)]
    axes.set_xticks(places, ["" if near else str(step) for step, near in zip(places, [*close, False], strict=True)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def turning_points(protocol: Protocol) -> dict[str, tuple[float, dict[str, Any]]]:
    """Steps at which the training itself changes, by what a legend says of them, each with keywords for its line."""
    training, thin = protocol.training, {"color": GREY, "linewidth": 0.9}
    found: dict[str, tuple[float, dict[str, Any]]] = {}
    if training.schedule == "one-cycle":
        found["peak of the learning rate"] = (PEAK * training.steps, thin | {"linestyle": ":"})
    if training.sampling.kind != "none":
        found["end of sampling"] = (training.sampling.stop, thin | {"linestyle": (0, (6, 3))})
    return found


def turning_handles(protocol: Protocol) -> list[Line2D]:
    """Entries of the legend for `turning_points`."""
    return [Line2D([], [], label=words, **style) for words, (_, style) in turning_points(protocol).items()]


def log_reach(measure: str) -> StageValue:
    """The natural log of reach; None where a norm is 0 or not finite."""

    def value(run: FinishedRun, stage: str) -> float | None:
        reach = run.probe[stage][measure]["reach"]
        return math.log(reach) if reach else None

    return value

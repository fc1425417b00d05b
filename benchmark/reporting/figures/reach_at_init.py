"""A dot plot of reach at initialisation: one row a variant, by the question that it asks."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from benchmark.config.variant_groups import questions
from benchmark.reporting.figures.figure_data import FigureData
from benchmark.reporting.figures.reach import log_reach
from benchmark.reporting.figures.scores import Row, body, dot_plot, draw_row, drawn_values
from benchmark.reporting.figures.style import MARKERS, PALETTE, Look, cell_number, finish, page
from benchmark.reporting.finished_runs import VariantRuns, by_variant
from benchmark.reporting.reach_and_error import COTANGENTS
from benchmark.reporting.statistics import Summary, summarise_seeds


def reach_at_init(data: FigureData, title: str, paths: Sequence[Path]) -> None:
    """Reach at initialisation of every variant, each seed small, mean and interval; a panel a cotangent."""
    groups = {group.variant: group for group in by_variant([run for run in data.runs if run.config])}
    rows: list[Row] = []
    usual: list[str | None] = []
    of_variant: dict[str, Row] = {}
    for asked in questions(data.protocol):
        of_variant |= {variant: reach_row(groups[variant]) for variant in asked.variants}
        rows += [Row(asked.title), *(of_variant[variant] for variant in asked.variants)]
        usual += [None, *(asked.usual.get(variant) for variant in asked.variants)]
    with page(paths, height=body(rows) - 0.1) as figure:
        panels, places = dot_plot(figure, rows, len(COTANGENTS))
        for axes, (measure, words) in zip(panels, COTANGENTS.items(), strict=True):
            log_axis(axes, [value for row in rows for value in drawn_values(row, measure)])
            axes.set_title(f"gradient {words}")
            axes.set_xlabel("reach at initialisation")
            for y, row, partner in zip(places, rows, usual, strict=True):
                if partner:
                    mean = of_variant[partner].found[measure].mean
                    axes.plot([mean, mean], [y - 0.08, y + 0.08], color="#999999", linewidth=2.2, zorder=1)
                draw_row(axes, y, row, measure)
        facts = [
            no_reach_note(of_variant, groups),
            data.every.seed_note("geometric mean and, small, each seed", interval="line"),
        ]
        finish(figure, title, facts)


def reach_row(group: VariantRuns) -> Row:
    """The row of a variant: reach by cotangent, its mean and interval those of its logarithm; hollow with a highway."""
    logs = {name: [log_reach(name)(run, "init") for run in group.kept] for name in COTANGENTS}
    kept = {name: [value for value in values if value is not None] for name, values in logs.items()}
    found = {name: exponential(summarise_seeds(values)) for name, values in kept.items()}
    spec = group.config.model  # pyright: ignore[reportOptionalMemberAccess]  # no baseline
    cell = cell_number(spec.cell)
    look = Look(group.label, PALETTE[cell % len(PALETTE)], "-", MARKERS[cell % len(MARKERS)], not spec.highway_slot)
    hollow = frozenset(COTANGENTS if spec.highway_slot else ())
    return Row(group.label, look, {name: np.exp(values).tolist() for name, values in kept.items()}, found, hollow)


def exponential(logs: Summary) -> Summary:
    """Mean and interval of logarithms, back on their scale; the standard deviation has none there."""
    back = {key: math.exp(getattr(logs, key)) for key in ("mean", "low", "high")}
    return replace(logs, sd=math.nan, **back)


def log_axis(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic x axis that holds `values`, with a line at 1 where that lies on it, and few ticks."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=7))
    if values:
        low, high = np.log10(min(values)), np.log10(max(values))
        margin = 0.05 * (high - low) or 0.5
        axes.set_xlim(10 ** (low - margin), 10 ** (high + margin))
    if axes.get_xlim()[0] < 1 < axes.get_xlim()[1]:
        axes.axvline(1, color="#666666", linewidth=0.7, zorder=1)


def no_reach_note(rows: dict[str, Row], groups: dict[str, VariantRuns]) -> str:
    """A sentence that names the variants with runs that have no reach; empty if all have one."""
    gone = {group.label: len(group.kept) - len(rows[name].values["residual"]) for name, group in groups.items()}
    named = ", ".join(f"{label} ({count} of its seeds)" for label, count in gone.items() if count)
    return f"No reach, since a gradient is 0 or not finite: {named}." if named else ""

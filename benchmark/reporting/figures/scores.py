"""Dot plots beside the tables: every score with its interval, and the paired differences to the reference."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from benchmark.config.metrics import METRICS, columns
from benchmark.config.protocol import Protocol
from benchmark.reporting.figures.figure_data import FigureData
from benchmark.reporting.figures.style import (
    BASELINE_LINES,
    GREY,
    NOTE,
    Look,
    Setting,
    draw_seeds,
    empty_figure,
    finish,
    handles,
    lighten,
    page,
    time_axis,
)
from benchmark.reporting.finished_runs import FinishedRun, VariantRuns, by_seed, by_variant
from benchmark.reporting.statistics import Summary, paired, summarise_seeds
from benchmark.reporting.statistics import differences as differences_of
from benchmark.reporting.tables.rendering import MINUS, number

LINE, SPACE = 0.13, 0.07
"""Inches that a line of a row's label takes, and those between rows."""
BELOW = 0.055
"""Inches from the mean of a row down to its single seeds."""
LABEL_WIDTH = 28
"""Characters of a line of a row's label."""
BEST_LINE = (0, (1, 1))
LABEL_SHARE = 0.05
"""Of an axis, that a label at the end of a line takes."""
NORMAL = 1.96
"""Standard errors from the mean to an end of its 95 % interval, of a mean of many clips."""
BASELINE = Look("", "#777777", "-", "o", True)


@dataclass(frozen=True)
class Row:
    """A row of a dot plot; one without values is a heading."""

    label: str
    """One or more lines."""
    look: Look = BASELINE
    values: dict[str, list[float]] = field(default_factory=dict)
    """Metric -> one value a seed."""
    found: Mapping[str, Summary] = field(default_factory=dict)
    """Metric -> summary of its values."""
    hollow: frozenset[str] = frozenset()
    """Metrics whose mean has no face colour."""

    @property
    def height(self) -> float:
        """Inches."""
        return SPACE + LINE * (1 + self.label.count("\n"))


def scores(data: FigureData, title: str, paths: Sequence[Path]) -> None:
    """Every metric of every variant and baseline: seeds, mean and interval, one panel a metric."""
    protocol, runs, setting = data.protocol, data.runs, data.every
    names = scored(protocol, runs)
    rows = [score_row(group, names, setting) for group in by_variant(list(runs))]
    trained, baselines = rows[: len(protocol.variants)], rows[len(protocol.variants) :]
    best = [best_row(k, row) for k, row in data.best_predictors.items()]
    rows += best
    with page(paths, height=body(rows)) as figure:
        panels, places = dot_plot(figure, rows, len(names))
        for axes, name in zip(panels, names, strict=True):
            others = [value for row in [*baselines, *best] for value in drawn_values(row, name)]
            axes.set_xlim(span(trained, name, also=others))
            axes.set_xlabel(head(name))
            for y, row in zip(places, rows, strict=True):
                draw_row(axes, y, row, name)
            if baselines:
                axes.axhline(sum(row.height for row in trained), color="#666666", linewidth=0.7)
            if best:
                axes.axhline(sum(row.height for row in [*trained, *baselines]), color="#666666", linewidth=0.7)
        facts = [unmeasured(protocol, names), setting.seed_note("mean and, small, each seed", interval="line")]
        finish(figure, title, facts)


def score_row(group: VariantRuns, names: Sequence[str], setting: Setting) -> Row:
    """The row of a variant or baseline."""
    values = {name: list(group.scores(name).values()) for name in names}
    found = {name: summarise_seeds(values[name]) for name in names}
    look = setting.looks.get(group.variant, BASELINE)
    return Row(
        lines(group.label, group.diverged), look, values, found, frozenset() if look.filled else frozenset(names)
    )


def best_row(frames_seen: int, row: pd.Series) -> Row:
    """The row of the best predictor that sees so many context frames, its digits known; it has an MSE alone."""
    mean, error = row["known_mse"], NORMAL * row["known_error"]
    found = Summary(n=1, mean=mean, sd=math.nan, low=mean - error, high=mean + error)
    frames = "frame" if frames_seen == 1 else f"{frames_seen} frames"
    return Row(f"Best from the last {frames}", BASELINE, {"mse": [mean]}, {"mse": found})


def differences(data: FigureData, title: str, paths: Sequence[Path]) -> None:
    """Every variant minus its reference, paired by seed: differences, mean and interval, one panel a metric."""
    protocol, runs, setting = data.protocol, data.runs, data.every
    primary = protocol.primary
    groups = {group.variant: group for group in by_variant(list(runs))}
    names = scored(protocol, runs)
    rows = [
        difference_row(groups[one], groups[other], names, setting, [primary.metric] * (primary.pairs.get(one) == other))
        for one, other in protocol.comparisons_of_scores()
    ]
    if not rows:
        empty_figure(title, "No variant of this protocol has a reference.", setting, paths)
        return
    if primary.pairs:
        first, others = rows[: len(primary.pairs)], rows[len(primary.pairs) :]
        rows = [Row("Primary"), *first, *([Row("Exploratory")] if others else []), *others]
    with page(paths, height=body(rows)) as figure:
        panels, places = dot_plot(figure, rows, len(names))
        for axes, name in zip(panels, names, strict=True):
            low, high = span(rows, name, also=[0.0])
            axes.set_xlim(low, high)
            axes.axvspan(0, low if METRICS[name].better == "lower" else high, color="#F3F3F3", zorder=0)
            axes.axvline(0, color="black", linewidth=0.7, zorder=1)
            axes.set_xlabel(f"Δ {head(name)}")
            axes.xaxis.set_major_formatter(
                StrMethodFormatter("{x:g}")
            )  # a short 0 leaves room for the numbers beside it
            if not any(drawn_values(row, name) for row in rows):
                axes.set_xticks([])
            for y, row in zip(places, rows, strict=True):
                draw_row(axes, y, row, name)
        finish(figure, title, difference_facts(protocol, names, setting))


def difference_facts(protocol: Protocol, names: Sequence[str], setting: Setting) -> list[str]:
    """What is tested, of how many seeds, and what is missing."""
    tested = METRICS[protocol.primary.metric].head.split(" ")[0]
    return [
        f"Filled: {tested} of the primary pairs."
        if protocol.primary.pairs
        else "The protocol names no primary pair: all is exploratory, nothing is tested.",
        unmeasured(protocol, names),
        setting.seed_note("mean and, small, each pair", interval="line"),
    ]


def difference_row(
    one: VariantRuns, other: VariantRuns, names: Sequence[str], setting: Setting, tested: Sequence[str]
) -> Row:
    """The row of a pair; the means of metrics that are not `tested` are hollow."""
    pairs = {name: by_seed(one, other, name) for name in names}
    values = {name: differences_of(*scores) for name, scores in pairs.items()}
    found = {name: paired(*scores) for name, scores in pairs.items()}
    lost, left = one.lost_pairs(other), found[names[0]].n
    state = f"{lost} of {lost + left} lost to divergence" if lost else ""
    look = setting.looks.get(one.variant, BASELINE)
    label = lines(f"{one.label} {MINUS} {other.label}", state)
    return Row(label, look, values, found, frozenset(names) - set(tested))


def scored(protocol: Protocol, runs: Sequence[FinishedRun]) -> list[str]:
    """The metrics of the main table that all runs have."""
    names = columns(protocol.evaluation.lpips_backbone, further=protocol.data.metrics)
    return [name for name in names if all(name in run.scores for run in runs)]


def unmeasured(protocol: Protocol, names: Sequence[str]) -> str:
    """A sentence that says that LPIPS is missing; empty if it is not."""
    name = f"lpips_{protocol.evaluation.lpips_backbone}"
    return "" if name in names else f"{METRICS[name].head.split(' ↓')[0]} was not measured."


def head(name: str) -> str:
    """Label of the axis of a metric, on two lines so that panels may be narrow."""
    words, unit, rest = METRICS[name].head.partition(" (")
    return f"{words}\n{unit.strip() or ' '}{rest}"


def lines(label: str, state: str) -> str:
    """Label of a row, below it what is to be said of its runs; a difference breaks at its minus where it is long."""
    first, minus, second = label.partition(f" {MINUS} ")
    parts = [first, f"{MINUS} {second}"] if minus and len(label) > LABEL_WIDTH else [label]
    return "\n".join(line for part in (*parts, state) for line in textwrap.wrap(part, LABEL_WIDTH))


def body(rows: Sequence[Row]) -> float:
    """Inches that a dot plot of `rows` takes with its axis labels."""
    return 0.52 + sum(row.height for row in rows)


def dot_plot(figure: Figure, rows: Sequence[Row], panels: int) -> tuple[list[Axes], list[float]]:
    """Empty panels that share `rows`, and where these lie on the y axis, which counts inches from the top."""
    places, top = [], 0.0
    for row in rows:
        places.append(top + row.height / 2)
        top += row.height
    grid = list(figure.subplots(1, panels, sharey=True, squeeze=False)[0])
    grid[0].set_ylim(top, 0)
    grid[0].set_yticks(places, [row.label for row in rows], linespacing=1.05)
    for label, row in zip(grid[0].get_yticklabels(), rows, strict=True):
        label.set_fontweight("normal" if row.values else "bold")
    for axes in grid:
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]))
        axes.ticklabel_format(axis="x", useOffset=False)
    return grid, places


def span(rows: Sequence[Row], name: str, also: Sequence[float] = ()) -> tuple[float, float]:
    """Limits of an axis that shows all that `rows` draw, and those of the values `also` that do not squash it.

    That is those which lie within half of the rows' span from it; if the rows have no span, all.
    """
    inside = [value for row in rows for value in drawn_values(row, name)]
    inside = inside or list(also) or [0.0]
    reach = 0.5 * (max(inside) - min(inside)) or math.inf
    inside += [value for value in also if min(inside) - reach <= value <= max(inside) + reach]
    margin = 0.06 * (max(inside) - min(inside)) or 0.5
    return min(inside) - margin, max(inside) + margin


def drawn_values(row: Row, name: str) -> list[float]:
    """The values of a metric that a row draws: seeds, mean and interval; none where the mean is not finite."""
    found = row.found.get(name)
    if found is None or not math.isfinite(found.mean):
        return []
    return [*row.values[name], *(value for value in (found.low, found.high) if math.isfinite(value))]


def draw_row(axes: Axes, y: float, row: Row, name: str) -> None:
    """Seeds, interval and mean of one metric; an arrow and the value where the mean lies off the axis."""
    if not row.values.get(name):
        return
    found, values, color = row.found[name], row.values[name], row.look.color
    low, high = axes.get_xlim()
    if not low <= found.mean <= high:
        word = number(found.mean, METRICS[name].decimals)
        place, word = (
            (1.0, f"{word} \N{RIGHTWARDS ARROW}") if found.mean > high else (0.0, f"\N{LEFTWARDS ARROW} {word}")
        )
        if not math.isfinite(found.mean):
            place, word = 0.5, "not finite"
        where = {0.0: "left", 0.5: "center", 1.0: "right"}[place]
        transform = axes.get_yaxis_transform()
        axes.text(place, y, word, transform=transform, ha=where, va="center_baseline", color=NOTE, fontsize=7)
        return
    if len(values) > 1:
        small = {"markersize": 2, "markeredgewidth": 0, "color": lighten(color, 0.4)}
        axes.plot(values, [y + BELOW] * len(values), linestyle="", marker="o", **small)
    if math.isfinite(found.low):
        axes.plot([found.low, found.high], [y, y], color=color, linewidth=1.3)
    face = "white" if name in row.hollow else color
    axes.plot(
        [found.mean], [y], linestyle="", marker=row.look.marker, color=color, markersize=4.2, markerfacecolor=face
    )


def draw_best(axes: Axes, data: FigureData, setting: Setting) -> None:
    """Thin lines of the best predictors, with the number of frames that each sees at its end where there is room.

    The axis stays as it is.
    """
    low, high = axes.get_ylim()
    frames = range(setting.context + 1, setting.frames + 1)
    room, free = LABEL_SHARE * (high - low), high
    for k, row in data.best_predictors.items():
        errors = [row[f"known_mse_{number}"] for number in range(1, len(frames) + 1)]
        axes.plot(frames, errors, color="black", linewidth=0.6, linestyle=BEST_LINE, zorder=1)
        if low <= errors[-1] <= free:
            free = errors[-1] - room
            axes.annotate(f"{k}", (frames[-1], errors[-1]), (3, 0), textcoords="offset points", va="center", fontsize=6)
    axes.set_ylim(low, high)


def mse_per_frame(data: FigureData, title: str, paths: Sequence[Path]) -> None:
    """MSE of each predicted frame: all with the baselines, and the variants alone on their own scale."""
    runs, setting = data.kept, data.readable
    curves = pd.DataFrame({(run.variant, run.seed): run.per_frame["mse"] for run in runs})
    curves.index += setting.context
    with page(paths, height=2.6) as figure:
        every, alone = figure.subplots(1, 2)
        legend = handles(setting.looks)
        for run, line in zip((run for run in runs if not run.config), cycle(BASELINE_LINES), strict=False):
            legend += every.plot(curves[run.variant, run.seed], color=GREY, linestyle=line, label=run.label)
        for number, (variant, look) in enumerate(setting.looks.items()):
            for axes in (every, alone):
                draw_seeds(axes, curves[variant].T, look, number)  # pyright: ignore[reportArgumentType]  # a column of the first level is a table
        every.set_title("with the baselines")
        every.set_ylim(bottom=0)
        every.set_ylabel("MSE per frame ↓\n(squared error summed over pixels)")
        alone.set_title("variants alone, enlarged")
        for axes in (every, alone):
            axes.set_xlabel("frame t")
            time_axis(axes, setting.context + 1, setting.frames)
            draw_best(axes, data, setting)
        if data.best_predictors:
            legend.append(
                Line2D([], [], color="black", linewidth=0.6, linestyle=BEST_LINE, label="Best from last k frames")
            )
        finish(figure, title, [setting.seed_note("mean", interval="band")], legend)

"""One panel a variant: the gradient norm by layer and time, and by the way it came."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap
from matplotlib.lines import Line2D

from benchmark.reporting.figures.figure_data import FigureData, norms_of
from benchmark.reporting.figures.style import (
    Setting,
    empty_figure,
    finish,
    nothing_to_draw,
    page,
    panel_columns,
    panel_grid,
    time_axis,
)
from benchmark.reporting.statistics import summarise_seeds

COLORS = "viridis"
"""Its lightness rises all the way, so that it reads the same printed grey and to the colour-blind."""
DECADES = 6
"""What lies lower than this many decades is drawn in the darkest colour, or not."""
HIGHWAY_ROW = 0.75
"""Height of the row of the highway, in that of a layer."""
MOST_STEPS = 12
"""Steps of the colour scale; more cannot be told apart."""

PATHS = {
    "residual": ("all", {"color": "#000000", "linestyle": "-", "marker": "o"}),
    "memory": ("through memory alone", {"color": "#0072B2", "linestyle": (0, (5, 1.5)), "marker": "s"}),
    "frames": ("through generated frames alone", {"color": "#D55E00", "linestyle": (0, (1, 1.3)), "marker": "^"}),
}
"""Measure -> what is drawn of it, and how."""


def gradient_heatmap(data: FigureData, title: str, paths: Sequence[Path]) -> None:
    """Layer x time of the gradient norm of H and, where it sits between two layers, of the highway's Z."""
    stage, words = data.probed.last_stage
    title = f"{title}, {words}"
    norms = data.norms[(data.norms["stage"] == stage) & data.norms["state"].isin(["H", "Z"])]
    setting = data.probed.only(set(norms["variant"]))
    if not setting.looks:
        empty_figure(title, nothing_to_draw(data.probed, "state H"), setting, paths)
        return
    maps = {variant: layer_map(norms[norms["variant"] == variant], setting.context) for variant in setting.looks}
    scale, colors, below = color_scale(np.concatenate([one.to_numpy().ravel() for one in maps.values()]))
    deepest = max(int(one.index.get_level_values("layer").max()) for one in maps.values())
    columns = panel_columns(len(maps))
    tall = row_places(deepest)[-1] + 1
    with page(paths, height=(0.42 + 0.13 * tall) * math.ceil(len(maps) / columns) + 0.6) as figure:
        panels = panel_grid(figure, setting.looks, "frame t")
        for variant, axes in panels.items():
            draw_map(axes, maps[variant], setting.looks[variant].label, deepest, setting, scale, colors)
        bar = figure.colorbar(
            ScalarMappable(scale, colors),
            ax=list(panels.values()),
            location="bottom",
            shrink=0.6,
            aspect=50,
            extend="min" if below else "neither",
        )
        bar.set_label(f"norm / norm of all H at t = {setting.context}")
        ticks = [level for level in scale.boundaries if float(level).is_integer()]
        bar.set_ticks(ticks, labels=[f"$10^{{{int(level)}}}$" for level in ticks])
        bar.ax.minorticks_off()
        finish(figure, title, [setting.seed_note("geometric mean")])


def layer_map(norms: pd.DataFrame, context: int) -> pd.DataFrame:
    """log10 of norms relative to that of all H at t = `context`, mean over seeds: a row a state, bottom first."""
    table = norms.pivot_table(index=["seed", "layer", "state"], columns="t", values="log_norm") / math.log(10)
    hidden = table.xs("H", level="state")[context]
    total = hidden.groupby(level="seed").apply(lambda logs: 0.5 * np.log10((10.0 ** (2 * logs)).sum()))
    return table.sub(total, axis=0, level="seed").groupby(level=["layer", "state"]).mean()


def row_places(layers: int) -> list[float]:
    """Where the row of each layer begins, in heights of one, with room for the highway between two of them."""
    return [layer * (1 + HIGHWAY_ROW) for layer in range(layers)]


def color_scale(values: np.ndarray) -> tuple[BoundaryNorm, Colormap, bool]:
    """Equal steps of log10 that hold `values`, their colours, and whether some values lie below the lowest step."""
    values = values[np.isfinite(values)]
    top = math.ceil(2 * values.max()) / 2
    bottom = max(math.floor(2 * values.min()) / 2, top - DECADES)
    step = next(step for step in (0.1, 0.25, 0.5, 1.0) if (top - bottom) / step <= MOST_STEPS)
    levels = np.arange(bottom, top + step / 2, step)
    colors = matplotlib.colormaps[COLORS].with_extremes(under="black", bad="white")
    below = bool((values < bottom - 1e-9).any())
    return BoundaryNorm(levels, colors.N, extend="min" if below else "neither"), colors, below


def draw_map(
    axes: Axes, one: pd.DataFrame, label: str, deepest: int, setting: Setting, scale: BoundaryNorm, colors: Colormap
) -> None:
    """Draw the rows of `one` from the bottom of a panel with room for the `deepest` network, `label` on top.

    The highway stands in the space that is left between its layers, so that layers of all panels are aligned.
    """
    times = np.arange(one.columns[0] - 0.5, one.columns[-1] + 1)  # pyright: ignore[reportOperatorIssue]  # columns are times
    places, top = row_places(deepest), row_places(int(one.index.get_level_values("layer").max()))[-1] + 1
    for (layer, state), row in one.iterrows():  # pyright: ignore[reportGeneralTypeIssues]  # keys of the index
        bottom = places[layer - 1] + (state == "Z")
        edges = [bottom, bottom + (HIGHWAY_ROW if state == "Z" else 1)]
        axes.pcolormesh(times, edges, row.to_numpy()[None], norm=scale, cmap=colors, rasterized=False)
        name = f"{layer}" if state == "H" else state
        axes.text(0.1, sum(edges) / 2, name, ha="right", va="center_baseline", fontsize=7)
    axes.grid(visible=False)
    time_axis(axes, 1, setting.frames - 1)
    axes.set_ylim(0, places[-1] + 1)
    axes.set_title(label, y=top / (places[-1] + 1), pad=3, fontsize=7)
    axes.vlines(setting.context + 0.5, 0, top, color="black", linewidth=1.8)
    axes.vlines(setting.context + 0.5, 0, top, color="white", linewidth=0.9)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def gradient_paths(data: FigureData, title: str, paths: Sequence[Path]) -> None:
    """Norm with respect to the context frames: all of it, through memory alone, through generated frames alone."""
    stage, words = data.probed.last_stage
    title = f"{title}, {words}"
    norms = norms_of([run for run in data.shown if run.variant in data.probed.looks], *PATHS)
    norms = norms[(norms["stage"] == stage) & (norms["state"] == "X")]
    setting = data.probed.only(set(norms.loc[norms["measure"] == "memory", "variant"]))
    if not setting.looks:
        empty_figure(title, nothing_to_draw(data.probed, "way through memory alone"), setting, paths)
        return
    with page(paths, height=1.35 * math.ceil(len(setting.looks) / panel_columns(len(setting.looks))) + 0.35) as figure:
        drawn: dict[str, list[float]] = {measure: [] for measure in PATHS}
        panels = panel_grid(figure, setting.looks, "context frame t")
        for variant, axes in panels.items():
            table = norms[norms["variant"] == variant].pivot_table(
                index=["seed", "measure"], columns="t", values="log_norm"
            )
            last = table.xs("residual", level="measure")[setting.context]
            relative = table.sub(last, axis=0, level="seed")
            for measure, (_, style) in PATHS.items():
                drawn[measure] += draw_path(axes, relative.xs(measure, level="measure"), style)  # pyright: ignore[reportArgumentType]  # one level of two leaves a table
            axes.set_yscale("log", nonpositive="mask")
            time_axis(axes, 1, setting.context)
        figure.supylabel(f"norm at t / all at t = {setting.context}", fontsize=7.5)
        cut = limit_decades(axes, [value for values in drawn.values() for value in values])
        facts = [end_note(cut, drawn), setting.seed_note("geometric mean", interval="band")]
        legend = [Line2D([], [], label=label, **marked(style)) for label, style in PATHS.values()]
        finish(figure, title, facts, legend)


def end_note(cut: float | None, drawn: Mapping[str, Sequence[float]]) -> str:
    """A sentence that says where the axis is `cut`, and which measures of `drawn` lie below it; empty if it is not."""
    if not cut:
        return ""
    below = [f"'{label}'" for measure, (label, _) in PATHS.items() if max(drawn[measure]) < cut]
    return f"The axis ends at {cut:.0e}, above {' and '.join(below) or 'some of the lines'}."


def marked(style: dict[str, Any]) -> dict[str, Any]:
    """`style` with hollow markers, which hide no line below them."""
    return style | {"markerfacecolor": "white"}


def draw_path(axes: Axes, logs: pd.DataFrame, style: dict[str, Any]) -> list[float]:
    """Geometric mean over seeds and, where there are enough, its interval: one row a seed, one column a time.

    Returns:
        The means.
    """
    found = [summarise_seeds(list(logs[t])) for t in logs.columns]
    mean, low, high = (np.exp([getattr(one, key) for one in found]) for key in ("mean", "low", "high"))
    axes.plot(logs.columns, mean, markevery=(0, max(1, len(found) // 4)), **marked(style))
    axes.fill_between(logs.columns, low, high, color=style["color"], alpha=0.15, linewidth=0)
    return mean.tolist()


def limit_decades(axes: Axes, means: Sequence[float]) -> float | None:
    """Limit a log axis to what `means` span, of which not more than `DECADES`; returns its end where it cuts some."""
    means = [value for value in means if np.isfinite(value) and value > 0]
    if not means:
        return None
    bottom = max(min(means), max(means) / 10**DECADES)
    axes.set_ylim(bottom / 2, 2 * max(means))
    return bottom / 2 if min(means) < bottom / 2 else None

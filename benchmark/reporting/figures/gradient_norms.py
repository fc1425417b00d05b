"""Figures of the probe: how the gradient of the last predicted frame falls with time, by state, layer and variant."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from benchmark.config.probe_stages import ENDS
from benchmark.config.protocol import Protocol, RunConfig
from benchmark.config.variant_groups import highway_pairs
from benchmark.evaluation.ideal_line import line_weights
from benchmark.reporting.figures.figure_data import FigureData
from benchmark.reporting.figures.style import (
    MARKERS,
    Look,
    Setting,
    cut_note,
    draw_seeds,
    empty_figure,
    finish,
    handles,
    lighten,
    limit_to_lines,
    log_ticks,
    nothing_to_draw,
    page,
    panel_columns,
    panel_grid,
    time_axis,
)
from benchmark.system.parquet import read_parquet

STATES = {"X": "frame X", "H": "hidden H", "C": "memory C", "M": "zigzag M", "Z": "highway Z"}
IDEAL = {"color": "black", "linewidth": 0.8, "linestyle": (0, (1, 1)), "label": "ideal line (see caption)"}
UNTRAINED_LINE = (0, (3, 1.2))


def gradient_norm(data: FigureData, title: str, paths: Sequence[Path]) -> None:
    """Every variant in one panel a state, before and after training, relative to the last context frame."""
    if data.probed.looks:
        draw_states(data.norms, data.probed, title, paths, ideal_line=has_ideal_line(data.protocol))
    else:
        empty_figure(title, "Every run diverged.", data.probed, paths)


def state_gradient(data: FigureData, state: str, highway: bool, paths: Sequence[Path]) -> None:
    """`gradient_norm` of one state, of the variants with a `highway` or of those without one."""
    norms, setting, title = data.norms, data.probed, f"Gradient of {STATES[state]}"
    if len(norms):
        with_highway = set(norms.loc[norms["state"] == "Z", "variant"])
        norms = norms[(norms["state"] == state) & (norms["variant"].isin(with_highway) == highway)]
    if len(norms):
        shown = setting.only(norms["variant"].unique())
        draw_states(norms, shown, title, paths, ideal_line=has_ideal_line(data.protocol) and state == "X")
    else:
        words = "with" if highway else "without"
        empty_figure(title, f"No variant shown here {words} highway has this state.", setting, paths)


def draw_states(norms: pd.DataFrame, setting: Setting, title: str, paths: Sequence[Path], *, ideal_line: bool) -> None:
    """A panel a state and probe stage, a line a variant of `setting`; `norms` as `norms_of` gives them.

    Args: `ideal_line`: draw the weights of an ideal extrapolator beside the gradients of the frames X.
    """
    states = [state for state in STATES if state in set(norms["state"])]
    last = {state: int(norms.loc[norms["state"] == state, "t"].max()) for state in states}
    with page(paths, height=0.3 + 2.0 * len(setting.stages)) as figure:
        grid = figure.subplots(len(setting.stages), len(states), sharey="row", squeeze=False)
        cut = False
        for row, (stage, words) in zip(grid, setting.stages.items(), strict=True):
            means: list[float] = []
            for axes, state in zip(row, states, strict=True):
                rows = norms[(norms["stage"] == stage) & (norms["state"] == state)]
                for number, (variant, style) in enumerate(setting.looks.items()):
                    relative = relative_to(setting.context, rows[rows["variant"] == variant])
                    if len(relative):
                        means += draw_seeds(axes, relative, style, number, log=True)
                axes.set_yscale("log", nonpositive="mask")
                time_axis(axes, 1, last[state], setting.context)
                if ideal_line and state == "X":
                    axes.plot(range(1, setting.context + 1), relative_weights(setting), **IDEAL)
            cut |= limit_to_lines(row[0], means)
            row[0].set_ylabel(f"{words}\nnorm at t / norm at t = {setting.context}")
        for axes, state in zip(grid[0], states, strict=True):
            axes.set_title(STATES[state])
        for axes in grid[-1]:
            axes.set_xlabel("frame t")
        facts = [setting.seed_note("geometric mean", interval="band"), cut_note(cut, setting)]
        finish(figure, title, facts, handles(setting.looks) + [Line2D([], [], **IDEAL)] * ideal_line)


def highway_effect(data: FigureData, title: str, paths: Sequence[Path]) -> None:
    """The gradient at the frames X after training: a panel a cell, a line with the highway and one without."""
    setting, protocol = data.probed, data.protocol
    pairs = [pair for pair in highway_pairs(protocol) if setting.looks.keys() >= {*pair}]
    if not pairs:
        empty_figure(title, "Of no pair have both variants learnt.", setting, paths)
        return
    stage, words = setting.last_stage
    norms = data.norms[(data.norms["state"] == "X") & (data.norms["stage"] == stage)]
    means: list[float] = []
    names = {entry.id: entry.registered.label for entry in protocol.variants}
    with page(paths, height=2.6) as figure:
        row = figure.subplots(1, len(pairs), sharey=True, squeeze=False)[0]
        for axes, pair in zip(row, pairs, strict=True):
            lines = []
            for number, variant in enumerate(reversed(pair)):
                relative = relative_to(setting.context, norms[norms["variant"] == variant])
                means += draw_seeds(axes, relative, setting.looks[variant], 2 * number, log=True)
                lines.append(labelled(protocol.first_run(variant), len(relative), setting.looks[variant]))
            axes.set_yscale("log", nonpositive="mask")
            time_axis(axes, 1, setting.context)
            if has_ideal_line(protocol):
                axes.plot(range(1, setting.context + 1), relative_weights(setting), **IDEAL)
            axes.set_title(names[pair[1]])
            axes.set_xlabel("context frame t")
            axes.legend(handles=lines, loc="upper center", bbox_to_anchor=(0.5, -0.3), fontsize=6.5, handlelength=2.6)
        cut = limit_to_lines(row[0], means)
        log_ticks(row[0], "y")
        row[0].set_ylabel(f"gradient norm, {words},\nover that at t = {setting.context}")
        ideal = [Line2D([], [], **IDEAL)] if has_ideal_line(protocol) else []
        how = "n: seeds that have learnt; geometric mean; band: 95 % t interval over seeds."
        finish(figure, title, [how if setting.seeds[0] > 1 else setting.seed_note(""), cut_note(cut, setting)], ideal)


def labelled(run: RunConfig, n: int, look: Look) -> Line2D:
    """The entry of a variant in the legend of its panel: with a highway or without, learning rate, number of seeds."""
    word = "with highway" if run.model.highway_slot else "without"
    return Line2D([], [], label=f"{word}: rate {run.training.learning_rate:g}, n = {n}", **look.style(1))


def has_ideal_line(protocol: Protocol) -> bool:
    """Whether positions are what has to be continued, of which a straight line needs two."""
    return protocol.data.known_motion and protocol.data.context > 1


def relative_weights(setting: Setting) -> np.ndarray:
    """Size of the weights of a straight line through the context in its place in the last predicted frame."""
    weights = np.abs(line_weights(setting.context, setting.frames - setting.context))
    return weights / weights[-1]


def relative_to(context: int, rows: pd.DataFrame) -> pd.DataFrame:
    """Log norm minus that at t = `context`, mean over layers: one row a seed, one column a time t."""
    table = rows.pivot_table(index=["seed", "layer"], columns="t", values="log_norm", sort=True)
    return table.sub(table[context], axis=0).groupby(level="seed").mean() if len(table) else table


def gradient_norm_layers(data: FigureData, title: str, paths: Sequence[Path]) -> None:
    """H by layer and Z, one panel a variant, before and after training."""
    norms = data.norms[data.norms["state"].isin(["H", "Z"]) & data.norms["stage"].isin(data.probed.stages)]
    setting = data.probed.only(set(norms["variant"]))
    if not setting.looks:
        empty_figure(title, nothing_to_draw(data.probed, "state H"), setting, paths)
        return
    mean = norms.groupby(["variant", "stage", "state", "layer", "t"])["log_norm"].mean()
    layers = int(norms["layer"].max())
    both = len(setting.stages) > 1
    with page(paths, height=1.5 * math.ceil(len(setting.looks) / panel_columns(len(setting.looks))) + 0.35) as figure:
        panels = panel_grid(figure, setting.looks, "frame t")
        for variant, axes in panels.items():
            for (stage, state, layer), logs in mean[variant].groupby(level=["stage", "state", "layer"]):
                points = logs.droplevel(["stage", "state", "layer"])
                style = layer_style(state, layer, layers, stage if both else "trained")
                axes.plot(points.index, np.exp(points), **style)
            axes.set_yscale("log", nonpositive="mask")
            time_axis(axes, 1, setting.frames - 1, setting.context)
            if axes.get_subplotspec().is_first_col():  # pyright: ignore[reportOptionalMemberAccess]  # made by a grid
                axes.set_ylabel("gradient norm")
        finish(
            figure,
            title if both else f"{title}, {setting.stages['init']}",
            [setting.seed_note("geometric mean")],
            layer_handles(layers, highway="Z" in set(norms["state"]), both=both),
        )


def draw_probe(run: RunConfig, results_dir: Path) -> None:
    """Write `probe.png` of a run beside its `probe.parquet`."""
    folder = run.path(results_dir)
    norms = read_parquet(folder / "probe.parquet")
    probe_figure(norms, f"{run.label}, seed {run.seed}", folder / "probe.png", run.data.context)


def probe_figure(norms: pd.DataFrame, title: str, path: Path, context: int) -> None:
    """Write the gradient norms of one run: a panel a state, a line a layer, before and after training if there was any.

    Args:
        norms: `probe.parquet`.
        title: the run.
        path: PNG to write.
        context: number of given frames.
    """
    both = bool(norms["step"].any())
    norms = norms[(norms["measure"] == "residual") & norms["stage"].isin(ENDS if both else ["init"])]
    states = [state for state in STATES if state in set(norms["state"])]
    layers, frames = int(norms["layer"].max()), int(norms["t"].max()) + 1
    last = norms.groupby("state")["t"].max()
    with page([path], height=2.1, width=max(7.0, 2.1 * len(states))) as figure:
        ratios = [max(last[state], frames / 2) for state in states]
        row = figure.subplots(1, len(states), sharey=True, squeeze=False, width_ratios=ratios)[0]
        for axes, state in zip(row, states, strict=True):
            rows = norms[norms["state"] == state]
            for (stage, layer), group in rows.groupby(["stage", "layer"]):
                quartiles = group.groupby("t")["norm"].quantile([0.25, 0.5, 0.75]).unstack()  # pyright: ignore[reportArgumentType]  # pandas takes a list
                style = layer_style(state, layer, layers, stage if both else "trained")  # pyright: ignore[reportArgumentType]  # keys of a group
                axes.plot(quartiles.index, quartiles[0.5], **style)
                axes.fill_between(
                    quartiles.index, quartiles[0.25], quartiles[0.75], color=style["color"], alpha=0.15, linewidth=0
                )
            axes.set_yscale("log", nonpositive="mask")
            axes.set_title(STATES[state])
            axes.set_xlabel("frame t")
            time_axis(axes, 1, int(last[state]), context)
        row[0].set_ylabel("gradient norm")
        what = (
            f"Gradient of the squared error of the last predicted frame (t = {frames}) with respect to a state at t, L2"
            f" norm; median and quartiles over {norms['clip'].nunique()} clips. Grey: horizon, where the network is fed"
            " its own predictions."
        )
        legend = layer_handles(layers, highway=False, both=both)
        finish(figure, title if both else f"{title}, untrained", [what, "n = 1: ranks nothing."], legend)


def layer_style(state: str, layer: int, layers: int, stage: str) -> dict[str, Any]:
    """Keywords for `Axes.plot`: shade and marker by layer, from dark at the bottom; X and Z black; untrained dashed."""
    depth = 0.9 * (layer - 1) / max(1, layers - 1)
    color = "#000000" if state in "XZ" else to_hex(matplotlib.colormaps["viridis"](depth))
    marker = {"X": "", "Z": "x"}.get(state, MARKERS[(layer - 1) % len(MARKERS)])
    style = {"color": color, "linestyle": "-", "marker": marker, "markersize": 2.6, "markevery": ((layer - 1) % 4, 4)}
    if stage == "init":
        return style | {"color": lighten(color, 0.45), "linestyle": UNTRAINED_LINE, "linewidth": 0.9}
    return style


def layer_handles(layers: int, *, highway: bool, both: bool = True) -> list[Line2D]:
    """Entries of a legend: the layers, the highway, and, where there are `both`, the line styles of the stages."""
    words = {("H", layer): f"layer {layer}" for layer in range(1, layers + 1)}
    words |= {("Z", 1): "highway Z"} if highway else {}
    lines = [Line2D([], [], label=label, **layer_style(*key, layers, "trained")) for key, label in words.items()]
    stages = {"init": UNTRAINED_LINE, "trained": "-"} if both else {}
    return lines + [Line2D([], [], color="#666666", linestyle=line, label=ENDS[key]) for key, line in stages.items()]

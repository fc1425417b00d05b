"""Ablation figures: error, reach and openness by where the highway sits, and by depth."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from benchmark.config.metrics import METRICS
from benchmark.config.protocol import Protocol
from benchmark.config.variant_groups import Series, common, depth_series, place, slot_series
from benchmark.reporting.figures.figure_data import FigureData
from benchmark.reporting.figures.openness import mean_openness
from benchmark.reporting.figures.style import (
    PLAIN_DECADES,
    Look,
    Setting,
    finish,
    handles,
    left_out,
    lighten,
    log_ticks,
    looks_of,
    page,
)
from benchmark.reporting.finished_runs import FinishedRun
from benchmark.reporting.statistics import summarise_seeds


@dataclass(frozen=True)
class Measure:
    """A number of a run, and how an axis shows it."""

    label: str
    of: Callable[[FinishedRun], float | None]
    """None where a run has none."""
    log: bool = False


ERROR = Measure(METRICS["mse"].head, lambda run: float(run.scores["mse"]))


def reach_measure(stage: str, words: str) -> Measure:
    """Reach at a stage; None where a norm is 0 or not finite, and after training of a run that has not learnt."""

    def reach(run: FinishedRun) -> float | None:
        return run.probe[stage]["residual"]["reach"] if run.learnt or stage == "init" else None

    return Measure(f"reach {words}", reach, log=True)


def openness_measure(stage: str, words: str) -> Measure:
    """Openness of the highway at a stage; None without one."""
    return Measure(f"openness {words}", lambda run: mean_openness(run, stage))


def slots(data: FigureData, title: str, paths: Sequence[Path]) -> None:
    """Error, reach and openness by highway slot, a line a cell; no error where nothing is trained."""
    runs, setting = data.runs, data.every
    found = [replace(one, label=slot_label(one, data.protocol)) for one in slot_series(data.protocol)]
    stage = setting.last_stage
    measures = [*errors(setting), reach_measure(*stage), openness_measure(*stage)]
    with page(paths, height=2.3) as figure:
        panels = list(figure.subplots(1, len(measures)))
        looks = draw_ablation(panels, measures, found, runs)
        panels[-1].set_ylim(0, 1)
        words = slot_words(found)
        for axes in panels:
            axes.set_xticks(list(words), list(words.values()))
            axes.set_xlim(min(words) - 0.4, max(words) + 0.4)
            axes.set_xlabel("highway slot")
        finish(figure, title, seed_notes(found, runs, setting), handles(looks))


def slot_label(one: Series, protocol: Protocol) -> str:
    """The labels of its variants without a highway and with one; the first alone would name another network."""
    groups = {
        "no highway": [protocol.first_run(variant).label for slot, variant in one.members if not slot],
        "highway": [protocol.first_run(variant).label for slot, variant in one.members if slot],
    }
    return ", ".join(f"{common(labels)} ({words})" for words, labels in groups.items() if labels)


def depth(data: FigureData, title: str, paths: Sequence[Path]) -> None:
    """Error and reach by number of layers, a line a cell and place of the highway; no error if nothing is trained."""
    protocol, runs, setting = data.protocol, data.runs, data.every
    found = depth_series(protocol)
    far = reach_measure(*setting.last_stage)
    near = quartile_fences(far, found, runs)
    measures = [*errors(setting), far, *([replace(far, label=f"{far.label}, enlarged")] if near else [])]
    with page(paths, height=2.6) as figure:
        panels = list(figure.subplots(1, len(measures), squeeze=False)[0])
        looks = draw_ablation(panels, measures, found, runs)
        if near:
            panels[-1].set_ylim(near)
            log_ticks(panels[-1], "y")
        depths = sorted({layers for one in found for layers in one.numbers})
        for axes in panels:
            axes.set_xticks(depths)
            axes.set_xlabel("layers")
        facts = [width_note(protocol, found), *seed_notes(found, runs, setting)]
        finish(figure, title, facts, handles(looks))


def quartile_fences(
    measure: Measure, found: Sequence[Series], runs: Sequence[FinishedRun]
) -> tuple[float, float] | None:
    """Limits of a logarithmic axis that shows most seeds well; None where they span few decades anyhow."""
    values = [value for one in found for _, variant in one.members for value in measured(measure, variant, runs)]
    if not values or math.log10(max(values) / min(values)) <= PLAIN_DECADES:
        return None
    low, high = np.quantile(np.log(values), [0.25, 0.75])
    margin = 1.5 * (high - low)
    return math.exp(low - margin), math.exp(high + margin)


def errors(setting: Setting) -> list[Measure]:
    """The error, if anything is trained."""
    return [ERROR] if "trained" in setting.stages else []


def slot_words(found: Sequence[Series]) -> dict[int | float, str]:
    """Slot -> what stands below it on the axis: its number and, where that is the same in all series, its name."""
    words: dict[int | float, str] = {}
    for slot in sorted({slot for one in found for slot in one.numbers}):
        names = {place(replace(one.spec, highway_slot=slot, highway_channels=None)) for one in found}
        words[slot] = "none" if not slot else f"{slot}\n{names.pop()}" if len(names) == 1 else str(slot)
    return words


def draw_ablation(
    panels: Sequence[Axes], measures: Sequence[Measure], found: Sequence[Series], runs: Sequence[FinishedRun]
) -> dict[str, Look]:
    """Draw every series into every panel, one a measure; returns the looks of the series."""
    looks = looks_of({one.label: (one.label, one.spec) for one in found})
    step = min(np.diff(sorted({number for one in found for number in one.numbers})))
    shifts = min(0.12, 0.6 / len(found)) * step * (np.arange(len(found)) - (len(found) - 1) / 2)
    for axes, measure in zip(panels, measures, strict=True):
        for shift, one, look in zip(shifts, found, looks.values(), strict=True):
            places = [number + shift for number, _ in one.members]
            values = [measured(measure, variant, runs) for _, variant in one.members]
            draw_series(axes, places, values, look, 0.035 * step, log=measure.log)
        axes.set_ylabel(measure.label)
        if measure.log:
            axes.set_yscale("log")
            log_ticks(axes, "y")
    return looks


def measured(measure: Measure, variant: str, runs: Sequence[FinishedRun]) -> list[float]:
    """A measure of the runs of a variant that did not diverge and have it."""
    found = [measure.of(run) for run in runs if run.variant == variant and not run.diverged]
    return [value for value in found if value is not None]


def draw_series(
    axes: Axes, places: Sequence[float], values: Sequence[Sequence[float]], look: Look, beside: float, *, log: bool
) -> None:
    """Mean (if `log` the geometric one) and interval at each place, joined by a line; seeds `beside` them."""
    into, back = (np.log, np.exp) if log else (np.asarray, np.asarray)
    found = [summarise_seeds(into(one).tolist()) for one in values]
    means, lows, highs = (back([getattr(one, key) for one in found]) for key in ("mean", "low", "high"))
    small = {"linestyle": "", "marker": "o", "markersize": 2, "markeredgewidth": 0, "color": lighten(look.color, 0.4)}
    for x, one, low, high in zip(places, values, lows, highs, strict=True):
        if len(one) > 1:
            axes.plot([x + beside] * len(one), one, **small)
        if math.isfinite(low):
            axes.plot([x, x], [low, high], color=look.color, linewidth=1.3)
    axes.plot(places, means, **look.style(1))


def seed_notes(found: Sequence[Series], runs: Sequence[FinishedRun], setting: Setting) -> list[str]:
    """What is drawn of how many seeds, and which of the runs shown have no reach or diverged."""
    shown = {variant for one in found for _, variant in one.members}
    runs = [run for run in runs if run.variant in shown]
    measure = reach_measure(*setting.last_stage)
    names = [f"{run.label} (seed {run.seed})" for run in runs if not run.diverged and measure.of(run) is None]
    unlearnt = "the run has not learnt, or " if not all(run.learnt for run in runs) else ""
    return [
        f"No reach, since {unlearnt}a gradient is 0 or not finite: {', '.join(names)}." if names else "",
        replace(setting, left_out=left_out(runs)).seed_note("mean and, small, each seed", interval="line"),
    ]


def width_note(protocol: Protocol, found: Sequence[Series]) -> str:
    """A sentence that names the lines along which the width of layers differs; empty if it does along none."""
    unequal = []
    for one in found:
        runs = [protocol.first_run(variant) for _, variant in one.members]
        if len({width for run in runs for width in run.model.hidden_channels}) > 1:
            unequal.append(one.label)
    return f"The width of layers differs with depth in {', '.join(unequal)}." if unequal else ""

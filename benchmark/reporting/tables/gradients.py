"""The table of how far back gradients reach."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmark.config.probe_stages import ends, stages
from benchmark.evaluation.gradient_decay import inner_slope
from benchmark.reporting.finished_runs import FinishedRun, VariantRuns, by_variant
from benchmark.reporting.protocol_results import ProtocolResults
from benchmark.reporting.statistics import summarise_seeds
from benchmark.reporting.tables.notes import diverged_notes, learnt_notes, reuse_notes, seed_note
from benchmark.reporting.tables.rendering import MISSING, Table, interval, number
from benchmark.reporting.tables.scores import learnt_cell, seeds_cell

ENDS = {"": "mean", "_low": "low", "_high": "high"}
"""Ends of the names of columns -> what they hold."""
MEASURES = {"residual": "", "fixed": "_fixed", "memory": "_memory", "frames": "_frames"}
"""Measure of the probe -> what the names of its columns add."""
PARTS = ("memory", "frames")
"""Measures of one way alone, parts of the residual's."""
FIT = ("slope", "slope_low", "slope_high", "r2")
STAGE_WORDS = {"init": "untrained", "trained": "trained"}
"""Stage -> its name in the heads of columns."""


def probe_table(results: ProtocolResults, title: str) -> Table:
    """Slope, reach, openness and saturation: in the CSV at every stage, for people before and after training."""
    protocol, runs = results.protocol, results.runs
    values, cells = [], []
    for group in by_variant([run for run in runs if run.config]):
        rows = {stage: stage_row(group, stage) for stage in stages(protocol)}
        counted = {stage: {"learnt": len(group.probed(stage))} if protocol.learnt else {} for stage in rows}
        values += [row | counted[stage] for stage, row in rows.items()]
        cell = {"Model": group.label, "n": seeds_cell(group)} | learnt_cell(protocol, group)
        for stage in ends(protocol):
            cell |= stage_cells(rows[stage], STAGE_WORDS[stage])
        cells.append(cell)
    notes = [
        "Gradient of the summed squared error of the last predicted frame with respect to each context frame, L2 norm"
        f" per clip, float64, on {protocol.probe.clips} test clips; the network feeds on its own predictions. Fixed: of"
        " one random direction of that frame in place of its error.",
        "Slope: of log2 of that norm per frame of age, least squares over context frames 2 to K - 1: frame 1, where all"
        " states are zero, and frame K, next to the network's own predictions, are left out. At -1 the norm halves with"
        " each frame of age, at 0 it does not decay.",
        "X1 / XK: geometric mean over clips and seeds of the norm at the first / at the last context frame, with the"
        f" interval of its logarithm. {MISSING}: a norm is 0 or not finite, K is too small, or there is no highway.",
        "Memory alone at XK: norm at the last context frame with the way through generated frames cut, over that of all"
        " ways; what it lacks comes by ways that change between memory and frames. The CSV has that of frames alone.",
        "The CSV has the half-life too, in frames, which leaves out seeds whose gradients do not decay (`no_decay`),"
        " and slope and R² of a fit to all context frames.",
        "Openness: mean of the highway's carry gate (1 - S) over units, steps and clips; 1 keeps the past, 0 replaces"
        " it. Saturated: share of units whose sigmoid lies below 0.05 or above 0.95, or whose tanh beyond 0.9; mean"
        " over layers and gates.",
        seed_note(protocol),
        *reuse_notes(runs),
        *diverged_notes(runs),
        *learnt_notes(results),
    ]
    return Table(title, pd.DataFrame(values), pd.DataFrame(cells), notes)


def stage_row(group: VariantRuns, stage: str) -> dict[str, Any]:
    """The row of the CSV for a variant at a stage; the columns of the residual have no suffix."""
    probes = [run.probe[stage] for run in group.probed(stage)]
    row: dict[str, Any] = {"variant": group.variant, "label": group.label, "n": group.n, "stage": stage}
    row["step"] = max((probe["step"] for probe in probes), default=math.nan)
    for measure, suffix in MEASURES.items():
        found = [probe[measure] for probe in probes if measure in probe]
        reach = summarise_seeds([math.log(one["reach"]) if one["reach"] else math.nan for one in found])
        row |= {f"reach{suffix}{end}": math.exp(getattr(reach, key)) for end, key in ENDS.items()}
        row |= slope_columns(group.probed(stage), stage, measure, suffix)
        row |= part_columns(group.probed(stage), stage, measure, suffix) if measure in PARTS else {}
        row |= decay_columns(found, suffix) if measure in ("residual", "fixed") else {}
    openness = summarise_seeds([float(np.mean(probe["openness"])) for probe in probes if probe["openness"]])
    row |= {f"openness{end}": getattr(openness, key) for end, key in ENDS.items()}
    shares = [{gate: float(np.mean(layers)) for gate, layers in probe["saturated"].items()} for probe in probes]
    saturated = summarise_seeds([float(np.mean(list(share.values()))) for share in shares if share])
    row |= {f"saturated{end}": getattr(saturated, key) for end, key in ENDS.items()}
    gates = shares[0] if shares else ()
    return row | {f"saturated_{gate}": summarise_seeds([share[gate] for share in shares]).mean for gate in gates}


def decay_columns(found: Sequence[dict[str, Any]], suffix: str) -> dict[str, Any]:
    """Half-life, slope and R2 over seeds; `slope_fit`: means of the ends of the interval that each seed's fit has."""
    half = summarise_seeds([one["half_life"] for one in found if one["half_life"] is not None])
    row: dict[str, Any] = {f"half_life{suffix}{end}": getattr(half, key) for end, key in ENDS.items()}
    fits = {key: summarise_seeds([one[key] for one in found if one[key] is not None]) for key in FIT}
    row |= {f"slope{suffix}{end}": getattr(fits["slope"], key) for end, key in ENDS.items()}
    row |= {f"slope_fit{suffix}{end}": fits[f"slope{end}"].mean for end in ("_low", "_high")}
    row[f"r2{suffix}"] = fits["r2"].mean
    row[f"no_decay{suffix}"] = sum(one["half_life"] is None and one["slope"] is not None for one in found)
    return row


def slope_columns(runs: Sequence[FinishedRun], stage: str, measure: str, suffix: str) -> dict[str, float]:
    """The slope between the ends of the context, Eq. 22, over seeds."""
    curves = [run.frame_curves[stage, measure] for run in runs if (stage, measure) in run.frame_curves]
    found = summarise_seeds([inner_slope(curve) for curve in curves])
    return {f"inner_slope{suffix}{end}": getattr(found, key) for end, key in ENDS.items()}


def part_columns(runs: Sequence[FinishedRun], stage: str, measure: str, suffix: str) -> dict[str, float]:
    """Norm at the last context frame by one way alone over that by all ways, geometric mean over seeds."""
    curves = [run.frame_curves for run in runs if (stage, measure) in run.frame_curves]
    found = summarise_seeds([curve[stage, measure][-1] - curve[stage, "residual"][-1] for curve in curves])
    return {f"part{suffix}{end}": math.exp(getattr(found, key)) for end, key in ENDS.items()}


def stage_cells(row: dict[str, Any], words: str) -> dict[str, str]:
    """What people see of a row of the CSV."""
    return {
        f"Slope, {words} ↑": interval(*(row[f"inner_slope{end}"] for end in ENDS), 3, signed=True),  # pyright: ignore[reportCallIssue]  # three ends
        f"Slope, fixed, {words} ↑": interval(*(row[f"inner_slope_fixed{end}"] for end in ENDS), 3, signed=True),  # pyright: ignore[reportCallIssue]  # three ends
        f"X1 / XK, {words} ↑": interval(*(row[f"reach{end}"] for end in ENDS), 3, significant=True),  # pyright: ignore[reportCallIssue]  # three ends
        f"Memory alone at XK, {words}": number(row["part_memory"], 2),
        f"Openness, {words}": number(row["openness"], 2),
        f"Saturated, {words}": number(row["saturated"], 3),
    }

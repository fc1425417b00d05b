"""The table of how far back gradients reach."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmark.config.probe_stages import ends, stages
from benchmark.reporting.finished_runs import VariantRuns, by_variant
from benchmark.reporting.protocol_results import ProtocolResults
from benchmark.reporting.statistics import Summary, summarise_seeds
from benchmark.reporting.tables.notes import diverged_notes, learnt_notes, reuse_notes, seed_note
from benchmark.reporting.tables.rendering import MISSING, Table, interval, number
from benchmark.reporting.tables.scores import learnt_cell, seeds_cell

ENDS = {"": "mean", "_low": "low", "_high": "high"}
"""Ends of the names of columns -> what they hold."""
MEASURES = {"residual": "", "fixed": "_fixed", "memory": "_memory", "frames": "_frames"}
"""Measure of the probe -> what the names of its columns add."""
FIT = ("slope", "slope_low", "slope_high", "r2")
STAGE_WORDS = {"init": "untrained", "trained": "trained"}
"""Stage -> its name in the heads of columns."""


def probe_table(results: ProtocolResults, title: str) -> Table:
    """Reach, half-life, openness and saturation: in the CSV at every stage, for people before and after training."""
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
        "Reach: geometric mean over clips and seeds of the norm at the first / at the last context frame, with the"
        " interval of its logarithm.",
        "Half-life: from a log-linear fit of the norm over the context; `no decay` where the 95 % interval of the slope"
        " does not lie below 0 (with the number of seeds where others decay); R² is that fit's, and a low one says that"
        f" the decay is not exponential. {MISSING}: a norm is 0 or not finite, or there is no highway.",
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
        row |= decay_columns(found, suffix) if measure in ("residual", "fixed") else {}
    openness = summarise_seeds([float(np.mean(probe["openness"])) for probe in probes if probe["openness"]])
    row |= {f"openness{end}": getattr(openness, key) for end, key in ENDS.items()}
    shares = [{gate: float(np.mean(layers)) for gate, layers in probe["saturated"].items()} for probe in probes]
    saturated = summarise_seeds([float(np.mean(list(share.values()))) for share in shares])
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


def stage_cells(row: dict[str, Any], words: str) -> dict[str, str]:
    """What people see of a row of the CSV."""
    half = Summary(0, row["half_life"], math.nan, row["half_life_low"], row["half_life_high"])
    return {
        f"Reach, {words} ↑": interval(*(row[f"reach{end}"] for end in ENDS), 3, significant=True),  # pyright: ignore[reportCallIssue]  # three ends
        f"Reach, fixed, {words} ↑": interval(*(row[f"reach_fixed{end}"] for end in ENDS), 3, significant=True),  # pyright: ignore[reportCallIssue]  # three ends
        f"Half-life, {words} (frames) ↑": half_life(half, row["no_decay"]),
        f"R², {words}": number(row["r2"], 2),
        f"Openness, {words}": number(row["openness"], 2),
        f"Saturated, {words}": number(row["saturated"], 3),
    }


def half_life(frames: Summary, no_decay: int) -> str:
    """Half-life of the seeds that decay, with its interval only where all do, and how many do not."""
    if not no_decay:
        return interval(frames.mean, frames.low, frames.high, 2)
    return "no decay" if math.isnan(frames.mean) else f"{number(frames.mean, 2)} ({no_decay} no decay)"

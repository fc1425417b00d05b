"""Tables of how far back learning reaches: by gradients, and by the error where a digit was hidden."""

import math
from typing import Any

import numpy as np
import pandas as pd

from benchmark.config import Protocol
from benchmark.notes import data_note, definition_note, diverged_notes, reuse_notes, seed_note
from benchmark.rendering import MISSING, Table, digits, interval, number
from benchmark.runs import FinishedRun, by_variant
from benchmark.score_tables import score_cell, seeds_cell
from benchmark.statistics import Summary, summarise

ENDS = {"": "mean", "_low": "low", "_high": "high"}
"""Ends of the names of columns -> what they hold."""


def probe_table(protocol: Protocol, runs: list[FinishedRun]) -> Table:
    """Reach, half-life and highway openness at initialisation and after training."""
    values, cells = [], []
    for group in by_variant([run for run in runs if run.config]):
        cell = {"Model": group.label, "n": seeds_cell(group)}
        for stage, called in (("init", "untrained"), ("trained", "trained")):
            row: dict[str, Any] = {"variant": group.variant, "label": group.label, "n": group.n, "stage": stage}
            found = [run.probe[stage]["residual"] for run in group.kept]
            reach = summarise([math.log(one["reach"]) if one["reach"] else math.nan for one in found])
            row |= {f"reach{end}": math.exp(getattr(reach, key)) for end, key in ENDS.items()}
            half = summarise([one["half_life"] for one in found if one["half_life"] is not None])
            row |= {f"half_life{end}": getattr(half, key) for end, key in ENDS.items()}
            row |= {key: summarise([one[key] for one in found if one[key] is not None]).mean for key in ("slope", "r2")}
            row["no_decay"] = sum(one["half_life"] is None and one["slope"] is not None for one in found)
            openness = [
                float(np.mean(run.probe[stage]["openness"])) for run in group.kept if run.probe[stage]["openness"]
            ]
            row["openness"] = summarise(openness).mean
            values.append(row)
            limits = [row[f"reach{end}"] for end in ENDS]
            cell[f"Reach, {called} ↑"] = interval(*limits, 3, significant=True)
            cell[f"Half-life, {called} (frames) ↑"] = half_life(half, row["no_decay"])
            cell[f"R², {called}"] = number(row["r2"], 2)
            cell[f"Openness, {called}"] = number(row["openness"], 2) if openness else MISSING
        cells.append(cell)
    notes = [
        "Gradient of the summed squared error of the last predicted frame with respect to each context frame, L2 norm"
        f" per clip, float64, on {protocol.probe.clips} test clips; the network feeds on its own predictions.",
        "Reach: geometric mean over clips and seeds of the norm at the first / at the last context frame, with the"
        " interval of its logarithm.",
        "Half-life: from a log-linear fit of the norm over the context; `no decay` where the 95 % interval of the slope"
        " does not lie below 0 (with the number of seeds where others decay); R² is that fit's, and a low one says that"
        f" the decay is not exponential. {MISSING}: a norm is 0 or not finite.",
        "Openness: mean of 1 - S of the highway over units, steps and clips; 1 keeps the past, 0 replaces it.",
        seed_note(protocol),
        *reuse_notes(runs),
        *diverged_notes(runs),
    ]
    return Table("How far back gradients reach", pd.DataFrame(values), pd.DataFrame(cells), notes)


def half_life(frames: Summary, no_decay: int) -> str:
    """Half-life of the seeds that decay, with its interval only where all do, and how many do not."""
    if not no_decay:
        return interval(frames.mean, frames.low, frames.high, 2)
    return f"{number(frames.mean, 2)} ({no_decay} no decay)" if frames.n else "no decay"


def occlusion_table(protocol: Protocol, runs: list[FinishedRun]) -> Table:
    """Error in the box of the hidden digit: one row a variant and gap in the CSV; for people, one column a gap."""
    values, cells = [], []
    for group in by_variant(runs):
        cell = {"Model": group.label, "n": seeds_cell(group)}
        for gap in protocol.data.gaps:
            found = summarise([float(run.box_mse[gap]) for run in group.kept])
            row = {"variant": group.variant, "label": group.label, "n": group.n, "gap": gap}
            values.append(row | {f"box_mse_{key}": getattr(found, key) for key in ("mean", "sd", "low", "high")})
            cell[f"Gap {gap} ↓"] = score_cell(group, found, digits("mse"))
        cells.append(cell)
    notes = [
        definition_note("box_mse"),
        "Gap: last context frames in which a bar hides the digit's whole box; 0 = no bar. The truth has no bar, every"
        " test clip is scored at every gap, and each model was trained on all gaps.",
        data_note(protocol, runs),
        seed_note(protocol),
        *diverged_notes(runs),
    ]
    return Table("Error where a digit was hidden", pd.DataFrame(values), pd.DataFrame(cells), notes)

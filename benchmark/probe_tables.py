"""Tables of how far back learning reaches: by gradients, and by the error where a digit was hidden."""

import math
from typing import Any

import numpy as np
import pandas as pd

from benchmark.config import Protocol
from benchmark.notes import data_note, definition_note, diverged_notes, seed_note
from benchmark.rendering import MISSING, Table, digits, number
from benchmark.runs import FinishedRun, by_variant
from benchmark.score_tables import score_cell, seeds_cell
from benchmark.statistics import summarise


def probe_table(protocol: Protocol, runs: list[FinishedRun]) -> Table:
    """Reach, half-life and highway openness at initialisation and after training."""
    values, cells = [], []
    for group in by_variant([run for run in runs if run.config]):
        cell = {"Model": group.label, "n": seeds_cell(group)}
        for stage, called in (("init", "untrained"), ("trained", "trained")):
            row: dict[str, Any] = {"variant": group.variant, "label": group.label, "n": group.n, "stage": stage}
            found = [run.probe[stage]["residual"] for run in group.kept]
            for key in ("reach", "slope", "r2", "half_life"):
                row[key] = summarise([one[key] for one in found if one[key] is not None]).mean
            row["no_decay"] = sum(one["half_life"] is None and one["slope"] is not None for one in found)
            openness = [
                float(np.mean(run.probe[stage]["openness"])) for run in group.kept if run.probe[stage]["openness"]
            ]
            row["openness"] = summarise(openness).mean
            values.append(row)
            cell[f"Reach, {called} ↑"] = number(row["reach"], 3, significant=True)
            cell[f"Half-life, {called} (frames) ↑"] = half_life(row["half_life"], row["no_decay"])
            cell[f"R², {called}"] = number(row["r2"], 2)
            cell[f"Openness, {called}"] = number(row["openness"], 2) if openness else MISSING
        cells.append(cell)
    notes = [
        "Gradient of the summed squared error of the last predicted frame with respect to each context frame, L2 norm"
        f" per clip, float64, on {protocol.probe.clips} test clips; the network feeds on its own predictions.",
        "Reach: geometric mean over clips of the norm at the first / at the last context frame.",
        "Half-life: from a log-linear fit of the norm over the context; `no decay` where the 95 % interval of the slope"
        " does not lie below 0 (with the number of seeds where others decay); R² is that fit's, and a low one says that"
        f" the decay is not exponential. {MISSING}: a norm is 0 or not finite.",
        "Openness: mean of 1 - S of the highway over units, steps and clips; 1 keeps the past, 0 replaces it.",
        seed_note(protocol),
        *diverged_notes(runs),
    ]
    return Table("How far back gradients reach", pd.DataFrame(values), pd.DataFrame(cells), notes)


def half_life(frames: float, no_decay: int) -> str:
    """Mean half-life of the seeds that decay, and how many do not."""
    if no_decay and math.isnan(frames):
        return "no decay"
    return number(frames, 2) + (f" ({no_decay} no decay)" if no_decay else "")


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

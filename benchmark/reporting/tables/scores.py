"""Tables of scores: the main one, by predicted frame, and under the conventions of other publications."""

import math
from typing import Any

import pandas as pd

from benchmark.config.metrics import METRICS, columns
from benchmark.config.protocol import Protocol
from benchmark.reporting.finished_runs import VariantRuns, by_variant
from benchmark.reporting.protocol_results import ProtocolResults
from benchmark.reporting.statistics import LEVEL, SMALLEST_N, Summary, best, summarise_seeds
from benchmark.reporting.tables.notes import (
    data_note,
    definition_note,
    diverged_notes,
    gap_notes,
    infinite_notes,
    learnt_notes,
    reuse_notes,
    seed_note,
    skipped_notes,
    undefined_notes,
)
from benchmark.reporting.tables.rendering import MISSING, Table, bold, interval, number, thousands


def main_table(results: ProtocolResults, title: str) -> Table:
    """One row a variant: cost, and mean, sd and 95 % interval of every metric over seeds."""
    protocol, runs, lpips = results.protocol, results.runs, results.lpips
    measured, names = lpips["status"] == "found", measured_columns(results)
    groups = by_variant(runs)
    winners = {name: best_of(groups, name) for name in names}
    values, cells = [], []
    for group in groups:
        row: dict[str, Any] = {"variant": group.variant, "label": group.label, "n": group.n}
        row |= learnt_column(protocol, group) | compute_columns(group, results.costs)
        cell = {"Model": group.label, "n": seeds_cell(group)} | learnt_cell(protocol, group)
        cell["Parameters"] = thousands(row["parameters"])
        for name in names:
            found = summarise_seeds(list(group.scores(name).values()))
            row |= {f"{name}_{key}": getattr(found, key) for key in ("mean", "sd", "low", "high")}
            shown = score_cell(group, found, METRICS[name].decimals)
            cell[METRICS[name].head] = bold(shown) if group.variant in winners[name] else shown
        values.append(row)
        cells.append(cell)
    notes = [protocol.about, data_note(protocol, runs), *gap_notes(protocol), seed_note(protocol), *reuse_notes(runs)]
    if any(winners.values()):
        notes.append(
            "Bold: the best mean and all that cannot be told from it (paired t tests over seeds between all variants"
            f" and the best baseline, Holm over the pairs of a column, level {LEVEL}); variants below {SMALLEST_N}"
            " seeds take no part."
        )
    notes += [*diverged_notes(runs), *learnt_notes(results), *skipped_notes(runs), *undefined_notes(runs)]
    notes += [definition_note(name) for name in names]
    if not measured:
        notes.append(f"LPIPS was {lpips['status']} ({lpips['net']}); {lpips['how']}.")
    return Table(title, pd.DataFrame(values), pd.DataFrame(cells), [*notes, *infinite_notes(runs)])


def per_frame_table(results: ProtocolResults, title: str) -> Table:
    """One row a variant and predicted frame in the CSV; for people, MSE with one column a frame."""
    protocol, runs = results.protocol, results.runs
    every = [*columns(protocol.evaluation.lpips_backbone, conventions=True, further=protocol.data.metrics), "box_mse"]
    values, cells = [], []
    for group in by_variant(runs):
        scored = [name for name in every if name in group.runs[0].per_frame]
        cell = {"Model": group.label, "n": seeds_cell(group)}
        for frame in range(1, protocol.data.horizon + 1):
            row = {"variant": group.variant, "label": group.label, "n": group.n, "frame": frame}
            for name in scored:
                found = summarise_seeds([float(run.per_frame.at[frame, name]) for run in group.kept])  # pyright: ignore[reportArgumentType]  # a number
                row |= {f"{name}_{key}": getattr(found, key) for key in ("mean", "low", "high")}
            values.append(row)
            cell[f"{frame}"] = number(row["mse_mean"], METRICS["mse"].decimals) if group.kept else MISSING
        cells.append(cell)
    notes = [
        f"{METRICS['mse'].head} at predicted frame 1, 2, ...: {METRICS['mse'].definition}; mean over clips. The CSV has"
        " all metrics and their intervals.",
        seed_note(protocol),
        data_note(protocol, runs),
        *gap_notes(protocol),
        *diverged_notes(runs),
        *undefined_notes(runs),
    ]
    return Table(title, pd.DataFrame(values), pd.DataFrame(cells), notes)


def conventions_table(results: ProtocolResults, title: str) -> Table:
    """One row a variant: the same predictions scored as other publications do, beside our own conventions."""
    protocol, runs = results.protocol, results.runs
    names = measured_columns(results, conventions=True)
    names.sort(key=lambda name: [kind in name for kind in ("lpips", "ssim", "psnr", "mae", "mse")])
    values, cells = [], []
    for group in by_variant(runs):
        row: dict[str, Any] = {"variant": group.variant, "label": group.label, "n": group.n}
        cell = {"Model": group.label, "n": seeds_cell(group)}
        for name in names:
            found = summarise_seeds(list(group.scores(name).values()))
            row |= {f"{name}_{key}": getattr(found, key) for key in ("mean", "sd", "low", "high")}
            cell[METRICS[name].head] = mean_cell(group, found.mean, METRICS[name].decimals)
        values.append(row)
        cells.append(cell)
    notes = [
        "The same predictions under every convention: numbers of two columns may not be compared with each other, and a"
        " published number only with the column of its convention.",
        *(definition_note(name) for name in names),
        "Means over seeds; the CSV has sd and intervals.",
        seed_note(protocol),
        data_note(protocol, runs),
        *gap_notes(protocol),
        *diverged_notes(runs),
        *undefined_notes(runs),
        *infinite_notes(runs),
    ]
    return Table(title, pd.DataFrame(values), pd.DataFrame(cells), notes)


def measured_columns(results: ProtocolResults, *, conventions: bool = False) -> list[str]:
    """The metrics of a table, with LPIPS where its network was found; `conventions`: those of others too."""
    net = results.lpips["net"] if results.lpips["status"] == "found" else None
    return columns(net, conventions=conventions, further=results.protocol.data.metrics)


def best_of(groups: list[VariantRuns], metric: str) -> set[str]:
    """The variants and baselines that are bold under `metric`."""
    scores = {group.variant: group.scores(metric) for group in groups if group.config}
    constants = {group.variant: float(group.runs[0].scores[metric]) for group in groups if not group.config}
    return best(scores, METRICS[metric].better, constants)


def seeds_cell(group: VariantRuns) -> str:
    """n, and which of them diverged; a baseline has none."""
    if not group.config:
        return ""
    return f"{group.n} ({group.diverged})" if group.diverged else str(group.n)


def learnt_column(protocol: Protocol, group: VariantRuns) -> dict[str, int]:
    """How many runs have learnt, where the protocol has a rule for it."""
    return {"learnt": len(group.learnt) if group.config else 0} if protocol.learnt else {}


def learnt_cell(protocol: Protocol, group: VariantRuns) -> dict[str, str]:
    """Head and cell of how many runs of how many have learnt, where the protocol has a rule for it."""
    shown = f"{len(group.learnt)} of {group.n}" if group.config else ""
    return {"Learnt": shown} if protocol.learnt else {}


def score_cell(group: VariantRuns, found: Summary, decimals: int) -> str:
    """Mean with its interval, or why there is none."""
    if math.isfinite(found.mean):
        return interval(found.mean, found.low, found.high, decimals)
    return mean_cell(group, found.mean, decimals)


def mean_cell(group: VariantRuns, mean: float, decimals: int) -> str:
    """A mean over seeds, or why there is none."""
    if not group.kept:
        return group.diverged
    return number(mean, decimals) if math.isfinite(mean) else "not finite"


def compute_columns(group: VariantRuns, costs: pd.DataFrame) -> dict[str, int]:
    """Parameters, MACs per clip and clips seen in training; 0 for a baseline."""
    if group.config is None:
        return {"parameters": 0, "macs": 0, "clips_seen": 0}
    training, cost = group.config.training, costs.loc[group.variant]
    seen = training.steps * training.batch_size * (2 if training.reversed_second_step else 1)
    return {"parameters": int(cost["parameters"]), "macs": int(cost["macs"]), "clips_seen": seen}  # pyright: ignore[reportArgumentType]  # a row

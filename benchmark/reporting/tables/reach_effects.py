"""Tables of what a variant changes in reach and half-life against its reference, and of reach against error."""

import math
from typing import Any

import pandas as pd

from benchmark.config.probe_stages import ends, stages
from benchmark.reporting.finished_runs import VariantRuns, by_variant
from benchmark.reporting.protocol_results import ProtocolResults
from benchmark.reporting.reach_and_error import (
    COTANGENTS,
    FEWEST,
    correlation,
    deviations,
    reach_and_error,
    usable_points,
    variant_means,
)
from benchmark.reporting.statistics import BySeed, Summary, differences, summarise_seeds
from benchmark.reporting.tables.differences import pairs_cell
from benchmark.reporting.tables.gradients import STAGE_WORDS
from benchmark.reporting.tables.notes import data_note, diverged_notes, learnt_notes, seed_note
from benchmark.reporting.tables.rendering import MISSING, Table, interval

HEADS = {"residual": "", "fixed": ", fixed", "memory": ", memory", "frames": ", frames"}
"""Measure -> what the heads of columns say of it."""
SHOWN = {("reach", "residual"), ("half_life", "residual"), ("reach", "fixed"), ("reach", "memory")}
"""What people see of each effect; the rest is in the CSV."""
QUANTITIES = {"reach": "Reach", "half_life": "Half-life"}
EFFECT_COLUMNS = [
    "variant",
    "reference",
    "adds_highway",
    "stage",
    "step",
    "measure",
    "quantity",
    "n",
    "ratio",
    "low",
    "high",
]
SCOPES = {"between": "between variants", "within": "within variants"}
CORRELATION_COLUMNS = ["scope", "measure", "n", "spearman", "low", "high"]


def reach_effects_table(results: ProtocolResults, title: str) -> Table:
    """One row a variant with a reference: ratio of reach and of half-life; in the CSV one row a pair and number."""
    protocol, runs = results.protocol, results.runs
    groups = {group.variant: group for group in by_variant(runs)}
    values, cells = [], []
    for variant, reference in protocol.references().items():
        one, other = groups[variant], groups[reference]
        cell = {"Variant": one.label, "Reference": other.label, "Pairs": ""}
        for stage in stages(protocol):
            for measure, words in measures_of(one, stage):
                for quantity, name in QUANTITIES.items():
                    found = log_difference(one, other, stage, measure, quantity)
                    row = effect_row(one, other, stage, measure, quantity, found)
                    values.append(row)
                    cell["Pairs"] = pairs_cell(one, other, found)
                    if stage in ends(protocol) and (quantity, measure) in SHOWN:
                        limits = (row["ratio"], row["low"], row["high"])
                        cell[f"{name} ×, {STAGE_WORDS[stage]}{words}"] = interval(*limits, 3, significant=True)
        cells.append(cell)
    if not cells:
        cells = [{"Variant": "No variant of this protocol has its reference here."}]
    notes = [
        "×: by how many times the variant has the reach, or the half-life, of its reference: exponential of the mean"
        " paired difference of logarithms, same seed, same clips; above 1 gradients reach further back. Reach: norm of"
        " the gradient at the first / at the last context frame; fixed: of a fixed random direction of the last"
        " predicted frame in place of its squared error; memory: of that error with the way through generated frames"
        " cut. The CSV has the gradient through generated frames alone too.",
        f"{MISSING}: a norm is 0 or not finite, or a run of a pair does not decay and so has no half-life.",
        "All of it is exploratory: effect and interval, no test.",
        seed_note(protocol),
        *diverged_notes(runs),
        *learnt_notes(results),
    ]
    return Table(title, pd.DataFrame(values, columns=EFFECT_COLUMNS), pd.DataFrame(cells), notes)


def measures_of(group: VariantRuns, stage: str) -> list[tuple[str, str]]:
    """The measures of a stage, with the words for heads of columns; midway in training there are fewer."""
    return [
        (measure, words) for measure, words in HEADS.items() if all(measure in run.probe[stage] for run in group.kept)
    ]


def log_difference(one: VariantRuns, other: VariantRuns, stage: str, measure: str, quantity: str) -> Summary:
    """Paired differences of the logarithm of a number; not finite where a run of a pair has none."""
    return summarise_seeds(differences(*(logs(group, stage, measure, quantity) for group in (one, other))))


def logs(group: VariantRuns, stage: str, measure: str, quantity: str) -> BySeed:
    """Seed -> logarithm of a number of the probe; NaN where a run has none."""
    found = {run.seed: run.probe[stage][measure][quantity] for run in group.probed(stage)}
    return {seed: math.log(value) if value else math.nan for seed, value in found.items()}


def effect_row(
    one: VariantRuns, other: VariantRuns, stage: str, measure: str, quantity: str, found: Summary
) -> dict[str, Any]:
    """A row of the CSV."""
    spec, reference = one.config.model, other.config.model  # pyright: ignore[reportOptionalMemberAccess]  # no baselines
    adds = spec.cell == reference.cell and bool(spec.highway_slot) and not reference.highway_slot
    steps = {run.probe[stage]["step"] for run in one.kept}
    row = {"variant": one.variant, "reference": other.variant, "adds_highway": adds, "stage": stage}
    row |= {"step": max(steps, default=math.nan), "measure": measure, "quantity": quantity, "n": found.n}
    ends_of = {"ratio": found.mean, "low": found.low, "high": found.high}
    return row | {key: math.exp(value) for key, value in ends_of.items()}


def reach_error_table(results: ProtocolResults, title: str) -> Table:
    """Rank correlation of reach after training with test MSE, between variants and between seeds of one variant."""
    protocol, runs = results.protocol, results.runs
    usable = usable_points(reach_and_error(runs))
    values = []
    for measure in COTANGENTS:
        own = usable[usable["measure"] == measure]
        for scope, points in {"between": variant_means(own), "within": deviations(own)}.items():
            values.append({"scope": scope, "measure": measure, "n": len(points), **correlation(points)})
    table = pd.DataFrame(values, columns=CORRELATION_COLUMNS)
    cells = [
        {
            "Points": f"{row.n} {'variants' if row.scope == 'between' else 'runs'}",
            "Scope": SCOPES[row.scope],  # pyright: ignore[reportArgumentType]  # a row of the table
            "Gradient": COTANGENTS[row.measure],  # pyright: ignore[reportArgumentType]  # a row of the table
            "Rank correlation": interval(row.spearman, row.low, row.high, 2, signed=True),  # pyright: ignore[reportArgumentType]  # a row of the table
        }
        for row in table.itertuples()
    ]
    notes = [
        "Reach after training against test MSE; below 0: who reaches further back errs less. Between variants: means"
        " over seeds (reach: geometric). Within: runs, each minus the mean of its variant, of variants with two seeds"
        " and more.",
        f"Spearman's rank correlation with 95 % percentile bootstrap interval over the points. {MISSING}: fewer than"
        f" {FEWEST} points. All of it is exploratory, and variants share cells, so that they are fewer"
        " independent points than their number.",
        seed_note(protocol),
        data_note(protocol, runs),
        *diverged_notes(runs),
        *learnt_notes(results),
    ]
    return Table(title, table, pd.DataFrame(cells), notes)

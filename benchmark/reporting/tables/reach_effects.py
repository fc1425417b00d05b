"""Tables of what a variant changes in reach against its reference, by every definition, and of reach against error."""

import math
from typing import Any

import pandas as pd

from benchmark.config.metrics import METRICS
from benchmark.config.probe_stages import ENDS, ends, stages
from benchmark.evaluation.gradient_decay import FURTHER
from benchmark.reporting.finished_runs import VariantRuns, by_variant
from benchmark.reporting.protocol_results import ProtocolResults
from benchmark.reporting.reach_and_error import (
    COTANGENTS,
    FEWEST,
    correlation,
    deviations,
    reach_and_error,
    slope_and_score,
    usable_points,
    variant_means,
)
from benchmark.reporting.statistics import BySeed, differences, summarise_seeds
from benchmark.reporting.tables.differences import pairs_cell
from benchmark.reporting.tables.gradients import STAGE_WORDS
from benchmark.reporting.tables.notes import data_note, diverged_notes, learnt_notes, seed_note
from benchmark.reporting.tables.rendering import MISSING, Table, interval

HEADS = {"residual": "", "fixed": ", fixed", "memory": ", memory", "frames": ", frames"}
"""Measure -> what the heads of columns say of it."""
SHOWN = {("inner_slope", "residual"), ("inner_slope", "fixed"), ("inner_slope", "memory"), ("reach", "residual")}
"""What people see of each effect; the rest is in the CSV."""
DIFFERENCES = {"inner_slope": "Δ slope", "share_of_older_half": "Δ share of the older half"}
"""Definitions of reach that are compared by differences -> head of a column."""
RATIOS = {
    "reach": "X1 / XK ×",
    "second_over_last": "X2 / XK ×",
    "first_three_over_last": "X1..3 / last three ×",
    "next_three_over_last": "X2..4 / last three ×",
}
"""Those that are compared by ratios -> head of a column."""
DEFINITIONS = ("inner_slope", *RATIOS, "share_of_older_half")
"""All of them, the headline first."""
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
    "difference",
    "low",
    "high",
]
SCOPES = {"between": "between variants", "within": "within variants"}
SLOPE_AND_SCORE = ("slope", "score")
EARLY_COLUMNS = ["stage", "metric", "scope", "n", "spearman", "low", "high"]
CORRELATION_COLUMNS = ["scope", "measure", "n", "spearman", "low", "high"]


def reach_effects_table(results: ProtocolResults, title: str) -> Table:
    """One row a variant with a reference: effects on slope and reach; in the CSV one row a pair and number."""
    protocol, runs = results.protocol, results.runs
    groups = {group.variant: group for group in by_variant(runs)}
    values, cells = [], []
    for variant, reference in protocol.comparisons():
        one, other = groups[variant], groups[reference]
        cell = {"Variant": one.label, "Reference": other.label, "Pairs": ""}
        for stage in stages(protocol):
            for measure, words in measures_of(one, stage):
                for quantity in DEFINITIONS:
                    row = effect_row(one, other, stage, measure, quantity)
                    values.append(row)
                    if stage in ends(protocol) and (quantity, measure) in SHOWN:
                        cell["Pairs"] = pairs_cell(one, other, row["n"], kept=stage == "init")
                        cell[f"{head_of(quantity)}, {STAGE_WORDS[stage]}{words}"] = effect_cell(row)
        cells.append(cell)
    if not cells:
        cells = [{"Variant": "No variant of this protocol has its reference here."}]
    notes = [
        *effect_notes(),
        "Fixed: of a fixed random direction of the last predicted frame in place of its squared error; memory: of that"
        " error with the way through generated frames cut. The CSV has the gradient through generated frames alone too,"
        " and every definition of reach.",
        seed_note(protocol),
        *diverged_notes(runs),
        *learnt_notes(results),
    ]
    return Table(title, pd.DataFrame(values, columns=EFFECT_COLUMNS), pd.DataFrame(cells), notes)


def reach_definitions_table(results: ProtocolResults, title: str) -> Table:
    """One row a variant with a reference, one column a definition of reach, at the last stage."""
    protocol, runs = results.protocol, results.runs
    groups = {group.variant: group for group in by_variant(runs)}
    *_, stage = ends(protocol)
    values, cells = [], []
    for variant, reference in protocol.comparisons():
        one, other = groups[variant], groups[reference]
        rows = {quantity: effect_row(one, other, stage, "residual", quantity) for quantity in DEFINITIONS}
        values += rows.values()
        pairs = pairs_cell(one, other, rows["inner_slope"]["n"], kept=stage == "init")
        cell = {"Variant": one.label, "Reference": other.label, "Pairs": pairs}
        cells.append(cell | {head_of(quantity): effect_cell(row) for quantity, row in rows.items()})
    if not cells:
        cells = [{"Variant": "No variant of this protocol has its reference here."}]
    notes = [
        *effect_notes(),
        "Share of the older half: sum of the norms at t up to K / 2 over that of all. An effect that changes its sign"
        " from column to column hangs on the definition.",
        f"Gradient of the last predicted frame's squared error, {STAGE_WORDS[stage]}.",
        seed_note(protocol),
        *diverged_notes(runs),
        *learnt_notes(results),
    ]
    return Table(title, pd.DataFrame(values, columns=EFFECT_COLUMNS), pd.DataFrame(cells), notes)


def effect_notes() -> list[str]:
    """What slope and reach are, and how two variants are compared in them."""
    return [
        "Slope: of log2 of the gradient norm per frame of age, least squares over context frames 2 to K - 1, which"
        " leaves out frame 1, where all states are zero, and frame K, which stands next to the network's own"
        " predictions. At -1 the norm halves with each frame of age, at 0 it does not decay.",
        "Δ: the variant minus its reference; above 0 gradients reach further back. ×: by how many times the variant has"
        " the ratio of norms of its reference, exponential of the mean paired difference of logarithms; above 1"
        " gradients reach further back. Same seed, same clips.",
        f"{MISSING}: a norm is 0 or not finite, or K is too small for the definition.",
        "All of it is exploratory: effect and interval, no test.",
    ]


def head_of(quantity: str) -> str:
    """Head of the column of a definition of reach."""
    return (DIFFERENCES | RATIOS)[quantity]


def effect_cell(row: dict[str, Any]) -> str:
    """An effect with its interval."""
    if row["quantity"] in DIFFERENCES:
        return interval(row["difference"], row["low"], row["high"], 3, signed=True)
    return interval(row["ratio"], row["low"], row["high"], 3, significant=True)


def measures_of(group: VariantRuns, stage: str) -> list[tuple[str, str]]:
    """The measures of a stage, with the words for heads of columns; midway in training there are fewer."""
    return [
        (measure, words) for measure, words in HEADS.items() if all(measure in run.probe[stage] for run in group.kept)
    ]


def reach_by_seed(group: VariantRuns, stage: str, measure: str, quantity: str) -> BySeed:
    """Seed -> reach by a definition, its logarithm where ratios are compared; NaN where a run has none."""
    if quantity == "reach":
        found = {run.seed: run.probe[stage][measure]["reach"] for run in group.probed(stage)}
    else:
        curves = {run.seed: run.frame_curves[stage, measure] for run in group.probed(stage)}
        found = {seed: FURTHER[quantity](curve) for seed, curve in curves.items()}
    if quantity in DIFFERENCES:
        return found
    return {seed: math.log(value) if value else math.nan for seed, value in found.items()}


def effect_row(one: VariantRuns, other: VariantRuns, stage: str, measure: str, quantity: str) -> dict[str, Any]:
    """A row of the CSV: `low` and `high` are of the ratio or of the difference, whichever there is."""
    found = summarise_seeds(differences(*(reach_by_seed(group, stage, measure, quantity) for group in (one, other))))
    spec, reference = one.config.model, other.config.model  # pyright: ignore[reportOptionalMemberAccess]  # no baselines
    adds = spec.cell == reference.cell and bool(spec.highway_slot) and not reference.highway_slot
    steps = {run.probe[stage]["step"] for run in one.kept}
    row = {"variant": one.variant, "reference": other.variant, "adds_highway": adds, "stage": stage}
    row |= {"step": max(steps, default=math.nan), "measure": measure, "quantity": quantity, "n": found.n}
    if quantity in DIFFERENCES:
        return row | {"ratio": math.nan, "difference": found.mean, "low": found.low, "high": found.high}
    ends_of = {"ratio": found.mean, "low": found.low, "high": found.high}
    return row | {"difference": math.nan} | {key: math.exp(value) for key, value in ends_of.items()}


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


def early_reach_table(results: ProtocolResults, title: str) -> Table:
    """Rank correlation of the slope at each stage of the probe with the final score, within and between variants."""
    protocol, runs, metric = results.protocol, results.runs, results.protocol.primary.metric
    values, cells = [], []
    for stage in stages(protocol):
        points = slope_and_score(runs, stage, metric)
        scopes = {"within": deviations(points, SLOPE_AND_SCORE), "between": variant_means(points, SLOPE_AND_SCORE)}
        cell = {"Slope measured": ENDS.get(stage) or f"after {stage.removeprefix('step-')} steps"}
        for scope, shown in scopes.items():
            found = correlation(shown)
            values.append({"stage": stage, "metric": metric, "scope": scope, "n": len(shown), **found})
            cell[f"{SCOPES[scope]} (n)"] = (
                f"{interval(found['spearman'], found['low'], found['high'], 2, signed=True)} ({len(shown)})"
            )
        cells.append(cell)
    better = "above" if METRICS[metric].better == "higher" else "below"
    notes = [
        f"Slope of the gradient norm over context frames 2 to K - 1 at each stage, against the final"
        f" {METRICS[metric].head}; {better} 0: runs whose gradient falls less steeply with age end better. Within:"
        " runs, each minus the mean of its variant. All runs that did not diverge, those that have not learnt as well.",
        "Spearman's rank correlation with 95 % percentile bootstrap interval over the points. Seeds of a variant share"
        " their clips with those of another: the points are fewer independent ones than their number.",
        seed_note(protocol),
        data_note(protocol, runs),
        *diverged_notes(runs),
    ]
    return Table(title, pd.DataFrame(values, columns=EARLY_COLUMNS), pd.DataFrame(cells), notes)

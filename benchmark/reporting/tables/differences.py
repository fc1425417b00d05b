"""The table of paired differences: each variant against its reference, same seeds, same clips."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from benchmark.config.metrics import METRICS
from benchmark.config.protocol import Protocol
from benchmark.config.sections import PrimaryConfig
from benchmark.reporting.finished_runs import FinishedRun, VariantRuns, by_seed, by_variant
from benchmark.reporting.protocol_results import ProtocolResults
from benchmark.reporting.statistics import (
    LEVEL,
    SMALLEST_N,
    BySeed,
    Difference,
    differences,
    effects,
    given_these_seeds,
    holm,
    not_equivalent,
    paired,
)
from benchmark.reporting.tables.notes import (
    data_note,
    definition_note,
    diverged_notes,
    gap_notes,
    learnt_notes,
    predictions_notes,
    seed_note,
)
from benchmark.reporting.tables.rendering import MINUS, MISSING, Table, interval, number
from benchmark.reporting.tables.scores import measured_columns

TOO_SMALL = "n too small"
COLUMNS = ["variant", "reference", "metric", "primary", "n", "difference", "sd", "low", "high", "p", "floor", "p_holm"]
COLUMNS += ["margin", "p_not_equivalent", "p_not_equivalent_holm", "clips_low", "clips_high"]
INTERACTION_COLUMNS = ["variant", "reference", "other_variant", "other_reference", *COLUMNS[2:-2]]


def comparison_table(results: ProtocolResults, title: str) -> Table:
    """One row a variant with a reference, primary pairs first; in the CSV one row a pair and metric."""
    protocol, runs = results.protocol, results.runs
    names = measured_columns(results)
    groups = {group.variant: group for group in by_variant(runs)}
    primary, metric = protocol.primary, protocol.primary.metric
    pairs = [(groups[variant], groups[reference]) for variant, reference in protocol.comparisons_of_scores()]
    tests = primary_tests(protocol, groups)
    values, cells = [], []
    for one, other in pairs:
        test = tests.get((one.variant, other.variant))
        found = {name: paired(*by_seed(one, other, name)) for name in names}
        cell = {"Variant": one.label, "Reference": other.label, "Test": "primary" if test else "exploratory"}
        cell["Pairs"] = pairs_cell(one, other, paired(*by_seed(one, other, metric)).n, kept=True)
        for name in names:
            values.append(comparison_row(one, other, name, found[name], test if name == metric else None, primary))
            mean, low, high = (getattr(found[name], key) for key in ("mean", "low", "high"))
            cell[f"Δ {METRICS[name].head}"] = interval(mean, low, high, METRICS[name].decimals, signed=True)
            if name == metric:
                cell |= cells_of_tests(test, found[name], primary)
        cells.append(cell)
    if not pairs:
        cells = [{"Variant": "No variant of this protocol has its reference here."}]
    notes = [*comparison_notes(protocol, names, runs), *learnt_notes(results)]
    return Table(title, pd.DataFrame(values, columns=COLUMNS), pd.DataFrame(cells), notes)


def interactions_table(results: ProtocolResults, title: str) -> Table:
    """One row an interaction: how much more a variant differs from its reference than another from its own."""
    protocol, metric = results.protocol, results.protocol.primary.metric
    groups = {group.variant: group for group in by_variant(results.runs)}
    tests = primary_tests(protocol, groups)
    values, cells = [], []
    for names, both in interactions(protocol, groups, metric).items():
        found, test = paired(*both), tests[names]
        row: dict[str, Any] = dict(zip(INTERACTION_COLUMNS, names, strict=False))
        row |= {"metric": metric, "primary": True, "n": found.n, "difference": found.mean}
        row |= numbers_of_tests(found, test, protocol.primary.margin)
        values.append(row)
        variant, reference, other, other_reference = (groups[name].label for name in names)
        decimals = METRICS[metric].decimals
        cells.append(
            {
                "Effect": f"{variant} {MINUS} {reference}",
                "Less the effect": f"{other} {MINUS} {other_reference}",
                "Seeds": str(found.n),
                f"Δ Δ {METRICS[metric].head}": interval(found.mean, found.low, found.high, decimals, signed=True),
            }
            | cells_of_tests(test, found, protocol.primary)
        )
    notes = [
        "ΔΔ: the first effect less the second, mean over seeds of the differences of paired differences, with 95 % t"
        f" interval from {SMALLEST_N} seeds on. Tests as of primary pairs, Holm over all that the protocol names.",
        *equivalence_notes(protocol.primary),
        seed_note(protocol),
        *diverged_notes(results.runs),
        *learnt_notes(results),
    ]
    return Table(title, pd.DataFrame(values, columns=INTERACTION_COLUMNS), pd.DataFrame(cells), notes)


def interactions(
    protocol: Protocol, groups: dict[str, VariantRuns], metric: str
) -> dict[tuple[str, ...], tuple[BySeed, BySeed]]:
    """Variant, its reference, another one and its own, of each interaction -> both effects, by seed."""
    references = protocol.references()

    def effect(name: str) -> dict[int, float]:
        return effects(groups[name].scores(metric), groups[references[name]].scores(metric))

    return {
        (one, references[one], other, references[other]): (effect(one), effect(other))
        for one, other in protocol.primary.interactions.items()
    }


@dataclass(frozen=True)
class PairTests:
    """The two tests of a primary pair or interaction, each with its p after Holm over all of them."""

    p_holm: float
    p_not_equivalent: float
    p_not_equivalent_holm: float


def primary_tests(protocol: Protocol, groups: dict[str, VariantRuns]) -> dict[tuple[str, ...], PairTests]:
    """Names of each primary pair (two) and interaction (four) -> its tests, made when all seeds are in."""
    primary, metric = protocol.primary, protocol.primary.metric
    scores: dict[tuple[str, ...], Sequence[BySeed]] = {
        pair: [groups[name].scores(metric) for name in pair] for pair in primary.pairs.items()
    }
    scores |= interactions(protocol, groups, metric)
    found = {pair: paired(*both) for pair, both in scores.items()}
    p = [found[pair].p for pair in scores]
    same = [
        not_equivalent(differences(*both), primary.margin) if primary.margin else math.nan for both in scores.values()
    ]
    adjusted = zip(found, adjust(p), same, adjust(same), strict=True)
    return {pair: PairTests(*each) for pair, *each in adjusted}


def comparison_row(
    one: VariantRuns, other: VariantRuns, metric: str, found: Difference, test: PairTests | None, primary: PrimaryConfig
) -> dict[str, Any]:
    """A row of the CSV; p of every pair and metric, after Holm of the tested ones alone."""
    row: dict[str, Any] = {"variant": one.variant, "reference": other.variant, "metric": metric}
    row |= {"primary": test is not None, "n": found.n, "difference": found.mean}
    row |= numbers_of_tests(found, test, primary.margin if metric == primary.metric else None)
    row["clips_low"], row["clips_high"] = given_these_seeds(per_clip(one, other, metric))
    return row


def numbers_of_tests(found: Difference, test: PairTests | None, margin: float | None) -> dict[str, float]:
    """What the CSV says of how sure a difference is."""
    row: dict[str, float] = {key: getattr(found, key) for key in ("sd", "low", "high", "p", "floor")}
    row["margin"] = margin or math.nan
    return row | {
        key: getattr(test, key) if test else math.nan for key in ("p_holm", "p_not_equivalent", "p_not_equivalent_holm")
    }


def cells_of_tests(test: PairTests | None, found: Difference, primary: PrimaryConfig) -> dict[str, str]:
    """p, p after Holm and, where the protocol has a margin, p of the test for equivalence and what was found."""
    heads = {f"p ({primary.metric.upper()})": "p", "p, Holm": "p_holm"}
    cells = dict.fromkeys(heads, MISSING)
    if test:
        cells = {head: p_cell(found, getattr(test, key, found.p), star=key != "p") for head, key in heads.items()}
    if primary.margin is None:
        return cells
    head = f"p (Δ beyond ±{primary.margin:g}), Holm"
    cells[head] = p_cell(found, test.p_not_equivalent_holm, star=True) if test else MISSING
    return cells | {"Finding": finding(test, found, primary.margin)}


def finding(test: PairTests | None, found: Difference, margin: float) -> str:
    """What may be said of a pair: by its tests where it is primary, else where its interval lies."""
    if math.isnan(found.low):
        return TOO_SMALL
    if test:
        differs, equivalent = test.p_holm <= LEVEL, test.p_not_equivalent_holm <= LEVEL
    else:
        differs, equivalent = found.low > 0 or found.high < 0, -margin < found.low and found.high < margin
    said = {(True, False): "differs", (False, True): "equivalent", (True, True): "differs by less than the margin"}
    return said.get((differs, equivalent), "not settled") + ("" if test else ", by its interval")


def comparison_notes(protocol: Protocol, names: list[str], runs: list[FinishedRun]) -> list[str]:
    """How to read the differences."""
    primary = protocol.primary
    labels = {run.variant: run.label for run in runs}
    pairs = "; ".join(f"{labels[variant]} against {labels[other]}" for variant, other in primary.pairs.items())
    tests = (
        f"Primary, named in the protocol: {METRICS[primary.metric].head.split(' ')[0]} of {pairs}."
        " p: exact two-sided sign-flip test of the paired differences;"
        f" Holm over the primary pairs, * where that is at most {LEVEL}. {TOO_SMALL}: n pairs cannot give a p below"
        " 2 / 2ⁿ, and that is more than the level."
        if primary.pairs
        else "The protocol names interactions, in a table of their own, and no primary pair: all here is exploratory."
        if primary.interactions
        else "The protocol names no primary pair: all is exploratory."
    )
    return [
        "Δ: the variant minus its reference, mean over seeds of paired differences (same seed, same clips, same order),"
        f" with 95 % t interval from {SMALLEST_N} pairs on; below 0 is better where the arrow points down.",
        tests,
        *equivalence_notes(primary),
        "Exploratory: effect and interval, no test.",
        *predictions_notes(runs),
        *(
            [
                "Predictions have no seed and stand against every seed of their reference: the interval is of its seeds"
                " alone."
            ]
            if any(run.predictions for run in runs)
            else []
        ),
        "The CSV has p and floor for every metric, and clips_low, clips_high: a bootstrap interval over test clips,"
        " given these seeds, that says nothing about other seeds.",
        seed_note(protocol),
        data_note(protocol, runs),
        *gap_notes(protocol),
        *diverged_notes(runs),
        *(definition_note(name) for name in names),
    ]


def equivalence_notes(primary: PrimaryConfig) -> list[str]:
    """How to read the tests for equivalence; empty where the protocol names no margin."""
    if primary.margin is None:
        return []
    return [
        f"Δ beyond ±{primary.margin:g}: the larger p of two exact one-sided sign-flip tests that the difference lies"
        " at or beyond the margin, on either side, that the protocol names; Holm over the primary pairs. Small: the"
        " two are equivalent.",
        "Finding: of a primary pair by its tests; of others by whether the interval excludes 0 or lies within the"
        " margin.",
    ]


def adjust(p: Sequence[float]) -> list[float]:
    """p after Holm over all primary pairs; a pair without p counts in the family as 1 and stays without."""
    adjusted = holm([1.0 if math.isnan(one) else one for one in p])
    return [math.nan if math.isnan(one) else value for one, value in zip(p, adjusted, strict=True)]


def p_cell(difference: Difference, p: float, *, star: bool = False) -> str:
    """A p, or that n is too small for one."""
    if math.isnan(p) or not difference.testable:
        return TOO_SMALL
    return number(p, 4) + "*" * (star and p <= LEVEL)


def pairs_cell(one: VariantRuns, other: VariantRuns, n: int, *, kept: bool) -> str:
    """The number n of pairs, and how many were lost to divergence or have a run that has not learnt.

    Args: `kept`: the latter are among the n, not left out.
    """
    lost, failed = one.lost_pairs(other), one.unlearnt_pairs(other)
    said = [f"{lost} lost to divergence"] if lost else []
    said += [f"{failed} {'with a run that has' if kept else 'left out, a run has'} not learnt"] if failed else []
    return f"{n} ({', '.join(said)})" if said else str(n)


def per_clip(one: VariantRuns, other: VariantRuns, metric: str) -> np.ndarray:
    """Paired difference of every clip, mean over its frames and over the seeds that both have."""
    if one.predictions and not other.predictions:  # the same at every seed of the other
        one = VariantRuns(one.variant, one.label, [replace(one.runs[0], seed=run.seed) for run in other.kept])
    means = [pd.concat({run.seed: run.per_clip[metric] for run in group.kept}) for group in (one, other) if group.kept]
    if len(means) < 2:
        return np.empty(0)
    return (means[0] - means[1]).dropna().groupby(level=1).mean().to_numpy()

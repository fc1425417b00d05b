"""The table of paired differences: each variant against its reference, same seeds, same clips."""

import math

import numpy as np
import pandas as pd

from benchmark.config.metrics import METRICS
from benchmark.config.protocol import Protocol
from benchmark.reporting.finished_runs import FinishedRun, VariantRuns, by_variant
from benchmark.reporting.protocol_results import ProtocolResults
from benchmark.reporting.statistics import LEVEL, SMALLEST_N, Difference, Summary, given_these_seeds, holm, paired
from benchmark.reporting.tables.notes import data_note, definition_note, diverged_notes, gap_notes, seed_note
from benchmark.reporting.tables.rendering import MISSING, Table, interval, number
from benchmark.reporting.tables.scores import measured_columns

TOO_SMALL = "n too small"
COLUMNS = ["variant", "reference", "metric", "primary", "n", "difference", "sd", "low", "high", "p", "floor", "p_holm"]
COLUMNS += ["clips_low", "clips_high"]


def comparison_table(results: ProtocolResults, title: str) -> Table:
    """One row a variant with a reference, primary pairs first; in the CSV one row a pair and metric."""
    protocol, runs = results.protocol, results.runs
    names = measured_columns(results)
    groups = {group.variant: group for group in by_variant(runs)}
    primary, tested = protocol.primary.pairs, protocol.primary.metric
    pairs = [(groups[variant], groups[reference]) for variant, reference in protocol.references().items()]
    found = {
        (one.variant, name): paired(one.scores(name), other.scores(name)) for one, other in pairs for name in names
    }
    adjusted = adjust({variant: found[variant, tested] for variant in primary})
    values, cells = [], []
    for one, other in pairs:
        kind = "primary" if one.variant in primary else "exploratory"
        cell = {"Variant": one.label, "Reference": other.label, "Test": kind}
        cell["Pairs"] = pairs_cell(one, other, found[one.variant, tested])
        for name in names:
            difference, p_holm = found[one.variant, name], adjusted.get(one.variant, math.nan)
            is_test = one.variant in primary and name == tested
            row = {"variant": one.variant, "reference": other.variant, "metric": name, "primary": is_test}
            row |= {"n": difference.n, "difference": difference.mean}
            row |= {key: getattr(difference, key) for key in ("sd", "low", "high", "p", "floor")}
            row["p_holm"] = p_holm if is_test else math.nan
            row["clips_low"], row["clips_high"] = given_these_seeds(per_clip(one, other, name))
            values.append(row)
            cell[f"Δ {METRICS[name].head}"] = interval(
                difference.mean, difference.low, difference.high, METRICS[name].decimals, signed=True
            )
            if is_test:
                cell[f"p ({name.upper()})"] = p_cell(difference, difference.p)
                cell["p, Holm"] = p_cell(difference, p_holm, star=True)
            elif name == tested:
                cell[f"p ({name.upper()})"] = cell["p, Holm"] = MISSING
        cells.append(cell)
    if not pairs:
        cells = [{"Variant": "No variant of this protocol has its reference here."}]
    notes = comparison_notes(protocol, names, runs)
    return Table(title, pd.DataFrame(values, columns=COLUMNS), pd.DataFrame(cells), notes)


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
        else "The protocol names no primary pair: all is exploratory."
    )
    return [
        "Δ: the variant minus its reference, mean over seeds of paired differences (same seed, same clips, same order),"
        f" with 95 % t interval from {SMALLEST_N} pairs on; below 0 is better where the arrow points down.",
        tests,
        "Exploratory: effect and interval, no test.",
        "The CSV has p and floor for every metric, and clips_low, clips_high: a bootstrap interval over test clips,"
        " given these seeds, that says nothing about other seeds.",
        seed_note(protocol),
        data_note(protocol, runs),
        *gap_notes(protocol),
        *diverged_notes(runs),
        *(definition_note(name) for name in names),
    ]


def adjust(tests: dict[str, Difference]) -> dict[str, float]:
    """Variant -> p after Holm over all primary pairs; a pair without p counts in the family as 1."""
    p = [1.0 if math.isnan(test.p) else test.p for test in tests.values()]
    return {
        name: math.nan if math.isnan(test.p) else value
        for (name, test), value in zip(tests.items(), holm(p), strict=True)
    }


def p_cell(difference: Difference, p: float, *, star: bool = False) -> str:
    """A p, or that n is too small for one."""
    if math.isnan(p) or not difference.testable:
        return TOO_SMALL
    return number(p, 4) + "*" * (star and p <= LEVEL)


def pairs_cell(one: VariantRuns, other: VariantRuns, difference: Summary) -> str:
    """The number of pairs, and of runs that have lost their partner by divergence."""
    lost = one.lost_pairs(other)
    return f"{difference.n} ({lost} lost to divergence)" if lost else str(difference.n)


def per_clip(one: VariantRuns, other: VariantRuns, metric: str) -> np.ndarray:
    """Paired difference of every clip, mean over its frames and over the seeds that both have."""
    means = [pd.concat({run.seed: run.per_clip[metric] for run in group.kept}) for group in (one, other) if group.kept]
    if len(means) < 2:
        return np.empty(0)
    return (means[0] - means[1]).dropna().groupby(level=1).mean().to_numpy()

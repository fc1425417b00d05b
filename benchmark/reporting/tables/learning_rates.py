"""The table of learning rates: at which each network learns best, on validation clips."""

import math

import pandas as pd

from benchmark.config.metrics import METRICS
from benchmark.config.variant_groups import rate_groups
from benchmark.reporting.finished_runs import VariantRuns, by_variant
from benchmark.reporting.protocol_results import ProtocolResults
from benchmark.reporting.statistics import Summary, summarise_seeds
from benchmark.reporting.tables.notes import seed_note
from benchmark.reporting.tables.rendering import MISSING, Table, bold, interval


def rate_table(results: ProtocolResults, title: str) -> Table:
    """One row a network, one column a learning rate, the best in bold; in the CSV one row a network and rate."""
    protocol = results.protocol
    groups = {group.variant: group for group in by_variant(results.runs)}
    found = rate_groups(protocol)
    rates = sorted({rate for one in found for rate in one.numbers})
    values, cells = [], []
    for one in found:
        members = [(rate, groups[variant]) for rate, variant in one.members]
        errors = {group.variant: last_validation(group) for _, group in members}
        # a rate at which some seed diverged is no choice, however well the others did
        eligible = {name: errors[name].mean for name in errors if not groups[name].diverged}
        eligible = {name: mean for name, mean in eligible.items() if math.isfinite(mean)}
        best = min(eligible, key=eligible.get, default=None)  # pyright: ignore[reportCallIssue, reportArgumentType]  # every key is there
        cell = {"Model": one.label, "n": " or ".join(sorted({f"{group.n}" for _, group in members}))}
        cell |= {head(rate): MISSING for rate in rates}
        for rate, group in members:
            error = errors[group.variant]
            row = {"variant": group.variant, "network": one.label, "learning_rate": rate, "n": group.n}
            row["diverged"] = group.n - len(group.kept)
            row |= {f"validation_mse_{key}": getattr(error, key) for key in ("mean", "sd", "low", "high")}
            values.append(row | {"best": group.variant == best})
            shown = rate_cell(group, error)
            cell[head(rate)] = bold(shown) if group.variant == best else shown
        cells.append(cell)
    notes = [
        f"{METRICS['mse'].head} at the end of training on the {protocol.data.validation_clips:,} validation clips, none"
        " of which is a test clip. Bold: the smallest mean of rates at which no seed diverged. It was chosen on"
        " validation clips; that it is smallest here ranks nothing.",
        seed_note(protocol),
    ]
    return Table(title, pd.DataFrame(values), pd.DataFrame(cells), notes)


def head(rate: int | float) -> str:
    """Head of the column of a rate."""
    return f"Rate {rate:g} ↓"


def last_validation(group: VariantRuns) -> Summary:
    """Validation MSE at the last step at which it was measured, over the seeds that did not diverge."""
    return summarise_seeds([float(run.validation.iloc[-1]) for run in group.kept])


def rate_cell(group: VariantRuns, error: Summary) -> str:
    """Mean with its interval where there is one, and whether some or all runs diverged."""
    if not group.kept:
        return group.diverged
    shown = interval(error.mean, error.low, error.high, METRICS["mse"].decimals)
    return f"{shown} ({group.diverged})" if group.diverged else shown

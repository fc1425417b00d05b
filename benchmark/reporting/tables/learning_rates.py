"""The table of learning rates: at which each network learns best, on validation clips."""

import pandas as pd

from benchmark.config.metrics import METRICS
from benchmark.config.variant_groups import rate_groups
from benchmark.reporting.finished_runs import by_variant
from benchmark.reporting.protocol_results import ProtocolResults
from benchmark.reporting.rate_choice import Tried, best_of
from benchmark.reporting.tables.notes import learnt_notes, seed_note
from benchmark.reporting.tables.rendering import MISSING, Table, bold, interval


def rate_table(results: ProtocolResults, title: str) -> Table:
    """One row a network, one column a learning rate, the best in bold; in the CSV one row a network and rate."""
    protocol = results.protocol
    groups = {group.variant: group for group in by_variant(results.runs)}
    found = rate_groups(protocol)
    rates = sorted({rate for one in found for rate in one.numbers})
    values, cells = [], []
    for one in found:
        tried = [Tried(float(rate), groups[variant]) for rate, variant in one.members]
        best = best_of(tried)
        cell = {"Model": one.label, "n": " or ".join(sorted({f"{each.group.n}" for each in tried}))}
        cell |= {head(rate): MISSING for rate in rates}
        for each in tried:
            row = {"variant": each.group.variant, "network": one.label, "learning_rate": each.rate, "n": each.group.n}
            row |= {"diverged": each.diverged, "not_learnt": each.not_learnt}
            row |= {f"validation_mse_{key}": getattr(each.error, key) for key in ("mean", "sd", "low", "high")}
            values.append(row | {"best": each is best})
            cell[head(each.rate)] = bold(rate_cell(each)) if each is best else rate_cell(each)
        cells.append(cell)
    notes = [
        f"{METRICS['mse'].head} at the end of training on the {protocol.data.validation_clips:,} validation clips,"
        " none of which is a test clip. Bold: the smallest mean of the rates at which fewest seeds diverged and, if"
        " any, no more than half fail. It was chosen on validation clips; that it is smallest here ranks nothing.",
        seed_note(protocol),
        *learnt_notes(results),
    ]
    return Table(title, pd.DataFrame(values), pd.DataFrame(cells), notes)


def head(rate: int | float) -> str:
    """Head of the column of a rate."""
    return f"Rate {rate:g} ↓"


def rate_cell(tried: Tried) -> str:
    """Mean with its interval where there is one, and whether runs diverged or did not learn."""
    group, error = tried.group, tried.error
    if not group.kept:
        return group.diverged
    failed = [group.diverged] * bool(group.diverged)
    failed += [f"{tried.not_learnt} of {group.n} not learnt"] * bool(tried.not_learnt)
    shown = interval(error.mean, error.low, error.high, METRICS["mse"].decimals)
    return f"{shown} ({', '.join(failed)})" if failed else shown

"""Table of the floor: the error of the best predictors that see only the last context frames, and who lies below it."""

import math

import pandas as pd

from benchmark.config.metrics import METRICS
from benchmark.reporting.finished_runs import VariantRuns, by_variant
from benchmark.reporting.protocol_results import ProtocolResults
from benchmark.reporting.tables.notes import data_note, diverged_notes
from benchmark.reporting.tables.rendering import MISSING, Table, number

ALL = "all"
"""In place of k: the places of the digits are known in every frame, predicted ones too."""


def floor_table(results: ProtocolResults, title: str) -> Table:
    """One row a number k of last context frames seen: the best predictor's error, and variants that err less."""
    floor, horizon = results.floor, results.protocol.data.horizon
    means = {group.label: mean_error(group) for group in by_variant(results.runs) if group.config and group.kept}
    below = [sum(mean < error for mean in means.values()) for error in floor["known_mse"]]
    values = floor.assign(variants_below=below, variants=len(means))
    decimals = METRICS["mse"].decimals
    cells = [
        {
            "Context frames seen": row["frames_seen"],
            "Best MSE, digits known ↓": with_error(row, "known_mse", decimals),
            "in frame 1 ↓": with_error(row, "known_mse_1", decimals),
            f"in frame {horizon} ↓": with_error(row, f"known_mse_{horizon}", decimals),
            "Best MSE, digits not known ↓": with_error(row, "unseen_mse", decimals),
            "Variants that err less": f"{row['variants_below']} of {len(means)}" if row["known_mse"] else MISSING,
        }
        for row in values.to_dict("records")
    ]
    return Table(title, values, pd.DataFrame(cells), notes_of(results, means))


def notes_of(results: ProtocolResults, means: dict[str, float]) -> list[str]:
    """What is estimated and how, and what networks and baselines have beside it."""
    baselines = {group.label: mean_error(group) for group in by_variant(results.runs) if not group.config}
    ranked = sorted(means.items(), key=lambda item: item[1])
    beside = [*ranked[:1], *ranked[1:][-1:], *baselines.items()]
    shown = "; ".join(f"{label} {number(mean, METRICS['mse'].decimals)}" for label, mean in beside)
    return [
        f"{METRICS['mse'].head}: {METRICS['mse'].definition}; here of the best predictor there can be, the mean of all"
        " clips that agree with what it saw: the places of the digits in the last context frames.",
        "Digits known: it knows how each digit looks. Not known: it knows only the set of digits; a predictor that"
        f" learns how they look from what it sees lies between the two. {ALL}: it knows where the digits are in every"
        " frame.",
        f"Estimated on {results.floor['clips'].iloc[0]} clips; ± is the standard error of the Monte Carlo estimate.",
        f"Means over seeds, of the best and the worst variant and of the predictions without training: {shown}.",
        data_note(results.protocol, results.runs),
        *diverged_notes(results.runs),
    ]


def mean_error(group: VariantRuns) -> float:
    """MSE of a variant or baseline, mean over the seeds that did not diverge."""
    scores = group.scores("mse").values()
    return sum(scores) / len(scores) if scores else math.nan


def with_error(row: dict, column: str, decimals: int) -> str:
    """An estimate with its standard error; one that is exact alone."""
    error = row[column.replace("_mse", "_error")]
    return number(row[column], decimals) + (f" ± {number(error, decimals)}" if error else "")

"""Table of the long-horizon evaluation: scores past the horizon, and where a prediction without training is better."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from benchmark.config.metrics import HEADLINE, METRICS
from benchmark.config.protocol import Protocol
from benchmark.config.variants import BASELINES
from benchmark.reporting.finished_runs import VariantRuns, by_variant
from benchmark.reporting.protocol_results import ProtocolResults
from benchmark.reporting.statistics import Summary, paired, summarise_seeds
from benchmark.reporting.tables.notes import data_note, definition_note, diverged_notes, seed_note
from benchmark.reporting.tables.rendering import MISSING, Table, interval
from benchmark.reporting.tables.scores import score_cell, seeds_cell

NEVER = "never"


def long_horizon_table(results: ProtocolResults, title: str) -> Table:
    """One row a variant and frame in the CSV; for people, MSE at the first multiples of the horizon and at the end."""
    protocol, runs = results.protocol, results.runs
    groups = {group.variant: group for group in by_variant(runs)}
    values = pd.DataFrame([row for group in groups.values() for row in frame_rows(protocol, group, groups)])
    counts = [column for column in values if "_better_from" in column]  # pyright: ignore[reportOperatorIssue]  # columns are named by text
    values[counts] = values[counts].astype("Int64")  # frames, of which some are missing  # pyright: ignore[reportCallIssue, reportArgumentType]  # columns are named by text
    cells = [displayed_row(protocol, group, groups) for group in groups.values()]
    horizon, beyond = protocol.data.horizon, protocol.evaluation.beyond
    notes = [
        f"The networks were trained to predict {protocol.data.trained_horizon} frames; the same weights here predict"
        f" {beyond} of the same test clips, which go on, fed with their own predictions. Frames are counted from the"
        " first predicted one.",
        f"{METRICS['mse'].head} at a predicted frame: {METRICS['mse'].definition}; mean over clips.",
        f"Growth: that error over the one at frame {horizon}, seed by seed.",
        "Better from: first frame at which the prediction without training has the lower MSE, for the mean over seeds"
        f" and in parentheses for the earliest and the latest seed where these differ; {NEVER}: not within {beyond}"
        " frames.",
        "The CSV has every frame, all metrics, and the paired difference in MSE to the variant's reference (same seed,"
        " same clips; exploratory).",
        *(definition_note(name, "clips") for name in HEADLINE[1:]),
        seed_note(protocol),
        data_note(protocol, runs),
        *diverged_notes(runs),
    ]
    return Table(title, values, pd.DataFrame(cells), notes)


def frame_rows(protocol: Protocol, group: VariantRuns, groups: Mapping[str, VariantRuns]) -> list[dict[str, Any]]:
    """The rows of a variant or baseline in the CSV."""
    scored = {name: curves(protocol, group, name) for name in HEADLINE}
    scored["mse_growth"] = growth(protocol, group)
    reference = protocol.references().get(group.variant)
    compared = curves(protocol, groups[reference], "mse") if reference else None
    better = {}
    for name, frames in overtaken(protocol, group, groups).items():
        column = f"{name.replace('-', '_')}_better_from"
        better |= dict(zip((column, f"{column}_earliest", f"{column}_latest"), frames, strict=True))
    rows = []
    for frame in range(1, protocol.evaluation.beyond + 1):  # pyright: ignore[reportOptionalOperand]  # made where the protocol has it
        row: dict[str, Any] = {"variant": group.variant, "label": group.label, "n": group.n, "frame": frame}
        for name, curve in scored.items():
            row |= columns_of(name, summarise_seeds(curve.loc[frame].to_list()))  # pyright: ignore[reportCallIssue]  # a row
        row["reference"] = reference
        if compared is not None:
            difference = paired(scored["mse"].loc[frame].to_dict(), compared.loc[frame].to_dict())  # pyright: ignore[reportArgumentType]  # columns are seeds
            row |= columns_of("mse_difference", difference)
        rows.append(row | better)
    return rows


def displayed_row(protocol: Protocol, group: VariantRuns, groups: Mapping[str, VariantRuns]) -> dict[str, str]:
    """The row of a variant or baseline for people."""
    horizon = protocol.data.horizon
    shown = sorted({horizon, *range(horizon, protocol.evaluation.beyond + 1, horizon)[:3], protocol.evaluation.beyond})  # pyright: ignore[reportOptionalOperand, reportArgumentType]  # made where the protocol has it
    errors, ratios = curves(protocol, group, "mse"), growth(protocol, group)
    cell = {"Model": group.label, "n": seeds_cell(group)}
    for frame in shown:
        cell[f"MSE at {frame} ↓"] = score_cell(
            group, summarise_seeds(errors.loc[frame].to_list()), METRICS["mse"].decimals
        )
    for frame in shown[1:]:
        found = summarise_seeds(ratios.loc[frame].to_list())
        cell[f"Growth to {frame} ↓"] = interval(found.mean, found.low, found.high, 2)
    better = overtaken(protocol, group, groups)
    for name in protocol.baselines:
        cell[f"{BASELINES[name]} better from ↑"] = overtaken_cell(*better[name]) if name in better else MISSING
    return cell


def curves(protocol: Protocol, group: VariantRuns, metric: str) -> pd.DataFrame:
    """A metric of the runs that did not diverge: one row a predicted frame, one column a seed."""
    frames = range(1, protocol.evaluation.beyond + 1)  # pyright: ignore[reportOptionalOperand]  # made where the protocol has it
    return pd.DataFrame({run.seed: run.beyond[metric] for run in group.kept}, index=frames)  # pyright: ignore[reportOptionalSubscript]  # made where the protocol has it


def growth(protocol: Protocol, group: VariantRuns) -> pd.DataFrame:
    """MSE over that at the horizon: one row a predicted frame, one column a seed."""
    errors = curves(protocol, group, "mse")
    return errors / errors.loc[protocol.data.horizon]


def overtaken(
    protocol: Protocol, group: VariantRuns, groups: Mapping[str, VariantRuns]
) -> dict[str, tuple[int | None, int | None, int | None]]:
    """Baseline -> first frame at which it has the lower MSE, for the mean over seeds, the earliest and the latest seed.

    None = at no frame. Empty for a baseline, and where every run diverged.
    """
    if not group.config or not group.kept:
        return {}
    errors, found = curves(protocol, group, "mse"), {}
    for name in protocol.baselines:
        level = groups[name].runs[0].beyond["mse"]  # pyright: ignore[reportOptionalSubscript]  # made where the protocol has it
        seeds = sorted((first_above(errors[seed], level) for seed in errors), key=lambda frame: (frame is None, frame))
        found[name] = first_above(errors.mean(axis=1, skipna=False), level), seeds[0], seeds[-1]
    return found


def first_above(errors: pd.Series, level: pd.Series) -> int | None:
    """The first frame at which `errors` lie above `level` or are not finite; None = at no frame."""
    above = errors.index[~(errors <= level)]
    return int(above[0]) if len(above) else None


def overtaken_cell(first: int | None, earliest: int | None, latest: int | None) -> str:
    """First frame for the mean over seeds and, where they differ, for the earliest and the latest of them."""
    words = [NEVER if frame is None else str(frame) for frame in (first, earliest, latest)]
    return words[0] if words[0] == words[1] == words[2] else f"{words[0]} ({words[1]} to {words[2]})"


def columns_of(name: str, found: Summary) -> dict[str, float]:
    """The columns of a summary in the CSV."""
    return {f"{name}_{key}": getattr(found, key) for key in ("mean", "low", "high")}

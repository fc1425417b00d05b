"""The table of errors behind a bar."""

import pandas as pd

from benchmark.config.metrics import METRICS
from benchmark.config.protocol import Protocol
from benchmark.reporting.finished_runs import FinishedRun, VariantRuns, by_variant
from benchmark.reporting.protocol_results import ProtocolResults
from benchmark.reporting.statistics import Summary, paired, summarise_seeds
from benchmark.reporting.tables.notes import data_note, definition_note, diverged_notes, seed_note
from benchmark.reporting.tables.rendering import Table, interval
from benchmark.reporting.tables.scores import score_cell, seeds_cell


def occlusion_table(results: ProtocolResults, title: str) -> Table:
    """Error in the box of the hidden digit: one row a variant and gap in the CSV; for people, one column a gap."""
    protocol, runs = results.protocol, results.runs
    groups = {group.variant: group for group in by_variant(runs)}
    gaps = sorted(protocol.data.gaps)
    values, cells = [], []
    for group in groups.values():
        reference = protocol.references().get(group.variant)
        cell = {"Model": group.label, "n": seeds_cell(group)}
        for gap in protocol.data.gaps:
            errors, rises = box_errors(group, gap), box_rises(group, gap, gaps[0])
            found, rise = (summarise_seeds(list(one.values())) for one in (errors, rises))
            row = {"variant": group.variant, "label": group.label, "n": group.n, "gap": gap}
            row |= summary_columns("box_mse", found) | summary_columns("rise", rise)
            change = paired(errors, box_errors(groups[reference], gap) if reference else {})
            steeper = paired(rises, box_rises(groups[reference], gap, gaps[0]) if reference else {})
            row |= {"reference": reference} | summary_columns("difference", change)
            values.append(row | summary_columns("rise_difference", steeper))
            cell[f"Gap {gap} ↓"] = score_cell(group, found, METRICS["mse"].decimals)
            if gap == gaps[-1] and len(gaps) > 1:
                cell[f"Rise to {gap} ↓"] = interval(
                    rise.mean, rise.low, rise.high, METRICS["mse"].decimals, signed=True
                )
                cell[f"Δ at {gap} ↓"] = interval(
                    change.mean, change.low, change.high, METRICS["mse"].decimals, signed=True
                )
                cell["Δ of the rise ↓"] = interval(
                    steeper.mean, steeper.low, steeper.high, METRICS["mse"].decimals, signed=True
                )
        cells.append(cell)
    return Table(title, pd.DataFrame(values), pd.DataFrame(cells), occlusion_notes(protocol, runs))


def occlusion_notes(protocol: Protocol, runs: list[FinishedRun]) -> list[str]:
    """What the errors, rises and differences are, and of which clips and seeds."""
    return [
        definition_note("box_mse"),
        "Gap: occlusion length, the last context frames in which a bar hides the digit's whole box; 0 = no bar."
        " The truth has no bar, every test clip is scored at every gap, and each model was trained on all gaps.",
        f"Rise: error over that at gap {min(protocol.data.gaps)}; Δ: the variant minus its reference at that gap, or"
        " its rise minus that of its reference, paired by seed; below 0 the variant is better. All of it is"
        " exploratory: effect and interval, no test. The CSV has all of them at every gap.",
        data_note(protocol, runs),
        seed_note(protocol),
        *diverged_notes(runs),
    ]


def box_errors(group: VariantRuns, gap: int) -> dict[int, float]:
    """Seed -> error in the box of the digit that is hidden in the last `gap` context frames."""
    return {run.seed: float(run.box_mse[gap]) for run in group.kept}  # pyright: ignore[reportOptionalSubscript]  # made where the protocol has gaps


def box_rises(group: VariantRuns, gap: int, shortest: int) -> dict[int, float]:
    """Seed -> how much larger that error is at `gap` than at the shortest gap."""
    least = box_errors(group, shortest)
    return {seed: error - least[seed] for seed, error in box_errors(group, gap).items()}


def summary_columns(name: str, found: Summary) -> dict[str, float]:
    """The columns of a summary in the CSV."""
    return {f"{name}_{key}": getattr(found, key) for key in ("mean", "sd", "low", "high")}

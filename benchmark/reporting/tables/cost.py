"""The table of what each variant cost."""

from typing import Any

import pandas as pd

from benchmark.reporting.finished_runs import by_variant
from benchmark.reporting.protocol_results import ProtocolResults
from benchmark.reporting.tables.notes import skipped_notes
from benchmark.reporting.tables.rendering import Table, number, thousands
from benchmark.reporting.tables.scores import compute_columns, seeds_cell


def compute_table(results: ProtocolResults, title: str) -> Table:
    """What each variant cost: counted parameters and MACs, and measured speed and memory."""
    protocol, runs = results.protocol, results.runs
    values, cells = [], []
    for group in by_variant([run for run in runs if run.config]):
        costs_of = pd.DataFrame([run.cost for run in group.runs], dtype=float)
        row: dict[str, Any] = {"variant": group.variant, "label": group.label, "n": group.n}
        row |= compute_columns(group, results.costs)
        row["train_s"] = costs_of["train_s"].mean()
        row["clips_per_s"] = costs_of["clips_per_s"].median()
        row["peak_memory_mib"] = costs_of["peak_memory_mib"].max()
        values.append(row)
        cells.append(
            {
                "Model": row["label"],
                "n": seeds_cell(group),
                "Parameters": thousands(row["parameters"]),
                "MACs per clip (10⁶)": number(row["macs"] / 1e6, 1),
                "Clips seen": thousands(row["clips_seen"]),
                "Peak memory (MiB)": number(row["peak_memory_mib"], 0),
            }
        )
    device = sorted({f"{run.provenance['accelerator']}" for run in runs if run.config})
    frames = protocol.data.context + protocol.data.horizon
    notes = [
        f"Trained on {', '.join(device)}, {protocol.training.threads} thread(s) a run, {protocol.training.precision}."
        " Times are in the CSV alone: several runs may have shared the machine, so that they compare no speed.",
        f"MACs: multiply-accumulates of the convolutions in one forward pass over a clip of {frames} frames.",
        "Parameters: every one of them receives gradient.",
        "Peak memory: of the whole training process with its libraries, or on a GPU what PyTorch allocated there.",
        *skipped_notes(runs),
    ]
    return Table(title, pd.DataFrame(values), pd.DataFrame(cells), notes)

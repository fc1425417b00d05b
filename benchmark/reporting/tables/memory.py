"""The table of what networks keep of their past: time constants, forward influence, Lyapunov exponents, norms."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from benchmark.config.probe_stages import ends
from benchmark.config.protocol import Protocol
from benchmark.evaluation.memory.table import QUANTILES
from benchmark.reporting.finished_runs import FinishedRun, VariantRuns, by_variant
from benchmark.reporting.protocol_results import ProtocolResults
from benchmark.reporting.statistics import Summary, summarise_seeds
from benchmark.reporting.tables.gradients import ENDS, STAGE_WORDS
from benchmark.reporting.tables.notes import diverged_notes, reuse_notes, seed_note
from benchmark.reporting.tables.rendering import MISSING, Table, interval, number
from benchmark.reporting.tables.scores import seeds_cell

MEMORIES = {"C": "C", "M": "M", "H": "H", "Z": "highway Z"}
"""Memory -> its name in the heads of columns."""
AT = {"first": 0, "last": -1}
"""Ends of the names of columns -> place of that context frame."""
EXPONENTS = 8


def memory_table(results: ProtocolResults, title: str) -> Table:
    """A row a layer: in the CSV at both ends of training, for people after it; what is of the whole network first."""
    protocol, groups = results.protocol, by_variant([run for run in results.runs if run.config])
    values, cells = [], []
    for group in groups:
        for stage in ends(protocol):
            rows = layer_rows(group, stage)
            values += rows
        cells += [layer_cells(row, group, protocol) for row in rows]
    found = pd.DataFrame(cells)
    shown = [name for name in found if name in ("Model", "n") or (found[name] != MISSING).any()]
    return Table(title, pd.DataFrame(values), found[shown], notes_of(protocol, results.runs))


def layer_rows(group: VariantRuns, stage: str) -> list[dict[str, Any]]:
    """The rows of the CSV for a variant at a stage, bottom layer first."""
    config = group.runs[0].config
    assert config is not None, "a baseline has no memory"
    network = {"variant": group.variant, "label": group.label, "n": group.n, "stage": stage}
    whole = whole_network(group.kept, stage, config.data.context)
    found = [run.memory.get(stage, {}).get("time_constants", {}) for run in group.kept]
    rows = []
    for layer in range(1, config.model.layers + 1):
        row = {**network, "layer": layer}
        for memory in MEMORIES:
            own = [one[f"{memory}{layer}"] for one in found if f"{memory}{layer}" in one]
            for place, share in enumerate(QUANTILES):
                row |= columns(f"tau_{memory}_{100 * share:.0f}", geometric(one[place] for one in own))
        rows.append(row | whole)
    return rows


def whole_network(runs: Sequence[FinishedRun], stage: str, context: int) -> dict[str, Any]:
    """The columns that are of no layer: influence, exponents and norms."""
    found = [run.memory.get(stage, {}) for run in runs]
    row: dict[str, Any] = {}
    for end, place in AT.items():
        row |= columns(f"influence_{end}", geometric(one["influence"][place] for one in found if "influence" in one))
        changes = [one["error_change"][place] for one in found if "error_change" in one]
        row |= columns(f"error_change_{end}", summarise_seeds(changes))
    for place in range(EXPONENTS):
        values = [one["lyapunov"][place] for one in found if len(one.get("lyapunov", ())) > place]
        row |= columns(f"lyapunov_{place + 1}", summarise_seeds(values))
    for end, t in zip(AT, (1, context), strict=True):
        norms = [log_norm(run, stage, t) for run in runs if "fixed8" in run.probe[stage]]
        row |= columns(f"norm_{end}", exponential(summarise_seeds(norms)))
    return row


def log_norm(run: FinishedRun, stage: str, t: int) -> float:
    """Log norm of X at t under eight directions, mean over clips; -inf where one is 0."""
    norms = run.norms
    at = (norms["stage"] == stage) & (norms["measure"] == "fixed8") & (norms["state"] == "X") & (norms["t"] == t)
    return float(norms.loc[at, "log_norm"].item())


def geometric(values: Iterable[float]) -> Summary:
    """Geometric mean over seeds with the interval of its logarithm; what is not positive or no number gives NaN."""
    return exponential(summarise_seeds([math.log(value) if value > 0 else math.nan for value in values]))


def exponential(logs: Summary) -> Summary:
    """The summary of which `logs` is that of the logarithms; it has no standard deviation."""
    return Summary(logs.n, math.exp(logs.mean), math.nan, math.exp(logs.low), math.exp(logs.high))


def columns(name: str, summary: Summary) -> dict[str, float]:
    """Mean and interval as columns of the CSV."""
    return {f"{name}{end}": getattr(summary, key) for end, key in ENDS.items()}


def layer_cells(row: dict[str, Any], group: VariantRuns, protocol: Protocol) -> dict[str, str]:
    """What people see of a row of the CSV; what is of the whole network stands in its first row alone."""
    context, words = protocol.data.context, STAGE_WORDS[row["stage"]]
    shares = [f"{100 * share:.0f}" for share in QUANTILES]
    cells = {"Model": group.label, "n": seeds_cell(group), "Layer": str(row["layer"])}
    for memory, head in MEMORIES.items():
        taus = [row[f"tau_{memory}_{share}"] for share in shares]
        shown = " / ".join(number(tau, 3, significant=True) for tau in taus)
        cells[f"τ of {head}, {' / '.join(shares)} %"] = MISSING if math.isnan(taus[0]) else shown
    whole = {
        "Influence of frame 1": ("influence_first", 3, True),
        f"Influence of frame {context}": ("influence_last", 3, True),
        "Lyapunov exponent 1": ("lyapunov_1", 3, False),
        f"Lyapunov exponent {EXPONENTS}": (f"lyapunov_{EXPONENTS}", 3, False),
        "Norm at frame 1": ("norm_first", 3, True),
        f"Norm at frame {context}": ("norm_last", 3, True),
    }
    for head, (name, digits, significant) in whole.items():
        ends_of = [row[f"{name}{end}"] for end in ENDS]
        shown = interval(*ends_of, digits, significant=significant, signed=name.startswith("lyapunov"))  # pyright: ignore[reportCallIssue]  # three ends
        cells[f"{head}, {words}"] = shown if row["layer"] == 1 else ""
    return cells


def notes_of(protocol: Protocol, runs: Sequence[FinishedRun]) -> list[str]:
    """How each number was made, and which are missing."""
    exchange = (
        "Influence: root mean square change of the last predicted frame, over pixels and clips, when one digit of that"
        " context frame alone is exchanged for another at the same place; geometric mean over seeds. The CSV has the"
        " change of its squared error, too."
        if protocol.data.exchangeable
        else "No forward influence: in these clips no digit can be exchanged for another at the same place."
    )
    return [
        "τ: -1 / mean log of the share that a gate keeps, in steps of that gate, for each channel; mean over clips,"
        " time steps and positions; then the channel that so many of its layer do not exceed, geometric mean over"
        f" seeds. {MISSING}: there is no such memory, or the cell names no gate for it. In a causal LSTM"
        " the gate of M multiplies a squashed mix of M, so that its τ is no bound. C, M, H and Z are not compared with"
        " each other.",
        exchange,
        "Lyapunov exponent: mean log growth per frame of a small change of the state (natural log), along a free"
        f" roll-out of 30 frames after 10 frames of alignment, the leading {EXPONENTS} in the CSV; above 0, small"
        " changes grow. It depends on no target.",
        "Norm: gradient of random directions of the last frame, root mean square over eight of them, at that context"
        f" frame; float64, on {protocol.probe.clips} test clips (exponents: the first 4).",
        seed_note(protocol),
        *reuse_notes([*runs]),
        *diverged_notes([*runs]),
    ]

"""What a protocol will train: parameters and MACs of every variant, and whether they are matched."""

from pathlib import Path

import pandas as pd

from benchmark.config.protocol import Protocol
from benchmark.system.errors import UserError
from benchmark.system.files import write_atomic
from models.counts import count_macs, count_parameters

TOLERANCE = 0.07
"""Largest deviation from `target_parameters`."""


def plan(protocol: Protocol, results_dir: Path) -> str:
    """Write `plan.csv` (variant, label, layers, parameters, macs per clip) and return it as text.

    Raises:
        UserError: a variant's parameters deviate from the protocol's `target_parameters` by more than `TOLERANCE`.
    """
    rows = []
    for entry in protocol.variants:
        run = protocol.first_run(entry.id)
        rows.append(
            {
                "variant": run.variant,
                "label": run.label,
                "layers": run.model.layers or "",
                "hidden_channels": " ".join(map(str, run.model.hidden_channels)),
                "parameters": count_parameters(run.model),
                "macs": count_macs(run.model, run.data.context, run.data.horizon),
            }
        )
    table = pd.DataFrame(rows)
    check_matched(protocol, dict(zip(table["variant"], table["parameters"], strict=True)))
    if protocol.target_parameters:
        table["deviation"] = table["parameters"] / protocol.target_parameters - 1
    write_atomic(results_dir / protocol.name / "plan.csv", table.to_csv(index=False))
    return table.to_string(index=False)


def check_matched(protocol: Protocol, parameters: dict[str, int]) -> None:
    """Raise a UserError that names the variants whose `parameters` are off `target_parameters`, if there is one."""
    target = protocol.target_parameters
    if target is None:
        return
    off = {variant: count for variant, count in parameters.items() if abs(count / target - 1) > TOLERANCE}
    if off:
        found = ", ".join(f"{variant} {count:,} ({count / target - 1:+.1%})" for variant, count in off.items())
        raise UserError(
            f"protocol {protocol.name}: parameters off target_parameters {target:,} by more than {TOLERANCE:.0%}: "
            f"{found}; change hidden_channels or set target_parameters: null"
        )

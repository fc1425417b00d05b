"""The finished runs of a protocol, read back from their folders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.config import Protocol, RunConfig, run_path
from benchmark.errors import UserError
from benchmark.files import read_json, read_json_lines
from benchmark.variants import BASELINE_SEED, BASELINES


@dataclass(frozen=True)
class FinishedRun:
    """One run, or one baseline (then `config` is None and `status`, `probe` and `timing` are empty)."""

    variant: str
    label: str
    seed: int
    config: RunConfig | None
    frames: pd.DataFrame
    """Scores, where a bar hides a digit those without it (gap 0)."""
    status: dict[str, Any]
    probe: dict[str, Any]
    timing: list[dict[str, Any]]
    provenance: dict[str, Any]
    box_mse: pd.Series | None = None
    """Where a bar hides a digit: gap -> error in that digit's box, mean over clips and frames."""

    @property
    def diverged(self) -> bool:
        """Whether its training ended in non-finite numbers; such a run counts in n and enters no mean."""
        return self.status.get("state") == "diverged"


def read_runs(protocol: Protocol, results_dir: Path) -> list[FinishedRun]:
    """All runs of `protocol` in its order, baselines last.

    Raises:
        UserError: a run is not finished; names it.
    """
    runs = [_read(run.variant, run.label, run.seed, run, protocol, results_dir) for run in protocol.runs()]
    names = protocol.baselines
    return runs + [_read(name, BASELINES[name], BASELINE_SEED, None, protocol, results_dir) for name in names]


def _read(
    variant: str, label: str, seed: int, config: RunConfig | None, protocol: Protocol, results_dir: Path
) -> FinishedRun:
    folder = run_path(results_dir, protocol.name, variant, seed)
    names = ("status", "probe", "provenance") if config else ()
    for file in ("frames.parquet", *(f"{name}.json" for name in names)):
        if not (folder / file).exists():
            raise UserError(f"{folder}: not finished ({file} is missing); run the workflow first")
    records = {name: read_json(folder / f"{name}.json") for name in names}
    frames, box_mse = pd.read_parquet(folder / "frames.parquet"), None
    if protocol.data.gaps:
        box_mse = frames.groupby("gap")["box_mse"].mean()
        frames = frames[frames["gap"] == 0].drop(columns="gap")
    return FinishedRun(
        variant=variant,
        label=label,
        seed=seed,
        config=config,
        frames=frames,
        box_mse=box_mse,
        status=records.get("status", {}),
        probe=records.get("probe", {}),
        timing=read_json_lines(folder / "timing.jsonl"),
        provenance=records.get("provenance", {}),
    )

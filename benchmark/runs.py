"""The finished runs of a protocol, read back from their folders."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.config import Protocol, RunConfig, run_path
from benchmark.errors import UserError
from benchmark.files import read_json, read_json_lines
from benchmark.metrics import summarise
from benchmark.parquet import read_parquet
from benchmark.variants import BASELINE_SEED, BASELINES

ENDED = ("finished", "diverged")
"""States of a run whose training is over."""


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

    @cached_property
    def scores(self) -> pd.Series:
        """Metric -> mean over clips and predicted frames."""
        return summarise(self.frames).set_index("metric")["mean"]

    @property
    def diverged(self) -> bool:
        """Whether its training ended in non-finite numbers; such a run counts in n and enters no mean."""
        return self.status.get("state") == "diverged"

    @property
    def skipped(self) -> int:
        """Updates that were left out of its training because loss or gradient was not finite."""
        return self.status.get("skipped", 0)


@dataclass(frozen=True)
class VariantRuns:
    """All runs of a variant, or a baseline: one row of a table."""

    variant: str
    label: str
    runs: list[FinishedRun]

    @property
    def config(self) -> RunConfig | None:
        """The config of its first run; None for a baseline."""
        return self.runs[0].config

    @property
    def n(self) -> int:
        """Number of seeds, diverged runs included."""
        return len(self.runs)

    @property
    def kept(self) -> list[FinishedRun]:
        """The runs that enter means: those that did not diverge."""
        return [run for run in self.runs if not run.diverged]

    @property
    def diverged(self) -> str:
        """`diverged at step N` of the runs that did, with how many of how many; empty if none did."""
        steps = sorted({run.status["step"] for run in self.runs if run.diverged})
        if not steps:
            return ""
        at = f"diverged at step {', '.join(map(str, steps))}"
        return at if not self.kept else f"{self.n - len(self.kept)} of {self.n} {at}"

    def lost_pairs(self, other: "VariantRuns") -> int:
        """Seeds of both variants of which one run or the other has diverged."""
        seeds = [{run.seed for run in runs} for runs in (self.runs, other.runs, self.kept, other.kept)]
        return len(seeds[0] & seeds[1]) - len(seeds[2] & seeds[3])

    def scores(self, metric: str) -> dict[int, float]:
        """Seed -> mean of `metric`, of the runs that did not diverge."""
        return {run.seed: float(run.scores[metric]) for run in self.kept}


def by_variant(runs: list[FinishedRun]) -> list[VariantRuns]:
    """The runs of each variant, in their order."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(run.variant, []).append(run)
    return [VariantRuns(variant, group[0].label, group) for variant, group in groups.items()]


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
    if config and records["status"]["state"] not in ENDED:
        raise UserError(
            f"{folder}: not finished (its training is {records['status']['state']}); run the workflow first"
        )
    frames, box_mse = read_parquet(folder / "frames.parquet"), None
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

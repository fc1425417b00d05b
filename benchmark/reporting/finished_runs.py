"""The finished runs of a protocol, as their records tell of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmark.config.code_sources import code_hash
from benchmark.config.metrics import HEADLINE
from benchmark.config.protocol import Protocol, RunConfig, run_path
from benchmark.config.sections import PredictionsEntry
from benchmark.config.variants import BASELINE_ERRORS, NO_SEED
from benchmark.reporting import published_records as reference
from benchmark.reporting.record import RECORD, RECORDED_STAGES, from_png, kept_of
from benchmark.system.checksums import sha256_of
from benchmark.system.errors import UserError
from benchmark.system.files import read_json


@dataclass(frozen=True)
class FinishedRun:
    """One run, or a row that is not trained: then `config` is None, and what only a training has is empty."""

    variant: str
    label: str
    seed: int
    config: RunConfig | None
    scores: pd.Series
    """Metric -> mean over clips and predicted frames; where a bar hides a digit, without it (gap 0), as all scores."""
    per_frame: pd.DataFrame
    """One row a predicted frame 1, 2, ..., one column a metric: mean over clips."""
    per_clip: pd.DataFrame
    """One row a clip, one column a metric of the main table: mean over predicted frames."""
    infinite: int
    """Frames of infinite PSNR, left out of its means."""
    undefined: int
    """Predicted frames with pixels that are not finite."""
    shown_clip: dict[str, Any] = field(default_factory=dict)
    """`clip`, number of the first clip that the protocol shows; its `context`, `truth`, `prediction` (T, H, W, C).
    Empty where nothing is trained."""
    box_mse: pd.Series | None = None
    """Where a bar hides a digit: gap -> error in that digit's box, mean over clips and frames."""
    beyond: pd.DataFrame | None = None
    """Where the protocol has a long-horizon evaluation: as `per_frame`, to the last of those frames."""
    status: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, float | None] = field(default_factory=dict)
    """`train_s`, `clips_per_s`, `peak_memory_mib`."""
    validation: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    """Training step -> MSE on the validation clips."""
    probe: dict[str, Any] = field(default_factory=dict)
    """Stage -> what `probe.json` holds of it."""
    norms: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Columns stage, measure, state, layer, t, log_norm: mean over clips of the natural log of the norm."""
    memory: dict[str, Any] = field(default_factory=dict)
    """Stage -> what `summarise_memory` found; empty unless the protocol has `probe.memory`."""
    lpips_backbone: dict[str, Any] = field(default_factory=dict)
    learnt: bool = True
    """Whether it met the rule of its protocol, `learnt`; true where there is none, and of a baseline."""
    predictions: dict[str, str] = field(default_factory=dict)
    """Of predictions of other code: `file`, its `sha256` and `test_sha256` of the clips; else empty."""
    reused: bool = False
    """Its record is the published one, not made here."""
    stale: bool = False
    """Its record was made by code that has changed since."""

    @property
    def diverged(self) -> bool:
        """Whether its training ended in non-finite numbers; such a run counts in n and enters no mean."""
        return self.status.get("state") == "diverged"

    @cached_property
    def frame_curves(self) -> dict[tuple[str, str], np.ndarray]:
        """Stage and measure -> natural log of the norm of X at t = 1, ..., K, mean over clips."""
        frames = self.norms[self.norms["state"] == "X"].sort_values("t")
        return {key: group["log_norm"].to_numpy(float) for key, group in frames.groupby(["stage", "measure"])}  # pyright: ignore[reportReturnType]  # keys are pairs of text

    @property
    def last_validation(self) -> float:
        """MSE on the validation clips at the last step at which it was measured; NaN where it never was."""
        return float(self.validation.iloc[-1]) if len(self.validation) else np.nan

    @property
    def skipped(self) -> int:
        """Updates that were left out of its training because loss or gradient was not finite."""
        return self.status.get("skipped", 0)


@dataclass(frozen=True)
class VariantRuns:
    """All runs of a variant, or what is not trained: one row of a table."""

    variant: str
    label: str
    runs: list[FinishedRun]

    @property
    def config(self) -> RunConfig | None:
        """The config of its first run; None for what is not trained."""
        return self.runs[0].config

    @property
    def predictions(self) -> dict[str, str]:
        """Which predictions of other code it is; else empty."""
        return self.runs[0].predictions

    @property
    def n(self) -> int:
        """Number of seeds, diverged runs included."""
        return len(self.runs)

    @property
    def kept(self) -> list[FinishedRun]:
        """The runs that enter means: those that did not diverge."""
        return [run for run in self.runs if not run.diverged]

    @property
    def learnt(self) -> list[FinishedRun]:
        """The runs whose gradients count once training has begun: those that have learnt by the protocol's rule."""
        return [run for run in self.kept if run.learnt]

    def probed(self, stage: str) -> list[FinishedRun]:
        """The runs whose gradients count at `stage`: before training all that are kept, then those that learnt."""
        return self.kept if stage == "init" else self.learnt

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

    def unlearnt_pairs(self, other: "VariantRuns") -> int:
        """Seeds of both variants whose runs are kept and of which one or the other has not learnt."""
        seeds = [{run.seed for run in runs} for runs in (self.kept, other.kept, self.learnt, other.learnt)]
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


def read_runs(protocol: Protocol, results_dir: Path, *, reuse: bool = False) -> list[FinishedRun]:
    """All runs of `protocol` in its order, then the predictions of other code, baselines last.

    Args:
        reuse: take a run whose published record is of this config and data from that record.

    Raises:
        UserError: a run has no record, or records are of different clips or LPIPS backbones; names it.
    """
    folder, runs = results_dir / protocol.name, read_trained(protocol, results_dir, reuse=reuse)
    if runs:
        check_alike(runs, kept_of(read_json(folder / "lpips_backbone.json")), folder)
    for name, label in protocol.rows_not_trained().items():
        recorded = read_record(run_path(results_dir, protocol.name, name, NO_SEED) / RECORD)
        about = {"variant": name, "label": label, "seed": NO_SEED, "config": None}
        if entry := protocol.predictions_of(name):
            check_unchanged(entry, recorded["predictions"], folder)
            about["predictions"] = recorded["predictions"]
        runs.append(FinishedRun(**about | scores_of(recorded)))
    return runs


def check_unchanged(entry: PredictionsEntry, scored: Mapping[str, str], folder: Path) -> None:
    """Refuse scores of other predictions than those that lie there now; where none do, the scores stay.

    Raises:
        UserError: they have changed since.
    """
    path = Path(entry.predictions)
    if path.exists() and sha256_of(path) != scored["sha256"]:
        raise UserError(f"{folder}: {entry.id}: {path} has changed since it was scored; run the workflow again")


def by_seed(one: VariantRuns, other: VariantRuns, metric: str) -> tuple[dict[int, float], dict[int, float]]:
    """The scores of both by seed; of predictions of other code, which have no seed, the same at each of the other."""
    ours, theirs = one.scores(metric), other.scores(metric)
    if one.predictions and not other.predictions:
        ours = dict.fromkeys(theirs, ours[NO_SEED])
    return ours, theirs


def read_trained(protocol: Protocol, results_dir: Path, *, reuse: bool = False) -> list[FinishedRun]:
    """All runs of `protocol` in its order, without baselines, whatever they were scored on.

    Args: `reuse`: see `read_runs`.

    Raises:
        UserError: a run has no record, or the errors of the baselines are missing; names it.
    """
    limit, runs = learnt_below(protocol, results_dir / protocol.name), []
    for run in protocol.runs():
        published = reference.record_of(run) if reuse else None
        recorded = read_record(published or run.path(results_dir) / RECORD)
        runs.append(of_run(recorded, run, reused=published is not None, limit=limit))
    return runs


def read_record(path: Path) -> dict[str, Any]:
    """The record at `path`.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if not path.exists():
        raise UserError(f"{path.parent}: not finished ({path.name} is missing); run the workflow first")
    return read_json(path)


def learnt_below(protocol: Protocol, folder: Path) -> float:
    """The validation MSE below which a run of `protocol` has learnt, from its `folder`; infinite without such a rule.

    Raises:
        UserError: the error of the baselines is not there, or one is missing.
    """
    if protocol.learnt is None:
        return math.inf
    path = folder / BASELINE_ERRORS
    if not path.exists():
        raise UserError(f"{path}: is missing; the command `baselines` makes it")
    errors = read_json(path)
    missing = [name for name in protocol.baselines if name not in errors]
    if missing:
        raise UserError(f"{path}: lacks {missing[0]}; the command `baselines` makes it anew")
    return (1 - protocol.learnt.margin) * min(errors[name] for name in protocol.baselines)


def of_run(recorded: dict[str, Any], run: RunConfig, *, reused: bool, limit: float = math.inf) -> FinishedRun:
    """The run that a record tells of; `limit`: see `learnt_below`."""
    found = FinishedRun(
        variant=run.variant,
        label=run.label,
        seed=run.seed,
        config=run,
        **scores_of(recorded),
        **{name: recorded[name] for name in ("status", "provenance", "cost", "probe", "lpips_backbone")},
        validation=validation_of(recorded),
        norms=norms_of(recorded["norms"]),
        memory=all_numbers(recorded.get("memory", {})),
        reused=reused,
        stale=any(recorded["code"][stage] != code_hash(stage, run.model) for stage in RECORDED_STAGES),
    )
    # NaN is below no limit, so that a run whose validation gave none has not learnt where there is a rule
    learnt = not found.diverged and (limit == math.inf or found.last_validation < limit)
    return replace(found, learnt=learnt)


def validation_of(recorded: dict[str, Any]) -> pd.Series:
    """Step -> MSE on the validation clips, by step: a published record has its keys in the order of texts."""
    return pd.Series(
        {int(step): number(value) for step, value in recorded["validation"].items()}, dtype=float
    ).sort_index()


def scores_of(recorded: dict[str, Any]) -> dict[str, Any]:
    """The fields that baselines have too."""
    found: dict[str, Any] = {name: numbers(recorded[name]) for name in ("per_frame", "per_clip")}
    for table, counted in ((found["per_frame"], "frame"), (found["per_clip"], "clip")):
        table.index = pd.RangeIndex(1, len(table) + 1, name=counted)
    if "beyond" in recorded:
        found["beyond"] = numbers(recorded["beyond"])
        found["beyond"].index = pd.RangeIndex(1, len(found["beyond"]) + 1, name="frame")
    if "box_mse" in recorded:
        by_gap = recorded["box_mse"]
        found["box_mse"] = pd.Series({int(gap): number(value) for gap, value in by_gap.items()}).sort_index()
    if "film" in recorded:
        shown = recorded["film"]
        frames = {name: from_png(*shown[name]) for name in ("context", "truth", "prediction")}
        found["shown_clip"] = frames | {"clip": shown["clip"]}
    return found | {
        "scores": pd.Series({name: number(value) for name, value in recorded["mean"].items()}),
        "infinite": recorded["infinite_frames"],
        "undefined": recorded["undefined_frames"],
    }


def norms_of(recorded: dict[str, Any]) -> pd.DataFrame:
    """The columns of `FinishedRun.norms`."""
    tables = []
    for stage, measures in recorded.items():
        for measure, states in measures.items():
            for name, values in states.items():
                places = {"stage": stage, "measure": measure, "state": name[0], "layer": int(name[1:])}
                with np.errstate(divide="ignore"):
                    log_norm = np.log([number(value) for value in values])
                tables.append(pd.DataFrame(places | {"t": range(1, len(values) + 1), "log_norm": log_norm}))
    return pd.concat(tables, ignore_index=True)


def numbers(columns: dict[str, list[Any]]) -> pd.DataFrame:
    """Columns as a record holds them."""
    return pd.DataFrame({name: [number(value) for value in values] for name, values in columns.items()})


def all_numbers(value: Any) -> Any:
    """Mappings of lists of numbers as a record holds them."""
    if isinstance(value, dict):
        return {key: all_numbers(one) for key, one in value.items()}
    return [number(one) for one in value]


def number(value: float | str | None) -> float:
    """A number as a record holds it."""
    return np.nan if value is None else float(value)


def check_alike(runs: Sequence[FinishedRun], backbone: dict[str, Any], folder: Path) -> None:
    """Refuse runs that were scored on different clips, by another network under LPIPS, or before a metric was added.

    Raises:
        UserError: names one of them.
    """
    known = {metric for run in runs for metric in run.scores.index}
    for run in runs:
        name = f"{run.variant} seed={run.seed}"
        if run.provenance["data_hash"] != runs[0].provenance["data_hash"]:
            other = f"{runs[0].variant} seed={runs[0].seed}"
            raise UserError(f"{folder}: {name} was scored on other clips than {other}; make the one or the other again")
        if run.lpips_backbone != backbone:
            where = "its published record" if run.reused else "its record"
            raise UserError(
                f"{folder}: {name}: {where} has LPIPS by {run.lpips_backbone}, lpips_backbone.json says {backbone}; "
                "give data_dir the same backbone, or go without reuse"
            )
        later = [metric for metric in HEADLINE if metric in known and metric not in run.scores]
        if later:
            how = "go without reuse" if run.reused else "run the workflow, which scores it again"
            raise UserError(f"{folder}: {name}: its record is older than the metric {later[0]}; {how}")

"""What the files of a run folder say at one moment, as `tracking` mirrors it. Imports no mlflow."""

import bisect
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from benchmark.system.files import read_json, read_json_lines

Curves = dict[str, dict[int, float]]
"""Metric -> step -> value."""

ARTIFACTS = ("run.yaml", "provenance.json", "probe.json", "*.parquet", "*.png", "*.gif")
UNDERWAY = ("running", "interrupted")
"""States of a run whose scores and gradients, if there are any, are of an earlier training."""
NO_STEP = 0
"""Step of what is measured once: MLflow draws a metric that has only this step as bars, a bar a run."""
IDENTITY = ("protocol", "variant", "label", "seed")
"""Keys of `run.yaml` that become tags; all others become parameters."""
PROBED_STATES = ("X", "H", "Z")
"""States whose gradient norms become curves; C and M stand in the figures."""
PROBED_STAGES = ("init", "trained")
"""Stages that have metrics of their own; of those between there is a point of the curves of reach and openness."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What the files of a run folder say at one moment, in MLflow's terms."""

    protocol: str
    name: str
    state: str
    started_ms: int
    """When `run.yaml` was written, in milliseconds since 1970."""
    clock: list[tuple[int, float]]
    """(step, seconds trained until then), ascending."""
    params: dict[str, str]
    tags: dict[str, str]
    curves: Curves
    data: dict[str, Any]
    files: list[Path]

    def elapsed_ms(self, step: int | None = None) -> int:
        """Milliseconds of training up to `step` (default: all), 0 before the first step that was timed."""
        position = len(self.clock) if step is None else bisect.bisect(self.clock, (step, math.inf))
        return round(1000 * self.clock[position - 1][1]) if position else 0


def read_snapshot(folder: Path) -> Snapshot:
    """Read a run folder: of a training that goes on, the curves up to its checkpoint; of others, all results.

    What lies past the checkpoint may come out otherwise after a kill (on a GPU), and MLflow takes no point back.
    """
    run = yaml.safe_load((folder / "run.yaml").read_text())
    status, provenance = read_json(folder / "status.json"), read_json(folder / "provenance.json")
    metrics, timing = (read_json_lines(folder / name) for name in ("metrics.jsonl", "timing.jsonl"))
    if status["state"] == "running":
        metrics, timing = ([line for line in lines if line["step"] <= status["step"]] for lines in (metrics, timing))
    curves = _curves(metrics)
    curves |= _curves(timing, "system/", ("clips_per_s", "peak_memory_mib"))
    if status["state"] not in UNDERWAY:
        curves |= _test_curves(folder / "frames.parquet")
        curves |= _probe_curves(folder)
    seconds = itertools.accumulate(line["elapsed_s"] for line in timing)
    return Snapshot(
        protocol=run["protocol"],
        name=f"{run['variant']} seed={run['seed']}",
        state=status["state"],
        started_ms=int((folder / "run.yaml").stat().st_mtime * 1000),
        clock=[(line["step"], elapsed) for line, elapsed in zip(timing, seconds, strict=True)],
        params=dict(_flat({key: value for key, value in run.items() if key not in IDENTITY})),
        tags=_tags(run, status["state"], provenance),
        curves=curves,
        data=run["data"],
        files=[path for name in ARTIFACTS for path in sorted(folder.glob(name)) if path.name[0] != "."],
    )


def _tags(run: dict[str, Any], state: str, provenance: dict[str, Any]) -> dict[str, str]:
    protocol, variant, seed, model = run["protocol"], run["variant"], run["seed"], run["model"]
    slot, commit = model.get("highway_slot"), provenance["git_commit"] or "unknown"
    return {
        "run_key": f"{protocol}/{variant}/seed={seed}/{provenance['config_hash']}",
        "protocol": protocol,
        "variant": variant,
        "label": run["label"],
        "seed": str(seed),
        "cell": model.get("cell") or model["model"],
        "highway": f"slot {slot}" if slot else "none",
        "layers": str(len(model.get("hidden_channels", ()))),
        "state": state,
        "git_commit": commit,
        "git_dirty": str(provenance["git_dirty"]).lower(),
        "data_hash": provenance["data_hash"],
        "device": provenance["device"],
        "accelerator": provenance.get("accelerator", "unknown"),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": f"benchmark train --protocol {protocol} --variant {variant} --seed {seed}",
        "mlflow.source.git.commit": commit,
    }


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _curves(lines: Iterable[dict[str, Any]], prefix: str = "", only: tuple[str, ...] = ()) -> Curves:
    curves: Curves = {}
    for line in lines:
        for key in only or line.keys() - {"step"}:
            name = f"{prefix}{key}".replace("validation/", "val/")
            curves.setdefault(name, {})[line["step"]] = float(line[key])
    return curves


def _test_curves(path: Path) -> Curves:
    """Means over `frames.parquet` as the tables state them, and the mean squared error by frame and by gap."""
    if not path.exists():
        return {}
    from benchmark.evaluation.mean_scores import summarise_scores
    from benchmark.system.parquet import read_parquet

    found = summarise_scores(read_parquet(path))
    curves: Curves = {f"test/{metric}": {NO_STEP: float(mean)} for metric, mean in found.mean.items()}
    curves["test/per_frame/mse"] = {int(frame): float(mean) for frame, mean in found.per_frame["mse"].items()}  # pyright: ignore[reportArgumentType]  # frames are numbers
    if len(found.box_mse):
        curves["test/per_gap/box_mse"] = {int(gap): float(mean) for gap, mean in found.box_mse.items()}  # pyright: ignore[reportArgumentType]  # lengths are numbers
    return curves


def _probe_curves(folder: Path) -> Curves:
    """Reach, half-life and openness where they exist, and the mean gradient norm of `PROBED_STATES` by time step t.

    Reach and openness are curves over the steps of training too.
    """
    curves: Curves = {}
    if (folder / "probe.json").exists():
        for stage, results in read_json(folder / "probe.json").items():
            found = {name: results["residual"][name] for name in ("reach", "half_life")}
            found = {name: float(value) for name, value in found.items() if value is not None}
            if stage in PROBED_STAGES:
                curves |= {f"probe/{name}_{stage}": {NO_STEP: value} for name, value in found.items()}
            found.pop("half_life", None)
            if results["openness"]:
                found["openness"] = fmean(results["openness"])
            if "step" in results:  # which those of the first runs lack
                for name, value in found.items():
                    curves.setdefault(f"probe/{name}", {})[results["step"]] = value
    if (folder / "probe.parquet").exists():
        from benchmark.system.parquet import read_parquet

        norms = read_parquet(folder / "probe.parquet")
        norms = norms[norms["stage"].isin(PROBED_STAGES) & norms["state"].isin(PROBED_STATES)]
        norms = norms[norms["measure"] == "residual"]
        means = norms.groupby(["stage", "state", "layer", "t"])["norm"].mean()
        for (stage, state, layer, t), norm in means.items():  # pyright: ignore[reportGeneralTypeIssues]  # keys of a group
            name = state if state == "X" else f"{state}.{layer}"
            curves.setdefault(f"probe/{stage}/{name}", {})[int(t)] = float(norm)
    return curves

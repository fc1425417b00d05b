"""The record of a finished run: small enough to commit, and all that tables and figures take of it."""

import base64
import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from benchmark.config.code_sources import code_hash
from benchmark.config.metrics import HEADLINE, RECALL
from benchmark.config.probe_stages import stages, trains
from benchmark.config.protocol import Protocol, run_path
from benchmark.config.variants import PREDICTIONS
from benchmark.data.npz import read_npz
from benchmark.evaluation.mean_scores import ScoreSummary, summarise_scores
from benchmark.evaluation.memory.table import MEMORY, summarise_memory
from benchmark.system.errors import UserError
from benchmark.system.files import read_json, read_json_lines, write_json
from benchmark.system.parquet import read_parquet

RECORD = "record.json"
"""Its name in a run folder."""
RECORDED_STAGES = ("train", "evaluate", "probe")
"""Whose code decides what a record says."""
ENDED = ("finished", "diverged")
"""States of a run whose training is over."""
OF_ALL = ("frames.parquet", "examples.npz")
OF_RUN = ("status.json", "provenance.json", "model.safetensors", "probe.parquet", "probe.json")
"""Files of a run folder without which there is no record, of all rows and of runs alone."""
BEYOND = "beyond.parquet"
CURVE_POINTS = 200
"""Points of the curves that a record keeps at most."""
_PLACES = ("variant", "seed", "clip", "frame")


def write_record(protocol: Protocol, variant: str, seed: int, results_dir: Path) -> None:
    """Write the record of a run or another row into its folder.

    Raises:
        UserError: it is not finished; names what is missing.
    """
    found = make_record(protocol, variant, seed, results_dir)
    write_json(run_path(results_dir, protocol.name, variant, seed) / RECORD, found)


def make_record(protocol: Protocol, variant: str, seed: int, results_dir: Path) -> dict[str, Any]:
    """What is kept of a run or another row, as plain values; see `write_record`."""
    folder = run_path(results_dir, protocol.name, variant, seed)
    backbone = read_json(results_dir / protocol.name / "lpips_backbone.json")
    given = protocol.predictions_of(variant) is not None
    of_run = (*OF_RUN, *([MEMORY] if protocol.probe.memory else [])) if protocol.is_trained(variant) else ()
    needed = [*OF_ALL, *([BEYOND] if protocol.evaluation.beyond else []), *([PREDICTIONS] if given else []), *of_run]
    for name in needed:
        if not (folder / name).exists():
            raise UserError(f"{folder}: not finished ({name} is missing); run the workflow first")
    about = {"variant": variant, "seed": seed, "lpips_backbone": kept_of(backbone)}
    found = about | scores(folder, protocol)
    if trains(protocol):
        found["film"] = shown_clip(folder, protocol)
    if given:
        found["predictions"] = read_json(folder / PREDICTIONS)
    if not protocol.is_trained(variant):
        return found
    return found | training(folder, protocol, variant, seed) | gradients(folder, protocol) | memory(folder, protocol)


def training(folder: Path, protocol: Protocol, variant: str, seed: int) -> dict[str, Any]:
    """How a run was trained: config, code, how it ended, curves, cost, provenance.

    Raises:
        UserError: its training is not over.
    """
    run, status = protocol.run(variant, seed), read_json(folder / "status.json")
    if status["state"] not in ENDED:
        raise UserError(f"{folder}: not finished (its training is {status['state']}); run the workflow first")
    lines, timing = (read_json_lines(folder / f"{name}.jsonl") for name in ("metrics", "timing"))
    validation = {line["step"]: line["validation/mse"] for line in lines if "validation/mse" in line}
    return {
        "identity": run.identity("evaluation", "probe"),
        "code": {stage: code_hash(stage, run.model) for stage in RECORDED_STAGES},
        "config": run.to_dict(),
        "status": status,
        "curve": thinned(curve(lines)),
        "validation": {step: plain(value) for step, value in validation.items()},
        "cost": cost(timing),
        "weights_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "provenance": read_json(folder / "provenance.json"),
    }


def scores(folder: Path, protocol: Protocol) -> dict[str, Any]:
    """What `evaluate` found: means, by frame and clip too; where there are any, by occlusion length or long-horizon."""
    summary = summarise_scores(read_parquet(folder / "frames.parquet"))
    table, mean, found = summary.frames, summary.mean, {}
    metrics = [name for name in table.columns if name not in _PLACES]
    by_clip = table.groupby("clip")
    if protocol.data.gaps:
        found["box_mse"] = {gap: plain(value) for gap, value in summary.box_mse.items()}
    if protocol.evaluation.beyond:
        found["beyond"] = by_frame(summarise_scores(read_parquet(folder / BEYOND)))
    return found | {
        "scores_sha256": {name: short_hash(table[name].to_numpy().tobytes()) for name in metrics},
        "mean": {name: plain(mean[name]) for name in metrics},
        "per_frame": by_frame(summary),
        "per_clip": {name: [rounded(value, 8) for value in by_clip[name].mean()] for name in metrics if is_main(name)},
        "infinite_frames": int(np.isposinf(table["psnr"]).sum()),
        "undefined_frames": int(table["mse"].isna().sum()),
    }


def by_frame(summary: ScoreSummary) -> dict[str, list[float | str | None]]:
    """Metric -> its mean over clips at predicted frame 1, 2, ..."""
    found = summary.per_frame
    return {str(name): [plain(value) for value in found[name]] for name in found.columns}


def is_main(metric: str) -> bool:
    """Whether `metric` is one of the main table."""
    return metric in (*HEADLINE, *RECALL) or metric.startswith("lpips")


def gradients(folder: Path, protocol: Protocol) -> dict[str, Any]:
    """What `probe` found: reach, half-life, openness; and geometric means over clips of the norms at t = 1, 2, ...

    Of the single ways through memory and through frames the norms of X alone, all that is drawn of them; where nothing
    is trained, one stage.
    """
    kept, summary = stages(protocol), read_json(folder / "probe.json")
    table = read_parquet(folder / "probe.parquet")
    kept_rows = table["measure"].isin(["residual", "fixed"]) | (table["state"] == "X")
    table = table[kept_rows & table["stage"].isin(kept)].copy()
    with np.errstate(divide="ignore"):
        table["norm"] = np.log(table["norm"])
    norms: dict[str, dict[str, dict[str, list[Any]]]] = {}
    keys = ["stage", "measure", "state", "layer"]
    means = np.exp(table.groupby([*keys, "t"], sort=False)["norm"].mean())
    for (stage, measure, state, layer), group in means.groupby(level=keys, sort=False):  # pyright: ignore[reportAttributeAccessIssue]  # exp of a column is a column
        norms.setdefault(stage, {}).setdefault(measure, {})[f"{state}{layer}"] = [rounded(one, 5) for one in group]
    return {"probe": {stage: summary[stage] for stage in kept if stage in summary}, "norms": norms}


def memory(folder: Path, protocol: Protocol) -> dict[str, Any]:
    """What `probe` found of time constants, influence and exponents, by stage; nothing unless the protocol asks."""
    if not protocol.probe.memory:
        return {}
    by_stage = dict(list(read_parquet(folder / MEMORY).groupby("stage")))
    found = {stage: summarise_memory(by_stage[stage]) for stage in stages(protocol) if stage in by_stage}
    return {"memory": {stage: rounded_all(one) for stage, one in found.items()}}


def rounded_all(value: Any) -> Any:
    """`rounded` to six digits of every number in mappings and lists."""
    if isinstance(value, dict):
        return {key: rounded_all(one) for key, one in value.items()}
    return [rounded(one, 6) for one in value]


def shown_clip(folder: Path, protocol: Protocol) -> dict[str, Any]:
    """The first clip that the protocol shows, true and predicted, as PNG files with the frames one above the other."""
    numbers, *shown = read_npz(folder / "examples.npz", "clip", "context", "truth", "prediction")
    clip = min(protocol.evaluation.film_clips)
    place = list(numbers).index(clip)
    return {"clip": clip} | dict(
        zip(("context", "truth", "prediction"), (to_png(frames[place]) for frames in shown), strict=True)
    )


def to_png(frames: np.ndarray) -> tuple[str, int]:
    """Frames (T, H, W, C; uint8) as a PNG file in base64, and T."""
    stacked = frames.reshape(-1, *frames.shape[2:])  # (T * H, W, C)
    buffer = io.BytesIO()
    Image.fromarray(stacked if stacked.shape[-1] == 3 else stacked[..., 0]).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode(), len(frames)


def from_png(text: str, frames: int) -> np.ndarray:
    """The inverse of `to_png`."""
    stacked = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
    return stacked.reshape(frames, stacked.shape[0] // frames, stacked.shape[1], -1)


def cost(timing: list[dict[str, Any]]) -> dict[str, float | None]:
    """Seconds of training, clips/s (median over the logged intervals) and peak memory."""
    speeds = [line["clips_per_s"] for line in timing]
    return {
        "train_s": float(sum(line["elapsed_s"] for line in timing)),
        "clips_per_s": float(np.median(speeds)) if speeds else None,
        "peak_memory_mib": max((line["peak_memory_mib"] for line in timing), default=None),
    }


def kept_of(backbone: dict[str, Any]) -> dict[str, Any]:
    """What tells one network under LPIPS from another."""
    return {key: backbone[key] for key in ("net", "status", "sha256") if key in backbone}


def curve(lines: list[dict[str, Any]]) -> pd.DataFrame:
    """The training curve step by step: `step`, `loss`, and `hash` of all values that were logged up to there."""
    steps: dict[int, dict[str, Any]] = {}
    for line in lines:
        steps.setdefault(line["step"], {}).update(line)
    digest, rows = hashlib.sha256(), []
    for step in sorted(steps):
        digest.update(json.dumps(steps[step], sort_keys=True).encode())
        loss = steps[step].get("train/loss", math.nan)
        rows.append((step, loss if math.isfinite(loss) else None, digest.hexdigest()[:12]))
    return pd.DataFrame(rows, columns=["step", "loss", "hash"], dtype=object)


def thinned(points: pd.DataFrame) -> dict[str, list[Any]]:
    """At most `CURVE_POINTS` of the `points`, evenly spread, the last among them; column -> values."""
    count = len(points)
    kept = np.unique(np.linspace(0, count - 1, min(count, CURVE_POINTS)).round().astype(int))
    return {name: list(points[name].iloc[kept]) for name in points}  # pyright: ignore[reportReturnType]  # columns are named by text


def short_hash(data: bytes) -> str:
    """The first 16 digits of the SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()[:16]


def plain(value: float) -> float | str | None:
    """A number for JSON, which knows neither NaN (null) nor infinity (`inf`)."""
    if math.isnan(value):
        return None
    return float(value) if math.isfinite(value) else str(float(value))


def rounded(value: float, digits: int) -> float | str | None:
    """`plain` with so many significant digits."""
    return plain(float(f"{value:.{digits}g}"))

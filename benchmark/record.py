"""The record of a finished run: small enough to commit, and enough to see whether a later run came out equal."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmark.files import read_json_lines
from benchmark.metrics import summarise
from benchmark.runs import FinishedRun

CURVE_POINTS = 200
"""Points of the curves that a record keeps at most."""
_PLACES = ("variant", "seed", "clip", "frame")


def record(run: FinishedRun, folder: Path, backbone: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a run: config, how it ended, curves, means per clip and per frame, gradients, provenance.

    Args:
        run: what `read_runs` found.
        folder: its run folder.
        backbone: what `lpips_backbone.json` holds.
    """
    assert run.config is not None
    metrics = [name for name in run.frames.columns if name not in _PLACES]
    finite = run.frames.replace([np.inf, -np.inf], np.nan)
    per_clip = finite.groupby("clip")[metrics].mean()
    per_frame = finite.groupby("frame")[metrics].mean()
    mean = summarise(run.frames).set_index("metric")["mean"]
    by_gap = {} if run.box_mse is None else {"box_mse": {gap: plain(value) for gap, value in run.box_mse.items()}}
    return by_gap | {
        "config": run.config.to_dict(),
        "status": run.status,
        "curve": thinned(curve(read_json_lines(folder / "metrics.jsonl"))),
        "weights_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "scores_sha256": {name: short_hash(run.frames[name].to_numpy().tobytes()) for name in metrics},
        "mean": {name: plain(mean[name]) for name in metrics},
        "per_frame": {name: [plain(value) for value in per_frame[name]] for name in metrics},
        "per_clip": {name: [plain(value) for value in per_clip[name]] for name in metrics[:1]},
        "probe": run.probe,
        "lpips_backbone": {key: backbone[key] for key in ("net", "status", "sha256") if key in backbone},
        "provenance": run.provenance,
    }


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
    return {name: list(points[name].iloc[kept]) for name in points}


def short_hash(data: bytes) -> str:
    """The first 16 digits of the SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()[:16]


def plain(value: float) -> float | None:
    """A number for JSON, which knows neither NaN nor infinity; eight significant digits."""
    return float(f"{value:.8g}") if np.isfinite(value) else None

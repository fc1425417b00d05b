"""Scores of a run, or of a baseline, on the fixed test clips."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from benchmark import engine
from benchmark.backbone import load_lpips
from benchmark.checkpoint import load_weights
from benchmark.config import Protocol, run_path
from benchmark.data.clips import load_clips
from benchmark.data.stream import to_float
from benchmark.errors import UserError
from benchmark.files import atomic_path, read_json
from benchmark.films import film_animation, film_strip
from benchmark.metrics import score
from benchmark.variants import BASELINES

Forecast = Callable[[Float[Tensor, "B K C H W"]], Float[Tensor, "B T C H W"]]
"""Context frames in, predicted frames of the horizon out; not clipped."""


def baseline(name: str, horizon: int) -> Forecast:
    """The forecast of the baseline `name` of `benchmark.variants.BASELINES`."""
    frame_of = {
        "last-frame": lambda context: context[:, -1:],
        "context-mean": lambda context: context.mean(dim=1, keepdim=True),
        "black": lambda context: torch.zeros_like(context[:, -1:]),
    }[name]
    return lambda context: frame_of(context).expand(-1, horizon, -1, -1, -1)


def evaluate(protocol: Protocol, variant: str, seed: int, results_dir: Path, data_dir: Path, device: str) -> None:
    """Score a run or a baseline; writes `frames.parquet`, `examples.npz`, `film.png` and `film.gif` to its folder.

    Raises:
        UserError: data, backbone or trained weights are missing, damaged or of another configuration.
    """
    engine.prepare_device(device, protocol.training.threads)
    folder = run_path(results_dir, protocol.name, variant, seed)
    if variant in BASELINES:
        title, forecast = BASELINES[variant], baseline(variant, protocol.data.horizon)
    else:
        run = protocol.run(variant, seed)
        network = load_weights(folder / "model.safetensors", run.identity()).to(device)
        title, forecast = f"{run.label}, seed {seed}", lambda context: engine.roll_out(network, context, run)
    clips = load_clips(results_dir / protocol.name / "data", protocol.data, "test")
    lpips = recorded_lpips(protocol, results_dir, data_dir, device)
    table, examples = score_clips(forecast, clips, protocol, lpips, device)
    table.insert(0, "variant", variant)
    table.insert(1, "seed", seed)
    with atomic_path(folder / "frames.parquet") as temporary:
        table.to_parquet(temporary, index=False)
    with atomic_path(folder / "examples.npz") as temporary:
        np.savez_compressed(temporary, **examples)
    film_strip(examples, title, folder / "film.png")
    film_animation(examples, folder / "film.gif")


def recorded_lpips(protocol: Protocol, results_dir: Path, data_dir: Path, device: str) -> torch.nn.Module | None:
    """LPIPS with the backbone that `backbone` recorded, None where it found none.

    Raises:
        UserError: it has not run, or its file is gone or another.
    """
    record = results_dir / protocol.name / "lpips_backbone.json"
    if not record.exists():
        raise UserError(f"{record}: is missing; run the verb `backbone` first")
    return load_lpips(read_json(record), data_dir, device)


def score_clips(
    forecast: Forecast,
    clips: UInt8[Tensor, "N T C H W"],
    protocol: Protocol,
    lpips: torch.nn.Module | None,
    device: str,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Score `forecast` on `clips`, batch by batch.

    Returns:
        One row a clip and predicted frame (both counted from 1) with one column a metric; and, of the clips that
        `evaluation.film_clips` names, `clip`, `context`, `truth` and `prediction` (uint8, clips T H W C).
    """
    data, evaluation = protocol.data, protocol.evaluation
    tables, predictions = [], []
    for first in range(0, len(clips), evaluation.batch_size):
        frames = to_float(clips[first : first + evaluation.batch_size].to(device))
        prediction = forecast(frames[:, : data.context])  # (B, horizon, C, H, W)
        scores = score(prediction, frames[:, data.context :], lpips)
        batch, horizon = prediction.shape[:2]
        places = {
            "clip": np.repeat(np.arange(first + 1, first + batch + 1), horizon),
            "frame": np.tile(np.arange(1, horizon + 1), batch),
        }
        tables.append(pd.DataFrame(places | {name: value.cpu().numpy().ravel() for name, value in scores.items()}))
        shown = [clip - 1 - first for clip in sorted(evaluation.film_clips) if first < clip <= first + batch]
        predictions.append((255 * prediction[shown].clamp(0, 1)).byte().cpu())
    numbers = sorted(evaluation.film_clips)
    true = clips[[clip - 1 for clip in numbers]].movedim(2, -1).numpy()  # (clips, T, H, W, C)
    examples = {
        "clip": np.array(numbers),
        "context": true[:, : data.context],
        "truth": true[:, data.context :],
        "prediction": torch.cat(predictions).movedim(2, -1).numpy(),
    }
    return pd.concat(tables, ignore_index=True), examples

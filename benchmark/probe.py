"""The probe: how strongly the last predicted frame depends on every state and frame before it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from benchmark import engine
from benchmark.checkpoint import load_weights
from benchmark.config import RunConfig
from benchmark.data.clips import load_clips
from benchmark.data.stream import to_float
from benchmark.files import write_json
from benchmark.gradient_figures import probe_figure
from benchmark.parquet import write_parquet
from models.predictor import Cut, Predictor, Trace, build, free_running_mask

MEASURES: dict[str, tuple[str, str]] = {
    "residual": ("residual", "all"),
    "fixed": ("fixed", "all"),
    "memory": ("residual", "memory"),
    "frames": ("residual", "frames"),
}
"""Measure -> (cotangent, path): what is pulled back from the last frame, and what it may flow through.

The cotangent is the residual or one fixed random direction of norm 1, since squared-error gradients shrink as a model
improves. `memory` cuts the generated frames and `frames` the states, at horizon steps only.
"""


def probe(run: RunConfig, results_dir: Path, device: str) -> None:
    """Measure a run at initialisation and after training; writes `probe.parquet`, `.json` and `.png`.

    Raises:
        UserError: the data or the trained weights are missing, damaged or of another configuration.
    """
    folder = run.path(results_dir)
    engine.prepare_device(device, run.training.threads)
    trained = load_weights(folder / "model.safetensors", run.identity())
    clips = load_clips(results_dir / run.protocol / "data", run.data, "test")[: run.probe.clips]
    tables, summary = [], {}
    for stage, step, network in (
        ("init", 0, build(run.model, run.seed)),
        ("trained", run.training.steps, trained),
    ):
        table, openness = measure(network.double().to(device), clips, run, device)
        tables.append(table.assign(stage=stage, step=step))
        summary[stage] = summarise(table, run.data.context) | {"openness": openness}
    columns = ["stage", "step", "measure", "clip", "state", "layer", "t", "norm"]
    norms = pd.concat(tables, ignore_index=True)[columns]
    write_parquet(folder / "probe.parquet", norms)
    write_json(folder / "probe.json", summary)
    probe_figure(norms, f"{run.label}, seed {run.seed}", folder / "probe.png", run.data.context)


def measure(network: Predictor, clips: Tensor, run: RunConfig, device: str) -> tuple[pd.DataFrame, list[float]]:
    """All norms of `network` on `clips` (uint8, B T C H W), and its highway's openness per step (empty without one).

    Computed in float64, since at the authors' initialisation the norms lie below what float32 holds, and on the plain
    path, whose convolutions round less.
    """
    network.plain = True
    rows, openness = [], []
    for first in range(0, len(clips), run.probe.batch_size):
        frames = to_float(clips[first : first + run.probe.batch_size].to(device)).double()
        for name, (cotangent, path) in MEASURES.items():
            norms, trace = gradient_norms(network, frames, run.data.context, cotangent=cotangent, path=path)
            rows += [long_form(name, state, layer, first, value) for (state, layer), value in norms.items()]
        openness.append([(1 - s).detach().mean(dim=(1, 2, 3)) for s in trace.get(("S", run.model.highway_slot), [])])
    per_step = [torch.cat(step).mean().item() for step in zip(*openness, strict=True)]
    return pd.concat(rows, ignore_index=True), per_step


def gradient_norms(
    network: Predictor,
    frames: Float[Tensor, "B T C H W"],
    context: int,
    *,
    cotangent: str = "residual",
    path: str = "all",
) -> tuple[dict[tuple[str, int], Float[Tensor, "B _"]], Trace]:
    """Per-clip L2 norms of the gradient of the last predicted frame, by one backward pass (our Eq. 11).

    Args:
        frames: whole clips; all but the first `context` frames serve only as the target.
        context: number of given frames; the roll-out feeds on its own predictions after them.
        cotangent: `residual` (gradient of the summed squared error of the last frame) or `fixed`.
        path: `all`, `memory` or `frames`, as in `MEASURES`.

    Returns:
        (state, layer) -> norms at t = 1, 2, ...: ("X", 0) over the context, H, C, M, Z over all steps; and the states.
    """
    horizon = frames.shape[1] - context
    given = frames[:, :context].clone().requires_grad_()
    inputs = torch.cat([given, torch.zeros_like(frames[:, context:])], dim=1)
    mask = free_running_mask(len(frames), context, horizon, frames)
    trace: Trace = {}
    cut = None if path == "all" else Cut(kept=path, first=context)
    last = network(inputs, mask, trace, cut)[:, -1]
    residual = last - frames[:, -1]
    scalar = residual.square().sum() if cotangent == "residual" else (last * fixed_cotangent(last)).sum()
    states = {("X", 0): [given]} | {key: steps for key, steps in trace.items() if key[0] != "S"}
    flat = [tensor for steps in states.values() for tensor in steps]
    gradients = iter(torch.autograd.grad(scalar, flat, materialize_grads=True))
    norms = {}
    for key, steps in states.items():
        found = [next(gradients) for _ in steps]
        stacked = found[0] if key[0] == "X" else torch.stack(found, dim=1)  # (B, T, D, h, w)
        norms[key] = stacked.flatten(2).norm(dim=2)
    return norms, trace


def fixed_cotangent(like: Float[Tensor, "B C H W"]) -> Float[Tensor, "C H W"]:
    """One random direction of norm 1, the same for every clip, network and device."""
    direction = torch.randn(like.shape[1:], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (direction / direction.norm()).to(like)


def long_form(measure: str, state: str, layer: int, first: int, norms: Float[Tensor, "B T"]) -> pd.DataFrame:
    """The rows of `probe.parquet` for one state; clips and steps are counted from 1."""
    batch, steps = norms.shape
    return pd.DataFrame(
        {
            "measure": measure,
            "clip": np.repeat(np.arange(first + 1, first + batch + 1), steps),
            "state": state,
            "layer": layer,
            "t": np.tile(np.arange(1, steps + 1), batch),
            "norm": norms.cpu().numpy().ravel(),
        }
    )


def summarise(table: pd.DataFrame, context: int) -> dict[str, dict[str, Any]]:
    """Reach and half-life by measure, from the norms of X (our Eq. 12 and 13)."""
    frames = table[table["state"] == "X"]
    return {
        str(name): decay(group.pivot(index="clip", columns="t", values="norm"))
        for name, group in frames.groupby("measure")
    }


def decay(norms: pd.DataFrame) -> dict[str, Any]:
    """How the norm falls with age over the context.

    Args:
        norms: one row a clip, one column a context frame t = 1, ..., K.

    Returns:
        `reach`: geometric mean over clips of norm at t = 1 / norm at t = K. `slope`: of log2(norm) per frame of age,
        with its 95 % interval `slope_low`, `slope_high` and `r2`. `half_life`: frames, None where the interval of the
        slope does not lie below 0 (`no decay`). All None where a norm is 0 or not finite; only `reach` where there
        are fewer than 3 frames.
    """
    empty = dict.fromkeys(("reach", "slope", "slope_low", "slope_high", "r2", "half_life"))
    values = norms.to_numpy()
    if not (np.isfinite(values).all() and (values > 0).all()):
        return empty
    log2 = np.log2(values).mean(axis=0)  # (K,)
    reach = float(2.0 ** (log2[0] - log2[-1]))
    if len(log2) < 3:
        return empty | {"reach": reach}
    age = len(log2) - np.arange(1, len(log2) + 1)
    fit = stats.linregress(age, log2)
    margin = float(stats.t.ppf(0.975, len(log2) - 2) * fit.stderr)
    low, high = fit.slope - margin, fit.slope + margin
    found = {
        "reach": reach,
        "slope": fit.slope,
        "slope_low": low,
        "slope_high": high,
        "r2": fit.rvalue**2,
        "half_life": -1.0 / fit.slope if high < 0 else None,
    }
    return {key: None if value is None else float(value) for key, value in found.items()}

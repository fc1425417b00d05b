"""How far back in time a model learns from: gradient norms, reach and half-life of any differentiable model."""

import copy
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benchmark.evaluation.frame_gradients import model_norms, network_norms
from benchmark.evaluation.gate_saturation import saturated
from benchmark.evaluation.gradient_decay import decay
from benchmark.evaluation.gradient_probe import MEASURES, roll_out
from benchmark.system.errors import UserError, unknown
from deep_in_time.given import as_frames, check_context
from models.predictor import Predictor, Trace

OF_ANY_MODEL = ("residual", "fixed")
"""Measures that need nothing but the model's predictions."""


def gradient_norms(
    model: Any,
    clips: Any,
    context: int,
    *,
    measures: Sequence[str] = OF_ANY_MODEL,
    batch_size: int = 16,
    dtype: torch.dtype = torch.float64,
) -> pd.DataFrame:
    """L2 norms of the gradient of the last predicted frame with respect to every context frame (docs/equations.md, 11).

    The model predicts after `context` frames what is left of each clip. It is measured as a copy in evaluation mode,
    so it stays as it is.

    Args:
        model: a network by `network` or `load_weights`, of which every state is measured, too; or anything with
            `predict(context, horizon)`, or a function of these: frames (B, K, C, H, W) and a number in,
            (B, horizon, C, H, W) out, by operations that PyTorch differentiates.
        clips: (N, T, C, H, W), float from 0 to 1 or uint8; go to the model's device.
        context: K, given frames, at least 1 and less than T.
        measures: `residual`, of the squared error of the last frame; `fixed`, of one random direction of norm 1, whose
            gradient does not shrink as a model improves. For our networks also `memory` and `frames`: one of the two
            paths through the horizon is closed.
        batch_size: clips in one backward pass, for memory.
        dtype: what the copy computes in; float32 for a model that cannot do float64.

    Returns:
        One row a measure, clip, state and step: measure, clip (from 1), state (`X` = frames; of our networks `H`, `C`,
        `M` and `Z`), layer (0 for frames), t (from 1), norm.

    Raises:
        ValueError: clips, context or measures are wrong, or the model's prediction has another shape or no gradient.
    """
    frames = as_frames(clips, "clips")
    check_context(frames, context)
    allowed = tuple(MEASURES) if isinstance(model, Predictor) else OF_ANY_MODEL
    if not measures:
        raise UserError(f"measures: is empty; allowed are {', '.join(allowed)}")
    for name in measures:
        if name not in allowed:
            raise UserError(unknown("measure", name, allowed, known=MEASURES))
    measured, frames = _ready(model, frames, dtype)
    if isinstance(measured, Predictor):
        return network_norms(measured, frames, context, batch_size, tuple(measures))
    try:
        return model_norms(_predict_of(measured), frames, context, batch_size, tuple(measures))
    except RuntimeError as error:
        if dtype == torch.float64 and ("type" in str(error)):
            raise UserError(
                f"model: does not compute in float64 ({str(error).splitlines()[0]});"
                " dtype=torch.float32 measures it in that"
            ) from error
        raise


def reach(
    model: Any,
    clips: Any,
    context: int,
    *,
    measure: str = "residual",
    batch_size: int = 16,
    dtype: torch.dtype = torch.float64,
) -> dict[str, float | None]:
    """How far back in time learning reaches: gradient norm at the first given frame over that at the last one.

    Args:
        model, clips, context, measure, batch_size, dtype: as for `gradient_norms`.

    Returns:
        `reach`: geometric mean over clips; 1 = the first given frame counts as much as the last, 0.01 = a hundredth.
        `half_life`: frames of age over which the norm halves; None where no decay is shown. `slope` of log2(norm) per
        frame, its 95 % interval `slope_low`, `slope_high`, and `r2`. All None where a norm is 0 or not finite (the
        model ignores a frame); only `reach` where fewer than 3 frames are given.

    Raises:
        ValueError: as `gradient_norms`.
    """
    norms = gradient_norms(model, clips, context, measures=[measure], batch_size=batch_size, dtype=dtype)
    of_frames = norms[norms["state"] == "X"]
    return decay(of_frames.pivot(index="clip", columns="t", values="norm"))


def gates(network: torch.nn.Module, clips: Any, context: int, *, batch_size: int = 16) -> pd.DataFrame:
    """How the gates of one of our networks stand while it predicts: why a gradient vanishes, or does not.

    Args:
        network: by `network` or `load_weights`.
        clips, context, batch_size: as for `gradient_norms`.

    Returns:
        One row a gate and layer: gate (`i`, `f`, ...; `p` and `s` of a highway), layer (a highway's is its slot),
        `saturated` (share of units whose slope is below 19 % of the largest, docs/equations.md, 15) and `openness` (of
        `s`: mean of 1 - S, the share of its past that a highway keeps; NaN elsewhere).

    Raises:
        ValueError: clips or context are wrong, or it is no network of ours.
    """
    if not isinstance(network, Predictor):
        raise UserError(f"network: is {type(network).__name__}; needed is one by `network` or `load_weights`")
    frames = as_frames(clips, "clips")
    check_context(frames, context)
    measured, frames = _ready(network, frames, torch.float64)
    shares: dict[tuple[str, int], float] = {}
    openness = 0.0
    for part in frames.split(batch_size):
        seen: Trace = {}
        with torch.enable_grad():
            rolled = roll_out(measured, part, context, gate_trace=seen)
        weight = len(part) / len(frames)
        for key, share in saturated(seen, measured.spec).items():
            shares[key] = shares.get(key, 0.0) + weight * share.item()
        openness += weight * sum((1 - s).mean().item() / len(rolled.switch) for s in rolled.switch)
    rows = [
        {"gate": gate, "layer": layer, "saturated": share, "openness": openness if gate == "s" else float("nan")}
        for (gate, layer), share in shares.items()
    ]
    return pd.DataFrame(rows).sort_values(["layer", "gate"], ignore_index=True)


def _ready(model: Any, frames: Tensor, dtype: torch.dtype) -> tuple[Any, Tensor]:
    """A copy of `model` to measure, in `dtype` and evaluation mode, and the frames where and as it takes them."""
    if not isinstance(model, torch.nn.Module):
        return model, frames.to(dtype)
    measured = copy.deepcopy(model).to(dtype).eval()
    if isinstance(measured, Predictor):
        measured.reference_path = True
    place = next((tensor.device for tensor in (*measured.parameters(), *measured.buffers())), frames.device)
    return measured, frames.to(place, dtype)


def _predict_of(model: Any) -> Any:
    predict: Any = getattr(model, "predict", None if isinstance(model, torch.nn.Module) else model)
    if not callable(predict):
        raise UserError(
            f"model: {type(model).__name__} has no predict(context, horizon); give it one, or give a function of"
            " (context, horizon) that calls the model"
        )
    return predict

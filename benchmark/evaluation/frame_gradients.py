"""Gradient norms of any model: of one that is known by its predictions alone, and of a network of ours by itself."""

from collections.abc import Callable

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.evaluation.gradient_probe import MEASURES, RollOut, gradient_norms, long_form, roll_out
from benchmark.system.errors import UserError
from models.predictor import Predictor

Predict = Callable[[Tensor, int], Tensor]
"""Context frames (B, K, C, H, W) and a horizon in, predicted frames (B, horizon, C, H, W) out."""


def roll_out_model(predict: Predict, frames: Float[Tensor, "B T C H W"], context: int) -> RollOut:
    """The last frame that `predict` makes of the first `context` frames, so that `gradient_norms` can go back.

    Raises:
        UserError: the prediction has another shape, or no gradient leads from it to the context.
    """
    given = frames[:, :context].clone().requires_grad_()
    horizon = frames.shape[1] - context
    predicted = predict(given, horizon)
    expected = (len(frames), horizon, *frames.shape[2:])
    if not isinstance(predicted, Tensor) or predicted.shape != expected:
        found = tuple(predicted.shape) if isinstance(predicted, Tensor) else type(predicted).__name__
        raise UserError(f"model: predicted {found} after {context} frames; needed is {expected}, (B, horizon, C, H, W)")
    if not predicted.requires_grad:
        raise UserError(
            "model: its prediction has no gradient; it must depend on the context without no_grad, detach or NumPy"
        )
    return RollOut(predicted[:, -1], frames[:, -1], {("X", 0): [given]}, [])


@torch.enable_grad()
def model_norms(
    predict: Predict,
    clips: Float[Tensor, "N T C H W"],
    context: int,
    batch_size: int,
    measures: tuple[str, ...] = ("residual", "fixed"),
) -> pd.DataFrame:
    """Gradient norms of the last predicted frame at every context frame (our Eq. 11), as `probe.parquet` has them.

    Args:
        predict: the model; a clip must not depend on others in its batch.
        clips: whole clips; all but the first `context` frames serve only as the target.
        context: number of given frames.
        batch_size: clips in one backward pass.
        measures: `residual` (of the squared error of the last frame), `fixed` (of one random direction) or both.

    Returns:
        Columns measure, clip, state (X), layer (0), t, norm; clips and frames counted from 1.

    Raises:
        UserError: see `roll_out_model`.
    """
    rows = []
    for first in range(0, len(clips), batch_size):
        rolled = roll_out_model(predict, clips[first : first + batch_size], context)
        for name in measures:
            norms = gradient_norms(rolled, name, keep_graph=name != measures[-1])
            rows += [long_form(name, state, layer, first, value) for (state, layer), value in norms.items()]
    return pd.concat(rows, ignore_index=True)


@torch.enable_grad()
def network_norms(
    network: Predictor,
    clips: Float[Tensor, "N T C H W"],
    context: int,
    batch_size: int,
    measures: tuple[str, ...] = ("residual", "fixed"),
) -> pd.DataFrame:
    """As `model_norms`, of a network of ours: its states as well, and all measures of `MEASURES`.

    Args:
        network: on the reference path, in the precision of `clips`.
        clips, context, batch_size: as there.
        measures: names in `MEASURES`.

    Returns:
        Columns measure, clip, state, layer, t, norm; clips and steps counted from 1, layer 0 for frames.
    """
    rows = []
    for first in range(0, len(clips), batch_size):
        part = clips[first : first + batch_size]
        for name in measures:
            cotangent, path = MEASURES[name]
            norms = gradient_norms(roll_out(network, part, context, path), cotangent)
            rows += [long_form(name, state, layer, first, value) for (state, layer), value in norms.items()]
    return pd.concat(rows, ignore_index=True)

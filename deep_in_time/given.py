"""Clips as a caller hands them over: checked, with a sentence for what does not fit."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.data.tensors import to_float
from benchmark.system.errors import UserError

AXES = "B T C H W (clips, frames, channels, height, width)"


def as_clips(values: Any, name: str) -> Float[Tensor, "B T C H W"]:
    """`values` as a tensor of clips, where it was; uint8 is divided by 255, floats stay as they are.

    Args:
        values: a tensor or an array (B, T, C, H, W).
        name: what the caller calls it, for messages.

    Raises:
        UserError: another type or number of axes.
    """
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(values)
    if not isinstance(values, Tensor):
        raise UserError(f"{name}: is {type(values).__name__}; a tensor or an array of clips is needed, {AXES}")
    check_axes(values, name)
    if values.dtype == torch.uint8:
        return to_float(values)
    if not values.is_floating_point():
        raise UserError(f"{name}: is of {values.dtype}; uint8 from 0 to 255 or floats from 0 to 1 are needed")
    return values


def as_frames(values: Any, name: str) -> Float[Tensor, "B T C H W"]:
    """Clips as `as_clips` has them, whose values are those of frames.

    Raises:
        UserError: as there, or values that are not finite or not from 0 to 1.
    """
    clips = as_clips(values, name)
    low, high = (bound.item() for bound in clips.aminmax()) if clips.numel() else (0.0, 0.0)
    if not (low >= 0 and high <= 1):  # NaN is neither
        how = f"; divide it by 255: {name} / 255" if low >= 0 and 1 < high <= 255 else ""
        raise UserError(f"{name}: has values from {low:g} to {high:g}; frames are from 0 to 1{how}")
    return clips


def check_axes(values: Tensor, name: str) -> None:
    """Raise UserError where `values` has not the five axes of clips."""
    if values.ndim == 5:
        return
    how = ""
    if values.ndim == 4:
        how = f"; grey clips get their channels by {name}[:, :, None], one clip its first axis by {name}[None]"
    raise UserError(f"{name}: has {values.ndim} axes, {tuple(values.shape)}; 5 are needed, {AXES}{how}")


def check_context(clips: Tensor, context: int) -> None:
    """Raise UserError where `context` frames leave nothing of `clips` to predict."""
    if not 1 <= context < clips.shape[1]:
        raise UserError(
            f"context: {context} of {clips.shape[1]} frames; at least 1 is given and at least 1 is left to predict"
        )

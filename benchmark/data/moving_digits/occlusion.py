"""Occlusion: over the last frames of the context a grey bar hides one digit of the clip."""

from functools import cache

import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from benchmark.config.data_sections import DigitsConfig
from benchmark.data.counter_rng import Domain, counter_hash

GREY = 128  # of 255
OCCLUDED = 0  # the clip's first digit

Clips = UInt8[Tensor, "B T 1 H W"] | Float32[Tensor, "B T 1 H W"]


def draw_gaps(gaps: tuple[int, ...], seed: int, numbers: Int64[Tensor, " B"]) -> Int64[Tensor, " B"]:
    """One of `gaps` for each of these clips, all equally likely."""
    return _table(gaps, numbers.device)[(counter_hash(seed, Domain.GAP, numbers) * len(gaps)) >> 32]


def occlude(frames: Clips, left: Int64[Tensor, "B T"], gap: int | Int64[Tensor, " B"], data: DigitsConfig) -> Clips:
    """Cover a digit's whole box in the last `gap` frames of the context with a grey bar as high as the frame.

    Args:
        frames: uint8, or float in [0, 1].
        left: left column of the digit's box in every frame, as `ClipStream.positions` gives it.
        gap: number of frames, 0 = none; one for all clips or one each.
        data: of the clips; its context and digit_size.

    Returns:
        A copy, equal to `frames` in all frames but those and in all pixels beside the bar.
    """
    if isinstance(gap, Tensor):
        gap = gap[:, None]
    time = torch.arange(frames.shape[1], device=frames.device)
    hidden = (time >= data.context - gap) & (time < data.context)  # (T) or (B, T)
    bar = hidden[..., None] & _within(left, data.digit_size, frames.shape[-1])  # (B, T, W)
    grey = GREY if frames.dtype == torch.uint8 else GREY / 255
    return frames.masked_fill(bar[:, :, None, None], grey)


def box(top: Int64[Tensor, "B T"], left: Int64[Tensor, "B T"], data: DigitsConfig) -> Bool[Tensor, "B T 1 H W"]:
    """Which pixels lie in the box of the digit with this top row and left column."""
    rows, columns = (_within(start, data.digit_size, data.frame_size) for start in (top, left))
    return (rows[..., None] & columns[..., None, :])[:, :, None]


def _within(start: Int64[Tensor, "B T"], length: int, size: int) -> Bool[Tensor, "B T {size}"]:
    place = torch.arange(size, device=start.device)
    return (place >= start[..., None]) & (place < start[..., None] + length)


@cache
def _table(gaps: tuple[int, ...], device: torch.device) -> Int64[Tensor, " gaps"]:
    return torch.tensor(gaps).to(device)  # once, because a copy makes the GPU's host wait

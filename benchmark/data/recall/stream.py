"""The stream of recall: a marked digit, a gap, and the digit again, as a pure function of (seed, index)."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.nn.functional import pad

from benchmark.data.still_digits.stream import DigitStream

LIT = 255
"""Grey level of the top row of the cue's frame, which marks it."""


class RecallStream(DigitStream):
    """Clips in which a network must give out at the end what it was shown first.

    Frame 1 is a digit, the cue, with the top row of the frame lit. The frames of the gap follow: each another digit of
    the split, never the cue's, without that row, or black. The last frame is the target: the cue without the lit row.

    Args: as `DigitStream`, T at least 3 and the digits smaller than a frame; also
        distractors: the frames of the gap are digits; else they are black.
    """

    def __init__(self, digits: UInt8[np.ndarray, "n d d"], *, frames: int, distractors: bool, **settings: Any) -> None:
        super().__init__(digits, frames=frames, words=(frames - 1,), **settings)
        assert digits.shape[-1] < self.frame_size, "no row is left to mark the cue"
        self.distractors = distractors

    def clips(self, indices: Int64[Tensor, " B"]) -> UInt8[Tensor, "B T 1 H W"]:
        """The clips of these numbers, uint8; with a pool, numbers within the pool."""
        digits = self.digits[self.digit_numbers(indices)]  # (B, T-1, d, d)
        shown = in_frames(digits, self.frame_size)
        if not self.distractors:
            shown[:, 1:] = 0
        clips = torch.cat([shown, shown[:, :1]], dim=1).unsqueeze(2)  # (B, T, 1, H, W)
        clips[:, 0, :, 0] = LIT
        return clips

    def digit_numbers(self, indices: Int64[Tensor, " B"]) -> Int64[Tensor, "B {self.frames}-1"]:
        """Which digit of the split is the cue of each of these clips, and which follow in the gap."""
        words, count = self._draws(indices), len(self.digits)
        cue = (words[:, :1] * count) >> 32
        others = (cue + 1 + ((words[:, 1:] * (count - 1)) >> 32)) % count
        return torch.cat([cue, others], dim=1)


def in_frames(digits: Tensor, frame_size: int) -> Tensor:
    """Digits (..., d, d) of any type in the middle of black frames (..., H, W), whose top row stays free."""
    size = digits.shape[-1]
    left, top = (frame_size - size) // 2, 1 + (frame_size - 1 - size) // 2
    return pad(digits, (left, frame_size - size - left, top, frame_size - size - top))

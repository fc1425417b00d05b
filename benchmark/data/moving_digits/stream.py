"""The stream: training clips of moving digits as a pure function of (seed, index), composed on any device."""

from functools import reduce
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8
from torch import Tensor

from benchmark.data.still_digits.stream import DigitStream
from benchmark.data.tensors import to_float

FRAME_STEP = 0.1  # way per frame, in units of the room a digit has
_DIGIT, _TOP, _LEFT, _DIRECTION = range(4)


class ClipStream(DigitStream):
    """Clips of digits that move and bounce (Srivastava et al. 2015), any of which can be made at any time.

    Args: as `DigitStream`; also
        num_digits: N, digits in a clip.
    """

    def __init__(self, digits: UInt8[np.ndarray, "n d d"], *, num_digits: int, **settings: Any) -> None:
        super().__init__(digits, words=(num_digits, 4), **settings)
        self._directions = _directions().to(self.digits.device)

    def batch(self, step: int, batch_size: int) -> Float32[Tensor, "B T 1 H W"]:
        """The clips of optimiser step `step` (from 0), float32 in [0, 1]; on a GPU without waiting for it."""
        draws = self._draws(self.clip_numbers(step, batch_size))
        return self._compose(to_float(self._digits(draws)), *self._positions(draws))

    def clips(self, indices: Int64[Tensor, " B"]) -> UInt8[Tensor, "B T 1 H W"]:
        """The clips of these numbers, uint8; with a pool, numbers within the pool."""
        draws = self._draws(indices)
        return self._compose(self._digits(draws), *self._positions(draws))

    def positions(self, indices: Int64[Tensor, " B"]) -> tuple[Int64[Tensor, "B N T"], Int64[Tensor, "B N T"]]:
        """Top row and left column, in pixels, of every digit of these clips in every frame."""
        return self._positions(self._draws(indices))

    def _digits(self, draws: Int64[Tensor, "B N 4"]) -> UInt8[Tensor, "B N d d"]:
        return self.digits[(draws[..., _DIGIT] * len(self.digits)) >> 32]

    def _positions(self, draws: Int64[Tensor, "B N 4"]) -> tuple[Int64[Tensor, "B N T"], Int64[Tensor, "B N T"]]:
        start = draws[..., _TOP : _LEFT + 1].double() * 2.0**-32  # (B, N, 2), top and left
        step = self._directions[draws[..., _DIRECTION] >> 16]
        room = self.frame_size - self.digits.shape[-1]
        top, left = (trajectory(start, step, self.frames) * room).long().unbind(2)  # each (B, N, T)
        return top, left

    def _compose(self, digits: Tensor, top: Int64[Tensor, "B N T"], left: Int64[Tensor, "B N T"]) -> Tensor:
        B, N, T = top.shape
        H, d = self.frame_size, digits.shape[-1]
        room = H - d
        # Each digit in a margin of zeros: a frame is then a window on it, read without any index per pixel.
        framed = digits.new_zeros(B, N, H + room, H + room)
        framed[:, :, room:H, room:H] = digits
        windows = framed.flatten(0, 1).unfold(1, H, 1).unfold(2, H, 1)  # a view: (B N, room + 1, room + 1, H, H)
        digit = torch.arange(B * N, device=top.device)[:, None]
        layers = windows[digit, (room - top).flatten(0, 1), (room - left).flatten(0, 1)]  # (B N, T, H, H)
        return reduce(torch.maximum, layers.view(B, N, T, 1, H, H).unbind(1))


def trajectory(
    start: Float64[Tensor, "*coordinates"], step: Float64[Tensor, "*coordinates"], frames: int
) -> Float64[Tensor, "*coordinates T"]:
    """Move coordinates in [0, 1] by `step` per frame; at a wall they are clamped and the step turns round.

    The first frame comes after the first step. Only additions and comparisons: every device rounds alike.
    """
    path = []
    for _ in range(frames):
        start = start + step
        hit = (start <= 0) | (start >= 1)
        start = start.clamp(0, 1)
        step = torch.where(hit, -step, step)
        path.append(start)
    return torch.stack(path, dim=-1)


def _directions() -> Float64[Tensor, "65536 2"]:
    """Steps down and to the right of 65,536 directions.

    Whole multiples of 2**-32: the sines of different processors differ in the last bits of 53, these do not.
    """
    angle = np.arange(65_536) * (2 * np.pi / 65_536)
    steps = FRAME_STEP * np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    return torch.from_numpy(np.rint(steps * 2.0**32) / 2.0**32)

"""What the streams of digit clips share: which clips a batch has, and the random words of a clip."""

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from benchmark.data.counter_rng import Domain, counter_hash
from benchmark.data.tensors import PoolOrder, to_float


class DigitStream(ABC):
    """Clips of digits as a pure function of a seed and their number; what a clip shows is up to its subclass.

    Args:
        digits: uint8 (n, d, d), one split of a digit bank.
        seed: seed of the run. With a pool it sets the order of the clips, without one the clips themselves.
        frame_size: H = W in pixels, at least d.
        frames: T.
        words: axes of the random words that a clip takes.
        pool: number of fixed clips, each shown once per epoch; None for endless new ones.
        split: what the clips are for; each split has its own clips under the same seed.
        device: where the digits lie and the clips are made.
    """

    def __init__(
        self,
        digits: UInt8[np.ndarray, "n d d"],
        *,
        seed: int,
        frame_size: int,
        frames: int,
        words: tuple[int, ...],
        pool: int | None = None,
        split: Literal["train", "validation", "test"] = "train",
        device: torch.device | str = "cpu",
    ) -> None:
        assert digits.shape[-1] <= frame_size, f"digits of {digits.shape[-1]} pixels in frames of {frame_size}"
        self.seed, self.frame_size, self.frames, self.pool = seed, frame_size, frames, pool
        self.digits = torch.from_numpy(digits).to(device)
        self._content = (seed, Domain[split.upper()]) if pool is None else (0, Domain.POOL)
        self._tags = torch.arange(int(np.prod(words)), device=device).view(words)
        self._order = None if pool is None else PoolOrder(seed, pool, device)

    @abstractmethod
    def clips(self, indices: Int64[Tensor, " B"]) -> UInt8[Tensor, "B T 1 H W"]:
        """The clips of these numbers, uint8; with a pool, numbers within the pool."""

    def batch(self, step: int, batch_size: int) -> Float32[Tensor, "B T 1 H W"]:
        """The clips of optimiser step `step` (from 0), float32 in [0, 1]; on a GPU without waiting for it."""
        return to_float(self.clips(self.clip_numbers(step, batch_size)))

    def clip_numbers(self, step: int, batch_size: int) -> Int64[Tensor, " B"]:
        """The numbers of the clips in the batch of `step`, on the stream's device."""
        if self._order is not None:
            return self._order.numbers(step, batch_size)
        first = step * batch_size
        return torch.arange(first, first + batch_size, device=self.digits.device)

    def _draws(self, indices: Int64[Tensor, " B"]) -> Int64[Tensor, "B *words"]:
        seed, domain = self._content
        numbers = indices.to(self._tags.device).view(-1, *[1] * self._tags.ndim)
        return counter_hash(seed, domain, numbers, self._tags)

"""Random numbers and pixels on any device, equal on all of them."""

from functools import cache

import torch
from jaxtyping import Float32, Float64, Int64, UInt8
from torch import Tensor

from benchmark.data.counter_rng import Domain, counter_hash


class PoolOrder:
    """The order in which training sees `pool` fixed clips: each once an epoch, shuffled by `seed` for each epoch."""

    def __init__(self, seed: int, pool: int, device: torch.device | str) -> None:
        self.seed, self.pool, self.device, self._epoch = seed, pool, device, -1

    def numbers(self, step: int, batch_size: int) -> Int64[Tensor, " B"]:
        """The numbers of the clips in the batch of `step`."""
        first, parts = step * batch_size, []
        for epoch in range(first // self.pool, (first + batch_size - 1) // self.pool + 1):
            start = epoch * self.pool
            parts.append(self._of_epoch(epoch)[max(first - start, 0) : first + batch_size - start])
        return torch.cat(parts)

    def _of_epoch(self, epoch: int) -> Int64[Tensor, " pool"]:
        if epoch != self._epoch:
            numbers = torch.arange(self.pool, device=self.device)
            # A hash of one counter has no ties, so that every device sorts alike.
            self._shuffled = counter_hash(self.seed, Domain.POOL_ORDER, epoch, numbers).argsort()
            self._epoch = epoch
        return self._shuffled


def to_float(pixels: UInt8[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """Map uint8 to float32 in [0, 1] on the same device.

    A table, because a GPU divides by 255 with a multiplication that rounds differently.
    """
    return _grey_levels(pixels.device)[pixels.long()]


def uniform(seed: int, step: int, count: int, *, device: torch.device | str = "cpu") -> Float64[Tensor, " count"]:
    """Numbers in [0, 1) for training step `step`, multiples of 2**-32, independent of those of the clips."""
    return counter_hash(seed, Domain.STEP, step, torch.arange(count, device=device)).double() * 2.0**-32


@cache
def _grey_levels(device: torch.device) -> Float32[Tensor, "256"]:
    return (torch.arange(256, dtype=torch.float32) / 255).to(device)

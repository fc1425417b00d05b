"""What a kind of data makes of a data section: clips that train, and the fixed ones that judge."""

from abc import ABC, abstractmethod
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

FixedSplit = Literal["validation", "test"]
Frames = UInt8[Tensor, "B T 1 H W"] | Float32[Tensor, "B T 1 H W"]
AT_ONCE = 64
"""Clips that are made or hashed at a time."""


@runtime_checkable
class Clips(Protocol):
    """Fixed clips, uint8 (clips, T, 1, H, W): a tensor, or on disk and read where they are indexed."""

    @property
    def shape(self) -> torch.Size:
        """(clips, T, 1, H, W)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, place: Any, /) -> Any:
        """The clips at `place`, or the one, as a tensor takes an index in its first axis."""
        ...


@runtime_checkable
class Stream(Protocol):
    """Clips as a pure function of a seed and their number."""

    seed: int

    def batch(self, step: int, batch_size: int) -> Float32[Tensor, "B T 1 H W"]:
        """The clips of optimiser step `step` (from 0), float32 in [0, 1]; on a GPU without waiting for it."""
        ...

    def clips(self, indices: Int64[Tensor, " B"]) -> UInt8[Tensor, "B T 1 H W"]:
        """The clips of these numbers."""
        ...

    def clip_numbers(self, step: int, batch_size: int) -> Int64[Tensor, " B"]:
        """The numbers of the clips in the batch of `step`."""
        ...


StreamOf = TypeVar("StreamOf", bound=Stream)
ClipsOf = TypeVar("ClipsOf", bound=Clips)


class ClipSource(ABC, Generic[StreamOf, ClipsOf]):
    """The clips of one data section, as its kind makes them."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Checksum of all that training sees."""

    @abstractmethod
    def fixed_clips(self, split: FixedSplit) -> ClipsOf:
        """The clips of `split`, which are never trained on; the same for every run and seed.

        Returns:
            uint8 on the CPU, T = context + horizon.
        """

    @abstractmethod
    def fixed_stream(self, split: FixedSplit) -> StreamOf:
        """The stream whose first clips are the fixed ones of `split`.

        Raises:
            UserError: they were prepared for shorter clips.
        """

    @abstractmethod
    def train_stream(self, seed: int, device: str) -> StreamOf:
        """What a run of `seed` is trained on, made on `device`."""

    def inputs(self, frames: Frames, numbers: Int64[Tensor, " B"], stream: StreamOf) -> Frames:
        """What a network is shown of the clips `numbers` of `stream`, whose frames are `frames`.

        Kinds without gaps show the frames themselves. On a GPU nothing waits for it.
        """
        return frames

    def mean_target(self) -> Float32[Tensor, "1 H W"]:
        """The mean frame that ends a training clip, in [0, 1].

        Raises:
            NotImplementedError: clips of this kind do not have the baseline `mean-digit`.
        """
        raise NotImplementedError

    def at_gap(self, clips: ClipsOf, gap: int) -> ClipsOf:
        """The first test clips with something hidden in the last `gap` frames of their context.

        Raises:
            NotImplementedError: clips of this kind have no `gaps`.
        """
        raise NotImplementedError

    def boxes(self, count: int) -> Bool[Tensor, "clips T 1 H W"]:
        """Which pixels of the first `count` test clips hold what `at_gap` hides; raises as that."""
        raise NotImplementedError

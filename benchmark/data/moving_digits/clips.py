"""The clips of a digit bank: those that train, the fixed ones that judge, and the bar that hides a digit of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from benchmark.config.data_sections import DigitsConfig
from benchmark.data.clip_source import FixedSplit, Frames
from benchmark.data.moving_digits.occlusion import OCCLUDED, box, draw_gaps, occlude
from benchmark.data.moving_digits.stream import ClipStream
from benchmark.data.still_digits.bank import DigitBank
from benchmark.data.still_digits.clips import BankClips


class DigitClips(BankClips[ClipStream]):
    """Clips of moving digits.

    Args:
        bank: the digits.
        data: what a clip is.
        public: reads the public test clips, uint8 (clips, T, 1, H, W); None for generated ones.
    """

    data: DigitsConfig

    def __init__(
        self, bank: DigitBank, data: DigitsConfig, public: Callable[[], list[np.ndarray]] | None = None
    ) -> None:
        super().__init__(bank, data)
        self._public = public

    def fixed_clips(self, split: FixedSplit) -> UInt8[Tensor, "clips T 1 H W"]:
        """The clips of `split`, generated again, of digits that are never trained on; or the public ones."""
        if split == "test" and self._public:
            return torch.from_numpy(*self._public())
        return super().fixed_clips(split)

    def make_stream(self, digits: UInt8[np.ndarray, "n d d"], **settings: Any) -> ClipStream:
        """The moving clips of `digits`."""
        return ClipStream(digits, num_digits=self.data.num_digits, **settings)

    def inputs(self, frames: Frames, numbers: Int64[Tensor, " B"], stream: ClipStream) -> Frames:
        """`frames` with a bar over one digit; without gaps the frames themselves.

        Each clip has one of `data.gaps`, a pure function of the stream's seed and its number.
        """
        if not self.data.gaps:
            return frames
        _, left = stream.positions(numbers)
        gap = draw_gaps(self.data.gaps, stream.seed, numbers)
        return occlude(frames, left[:, OCCLUDED], gap, self.data)

    def at_gap(self, clips: Tensor, gap: int) -> Tensor:
        """The first test clips with a digit hidden in the last `gap` frames of their context."""
        _, left = self.fixed_stream("test").positions(torch.arange(len(clips)))
        return occlude(clips, left[:, OCCLUDED], gap, self.data)

    def boxes(self, count: int) -> Bool[Tensor, "clips T 1 H W"]:
        """The box of the digit that `at_gap` hides, in the first `count` test clips."""
        top, left = (start[:, OCCLUDED] for start in self.fixed_stream("test").positions(torch.arange(count)))
        return box(top, left, self.data)

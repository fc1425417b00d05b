"""The clips of a digit bank: those that train, the fixed ones that judge, and the bar that hides a digit of them."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from benchmark.config.data_sections import DigitsConfig
from benchmark.data.clip_source import AT_ONCE, ClipSource, FixedSplit, Frames
from benchmark.data.moving_digits.digits import DigitBank
from benchmark.data.moving_digits.occlusion import OCCLUDED, box, draw_gaps, occlude
from benchmark.data.moving_digits.stream import ClipStream


class DigitClips(ClipSource[ClipStream, Tensor]):
    """Clips of moving digits.

    Args:
        bank: the digits.
        data: what a clip is.
        public: reads the public test clips, uint8 (clips, T, 1, H, W); None for generated ones.
    """

    def __init__(
        self, bank: DigitBank, data: DigitsConfig, public: Callable[[], list[np.ndarray]] | None = None
    ) -> None:
        self.bank, self.data, self._public = bank, data, public

    @property
    def sha256(self) -> str:
        """Checksum of the digits."""
        return self.bank.sha256

    def fixed_clips(self, split: FixedSplit) -> UInt8[Tensor, "clips T 1 H W"]:
        """The clips of `split`, generated again, of digits that are never trained on; or the public ones."""
        data = self.data
        if split == "test" and self._public:
            return torch.from_numpy(*self._public())
        count = data.validation_clips if split == "validation" else data.test_clips
        stream = self.fixed_stream(split)
        clips = torch.empty(count, stream.frames, 1, data.frame_size, data.frame_size, dtype=torch.uint8)
        for numbers in torch.arange(count).split(AT_ONCE):
            clips[numbers] = stream.clips(numbers)
        return clips

    def fixed_stream(self, split: FixedSplit) -> ClipStream:
        """The endless stream whose first clips are the generated ones of `split`."""
        return ClipStream(
            self.bank.splits[split],
            seed=0,
            split=split,
            frame_size=self.data.frame_size,
            num_digits=self.data.num_digits,
            frames=self.data.context + self.data.horizon,
        )

    def train_stream(self, seed: int, device: str) -> ClipStream:
        """What a run of `seed` is trained on, made on `device`."""
        return ClipStream(
            self.bank.train,
            seed=seed,
            frame_size=self.data.frame_size,
            num_digits=self.data.num_digits,
            frames=self.data.context + self.data.trained_horizon,
            pool=self.data.train_clips,
            device=device,
        )

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

    def exchanged(self, count: int, t: int) -> UInt8[Tensor, "clips 1 H W"]:
        """Frame `t` of the first `count` test clips with another digit in place of the clip's first one."""
        if self._public:
            return super().exchanged(count, t)
        return self.fixed_stream("test").exchanged(torch.arange(count), t - 1)

"""The clips of a digit bank: those that train, and the fixed ones that judge."""

from abc import abstractmethod
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from benchmark.config.data_sections import DigitsConfig, RecallConfig
from benchmark.data.clip_source import AT_ONCE, ClipSource, FixedSplit
from benchmark.data.still_digits.bank import DigitBank
from benchmark.data.still_digits.stream import DigitStream

StreamOf = TypeVar("StreamOf", bound=DigitStream)


class BankClips(ClipSource[StreamOf, Tensor]):
    """Clips of the digits of a bank, all of them generated.

    Args:
        bank: the digits.
        data: what a clip is.
    """

    def __init__(self, bank: DigitBank, data: DigitsConfig | RecallConfig) -> None:
        self.bank, self.data = bank, data

    @abstractmethod
    def make_stream(self, digits: UInt8[np.ndarray, "n d d"], **settings: Any) -> StreamOf:
        """The stream of `digits` with the `settings` of `DigitStream`."""

    @property
    def sha256(self) -> str:
        """Checksum of the digits."""
        return self.bank.sha256

    def fixed_clips(self, split: FixedSplit) -> UInt8[Tensor, "clips T 1 H W"]:
        """The clips of `split`, generated again, of digits that are never trained on."""
        count = self.data.validation_clips if split == "validation" else self.data.test_clips
        stream = self.fixed_stream(split)
        clips = torch.empty(count, stream.frames, 1, stream.frame_size, stream.frame_size, dtype=torch.uint8)
        for numbers in torch.arange(count).split(AT_ONCE):
            clips[numbers] = stream.clips(numbers)
        return clips

    def fixed_stream(self, split: FixedSplit) -> StreamOf:
        """The endless stream whose first clips are the generated ones of `split`."""
        frames = self.data.context + self.data.horizon
        digits = self.bank.splits[split]
        return self.make_stream(digits, seed=0, split=split, frame_size=self.data.frame_size, frames=frames)

    def train_stream(self, seed: int, device: str) -> StreamOf:
        """What a run of `seed` is trained on, made on `device`."""
        return self.make_stream(
            self.bank.train,
            seed=seed,
            frame_size=self.data.frame_size,
            frames=self.data.context + self.data.trained_horizon,
            pool=self.data.train_clips,
            device=device,
        )

"""The clips of recall, and the mean of what must be given out in training."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from benchmark.config.data_sections import RecallConfig
from benchmark.data.recall.stream import RecallStream, in_frames
from benchmark.data.still_digits.clips import BankClips


class RecallClips(BankClips[RecallStream]):
    """Clips of recall."""

    data: RecallConfig

    def make_stream(self, digits: UInt8[np.ndarray, "n d d"], **settings: Any) -> RecallStream:
        """The clips in which one of `digits` is the cue."""
        return RecallStream(digits, distractors=self.data.distractors, **settings)

    def mean_target(self) -> Float32[Tensor, "1 H W"]:
        """The mean of all training digits as the target shows them, in [0, 1]."""
        mean = self.bank.train.mean(axis=0, keepdims=True) / 255
        return in_frames(torch.from_numpy(mean).float(), self.data.frame_size)

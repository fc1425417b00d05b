"""What the kinds of data share whose clips are made of still digits. Imports no torch."""

from pathlib import Path
from typing import Generic, TypeVar

from benchmark.config.data_sections import DigitsConfig, RecallConfig
from benchmark.config.protocol import Protocol
from benchmark.data.kinds import DataKind
from benchmark.data.still_digits.bank import SPLITS, load_bank

DigitSection = TypeVar("DigitSection", DigitsConfig, RecallConfig)
_RESIZED_AT_ONCE = 4096
"""Digits that `resize_area` has in float64, three times over, at once."""


class DigitKind(DataKind[DigitSection], Generic[DigitSection]):
    """Clips that are made of the digits of a bank."""

    files = ("digits.npz", "data.json")

    def look(self, protocol: Protocol, data_dir: Path) -> str:
        """The digits of the protocol, read whole and held against their checksums."""
        bank = load_bank(self.data.source, self.data.digit_size, data_dir)
        counts = f"{len(bank.train)} + {len(bank.validation)} + {len(bank.test)}"
        return f"{self.data.source} for protocol {protocol.name}: {counts} digits to train, validate and test on"

    def memory_needs(self) -> dict[str, int]:
        """What the fixed clips take, which are made in memory, and the digits while they are resized."""
        data = self.data
        count, pixels = sum(SPLITS[data.source]), data.digit_size**2
        clip = (data.context + data.horizon) * data.frame_size**2
        return {
            f"data.digit_size: {data.digit_size}": (count + 3 * 8 * min(count, _RESIZED_AT_ONCE)) * pixels,
            f"data.validation_clips: {data.validation_clips}": data.validation_clips * clip,
            f"data.test_clips: {data.test_clips}": data.test_clips * clip,
        }

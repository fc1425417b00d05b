"""How much memory the fixed clips of a protocol take while they are made, known before. Imports no torch."""

from benchmark.config.data_sections import DataConfig, DigitsConfig
from benchmark.data.moving_digits.digits import SPLITS

_RESIZED_AT_ONCE = 4096
"""Digits that `resize_area` has in float64, three times over, at once."""


def memory_needs(data: DataConfig) -> dict[str, int]:
    """Key with its value -> bytes of memory that it takes at the least; none for films, which are read from disk."""
    if not isinstance(data, DigitsConfig):
        return {}
    count, pixels = sum(SPLITS[data.digits]), data.digit_size**2
    clip = (data.context + data.horizon) * data.frame_size**2
    return {
        f"data.digit_size: {data.digit_size}": (count + 3 * 8 * min(count, _RESIZED_AT_ONCE)) * pixels,
        f"data.validation_clips: {data.validation_clips}": data.validation_clips * clip,
        f"data.test_clips: {data.test_clips}": data.test_clips * clip,
    }

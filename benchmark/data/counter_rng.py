"""Random numbers as pure functions of counters: the same bits on every device and after every resume."""

from enum import IntEnum
from typing import Any

_WORD = 0xFFFFFFFF


class Domain(IntEnum):
    """What random numbers are drawn for; first counter of every draw, so that no two uses share numbers."""

    TRAIN = 1
    POOL = 2
    POOL_ORDER = 3
    VALIDATION = 4
    TEST = 5
    STEP = 6
    DIGIT_ORDER = 7
    GAP = 8
    VIDEO_SPLIT = 9
    WINDOWS = 10
    EXCHANGE = 11
    DETACH = 12


def counter_hash(seed: int, *counters: Any) -> Any:
    """Hash `seed` (64 bits) and `counters` (32 bits each) to a word in [0, 2**32); lowbias32 (Wellons 2018).

    Args:
        seed: any integer.
        counters: integers, or int64 tensors or numpy arrays that broadcast; integers first cost nothing.

    Returns:
        An integer, tensor or array of the broadcast shape; distinct for distinct values of a single counter.

    Note:
        Two words of state, because with one the streams of two seeds would be one sequence, only shifted.
    """
    low = _mix((seed & _WORD) ^ 0x9E3779B9)
    high = _mix((seed >> 32 & _WORD) ^ 0x85EBCA6B)
    for counter in counters:
        low = _mix(low ^ (counter & _WORD))
        high = _mix((high + low) & _WORD)
    return high


def _mix(word: Any) -> Any:
    word = word ^ (word >> 16)
    word = (word * 0x7FEB352D) & _WORD
    word = word ^ (word >> 15)
    word = (word * -0x7B935975) & _WORD  # 0x846CA68B - 2**32: the product stays inside int64
    return word ^ (word >> 16)

"""Derivatives of the loops without differencing error: the imaginary part after a tiny imaginary step."""

from collections.abc import Callable

import numpy as np

STEP = 1e-30

Arrays = dict[str, np.ndarray]


def derivative(function: Callable[[Arrays], complex], at: Arrays, along: Arrays) -> float:
    """The derivative of a scalar function of named arrays at `at`, along the direction `along` of some of them."""
    nudged = {name: array + 1j * STEP * along[name] if name in along else array for name, array in at.items()}
    return function(nudged).imag / STEP

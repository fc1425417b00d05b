"""What an ideal extrapolator reads: the weights of the straight line through the context (docs/floor.md). No torch."""

import numpy as np
from jaxtyping import Float64


def line_weights(context: int, horizon: int) -> Float64[np.ndarray, " context"]:
    """Weights of the positions in frames 1 to K in the place that a straight line through them has later; Eq. F3.

    Args:
        context: K, at least 2.
        horizon: how many frames after K.
    """
    t = np.arange(1, context + 1) - (context + 1) / 2
    return 1 / context + ((context - 1) / 2 + horizon) * t / (t**2).sum()

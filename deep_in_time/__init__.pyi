"""The names of the library, and where each stands; `__init__.py` reads this file."""

from .clips import FixedClips, TrainingClips, protocol
from .measures import gates, gradient_norms, reach
from .networks import baseline, load_weights, network, save_weights
from .scores import mean_scores, metrics, score

__all__ = [
    "FixedClips",
    "TrainingClips",
    "baseline",
    "gates",
    "gradient_norms",
    "load_weights",
    "mean_scores",
    "metrics",
    "network",
    "protocol",
    "reach",
    "save_weights",
    "score",
]

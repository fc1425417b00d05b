"""What a network costs: parameters and multiply-accumulates, counted without running it."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.predictor import Predictor, free_running_mask
from models.spec import ModelSpec


def count_parameters(spec: ModelSpec) -> int:
    """Trainable parameters that predictions need; every one of them receives gradient (tests prove it)."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Predictor(spec).prediction_weights())


def count_macs(spec: ModelSpec, context: int, horizon: int) -> int:
    """Multiply-accumulates of the convolutions in one forward pass over one clip (torch's FLOP counter, halved).

    Every step has the same convolutions: one is counted, which takes as long for a long clip as for a short one.
    """
    frames = torch.empty(1, 2, spec.channels, spec.frame_size, spec.frame_size, device="meta")
    with torch.device("meta"):
        network = Predictor(spec)
    network.reference_path = True  # the convolutions of the equations, however a run computes them
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(frames, free_running_mask(1, 1, 1, frames))
    return counter.get_total_flops() // 2 * (context + horizon - 1)

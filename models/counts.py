"""What a network costs: parameters and multiply-accumulates, counted without running it."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.forecasters.network import build_network
from models.forecasters.spec import ForecasterSpec, Spec
from models.predictor import Predictor, free_running_mask


def count_parameters(spec: Spec) -> int:
    """Trainable parameters; of our networks every one of them receives gradient (tests prove it)."""
    if isinstance(spec, ForecasterSpec):
        return sum(parameter.numel() for parameter in build_network(spec, 0).parameters())
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Predictor(spec).parameters())


def count_macs(spec: Spec, context: int, horizon: int) -> int:
    """Multiply-accumulates of the convolutions in one forward pass over one clip (torch's FLOP counter, halved).

    Every step of our networks has the same convolutions: one is counted, which takes as long for a long clip as for a
    short one. A model outside the benchmark is run once, on black frames; its products of matrices count, too.
    """
    if isinstance(spec, ForecasterSpec):
        frames = torch.zeros(1, context, spec.channels, spec.frame_size, spec.frame_size)
        model = build_network(spec, 0)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.predict(frames, horizon)
        return counter.get_total_flops() // 2
    frames = torch.empty(1, 2, spec.channels, spec.frame_size, spec.frame_size, device="meta")
    with torch.device("meta"):
        network = Predictor(spec)
    network.reference_path = True  # the convolutions of the equations, however a run computes them
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(frames, free_running_mask(1, 1, 1, frames))
    return counter.get_total_flops() // 2 * (context + horizon - 1)

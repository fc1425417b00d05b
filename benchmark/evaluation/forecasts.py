"""What is scored: the forecast of a run, or of a baseline."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from benchmark.config.protocol import Protocol, run_path
from benchmark.config.variants import BASELINES, MEAN_DIGIT
from benchmark.data.kinds import kind_of
from benchmark.system.errors import UserError
from benchmark.training.weight_files import WEIGHTS, load_run_weights
from models.predictor import predict

Forecast = Callable[[Float[Tensor, "B K C H W"]], Float[Tensor, "B T C H W"]]
"""Context frames in, predicted frames of the horizon out; not clipped."""


def baseline(name: str, horizon: int) -> Forecast:
    """The forecast of the baseline `name` of `benchmark.config.variants.OF_ANY_CLIPS`."""
    frame_of = {
        "last-frame": lambda context: context[:, -1:],
        "context-mean": lambda context: context.mean(dim=1, keepdim=True),
        "black": lambda context: torch.zeros_like(context[:, -1:]),
    }[name]
    return lambda context: frame_of(context).expand(-1, horizon, -1, -1, -1)


def mean_digit(frame: Float32[Tensor, "1 H W"], horizon: int) -> Forecast:
    """The forecast of the baseline `mean-digit`: the same `frame` whatever the context."""
    return lambda context: frame.expand(len(context), horizon, -1, -1, -1)


def named_forecast(
    protocol: Protocol, variant: str, seed: int, results_dir: Path, device: str
) -> tuple[str, Callable[[int], Forecast]]:
    """The name of a run or a baseline, and its forecast of so many frames.

    Raises:
        UserError: the run's weights are missing, damaged or of another configuration, or these clips do not have the
            baseline.
    """
    if variant == MEAN_DIGIT:
        if variant not in protocol.data.baselines:
            raise UserError(f"protocol {protocol.name}: data.{protocol.data.kind} has no baseline {variant}")
        frame = kind_of(protocol.data).open(results_dir / protocol.name / "data").mean_target()
        return BASELINES[variant], partial(mean_digit, frame.to(device))
    if variant in BASELINES:
        return BASELINES[variant], partial(baseline, variant)
    folder = run_path(results_dir, protocol.name, variant, seed)
    run = protocol.run(variant, seed)
    network = load_run_weights(folder / WEIGHTS, run).to(device)
    precision = run.training.precision
    return f"{run.label}, seed {seed}", lambda horizon: partial(predict, network, horizon=horizon, precision=precision)

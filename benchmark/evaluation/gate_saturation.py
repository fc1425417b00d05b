"""Which nonlinearity each gate has, and how often it is saturated (our Eq. 15)."""

import math

import torch
from torch import Tensor

from models.convolution import Nonlinearity
from models.gradient_highway import GradientHighwayUnit
from models.predictor import Trace, cell_class
from models.spec import ModelSpec

SLOPE = 0.19
"""A gate is saturated where its slope is below this share of the largest: sigmoid < 0.05 or > 0.95, |tanh| > 0.9."""


def nonlinearities(spec: ModelSpec) -> dict[str, Nonlinearity]:
    """Gate -> what it goes through (Eq. 1 to 5), of the cell and the highway; sums that are no gates are left out."""
    declared = cell_class(spec.cell).nonlinearities | GradientHighwayUnit.nonlinearities
    return {gate: nonlinearity for gate, nonlinearity in declared.items() if nonlinearity is not None}


def saturated(gates: Trace, spec: ModelSpec) -> dict[tuple[str, int], Tensor]:
    """Share of saturated units of every gate and layer over clips, units and time steps; not finite if one is NaN.

    Args:
        gates: (gate, layer) -> its tensors (B, D, h, w) before the nonlinearity, as `Predictor.forward` records them.
        spec: of the network.
    """
    known, shares = nonlinearities(spec), {}
    for (gate, layer), steps in gates.items():
        if gate in known:
            function, bias = known[gate]
            shares[gate, layer] = share(torch.stack(steps), function, getattr(spec, bias) if bias else 0.0)
    return shares


def share(gate: Tensor, function: str, bias: float) -> Tensor:
    """Share of the elements of `gate` at which the slope of `function` of gate + `bias` is below `SLOPE`."""
    limit = math.atanh(math.sqrt(1 - SLOPE))  # the slope of tanh is 1 - tanh**2; a sigmoid is one of half its argument
    size = (gate.detach() + bias).abs() / (2 if function == "sigmoid" else 1)
    return torch.where(size.isnan(), size, (size > limit).to(size)).mean()

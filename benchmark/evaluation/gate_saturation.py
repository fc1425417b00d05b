"""Which nonlinearity each gate has, and how often it is saturated (our Eq. 15)."""

import math

import torch
from torch import Tensor

from models.predictor import Trace
from models.spec import ModelSpec

SLOPE = 0.19
"""A gate is saturated where its slope is below this share of the largest: sigmoid < 0.05 or > 0.95, |tanh| > 0.9."""
NOT_A_GATE = "w3"
"""What the causal LSTM makes of M under a tanh: a memory, though it is summed as the gates are."""


def nonlinearity(gate: str, spec: ModelSpec) -> tuple[str, float]:
    """`sigmoid` or `tanh`, and the constant that is added to `gate` before it (Eq. 1 to 5)."""
    if gate in ("g", "g'", "p") or (gate == "o" and spec.cell == "causal_lstm"):
        return "tanh", 0.0
    return "sigmoid", {"f": spec.forget_bias, "f'": spec.forget_bias, "s": spec.highway_gate_bias}.get(gate, 0.0)


def saturated(gates: Trace, spec: ModelSpec) -> dict[tuple[str, int], Tensor]:
    """Share of saturated units of every gate and layer over clips, units and time steps; not finite if one is NaN.

    Args:
        gates: (gate, layer) -> its tensors (B, D, h, w) before the nonlinearity, as `Predictor.forward` records them.
        spec: of the network.
    """
    return {
        key: share(torch.stack(steps), *nonlinearity(key[0], spec))
        for key, steps in gates.items()
        if key[0] != NOT_A_GATE
    }


def share(gate: Tensor, function: str, bias: float) -> Tensor:
    """Share of the elements of `gate` at which the slope of `function` of gate + `bias` is below `SLOPE`."""
    limit = math.atanh(math.sqrt(1 - SLOPE))  # the slope of tanh is 1 - tanh**2; a sigmoid is one of half its argument
    size = (gate.detach() + bias).abs() / (2 if function == "sigmoid" else 1)
    return torch.where(size.isnan(), size, (size > limit).to(size)).mean()

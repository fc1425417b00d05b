"""How long each unit of a memory keeps what is in it (our Eq. 19; Tallec and Ollivier 2018)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from benchmark.evaluation.gate_saturation import nonlinearities
from models.convolution import Keep
from models.gradient_highway import GradientHighwayUnit
from models.predictor import Trace, cell_class
from models.spec import ModelSpec


def keeps(spec: ModelSpec) -> dict[str, Keep]:
    """Memory -> the gate that multiplies what was in it, of the cell and the highway; a cell may declare none."""
    return {**getattr(cell_class(spec.cell), "keeps", {}), **GradientHighwayUnit.keeps}


def mean_log_kept(gates: Trace, spec: ModelSpec) -> dict[tuple[str, int], Float[Tensor, " D"]]:
    """Log of the share of a memory that a step keeps: mean over clips, time steps and positions.

    Args:
        gates: (gate, layer) -> its tensors (B, D, h, w) before the nonlinearity, as `Predictor.forward` records them.
        spec: of the network.

    Returns:
        (memory, layer) -> a value for each of its D channels; M by the layer that makes it.
    """
    known, found = nonlinearities(spec), {}
    for memory, keep in keeps(spec).items():
        for (gate, layer), steps in gates.items():
            if gate == keep.gate:
                bias = known[gate].bias
                total = torch.stack(steps).detach() + (getattr(spec, bias) if bias else 0.0)  # (T, B, D, h, w)
                found[memory, layer] = logsigmoid(-total if keep.complement else total).mean(dim=(0, 1, 3, 4))
    return found


def time_constants(log_kept: Float[Tensor, " D"]) -> Float[Tensor, " D"]:
    """Steps of the gate after which 1/e is left, at the mean rate; inf where a gate is always open."""
    return -1 / log_kept

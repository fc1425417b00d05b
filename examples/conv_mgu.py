"""Convolutional minimal gated unit, the example of docs/adding_a_cell.md."""

from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.convolution import FORGET, SEPARATE, TANH, GateConv, GateSums, Keep
from models.spec import ModelSpec


class ConvMGUCell(nn.Module):
    """One step of a ConvMGU layer; Zhou et al. 2016 with convolutions. Its only state is H, its only gate f.

        f = sigmoid(W_xf * x + W_hf * h + b_f)       the share of its past that a layer keeps
        g = tanh(W_xg * x + W_hg * ((1 - f) . h))    the candidate, which sees the rest
        h = f . h + (1 - f) . g

    Args:
        spec: kernel, norm, bias and forget bias.
        in_channels: channels of x.
        hidden_channels: D, channels of h.
        memory_channels: not used; the cell has no spatial memory.
    """

    states = ("H",)
    nonlinearities = MappingProxyType({"f": FORGET, "g": TANH})
    keeps = MappingProxyType({"H": Keep("f")})

    def __init__(self, spec: ModelSpec, in_channels: int, hidden_channels: int, memory_channels: int) -> None:
        super().__init__()
        self.forget_bias = spec.forget_bias
        self.conv_x = GateConv(spec, in_channels, hidden_channels, "f g")
        self.conv_h = GateConv(spec, hidden_channels, hidden_channels, "f")
        self.conv_rest = GateConv(spec, hidden_channels, hidden_channels, "g")

    def forward(
        self,
        x: Float[Tensor, "B C h w"],
        h: Float[Tensor, "B D h w"],
        c: Tensor | None,
        m: None,
        gates: GateSums = SEPARATE,
    ) -> tuple[Float[Tensor, "B D h w"], None, None]:
        """One step.

        Args:
            x: what the layer below gives, or the patches of a frame: C = `in_channels`.
            h: the layer's own H of the step before, D = `hidden_channels`.
            c: a C of zeros at the first step and None after it; the cell has no C.
            m: None, since the cell has no spatial memory.
            gates: how the sums of the gates are computed.

        Returns:
            The new h of D channels, and None for each of c and m.
        """
        X = gates.read(self.conv_x, x)
        (f,) = gates.sum("f", X, gates.read(self.conv_h, h))  # (B, D, h, w), as all gates
        f = torch.sigmoid(f + self.forget_bias)
        (g,) = gates.sum("g", X, gates.read(self.conv_rest, (1 - f) * h))
        h = f * h + (1 - f) * torch.tanh(g)
        return h, None, None

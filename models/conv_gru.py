"""Convolutional gated recurrent unit (Ballas et al. 2016)."""

from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.convolution import FORGET, SEPARATE, SIGMOID, TANH, GateConv, GateSums, Keep
from models.spec import ModelSpec


class ConvGRUCell(nn.Module):
    """One step of a ConvGRU layer, whose only state is H; Ballas et al. 2016; our Eq. 16.

    Args:
        spec: kernel, norm, bias and forget bias.
        in_channels: channels of x.
        hidden_channels: D, channels of h.
        memory_channels: not used; the cell has no spatial memory.

    Note:
        The update gate of the paper is 1 - f here, so that the gate that keeps the past is named as in the other cells
        and has their forget bias.
    """

    states = ("H",)
    nonlinearities = MappingProxyType({"f": FORGET, "r": SIGMOID, "g": TANH})
    keeps = MappingProxyType({"H": Keep("f")})

    def __init__(self, spec: ModelSpec, in_channels: int, hidden_channels: int, memory_channels: int) -> None:
        super().__init__()
        self.forget_bias = spec.forget_bias
        self.conv_x = GateConv(spec, in_channels, hidden_channels, "f r g")
        self.conv_h = GateConv(spec, hidden_channels, hidden_channels, "f r")
        self.conv_rh = GateConv(spec, hidden_channels, hidden_channels, "g")

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
        f, r = gates.sum("f r", X, gates.read(self.conv_h, h))  # each (B, D, h, w)
        f = torch.sigmoid(f + self.forget_bias)  # Eq. 16a
        r = torch.sigmoid(r)  # Eq. 16b
        (g,) = gates.sum("g", X, gates.read(self.conv_rh, r * h))
        g = torch.tanh(g)  # Eq. 16c
        h = f * h + (1 - f) * g  # Eq. 16d
        return h, None, None

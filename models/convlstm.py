"""ConvLSTM (Shi et al. 2015), without peepholes."""

from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.convolution import FORGET, SEPARATE, SIGMOID, TANH, GateConv, GateSums, Keep
from models.spec import ModelSpec


class ConvLSTMCell(nn.Module):
    """One step of a ConvLSTM layer; Shi et al. 2015 without peepholes; our Eq. 1.

    Args:
        spec: kernel, norm, bias and forget bias.
        in_channels: channels of x.
        hidden_channels: D, channels of h and c.
        memory_channels: not used; the cell has no spatial memory.
    """

    states = ("H", "C")
    nonlinearities = MappingProxyType({"i": SIGMOID, "f": FORGET, "g": TANH, "o": SIGMOID})
    keeps = MappingProxyType({"C": Keep("f")})

    def __init__(self, spec: ModelSpec, in_channels: int, hidden_channels: int, memory_channels: int) -> None:
        super().__init__()
        self.forget_bias = spec.forget_bias
        self.conv_x = GateConv(spec, in_channels, hidden_channels, "i f g o")
        self.conv_h = GateConv(spec, hidden_channels, hidden_channels, "i f g o")

    def forward(
        self,
        x: Float[Tensor, "*R B C h w"],
        h: Float[Tensor, "*R B D h w"],
        c: Float[Tensor, "*R B D h w"],
        m: None,
        gates: GateSums = SEPARATE,
    ) -> tuple[Float[Tensor, "*R B D h w"], Float[Tensor, "*R B D h w"], None]:
        """One step.

        Args:
            x: what the layer below gives, or the patches of a frame: C = `in_channels`.
            h: the layer's own H of the step before, D = `hidden_channels`.
            c: the layer's own C of the step before.
            m: None, since the cell has no spatial memory.
            gates: how the sums of the gates are computed.

        Returns:
            The new h and c, each of D channels, and None for m.
        """
        X, H = gates.read(self.conv_x, x), gates.read(self.conv_h, h)
        i, f, g, o = gates.sum("i f g o", X, H)  # each (B, D, h, w)
        i = torch.sigmoid(i)  # Eq. 1a
        f = torch.sigmoid(f + self.forget_bias)  # Eq. 1b
        g = torch.tanh(g)  # Eq. 1c
        o = torch.sigmoid(o)  # Eq. 1d
        c = f * c + i * g  # Eq. 1e
        h = o * torch.tanh(c)  # Eq. 1f
        return h, c, None

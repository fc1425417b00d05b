"""Spatiotemporal LSTM, the cell of PredRNN (Wang et al. 2017)."""

from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.convolution import FORGET, SEPARATE, SIGMOID, TANH, GateConv, GateSums, Keep, conv1x1
from models.spec import ModelSpec


class SpatioTemporalLSTMCell(nn.Module):
    """One step of an ST-LSTM layer with temporal memory C and spatial memory M; Wang et al. 2017; our Eq. 2.

    Args:
        spec: kernel, norm, bias and forget bias.
        in_channels: channels of x.
        hidden_channels: D, channels of h and c.
        memory_channels: channels of m; M is used elementwise, so it must be D.
    """

    states = ("H", "C", "M")
    nonlinearities = MappingProxyType(
        {"i": SIGMOID, "f": FORGET, "g": TANH, "i'": SIGMOID, "f'": FORGET, "g'": TANH, "o": SIGMOID}
    )
    keeps = MappingProxyType({"C": Keep("f"), "M": Keep("f'")})

    def __init__(self, spec: ModelSpec, in_channels: int, hidden_channels: int, memory_channels: int) -> None:
        super().__init__()
        if memory_channels != hidden_channels:
            raise ValueError(f"hidden_channels: st_lstm reads M of {memory_channels} channels with {hidden_channels}")
        d = hidden_channels
        self.forget_bias = spec.forget_bias
        self.conv_x = GateConv(spec, in_channels, d, "i f g i' f' g' o")
        self.conv_h = GateConv(spec, d, d, "i f g o")
        self.conv_m = GateConv(spec, d, d, "i' f' g'")
        self.conv_o = GateConv(spec, 2 * d, d, "o")
        self.conv_memories = conv1x1(spec, 2 * d, d)

    def forward(
        self,
        x: Float[Tensor, "*R B C h w"],
        h: Float[Tensor, "*R B D h w"],
        c: Float[Tensor, "*R B D h w"],
        m: Float[Tensor, "*R B D h w"],
        gates: GateSums = SEPARATE,
    ) -> tuple[Float[Tensor, "*R B D h w"], Float[Tensor, "*R B D h w"], Float[Tensor, "*R B D h w"]]:
        """One step.

        Args:
            x: what the layer below gives, or the patches of a frame: C = `in_channels`.
            h: the layer's own H of the step before, D = `hidden_channels`.
            c: the layer's own C of the step before.
            m: M of the layer below, for the bottom layer that of the top layer at the step before.
            gates: how the sums of the gates are computed.

        Returns:
            The new h, c and m, each of D channels.
        """
        X, H, M = gates.read(self.conv_x, x), gates.read(self.conv_h, h), gates.read(self.conv_m, m)
        i, f, g = gates.sum("i f g", X, H)  # each (B, D, h, w)
        i2, f2, g2 = gates.sum("i' f' g'", X, M)
        i = torch.sigmoid(i)  # Eq. 2a
        f = torch.sigmoid(f + self.forget_bias)  # Eq. 2b
        g = torch.tanh(g)  # Eq. 2c
        c = f * c + gates.increment("C", i * g)  # Eq. 2d
        i2 = torch.sigmoid(i2)  # Eq. 2e
        f2 = torch.sigmoid(f2 + self.forget_bias)  # Eq. 2f
        g2 = torch.tanh(g2)  # Eq. 2g
        m = f2 * m + gates.increment("M", i2 * g2)  # Eq. 2h
        (o,) = gates.sum("o", X, H, gates.read(self.conv_o, c, m))
        o = torch.sigmoid(o)  # Eq. 2i
        h = o * torch.tanh(gates.mix(self.conv_memories, c, m))  # Eq. 2j
        return h, c, m

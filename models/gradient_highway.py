"""Gradient Highway Unit of PredRNN++ (Wang et al. 2018)."""

from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.convolution import SEPARATE, SWITCH, TANH, GateConv, GateSums, Keep
from models.spec import ModelSpec


class GradientHighwayUnit(nn.Module):
    """One step of the highway between two layers; Wang et al. 2018; our Eq. 5.

    Args:
        spec: kernel, norm, bias, channels of Z and the bias of the switch gate.
        in_channels: channels of x, the H of the layer below.
    """

    nonlinearities = MappingProxyType({"p": TANH, "s": SWITCH})
    keeps = MappingProxyType({"Z": Keep("s", complement=True)})

    def __init__(self, spec: ModelSpec, in_channels: int) -> None:
        super().__init__()
        self.gate_bias = spec.highway_gate_bias
        self.conv_x = GateConv(spec, in_channels, spec.highway_width, "p s")
        self.conv_z = GateConv(spec, spec.highway_width, spec.highway_width, "p s")

    def forward(
        self, x: Float[Tensor, "*R B C h w"], z: Float[Tensor, "*R B D h w"], gates: GateSums = SEPARATE
    ) -> tuple[Float[Tensor, "*R B D h w"], Float[Tensor, "*R B D h w"]]:
        """One step.

        Args:
            x: H of the layer below, C = `in_channels`.
            z: the highway's own Z of the step before, D = `highway_channels` of the spec.
            gates: how the sums of the gates are computed.

        Returns:
            The new z and the switch gate s, in [0, 1]: 1 takes the input, 0 keeps the past. Each of D channels.
        """
        p, s = gates.sum("p s", gates.read(self.conv_x, x), gates.read(self.conv_z, z))  # each (B, D, h, w)
        p = torch.tanh(p)  # Eq. 5a
        s = torch.sigmoid(s + self.gate_bias)  # Eq. 5b
        z = s * p + (1 - s) * z  # Eq. 5c
        return z, s

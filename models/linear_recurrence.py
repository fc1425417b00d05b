"""Convolutional linear recurrence: gates that do not see the state (Feng et al. 2024)."""

from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.convolution import FORGET, SEPARATE, GateConv, GateSums, Keep
from models.spec import ModelSpec


class LinearRecurrenceCell(nn.Module):
    """One step of a layer that is linear in its past; minGRU of Feng et al. 2024, with convolutions; our Eq. 17.

    Gate and candidate read x alone. So the gradient of H through time inside a layer is the product of its gates, one
    number an element, and nothing else: no weight is multiplied with itself, and no tanh saturates.

    Args:
        spec: kernel, norm, bias and forget bias.
        in_channels: channels of x.
        hidden_channels: D, channels of h.
        memory_channels: not used; the cell has no spatial memory.

    Note:
        The update gate of the paper is 1 - f here, as in `models/conv_gru.py`.
    """

    states = ("H",)
    nonlinearities = MappingProxyType({"f": FORGET, "g": None})
    keeps = MappingProxyType({"H": Keep("f")})

    def __init__(self, spec: ModelSpec, in_channels: int, hidden_channels: int, memory_channels: int) -> None:
        super().__init__()
        self.forget_bias = spec.forget_bias
        self.conv_x = GateConv(spec, in_channels, hidden_channels, "f g")

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
        f, g = gates.sum("f g", gates.read(self.conv_x, x))  # each (B, D, h, w); g is Eq. 17b
        f = torch.sigmoid(f + self.forget_bias)  # Eq. 17a
        h = f * h + (1 - f) * g  # Eq. 17c
        return h, None, None

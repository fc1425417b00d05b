"""Causal LSTM, the cell of PredRNN++ (Wang et al. 2018)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.convolution import GateConv, conv1x1
from models.spec import ModelSpec


class CausalLSTMCell(nn.Module):
    """One step of a causal LSTM layer: two memories updated one after the other; Wang et al. 2018; our Eq. 3 and 4.

    The memory updated first is C (`temporal_to_spatial`, Eq. 3) or M (`spatial_to_temporal`, Eq. 4).

    Args:
        spec: kernel, norm, bias, forget bias and where the authors' code and paper differ.
        in_channels: channels of x.
        hidden_channels: D, channels of h, c and the new m.
        memory_channels: channels of m as the layer below made it.

    Note:
        Eq. 4 is our reading of the paper's spatial-to-temporal variant, of which no code was published.
    """

    has_memory = True

    def __init__(self, spec: ModelSpec, in_channels: int, hidden_channels: int, memory_channels: int) -> None:
        super().__init__()
        d = hidden_channels
        self.spec = spec
        self.temporal_first = spec.memory_order == "temporal_to_spatial"
        self.w3_in_conv_m = spec.w3_kernel == spec.kernel_size
        self.conv_x = GateConv(spec, in_channels, 7 * d)
        self.conv_h = GateConv(spec, d, (3 + spec.o_sees_h) * d)
        if spec.first_gates_see_c:
            self.conv_c = GateConv(spec, d, 3 * d)
        self.conv_m = GateConv(spec, memory_channels, (2 + self.w3_in_conv_m + spec.g2_sees_m) * d)
        if not self.w3_in_conv_m:
            self.conv_w3 = GateConv(spec, memory_channels, d, spec.w3_kernel)
        self.conv_first = GateConv(spec, d, 4 * d)  # of the memory updated first, for the gates of the second
        self.conv_second = GateConv(spec, d, d)  # of the memory updated second, for the output gate
        self.conv_last = conv1x1(spec, 2 * d, d)

    def forward(
        self, x: Float[Tensor, "B C h w"], h: Float[Tensor, "B D h w"], c: Float[Tensor, "B D h w"], m: Tensor
    ) -> tuple[Float[Tensor, "B D h w"], Float[Tensor, "B D h w"], Float[Tensor, "B D h w"]]:
        """Return the new h, c and m; m comes from the layer below."""
        *temporal_x, i2x, f2x, g2x, ox = self.conv_x(x).chunk(7, dim=1)  # each (B, D, h, w)
        *temporal_h, oh = self._split_h(h)
        temporal = [a + b + c for a, b, c in zip(temporal_x, temporal_h, self._split_c(c), strict=True)]
        i2m, f2m, g2m, m3 = self._split_m(m)
        spatial = [i2x + i2m, f2x + f2m, g2x + g2m]
        if self.temporal_first:
            c = self._update(c, *temporal)  # Eq. 3a-d
            *first, o1 = self.conv_first(c).chunk(4, dim=1)
            m = self._update(torch.tanh(m3), *map(torch.add, spatial, first))  # Eq. 3e-h
            o2 = self.conv_second(m)
        else:
            m = self._update(torch.tanh(m3), *spatial)  # Eq. 4a-d
            *first, o1 = self.conv_first(m).chunk(4, dim=1)
            c = self._update(c, *map(torch.add, temporal, first))  # Eq. 4e-h
            o2 = self.conv_second(c)
        o = torch.tanh(ox + oh + o1 + o2)  # Eq. 3i
        h = o * torch.tanh(self.conv_last(torch.cat([c, m], dim=1)))  # Eq. 3j
        return h, c, m

    def _update(self, memory: Tensor, i: Tensor, f: Tensor, g: Tensor) -> Tensor:
        """The gated update of either memory from its gates before their nonlinearity."""
        return torch.sigmoid(f + self.spec.forget_bias) * memory + torch.sigmoid(i) * torch.tanh(g)

    def _split_h(self, h: Tensor) -> tuple[Tensor | float, ...]:
        """H's share of i, f, g and of o, which does not see H in the paper."""
        gates = self.conv_h(h).split(h.shape[1], dim=1)
        return gates if self.spec.o_sees_h else (*gates, 0.0)

    def _split_c(self, c: Tensor) -> tuple[Tensor | float, ...]:
        """C's share of i, f and g."""
        return self.conv_c(c).chunk(3, dim=1) if self.spec.first_gates_see_c else (0.0, 0.0, 0.0)

    def _split_m(self, m: Tensor) -> tuple[Tensor, Tensor, Tensor | float, Tensor]:
        """M's share of i', f' and g', and W3 * M."""
        gates = list(self.conv_m(m).split(self.conv_last.out_channels, dim=1))
        m3 = gates.pop(2) if self.w3_in_conv_m else self.conv_w3(m)
        g2 = gates.pop(2) if self.spec.g2_sees_m else 0.0
        return gates[0], gates[1], g2, m3

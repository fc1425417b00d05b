"""Causal LSTM, the cell of PredRNN++ (Wang et al. 2018)."""

from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.convolution import FORGET, SEPARATE, SIGMOID, TANH, GateConv, GateSums, Keep, conv1x1
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

    states = ("H", "C", "M")
    nonlinearities = MappingProxyType(
        {
            "i": SIGMOID,
            "f": FORGET,
            "g": TANH,
            "i'": SIGMOID,
            "f'": FORGET,
            "g'": TANH,
            "w3": None,  # a memory, though it is summed as the gates are
            "o": TANH,
        }
    )
    keeps = MappingProxyType({"C": Keep("f"), "M": Keep("f'")})  # of M what it multiplies is tanh(W3 M)

    def __init__(self, spec: ModelSpec, in_channels: int, hidden_channels: int, memory_channels: int) -> None:
        super().__init__()
        d = hidden_channels
        self.spec, self.forget_bias = spec, spec.forget_bias
        self.temporal_first = spec.memory_order == "temporal_to_spatial"
        self.w3_in_conv_m = spec.w3_kernel == spec.kernel_size
        self.conv_x = GateConv(spec, in_channels, d, "i f g i' f' g' o")
        self.conv_h = GateConv(spec, d, d, "i f g o" if spec.o_sees_h else "i f g")
        if spec.first_gates_see_c:
            self.conv_c = GateConv(spec, d, d, "i f g")
        of_m = ["i'", "f'", *(["w3"] if self.w3_in_conv_m else []), *(["g'"] if spec.g2_sees_m else [])]
        self.conv_m = GateConv(spec, memory_channels, d, " ".join(of_m))
        if not self.w3_in_conv_m:
            self.conv_w3 = GateConv(spec, memory_channels, d, "w3", spec.w3_kernel)
        # Reads the memory updated first, C or M, for the gates of the other and for o.
        self.conv_first_memory = GateConv(spec, d, d, "i' f' g' o" if self.temporal_first else "i f g o")
        self.conv_second_memory = GateConv(spec, d, d, "o")
        # W5, reads [C, M].
        self.conv_memories = conv1x1(spec, 2 * d, d)

    def forward(
        self,
        x: Float[Tensor, "*R B C h w"],
        h: Float[Tensor, "*R B D h w"],
        c: Float[Tensor, "*R B D h w"],
        m: Float[Tensor, "*R B Dm h w"],
        gates: GateSums = SEPARATE,
    ) -> tuple[Float[Tensor, "*R B D h w"], Float[Tensor, "*R B D h w"], Float[Tensor, "*R B D h w"]]:
        """One step.

        Args:
            x: what the layer below gives, or the patches of a frame: C = `in_channels`.
            h: the layer's own H of the step before, D = `hidden_channels`.
            c: the layer's own C of the step before.
            m: M of the layer below, for the bottom layer that of the top layer at the step before;
                Dm = `memory_channels`.
            gates: how the sums of the gates are computed.

        Returns:
            The new h, c and m, each of D channels.
        """
        X, H, M = gates.read(self.conv_x, x), gates.read(self.conv_h, h), gates.read(self.conv_m, m)
        C = [gates.read(self.conv_c, c)] if self.spec.first_gates_see_c else []
        W3 = M if self.w3_in_conv_m else gates.read(self.conv_w3, m)
        (m3,) = gates.sum("w3", W3)  # (B, D, h, w), as all gates
        if self.temporal_first:
            c = self._update(c, *gates.sum("i f g", X, H, *C))  # Eq. 3a-d
            first = gates.read(self.conv_first_memory, c)
            m = self._update(torch.tanh(m3), *gates.sum("i' f' g'", X, M, first))  # Eq. 3e-h
            second = gates.read(self.conv_second_memory, m)
        else:
            m = self._update(torch.tanh(m3), *gates.sum("i' f' g'", X, M))  # Eq. 4a-d
            first = gates.read(self.conv_first_memory, m)
            c = self._update(c, *gates.sum("i f g", X, H, *C, first))  # Eq. 4e-h
            second = gates.read(self.conv_second_memory, c)
        (o,) = gates.sum("o", X, H, first, second)
        o = torch.tanh(o)  # Eq. 3i
        h = o * torch.tanh(gates.mix(self.conv_memories, c, m))  # Eq. 3j
        return h, c, m

    def _update(self, memory: Tensor, i: Tensor, f: Tensor, g: Tensor) -> Tensor:
        """The gated update of either memory from its gates before their nonlinearity."""
        return torch.sigmoid(f + self.forget_bias) * memory + torch.sigmoid(i) * torch.tanh(g)

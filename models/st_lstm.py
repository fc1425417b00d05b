"""Spatiotemporal LSTM, the cell of PredRNN (Wang et al. 2017)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.convolution import GateConv, conv1x1
from models.spec import ModelSpec


class SpatioTemporalLSTMCell(nn.Module):
    """One step of an ST-LSTM layer with temporal memory C and spatial memory M; Wang et al. 2017; our Eq. 2.

    Args:
        spec: kernel, norm, bias and forget bias.
        in_channels: channels of x.
        hidden_channels: D, channels of h and c.
        memory_channels: channels of m; M is used elementwise, so it must be D.
    """

    has_memory = True

    def __init__(self, spec: ModelSpec, in_channels: int, hidden_channels: int, memory_channels: int) -> None:
        super().__init__()
        if memory_channels != hidden_channels:
            raise ValueError(f"hidden_channels: st_lstm reads M of {memory_channels} channels with {hidden_channels}")
        d = hidden_channels
        self.forget_bias = spec.forget_bias
        self.conv_x = GateConv(spec, in_channels, 7 * d)
        self.conv_h = GateConv(spec, d, 4 * d)
        self.conv_m = GateConv(spec, d, 3 * d)
        self.conv_o = GateConv(spec, 2 * d, d)
        self.conv_last = conv1x1(spec, 2 * d, d)

    def forward(
        self, x: Float[Tensor, "B C h w"], h: Float[Tensor, "B D h w"], c: Float[Tensor, "B D h w"], m: Tensor
    ) -> tuple[Float[Tensor, "B D h w"], Float[Tensor, "B D h w"], Float[Tensor, "B D h w"]]:
        """Return the new h, c and m; m comes from the layer below."""
        ix, fx, gx, i2x, f2x, g2x, ox = self.conv_x(x).chunk(7, dim=1)  # each (B, D, h, w)
        ih, fh, gh, oh = self.conv_h(h).chunk(4, dim=1)
        i2m, f2m, g2m = self.conv_m(m).chunk(3, dim=1)
        i = torch.sigmoid(ix + ih)  # Eq. 2a
        f = torch.sigmoid(fx + fh + self.forget_bias)  # Eq. 2b
        g = torch.tanh(gx + gh)  # Eq. 2c
        c = f * c + i * g  # Eq. 2d
        i2 = torch.sigmoid(i2x + i2m)  # Eq. 2e
        f2 = torch.sigmoid(f2x + f2m + self.forget_bias)  # Eq. 2f
        g2 = torch.tanh(g2x + g2m)  # Eq. 2g
        m = f2 * m + i2 * g2  # Eq. 2h
        both = torch.cat([c, m], dim=1)  # (B, 2 D, h, w)
        o = torch.sigmoid(ox + oh + self.conv_o(both))  # Eq. 2i
        h = o * torch.tanh(self.conv_last(both))  # Eq. 2j
        return h, c, m

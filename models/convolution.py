"""The gate convolution that all cells share: a padded convolution and, if asked for, a layer norm."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.spec import ModelSpec


class GateConv(nn.Module):
    """A stride-1 convolution that keeps height and width, then `spec.norm` over its whole output (our Eq. 6).

    The norm is applied before the output is split into gates, and never to a 1x1 convolution.

    Args:
        spec: gives norm, bias and the size of the grid of patches.
        in_channels, out_channels: of the convolution.
        kernel_size: odd; `spec.kernel_size` if not given.
    """

    def __init__(self, spec: ModelSpec, in_channels: int, out_channels: int, kernel_size: int | None = None) -> None:
        super().__init__()
        k = kernel_size or spec.kernel_size
        self.conv = nn.Conv2d(in_channels, out_channels, k, padding=k // 2, bias=spec.conv_bias)
        self.norm: nn.Module
        if spec.norm == "none" or k == 1:
            self.norm = nn.Identity()
        elif spec.norm == "channel":
            self.norm = nn.GroupNorm(1, out_channels, eps=1e-5)
        else:
            self.norm = nn.LayerNorm((out_channels, spec.patches, spec.patches), eps=1e-5)

    def forward(self, x: Float[Tensor, "B Cin h w"]) -> Float[Tensor, "B Cout h w"]:
        """Convolve and normalise."""
        return self.norm(self.conv(x))


def initialise(module: nn.Module, spec: ModelSpec) -> None:
    """Set the weights of `module` as `spec.init` says (our Eq. 14); PyTorch's own defaults stay for `default`.

    Note:
        `uniform(0.001)`: weights uniform in [-0.001, 0.001], biases 0. Its two exceptions, as in the authors'
        TensorFlow code, are the 1x1 convolutions that make H from [C, M] and the next frame from H: Glorot uniform.
    """
    if spec.init == "default":
        return
    for layer in module.modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        if getattr(layer, "glorot", False):
            nn.init.xavier_uniform_(layer.weight)
        else:
            nn.init.uniform_(layer.weight, -0.001, 0.001)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def conv1x1(spec: ModelSpec, in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 1x1 convolution, one of the two exceptions of the `uniform(0.001)` initialisation."""
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=spec.conv_bias)
    conv.glorot = True
    return conv


def zeros(like: Tensor, channels: int) -> Float[Tensor, "B D h w"]:
    """A zero state with `channels` channels and the batch, grid, type and device of `like` (B C h w)."""
    return torch.zeros(like.shape[0], channels, *like.shape[2:], dtype=like.dtype, device=like.device)

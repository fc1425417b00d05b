"""The gate convolution that all cells share, and how gates are summed from several of them."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, Literal, NamedTuple, Protocol, TypeGuard, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.spec import ModelSpec


class Nonlinearity(NamedTuple):
    """What a gate goes through once it is summed."""

    function: Literal["sigmoid", "tanh"]
    bias: str | None = None
    """Field of the spec that is added before it; none = nothing."""


SIGMOID, TANH = Nonlinearity("sigmoid"), Nonlinearity("tanh")
FORGET = Nonlinearity("sigmoid", bias="forget_bias")
SWITCH = Nonlinearity("sigmoid", bias="highway_gate_bias")


class GateConv(nn.Module):
    """A stride-1 convolution that keeps height and width, then `spec.norm` over its whole output (our Eq. 6).

    The norm is applied before the output is split into gates, and never to a 1x1 convolution.

    Args:
        spec: gives norm, bias and the size of the grid of patches.
        in_channels: of the convolution.
        width: D, channels of one gate.
        gates: names of the gates it contributes to, in the order of its output channels.
        kernel_size: odd; `spec.kernel_size` if not given.
    """

    def __init__(
        self, spec: ModelSpec, in_channels: int, width: int, gates: str, kernel_size: int | None = None
    ) -> None:
        super().__init__()
        self.gates = tuple(gates.split())
        k, out_channels = kernel_size or spec.kernel_size, len(self.gates) * width
        self.conv = nn.Conv2d(in_channels, out_channels, k, padding=k // 2, bias=spec.conv_bias)
        self.norm: nn.Module
        if spec.norm == "none" or k == 1:
            self.norm = nn.Identity()
        elif spec.norm == "channel":
            self.norm = nn.GroupNorm(1, out_channels, eps=1e-5)
        else:
            self.norm = nn.LayerNorm((out_channels, spec.patches, spec.patches), eps=1e-5)  # pyright: ignore[reportArgumentType]  # torch says list, and takes a tuple

    def forward(self, x: Float[Tensor, "B Cin h w"]) -> Float[Tensor, "B Cout h w"]:
        """Convolve and normalise.

        Args:
            x: Cin = `in_channels`.

        Returns:
            All gates one after the other, Cout = gates * width.
        """
        return self.norm(self.conv(x))


@runtime_checkable
class GateSums(Protocol):
    """How a cell gets its gates; the cells' equations are the same whoever computes the sums."""

    def read(self, conv: GateConv, *sources: Tensor) -> Any:
        """What `conv` contributes when it reads `sources`, joined along their channels."""

    def sum(self, names: str, *readings: Any) -> list[Tensor]:  # pyright: ignore[reportReturnType]  # a protocol has no body
        """The named gates (B, D, h, w) before their nonlinearity, each the sum of all readings that have it."""

    def mix(self, conv: nn.Conv2d, *sources: Tensor) -> Tensor:  # pyright: ignore[reportReturnType]  # a protocol has no body
        """The 1x1 convolution `conv` of `sources`, joined along their channels."""

    def again(self) -> "GateSums":  # pyright: ignore[reportReturnType]  # a protocol has no body
        """The same for a step that is computed twice: what this step alone makes is not kept beyond it."""


class Separate:
    """Every gate convolution by itself, its output split into gates and added: the reference path."""

    def read(self, conv: GateConv, *sources: Tensor) -> Mapping[str, Tensor]:
        """The gates that `conv` contributes to, by name."""
        return dict(zip(conv.gates, conv(torch.cat(sources, dim=1)).chunk(len(conv.gates), dim=1), strict=True))

    def sum(self, names: str, *readings: Mapping[str, Tensor]) -> list[Tensor]:
        """Add what the readings have of each gate."""
        return [reduce(torch.add, [reading[name] for reading in readings if name in reading]) for name in names.split()]

    def mix(self, conv: nn.Conv2d, *sources: Tensor) -> Tensor:
        """Join and convolve."""
        return conv(torch.cat(sources, dim=1))

    def again(self) -> "Separate":
        """Itself, since it keeps nothing."""
        return self


SEPARATE = Separate()


class Watched:
    """The gates as `gates` sums them, each also shown to `see` with its name, before its nonlinearity."""

    def __init__(self, gates: GateSums, see: Callable[[str, Tensor], None]) -> None:
        self._see = see
        self.read, self.mix, self._sum, self.again = gates.read, gates.mix, gates.sum, gates.again

    def sum(self, names: str, *readings: Any) -> list[Tensor]:
        """The named gates."""
        found = self._sum(names, *readings)
        for name, gate in zip(names.split(), found, strict=True):
            self._see(name, gate)
        return found


def initialise(module: nn.Module, spec: ModelSpec) -> None:
    """Set the weights of `module` as `spec` says (our Eq. 14); PyTorch's own defaults stay for `default`.

    Note:
        `uniform(0.001)`: weights uniform in [-0.001, 0.001], biases 0. Its two exceptions, as in the authors'
        TensorFlow code, are the 1x1 convolutions that make H from [C, M] and the next frame from H: Glorot uniform.

    Raises:
        ValueError: `spec.chrono_frames` is given for a cell without gates i and f.
    """
    if spec.init != "default":
        _initialise_as_authors(module)
    if spec.chrono_frames is None:
        return
    convs = {name: [one for one in cell.children() if _has_both(one)] for name, cell in module.named_modules()}
    if not any(convs.values()):
        raise ValueError(f"chrono_frames: {spec.cell} has no gates i and f")
    for of_cell in convs.values():
        _initialise_chrono(of_cell, spec.chrono_frames)


def _initialise_as_authors(module: nn.Module) -> None:
    for layer in module.modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        if getattr(layer, "glorot", False):
            nn.init.xavier_uniform_(layer.weight)
        else:
            nn.init.uniform_(layer.weight, -0.001, 0.001)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _has_both(module: nn.Module) -> TypeGuard[GateConv]:
    """Whether a convolution contributes to the gates i and f of C."""
    return isinstance(module, GateConv) and {"i", "f"} <= set(module.gates)


def _initialise_chrono(convs: Sequence[GateConv], frames: int) -> None:
    """Set what the gates i and f of one cell have as bias to -b and b; all others, and all weights, stay.

    Each of the two is a sum over `convs`, all that contribute to them. The first gets all of it, so that the sums are
    those of Eq. 14b.
    """
    for place, conv in enumerate(convs):
        bias = conv.conv.bias.detach().view(len(conv.gates), -1)  # pyright: ignore[reportOptionalMemberAccess]  # the spec asks for one
        forget = torch.log(torch.empty_like(bias[0]).uniform_(1, frames - 1)) if place == 0 else bias.new_zeros(1)
        bias[conv.gates.index("f")], bias[conv.gates.index("i")] = forget, -forget


def conv1x1(spec: ModelSpec, in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 1x1 convolution, one of the two exceptions of the `uniform(0.001)` initialisation."""
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=spec.conv_bias)
    conv.glorot = True  # pyright: ignore[reportArgumentType]  # a mark that `initialise` reads
    return conv


def zeros(like: Tensor, channels: int) -> Float[Tensor, "B D h w"]:
    """A zero state with `channels` channels and the batch, grid, type and device of `like` (B C h w)."""
    return torch.zeros(like.shape[0], channels, *like.shape[2:], dtype=like.dtype, device=like.device)

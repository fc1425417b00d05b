"""The gate convolution that all cells share, and how gates are summed from several of them."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, Literal, NamedTuple, Protocol, TypeGuard, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from models.spec import ModelSpec


class Nonlinearity(NamedTuple):
    """What a gate goes through once it is summed."""

    function: Literal["sigmoid", "tanh"]
    bias: str | None = None
    """Field of the spec that is added before it; none = nothing."""


SIGMOID, TANH = Nonlinearity("sigmoid"), Nonlinearity("tanh")
FORGET = Nonlinearity("sigmoid", bias="forget_bias")
SWITCH = Nonlinearity("sigmoid", bias="highway_gate_bias")


class Keep(NamedTuple):
    """The share of a memory that a step keeps: the sigmoid gate that multiplies it, or 1 minus that."""

    gate: str
    complement: bool = False


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

    def forward(self, x: Float[Tensor, "*R B Cin h w"]) -> Float[Tensor, "*R B Cout h w"]:
        """Convolve and normalise.

        Args:
            x: Cin = `in_channels`; has a run axis R where the weights have one.

        Returns:
            All gates one after the other, Cout = gates * width.
        """
        return self.norm(self.conv(x)) if x.dim() == 4 else run_by_run(self, x)


def run_by_run(module: nn.Module, x: Float[Tensor, "R B Cin h w"]) -> Float[Tensor, "R B Cout h w"]:
    """What `module`, whose weights have a leading run axis, makes of each run: as it does alone, so the same bits."""
    weights = dict(module.named_parameters())
    found = [
        functional_call(module, {name: weight[run] for name, weight in weights.items()}, (one,))
        for run, one in enumerate(x.unbind(0))
    ]
    return torch.stack(found)


@runtime_checkable
class GateSums(Protocol):
    """How a cell gets its gates; the cells' equations are the same whoever computes the sums."""

    def read(self, conv: GateConv, *sources: Tensor) -> Any:
        """What `conv` contributes when it reads `sources`, joined along their channels."""

    def sum(self, names: str, *readings: Any) -> list[Tensor]:  # pyright: ignore[reportReturnType]  # a protocol has no body
        """The named gates (*R, B, D, h, w) before their nonlinearity, each the sum of all readings that have it."""

    def mix(self, conv: nn.Conv2d, *sources: Tensor) -> Tensor:  # pyright: ignore[reportReturnType]  # a protocol has no body
        """The 1x1 convolution `conv` of `sources`, joined along their channels."""

    def increment(self, memory: str, added: Tensor) -> Tensor:  # pyright: ignore[reportReturnType]  # a protocol has no body
        """What a step adds to C or M, as it is; `Watched` shows it."""

    def again(self) -> "GateSums":  # pyright: ignore[reportReturnType]  # a protocol has no body
        """The same for a step that is computed twice: what this step alone makes is not kept beyond it."""


class Separate:
    """Every gate convolution by itself, its output split into gates and added: the reference path."""

    def read(self, conv: GateConv, *sources: Tensor) -> Mapping[str, Tensor]:
        """The gates that `conv` contributes to, by name."""
        return dict(zip(conv.gates, conv(torch.cat(sources, dim=-3)).chunk(len(conv.gates), dim=-3), strict=True))

    def sum(self, names: str, *readings: Mapping[str, Tensor]) -> list[Tensor]:
        """Add what the readings have of each gate."""
        return [reduce(torch.add, [reading[name] for reading in readings if name in reading]) for name in names.split()]

    def mix(self, conv: nn.Conv2d, *sources: Tensor) -> Tensor:
        """Join and convolve."""
        joined = torch.cat(sources, dim=-3)
        return conv(joined) if joined.dim() == 4 else run_by_run(conv, joined)

    def increment(self, memory: str, added: Tensor) -> Tensor:
        """`added`."""
        return added

    def again(self) -> "Separate":
        """Itself, since it keeps nothing."""
        return self


SEPARATE = Separate()


class Watched:
    """The gates as `gates` sums them, each also shown with its name.

    Args:
        gates: sums them.
        see: is shown every gate before its nonlinearity.
        see_increment: is shown what a step adds to C and to M.
    """

    def __init__(
        self,
        gates: GateSums,
        see: Callable[[str, Tensor], None] | None = None,
        see_increment: Callable[[str, Tensor], None] | None = None,
    ) -> None:
        self._gates, self._see, self._see_increment = gates, see, see_increment
        self.read, self.mix, self.again = gates.read, gates.mix, gates.again

    def sum(self, names: str, *readings: Any) -> list[Tensor]:
        """The named gates."""
        found = self._gates.sum(names, *readings)
        if self._see is not None:
            for name, gate in zip(names.split(), found, strict=True):
                self._see(name, gate)
        return found

    def increment(self, memory: str, added: Tensor) -> Tensor:
        """`added`."""
        if self._see_increment is not None:
            self._see_increment(memory, added)
        return added


def initialise(module: nn.Module, spec: ModelSpec) -> None:
    """Set the weights of `module` as `spec` says (our Eq. 14); PyTorch's own defaults stay for `default`.

    Note:
        `uniform(0.001)`: weights uniform in [-0.001, 0.001], biases 0. Its two exceptions, as in the authors'
        TensorFlow code, are the 1x1 convolutions that make H from [C, M] and the next frame from H: Glorot uniform.

    Raises:
        ValueError: `spec.chrono_frames` is given for a cell without a gate f.
    """
    if spec.init != "default":
        _initialise_as_authors(module)
    if spec.chrono_frames is None:
        return
    convs = {name: [one for one in cell.children() if _has_forget_gate(one)] for name, cell in module.named_modules()}
    if not any(convs.values()):
        raise ValueError(f"chrono_frames: {spec.cell} has no gate f")
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


def _has_forget_gate(module: nn.Module) -> TypeGuard[GateConv]:
    """Whether a convolution contributes to the gate f of C, or of H where a cell has no C."""
    return isinstance(module, GateConv) and "f" in module.gates


def _initialise_chrono(convs: Sequence[GateConv], frames: int) -> None:
    """Set what the gates f and, where there is one, i of one cell have as bias to b and -b; all else stays.

    Each of them is a sum over `convs`, all that contribute to them. The first gets all of it, so that the sums are
    those of Eq. 14b.
    """
    for place, conv in enumerate(convs):
        bias = conv.conv.bias.detach().view(len(conv.gates), -1)  # pyright: ignore[reportOptionalMemberAccess]  # the spec asks for one
        forget = torch.log(torch.empty_like(bias[0]).uniform_(1, frames - 1)) if place == 0 else bias.new_zeros(1)
        bias[conv.gates.index("f")] = forget
        if "i" in conv.gates:
            bias[conv.gates.index("i")] = -forget


def conv1x1(spec: ModelSpec, in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 1x1 convolution, one of the two exceptions of the `uniform(0.001)` initialisation."""
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=spec.conv_bias)
    conv.glorot = True  # pyright: ignore[reportArgumentType]  # a mark that `initialise` reads
    return conv


def zeros(like: Tensor, channels: int) -> Float[Tensor, "*R B D h w"]:
    """A zero state with `channels` channels and the runs, batch, grid, type and device of `like` (*R, B, C, h, w)."""
    return torch.zeros(*like.shape[:-3], channels, *like.shape[-2:], dtype=like.dtype, device=like.device)

"""The optimised path: gates summed from the same sources come from one convolution; equations and weights stay.

Its weights are cut out of those of the gate convolutions and joined once a roll-out. On a CPU it is computed after
Winograd, and what a state is transformed to serves all convolutions that read it.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from models.convolution import SEPARATE, GateConv
from models.fast_path.winograd import LARGEST_KERNEL, Winograd, to_tiles


@dataclass(frozen=True)
class Reading:
    """A gate convolution and the tensors it reads."""

    conv: GateConv
    sources: tuple[Tensor, ...]


class Merged:
    """The gate sums of one roll-out; holds its merged weights and forgets them with it.

    Args:
        device: type of the device it runs on; under autocast there, convolutions and nothing else are in low precision:
            what they read and give is rounded to it, and a CPU computes with what is rounded in full.
    """

    def __init__(self, device: str) -> None:
        self._low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        self._on_cpu = device == "cpu"
        self._kernels: dict[tuple, Any] = {}
        self._forms: dict[Any, WeakTensorKeyDictionary] = defaultdict(WeakTensorKeyDictionary)

    def read(self, conv: GateConv, *sources: Tensor) -> Any:
        """What `sum` needs of `conv` and `sources`; with a norm, which allows no merging, the gates themselves."""
        return Reading(conv, sources) if isinstance(conv.norm, nn.Identity) else SEPARATE.read(conv, *sources)

    def sum(self, names: str, *readings: Any) -> list[Tensor]:
        """One convolution for all gates that the same readings have."""
        if not all(isinstance(reading, Reading) for reading in readings):
            return SEPARATE.sum(names, *readings)
        groups: dict[tuple[Reading, ...], list[str]] = defaultdict(list)
        for name in names.split():
            groups[tuple(reading for reading in readings if name in reading.conv.gates)].append(name)
        gates: dict[str, Tensor] = {}
        for group, of_group in groups.items():
            gates |= zip(of_group, self._convolve(tuple(of_group), group), strict=True)
        return [gates[name] for name in names.split()]

    def mix(self, conv: nn.Conv2d, *sources: Tensor) -> Tensor:
        """A product of matrices over the channels, in the layout that the gates have: with their channels last."""
        grid, places = ((-2, -1), (-4, -3)) if self._on_cpu else ((-2, -1), (-3, -2))
        joined = torch.cat([source.movedim(grid, places) for source in sources], dim=-1)
        with self._own_precision():
            mixed = linear(self._rounded(joined), self._rounded(conv.weight[..., 0, 0]), conv.bias)
        return mixed.movedim(places, grid)

    def increment(self, memory: str, added: Tensor) -> Tensor:
        """`added`."""
        return added

    def again(self) -> "Merged":
        """The same weights without the forms of earlier sources."""
        other = copy(self)
        other._forms = defaultdict(WeakTensorKeyDictionary)
        return other

    def _convolve(self, names: tuple[str, ...], readings: tuple[Reading, ...]) -> Sequence[Tensor]:
        sources = [source for reading in readings for source in reading.sources]
        k, (height, width) = readings[0].conv.conv.kernel_size[0], sources[0].shape[-2:]
        winograd = self._on_cpu and k <= LARGEST_KERNEL and height == width
        key = (names, *(reading.conv for reading in readings))
        with self._own_precision():
            if key not in self._kernels:
                kernels, bias = cut(names, readings)
                kernels = [self._rounded(kernel) for kernel in kernels]
                self._kernels[key] = Winograd(kernels, bias) if winograd else Direct(kernels, bias)
            if winograd:
                tiles = [self._once(source, k, lambda s: to_tiles(self._rounded(s), k)) for source in sources]
                gates = self._kernels[key](tiles, len(names), sources[0].shape[:-3], height)
            else:
                if self._low is not None:
                    sources = [self._once(source, "rounded", self._rounded) for source in sources]
                gates = self._kernels[key](sources).chunk(len(names), dim=-3)
            return [self._rounded(gate) for gate in gates] if self._on_cpu else gates

    def _rounded(self, tensor: Tensor) -> Tensor:
        """What a convolution reads or gives, and so its gradient, in the precision of convolutions."""
        if self._low is None:
            return tensor
        rounded = tensor.to(self._low)
        return rounded.to(tensor.dtype) if self._on_cpu else rounded

    def _own_precision(self) -> AbstractContextManager:
        """On a CPU what is rounded is computed with in full precision, whatever autocast would make of it."""
        return torch.autocast("cpu", enabled=False) if self._on_cpu and self._low is not None else nullcontext()

    def _once(self, source: Tensor, form: Any, make: Callable[[Tensor], Tensor]) -> Tensor:
        """`source` in the form that convolutions take, made at the first of them."""
        made = self._forms[form].get(source)
        if made is None:
            made = self._forms[form][source] = make(source)
        return made


class Direct:
    """The convolution of several sources by one kernel each, summed: one convolution of all of them.

    Args:
        kernels: one a source, (*R, O, C, k, k) for runs R.
        bias: (*R, O), or None.
    """

    def __init__(self, kernels: Sequence[Tensor], bias: Tensor | None) -> None:
        self.weight, self.bias = torch.cat(list(kernels), dim=-3).flatten(0, -4), bias  # runs are groups
        self.runs = kernels[0].shape[:-4].numel()
        if self.weight.dtype.itemsize < 4:  # low precision
            self.weight = self.weight.contiguous(memory_format=torch.channels_last)

    def __call__(self, sources: Sequence[Tensor]) -> Tensor:
        """All gates (*R, B, O, h, w), in float32 where kernels and sources are in less."""
        joined = torch.cat(list(sources), dim=-3)
        if joined.dim() == 4:
            gates = self._convolve(joined, self.weight)
        elif joined.is_cuda:  # one kernel for all runs
            gates = self._convolve(joined.movedim(0, 1).flatten(1, 2), self.weight)  # (B, R * C, h, w)
            gates = gates.unflatten(1, (self.runs, -1)).movedim(1, 0)
        else:  # a convolution with groups would round otherwise than that of a run alone
            pairs = zip(joined, self.weight.chunk(self.runs), strict=True)
            gates = torch.stack([self._convolve(one, weight) for one, weight in pairs])
        gates = gates.to(torch.promote_types(gates.dtype, torch.float32))
        return gates if self.bias is None else gates + self.bias[..., None, :, None, None]

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        """`x` (B, G * C, h, w) with as many groups G as its channels ask for."""
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=x.shape[1] // weight.shape[1])


def linear(
    x: Float[Tensor, "*R h w B C"], weight: Float[Tensor, "*R O C"], bias: Float[Tensor, "*R O"] | None
) -> Tensor:
    """`x` times `weight`, plus `bias`: of each run by its own where the weights have a run axis."""
    if weight.dim() == 2:
        return F.linear(x, weight, bias)
    if not x.is_cuda:  # a product of all runs at once would round gradients otherwise than that of a run alone
        biases = [None] * len(x) if bias is None else bias
        return torch.stack([F.linear(*of_run) for of_run in zip(x, weight, biases, strict=True)])
    rows, columns = x.flatten(1, -2), weight.transpose(1, 2)
    found = torch.bmm(rows, columns) if bias is None else torch.baddbmm(bias[:, None], rows, columns)
    return found.view(*x.shape[:-1], -1)


def cut(names: Sequence[str], readings: Sequence[Reading]) -> tuple[list[Tensor], Tensor | None]:
    """The kernels (*R, gates * D, C, k, k) by which the named gates read each source, and their whole bias."""
    kernels: list[Tensor] = []
    biases = []
    for conv, sources in ((reading.conv, reading.sources) for reading in readings):
        kernel = named(conv, conv.conv.weight, names, dim=-4)
        kernels += kernel.split([source.shape[-3] for source in sources], dim=-3)
        if conv.conv.bias is not None:
            biases.append(named(conv, conv.conv.bias, names, dim=-1))
    return kernels, torch.stack(biases).sum(0) if biases else None


def named(conv: GateConv, weight: Tensor, names: Sequence[str], dim: int) -> Tensor:
    """The part of `weight` that belongs to the named gates of `conv`, along its output channels in `dim`."""
    rows = dict(zip(conv.gates, weight.chunk(len(conv.gates), dim=dim), strict=True))
    return torch.cat([rows[name] for name in names], dim=dim)

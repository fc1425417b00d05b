"""The weights of all stages cut out of those of the cells, and their gradients put back: a few launches for all.

A stage reads its states joined, and every width is padded to a multiple of 8. So its kernel is made of rows and columns
of several gate convolutions, and of zeros where a gate does not read a state. Where each number comes from is worked
out once, on the CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.fast_path.stage_plans import Stage

ALIGNMENT = 8
"""Channels: 16 bytes in bf16, the widest access of a kernel and what tensor cores ask for."""


def padded(width: int) -> int:
    """The next multiple of `ALIGNMENT`."""
    return -(-width // ALIGNMENT) * ALIGNMENT


@dataclass
class Form:
    """A joined kernel (O, k, k, C) and where its numbers stand among all; a product of matrices has k = 1."""

    gates: int
    width: int
    """D, of a gate."""
    kernel_size: int
    columns: dict[str, tuple[int, int]]
    """State -> its first column and its channels."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the kernel."""
        channels = sum(padded(width) for _, width in self.columns.values())
        return self.gates * padded(self.width), self.kernel_size, self.kernel_size, channels

    def slot(self, state: str) -> slice:
        """The columns of a state, with those that pad it."""
        first, width = self.columns[state]
        return slice(first, first + padded(width))


def form(gates: int, width: int, kernel_size: int, widths: dict[str, int]) -> Form:
    """The form that joins states of these widths in this order."""
    columns, first = {}, 0
    for state, channels in widths.items():
        columns[state] = first, channels
        first += padded(channels)
    return Form(gates, width, kernel_size, columns)


@dataclass(frozen=True)
class Part:
    """Rows of a convolution that are part of a joined kernel, and their bias."""

    conv: nn.Conv2d
    rows: tuple[tuple[int, int], ...]
    """Gate of the convolution -> gate of the kernel."""
    states: tuple[str, ...]


def parts_of(stage: Stage) -> list[Part]:
    """Those of a stage's kernel."""
    names = stage.gates.split()
    found = []
    for conv, states in stage.reads:
        rows = tuple((place, names.index(name)) for place, name in enumerate(conv.gates) if name in names)
        if rows:
            found.append(Part(conv.conv, rows, states))
    return found


class JoinedWeights:
    """Joins the weights of the parts, and takes their gradients apart.

    Args:
        forms: of the joined kernels.
        parts: of each; every row of every convolution is part of one kernel.
        parameters: of the network, in the order in which gradients are asked for.
    """

    def __init__(self, forms: Sequence[Form], parts: Sequence[Sequence[Part]], parameters: Sequence[Tensor]) -> None:
        self.forms, device = forms, parameters[0].device
        self.shapes = [parameter.shape for parameter in parameters]
        self.is_weight = [parameter.ndim == 4 for parameter in parameters]
        numbers, at = {}, [0, 0]
        for parameter, weight in zip(parameters, self.is_weight, strict=True):
            first = at[weight]
            at[weight] += parameter.numel()
            numbers[parameter] = np.arange(first, at[weight], dtype=np.int32).reshape(parameter.shape)
        nothing = at  # the number of the zero that stands behind all biases, and weights
        kernels, biases = [], []
        for one, own in zip(forms, parts, strict=True):
            rows, k, _, channels = one.shape
            kernel = np.full((one.gates, rows // one.gates, k, k, channels), nothing[1], dtype=np.int32)
            bias = np.full((len(own), one.gates, rows // one.gates), nothing[0], dtype=np.int32)
            for place, part in enumerate(own):
                self._lay(kernel, bias[place], one, part, numbers)
            kernels.append(kernel.ravel())
            biases.append(bias.reshape(len(own), -1))
        depth = max(map(len, biases))
        biases = [np.pad(bias, ((0, depth - len(bias)), (0, 0)), constant_values=nothing[0]) for bias in biases]
        self.depth, self.rows = depth, [one.shape[0] for one in forms]
        kernel, bias = np.concatenate(kernels), np.concatenate(biases, axis=1)
        self._weights, self._biases = (torch.from_numpy(places).to(device) for places in (kernel, bias.ravel()))
        back = self._inverse(bias, nothing[0]), self._inverse(kernel[None], nothing[1])
        self._back = [torch.from_numpy(places).to(device) for places in back]

    @staticmethod
    def _lay(kernel: np.ndarray, bias: np.ndarray, one: Form, part: Part, numbers: dict[Tensor, np.ndarray]) -> None:
        """Lay the numbers of a part where they stand in the kernel."""
        weight = numbers[part.conv.weight]  # (gates * D, C, k, k)
        weight = weight.reshape(-1, one.width, *weight.shape[1:]).transpose(0, 1, 3, 4, 2)
        k, own = one.kernel_size, weight.shape[2]
        middle = slice((k - own) // 2, (k + own) // 2)
        for source, target in part.rows:
            first = 0
            for state in part.states:
                column, width = one.columns[state]
                columns = slice(column, column + width)
                kernel[target, : one.width, middle, middle, columns] = weight[source, ..., first : first + width]
                first += width
            if part.conv.bias is not None:
                bias[target, : one.width] = numbers[part.conv.bias].reshape(-1, one.width)[source]

    @staticmethod
    def _inverse(places: np.ndarray, count: int) -> np.ndarray:
        """For each of `count` numbers where it stands in any of the rows of `places`, which it is in once."""
        found = np.full(count + 1, -1, dtype=np.int32)
        for row in places:
            found[row] = np.arange(len(row), dtype=np.int32)
        found = found[:-1]
        assert (found >= 0).all(), "a weight has no place in any stage"
        return found

    def join(self, parameters: Sequence[Tensor], low: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
        """Kernels (O, C, k, k) in the precision of convolutions with channels last, and biases (O,) in full."""
        flat = self._flat(parameters, True).to(low)
        kernels = flat.index_select(0, self._weights).split([torch.Size(one.shape).numel() for one in self.forms])
        kernels = [kernel.view(one.shape).permute(0, 3, 1, 2) for kernel, one in zip(kernels, self.forms, strict=True)]
        biases = self._flat(parameters, False).index_select(0, self._biases).view(self.depth, -1).sum(0)
        return kernels, list(biases.split(self.rows))

    def part(self, kernels: Sequence[Tensor], biases: Sequence[Tensor]) -> list[Tensor]:
        """The gradients of all parameters from those of kernels (O, C, k, k) and biases (O,)."""
        whole = biases[0].dtype
        flat = [kernel.permute(0, 2, 3, 1).reshape(-1) for kernel in kernels]
        found = [torch.cat(list(biases)), torch.cat(flat)]
        found = [one.index_select(0, back).to(whole) for one, back in zip(found, self._back, strict=True)]
        sizes: list[list[int]] = [[], []]
        for shape, weight in zip(self.shapes, self.is_weight, strict=True):
            sizes[weight].append(shape.numel())
        pieces = [iter(one.split(own)) for one, own in zip(found, sizes, strict=True)]
        return [next(pieces[weight]).view(shape) for shape, weight in zip(self.shapes, self.is_weight, strict=True)]

    def _flat(self, parameters: Sequence[Tensor], weights: bool) -> Tensor:
        """All weights, or all biases, one after the other, and a zero behind them."""
        zero = parameters[0].new_zeros(1)
        chosen = [
            one.reshape(-1) for one, is_weight in zip(parameters, self.is_weight, strict=True) if is_weight is weights
        ]
        return torch.cat([*chosen, zero])


@dataclass(frozen=True)
class Affine:
    """The scale and the shift of the norm over a convolution.

    Both are (C,), one number for a channel, or (C, h, w), one for every pixel; kernels read (1 or h * w, columns).
    """

    form: Form
    scale: int
    """Its place among the parameters of the network."""
    shift: int

    def laid(self, numbers: Tensor) -> Tensor:
        """Scale or shift: (C,) or (C, h, w) -> (1 or h * w, columns), zero in columns that are no channels."""
        rows = numbers.reshape(self.form.gates, self.form.width, -1).permute(2, 0, 1)
        missing = padded(self.form.width) - self.form.width
        rows = nn.functional.pad(rows, (0, missing)) if missing else rows
        return rows.reshape(len(rows), -1)

    def back(self, found: Tensor, like: Tensor) -> Tensor:
        """A gradient (h * w, columns) -> that at scale or shift, of the shape of `like`."""
        found = found.sum(0, keepdim=True) if like.dim() == 1 else found
        found = found.view(len(found), self.form.gates, -1)[..., : self.form.width]
        return found.permute(1, 2, 0).reshape(like.shape)

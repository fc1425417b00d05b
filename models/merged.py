"""The fast path: gates summed by merged convolutions, on the CPU after Winograd. Same weights, same equations.

Gates that are summed from the same sources are one convolution, whose weights are cut out of those of the gate
convolutions and joined once a roll-out. In full precision on a CPU that convolution is a product of matrices over
tiles of 4x4 outputs (Winograd 1980; Lavin and Gray 2016): 64 multiplications for the 400 of a 5x5 kernel, 36 for the
144 of a 3x3 one. What a state is transformed to serves all convolutions that read it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from models.convolution import SEPARATE, GateConv

TILE = 4
POINTS = ("0", "1", "-1", "2", "-2", "1/2", "-1/2")
"""Where the polynomials of a tile are evaluated, besides infinity: TILE + k - 2 of them for a k x k kernel."""


@dataclass(frozen=True)
class Reading:
    """A gate convolution and the tensors it reads."""

    conv: GateConv
    sources: tuple[Tensor, ...]


class Merged:
    """The gate sums of one roll-out; holds its merged weights and forgets them with it."""

    def __init__(self) -> None:
        self._weights: dict[tuple, Any] = {}
        self._tiles: dict[int, WeakTensorKeyDictionary] = defaultdict(WeakTensorKeyDictionary)

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
        gates = {}
        for group, of_group in groups.items():
            gates |= zip(of_group, self._convolve(tuple(of_group), group), strict=True)
        return [gates[name] for name in names.split()]

    def mix(self, conv: nn.Conv2d, *sources: Tensor) -> Tensor:
        """A product of matrices over the channels."""
        joined = torch.cat([source.permute(2, 3, 0, 1) for source in sources], dim=-1)  # (h, w, B, C)
        return F.linear(joined, conv.weight[:, :, 0, 0], conv.bias).permute(2, 3, 0, 1)

    def _convolve(self, names: tuple[str, ...], readings: tuple[Reading, ...]) -> Sequence[Tensor]:
        key = (names, *(reading.conv for reading in readings))
        if key not in self._weights:
            self._weights[key] = Weights(names, [(r.conv, [s.shape[1] for s in r.sources]) for r in readings])
        weights = self._weights[key]
        sources = [source for reading in readings for source in reading.sources]
        return weights.convolve([self._tiled(source, weights.kernel_size) for source in sources], sources[0].shape)

    def _tiled(self, source: Tensor, kernel_size: int) -> Tensor:
        known = self._tiles[kernel_size]
        if source not in known:
            known[source] = to_tiles(source, kernel_size)
        return known[source]


class Weights:
    """The merged weights of one group of gates.

    Args:
        names: the gates.
        convs: the convolutions summed, each with the channels of its sources.
    """

    def __init__(self, names: tuple[str, ...], convs: list[tuple[GateConv, list[int]]]) -> None:
        slices, biases = [], []
        for conv, channels in convs:
            rows = dict(zip(conv.gates, conv.conv.weight.chunk(len(conv.gates)), strict=True))
            slices += torch.cat([rows[name] for name in names]).split(channels, dim=1)
            if conv.conv.bias is not None:
                bias = dict(zip(conv.gates, conv.conv.bias.chunk(len(conv.gates)), strict=True))
                biases.append(torch.stack([bias[name] for name in names]))
        self.gates, self.kernel_size = len(names), slices[0].shape[-1]
        self.bias = torch.stack(biases).sum(0) if biases else None  # (gates, D)
        self.gradients: list[Tensor | None] = [None] * len(slices)
        self.tiles = TransformWeights.apply(self.gradients, *slices)  # each (n * n, C, gates * D)

    def convolve(self, tiles: Sequence[Tensor], shape: torch.Size) -> Sequence[Tensor]:
        """The gates (B, D, h, w) of transformed sources; `shape` gives B, h and w."""
        products = SumProducts.apply(self.gradients, *tiles, *self.tiles)
        return from_tiles(products, self.bias, self.gates, self.kernel_size, shape)


class TransformWeights(torch.autograd.Function):
    """Kernels (O, C, k, k) -> (n * n, C, O); its gradient is what `SumProducts` has added up in `gradients`."""

    @staticmethod
    def forward(ctx: Any, gradients: list[Tensor | None], *kernels: Tensor) -> tuple[Tensor, ...]:
        """Transform the kernels of all sources."""
        ctx.gradients, ctx.shapes = gradients, [kernel.shape for kernel in kernels]
        ctx.set_materialize_grads(False)
        g = kernel_transform(kernels[0].shape[-1], kernels[0].dtype)
        return tuple(torch.einsum("pu,ocuv,qv->pqco", g, kernel, g).flatten(0, 1) for kernel in kernels)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *_: None) -> tuple[Tensor | None, ...]:
        """Transform the gradients back; autograd calls this after all time steps."""
        found: list[Tensor | None] = []
        for place, (gradient, shape) in enumerate(zip(ctx.gradients, ctx.shapes, strict=True)):
            if gradient is not None:
                g = kernel_transform(shape[-1], gradient.dtype)
                n = len(g)
                gradient = torch.einsum("pu,pqco,qv->ocuv", g, gradient.unflatten(0, (n, n)), g)
                ctx.gradients[place] = None
            found.append(gradient)
        return None, *found


class SumProducts(torch.autograd.Function):
    """Sum over sources of tiles (P, R, C) times weights (P, C, N).

    Gradients of the weights are added up in place over all time steps, in the product itself, and handed on once.
    """

    @staticmethod
    def forward(ctx: Any, gradients: list[Tensor | None], *factors: Tensor) -> Tensor:
        """Multiply and add."""
        ctx.gradients = gradients
        ctx.save_for_backward(*factors)
        tiles, weights = factors[: len(gradients)], factors[len(gradients) :]
        total = torch.bmm(tiles[0], weights[0])
        for tile, weight in zip(tiles[1:], weights[1:], strict=True):
            total.baddbmm_(tile, weight)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the tiles; those of the weights stay in `gradients`."""
        count = len(ctx.gradients)
        tiles, weights = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        tiles_need, weights_need = ctx.needs_input_grad[1 : 1 + count], ctx.needs_input_grad[1 + count :]
        found: list[Tensor | None] = [None] * count
        for place in range(count):
            if tiles_need[place]:
                found[place] = torch.bmm(gradient, weights[place].transpose(1, 2))
            if weights_need[place]:
                so_far, tile = ctx.gradients[place], tiles[place].transpose(1, 2)
                if so_far is None:
                    ctx.gradients[place] = torch.bmm(tile, gradient)
                else:
                    so_far.baddbmm_(tile, gradient)
        return None, *found, *[None] * count


def to_tiles(source: Float[Tensor, "B C h w"], kernel_size: int) -> Float[Tensor, "P R C"]:
    """Cut into overlapping tiles and transform them: P points of a tile, R tiles of the batch."""
    batch, channels, size, _ = source.shape
    transform = source_transform(size, kernel_size, source.dtype)  # (n * tiles, size)
    n = TILE + kernel_size - 1
    tiles = len(transform) // n
    rows = transform @ source.permute(2, 3, 0, 1).reshape(size, -1)  # over h
    rows = rows.view(n * tiles, size, batch * channels)
    both = torch.bmm(transform.expand(len(rows), -1, -1), rows)  # over w
    both = both.view(n, tiles, n, tiles * batch * channels).transpose(1, 2)
    return both.reshape(n * n, tiles * tiles * batch, channels)


def from_tiles(
    products: Float[Tensor, "P R N"], bias: Tensor | None, gates: int, kernel_size: int, shape: torch.Size
) -> Sequence[Float[Tensor, "B D h w"]]:
    """Transform products back and split them into gates."""
    batch, _, size, _ = shape
    transform = result_transform(size, kernel_size, products.dtype)  # (size, n * tiles)
    n, width = TILE + kernel_size - 1, products.shape[-1] // gates
    tiles = transform.shape[1] // n
    parts = products.view(n, n, tiles, tiles * batch, gates, width).permute(4, 0, 2, 1, 3, 5)
    parts = parts.reshape(gates * n * tiles, n * tiles, batch * width)
    rows = torch.bmm(transform.expand(len(parts), -1, -1), parts)  # over w
    rows = rows.view(gates, n * tiles, size * batch * width)
    both = torch.bmm(transform.expand(gates, -1, -1), rows).view(gates, size, size, batch, width)  # over h
    if bias is not None:
        both += bias[:, None, None, None]
    return both.permute(0, 3, 4, 1, 2).unbind()


@cache
def winograd(kernel_size: int) -> tuple[list, list, list]:
    """Exact matrices A (TILE, n), G (n, k), B (n, n) with A ((G g) * (B d)) = the n - k + 1 products of g along d."""
    n = TILE + kernel_size - 1
    points = [Fraction(point) for point in POINTS[: n - 1]]
    a = [[point**row for point in points] + [Fraction(row == TILE - 1)] for row in range(TILE)]
    g, b = [], []
    for point in points:
        others = [other for other in points if other != point]
        scale = Fraction(1)
        for other in others:
            scale *= point - other
        g.append([point**column / scale for column in range(kernel_size)])
        b.append([*polynomial(others), Fraction(0)])
    g.append([Fraction(column == kernel_size - 1) for column in range(kernel_size)])
    b.append(polynomial(points))
    return a, g, b


def polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of the monic polynomial with these roots, the constant first."""
    found = [Fraction(1)]
    for root in roots:
        found = [low - root * high for low, high in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
    return found


@cache
def kernel_transform(kernel_size: int, dtype: torch.dtype) -> Float[Tensor, "n k"]:
    """What is applied to either side of a kernel."""
    return torch.tensor([[float(value) for value in row] for row in winograd(kernel_size)[1]], dtype=dtype)


@cache
def source_transform(size: int, kernel_size: int, dtype: torch.dtype) -> Float[Tensor, "n*tiles size"]:
    """What is applied to either side of a source, its tiles cut and its border padded with zeros; points first."""
    b, pad = winograd(kernel_size)[2], kernel_size // 2
    tiles = -(-size // TILE)
    found = torch.zeros(len(b), tiles, size, dtype=torch.float64)
    for tile in range(tiles):
        for place in range(len(b)):
            if 0 <= (position := tile * TILE + place - pad) < size:
                found[:, tile, position] = torch.tensor([float(row[place]) for row in b], dtype=torch.float64)
    return found.flatten(0, 1).to(dtype)


@cache
def result_transform(size: int, kernel_size: int, dtype: torch.dtype) -> Float[Tensor, "size n*tiles"]:
    """What is applied to either side of the products; points first."""
    a, tiles = winograd(kernel_size)[0], -(-size // TILE)
    found = torch.zeros(size, len(a[0]), tiles, dtype=torch.float64)
    for position in range(size):
        tile, place = divmod(position, TILE)
        found[position, :, tile] = torch.tensor([float(value) for value in a[place]], dtype=torch.float64)
    return found.flatten(1).to(dtype)

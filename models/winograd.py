"""Convolution after Winograd: a product of matrices over transformed tiles of 4x4 outputs, on the CPU.

Winograd 1980; Lavin and Gray 2016. 64 multiplications for the 400 of a 5x5 kernel, 36 for the 144 of a 3x3 one. Sources
that are summed are summed before the transform back. Against a direct convolution the rounding grows about tenfold.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

TILE = 4
POINTS = ("0", "1", "-1", "2", "-2", "1/2", "-1/2")
"""Where the polynomials of a tile are evaluated, besides infinity: TILE + k - 2 of them for a k x k kernel."""
LARGEST_KERNEL = 5
"""A larger one needs more points, and rounding grows fast with them."""


class Winograd:
    """The convolution of several sources by one kernel each, summed.

    Args:
        kernels: one a source, (O, C, k, k).
        bias: (O,), or None.
    """

    def __init__(self, kernels: Sequence[Tensor], bias: Tensor | None) -> None:
        self.kernel_size, self.bias = kernels[0].shape[-1], bias
        self.spread_bias: Tensor | None = None
        self.gradients = Gradients(len(kernels))
        self.weights = TransformWeights.apply(self.gradients, *kernels)  # each (P, C, O)

    def __call__(
        self, tiles: Sequence[Float[Tensor, "P R _"]], gates: int, batch: int, size: int
    ) -> Sequence[Float[Tensor, "B D h w"]]:
        """The gates of sources that `to_tiles` has transformed."""
        products = SumProducts.apply(self.gradients, *tiles, *self.weights)
        if self.bias is not None and self.spread_bias is None:
            self.spread_bias = self.bias.repeat(products.shape[1])[None, None]  # (1, 1, R * O)
        return from_tiles(products, self.spread_bias, gates, self.kernel_size, batch, size)


class Gradients:
    """What one backward pass has added up for the transformed kernel of each source.

    A pass that asks for no gradient of the weights leaves its sums behind; the next one begins anew.
    """

    def __init__(self, count: int) -> None:
        self.count, self._pass, self._sums = count, -1, [None] * count

    def sums(self) -> list[Tensor | None]:
        """The sums of the backward pass that calls this."""
        current = torch._C._current_graph_task_id()
        if current != self._pass:
            self._pass, self._sums = current, [None] * self.count
        return self._sums


class TransformWeights(torch.autograd.Function):
    """Kernels (O, C, k, k) -> (n * n, C, O); its gradient is what `SumProducts` has added up in `gradients`."""

    @staticmethod
    def forward(ctx: Any, gradients: Gradients, *kernels: Tensor) -> tuple[Tensor, ...]:
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
        for gradient, shape in zip(ctx.gradients.sums(), ctx.shapes, strict=True):
            if gradient is not None:
                g = kernel_transform(shape[-1], gradient.dtype)
                n = len(g)
                gradient = torch.einsum("pu,pqco,qv->ocuv", g, gradient.unflatten(0, (n, n)), g)
            found.append(gradient)
        return None, *found


class SumProducts(torch.autograd.Function):
    """Sum over sources of tiles (P, R, C) times weights (P, C, N).

    Gradients of the weights are added up in place over all time steps, in the product itself, and handed on once.
    """

    @staticmethod
    def forward(ctx: Any, gradients: Gradients, *factors: Tensor) -> Tensor:
        """Multiply and add."""
        ctx.gradients = gradients
        ctx.save_for_backward(*factors)
        tiles, weights = factors[: gradients.count], factors[gradients.count :]
        total = torch.bmm(tiles[0], weights[0])
        for tile, weight in zip(tiles[1:], weights[1:], strict=True):
            total.baddbmm_(tile, weight)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the tiles; those of the weights stay in `gradients`."""
        count, factors, sums = ctx.gradients.count, ctx.saved_tensors, ctx.gradients.sums()
        tiles, weights = factors[:count], factors[count:]
        tiles_need, weights_need = ctx.needs_input_grad[1 : 1 + count], ctx.needs_input_grad[1 + count :]
        found: list[Tensor | None] = [None] * count
        for place in range(count):
            if tiles_need[place]:
                found[place] = torch.bmm(gradient, weights[place].transpose(1, 2))
            if weights_need[place]:
                tile = tiles[place].transpose(1, 2)
                if sums[place] is None:
                    sums[place] = torch.bmm(tile, gradient)
                else:
                    sums[place].baddbmm_(tile, gradient)
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
    products: Float[Tensor, "P R N"], bias: Tensor | None, gates: int, kernel_size: int, batch: int, size: int
) -> Sequence[Float[Tensor, "B D h w"]]:
    """Transform products back and split them into gates."""
    transform = result_transform(kernel_size, products.dtype)  # (TILE, n)
    n, tiles = transform.shape[1], -(-size // TILE)
    rows = transform @ products.view(n, -1)  # over h
    rows, expanded = rows.view(TILE, n, -1), transform.expand(TILE, -1, -1)
    both = torch.bmm(expanded, rows) if bias is None else torch.baddbmm(bias, expanded, rows)  # over w
    both = both.view(TILE, TILE, tiles, tiles, batch, gates, -1).permute(5, 2, 0, 3, 1, 4, 6)
    both = both.reshape(gates, tiles * TILE, tiles * TILE, batch, -1)[:, :size, :size]
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
def source_transform(size: int, kernel_size: int, dtype: torch.dtype) -> Float[Tensor, "points size"]:
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
def result_transform(kernel_size: int, dtype: torch.dtype) -> Float[Tensor, "tile n"]:
    """What is applied to either side of the products."""
    return torch.tensor([[float(value) for value in row] for row in winograd(kernel_size)[0]], dtype=dtype)

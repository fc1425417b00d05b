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
from torch.nn import functional as F

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
        if self.bias is not None and self.spread_bias is None:
            self.spread_bias = self.bias.repeat(tiles[0].shape[1])[None, None]  # (1, 1, R * O)
        sizes = gates, batch, size, self.kernel_size
        return SumProducts.apply(sizes, self.gradients, self.spread_bias, *tiles, *self.weights)


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
        return self._sums  # pyright: ignore[reportReturnType]  # None until the first sum of a pass


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
    """The sum over sources of tiles (P, R, C) times weights (P, C, O), transformed back and split into gates.

    Gradients of the weights are added up in place over all time steps, in the product itself, and handed on once.
    """

    @staticmethod
    def forward(
        ctx: Any, sizes: tuple[int, int, int, int], gradients: Gradients, bias: Tensor | None, *factors: Tensor
    ) -> tuple[Tensor, ...]:
        """Multiply, add, transform back; `sizes`: gates, batch, height and width, kernel size."""
        ctx.sizes, ctx.gradients = sizes, gradients
        ctx.save_for_backward(*factors)
        gates, batch, size, kernel_size = sizes
        tiles, weights = factors[: gradients.count], factors[gradients.count :]
        total = torch.bmm(tiles[0], weights[0])
        for tile, weight in zip(tiles[1:], weights[1:], strict=True):
            total.baddbmm_(tile, weight)
        transform = result_transform(kernel_size, total.dtype)  # (TILE, n)
        rows = (transform @ total.view(transform.shape[1], -1)).view(*transform.shape, -1)  # over h
        expanded = transform.expand(TILE, -1, -1)
        both = torch.bmm(expanded, rows) if bias is None else torch.baddbmm(bias, expanded, rows)  # over w
        across = -(-size // TILE)
        both = both.view(TILE, TILE, across, across, batch, gates, -1).permute(5, 2, 0, 3, 1, 4, 6)
        whole = (gate.reshape(across * TILE, across * TILE, batch, -1) for gate in both)
        return tuple(gate[:size, :size].permute(2, 3, 0, 1) for gate in whole)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *of_gates: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of bias and tiles; those of the weights stay in `gradients`."""
        gates, batch, size, kernel_size = ctx.sizes
        count, factors, sums = ctx.gradients.count, ctx.saved_tensors, ctx.gradients.sums()
        tiles, weights = factors[:count], factors[count:]
        bias_needs, *needs = ctx.needs_input_grad[2:]
        across, width = -(-size // TILE), of_gates[0].shape[1]
        both = of_gates[0].new_empty(TILE, TILE, across, across, batch, gates, width)
        for gate, given in enumerate(of_gates):
            given = F.pad(given.permute(2, 3, 0, 1), (0, 0, 0, 0, *(0, across * TILE - size) * 2))
            both[..., gate, :] = given.view(across, TILE, across, TILE, batch, width).permute(1, 3, 0, 2, 4, 5)
        both = both.view(TILE, TILE, -1)
        transform = result_transform(kernel_size, both.dtype).T  # (n, TILE)
        rows = torch.bmm(transform.expand(TILE, -1, -1), both)
        gradient = (transform @ rows.view(TILE, -1)).view(len(transform) ** 2, -1, gates * width)
        found: list[Tensor | None] = [None] * count
        for place in range(count):
            if needs[place]:
                found[place] = torch.bmm(gradient, weights[place].transpose(1, 2))
            if needs[count + place]:
                tile = tiles[place].transpose(1, 2)
                if sums[place] is None:
                    sums[place] = torch.bmm(tile, gradient)
                else:
                    sums[place].baddbmm_(tile, gradient)
        return None, None, both.sum((0, 1), keepdim=True) if bias_needs else None, *found, *[None] * count


class TransformSource(torch.autograd.Function):
    """A source (B, C, h, w) cut into overlapping tiles and transformed: (P, R, C)."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, kernel_size: int) -> Tensor:
        """Cut and transform."""
        batch, channels, size, _ = source.shape
        ctx.shape, ctx.kernel_size = source.shape, kernel_size
        transform, n = source_transform(size, kernel_size, source.dtype), TILE + kernel_size - 1  # (n * across, size)
        rows = transform @ source.permute(2, 3, 0, 1).reshape(size, -1)  # over h
        expanded = transform.expand(len(transform), -1, -1)
        both = torch.bmm(expanded, rows.view(-1, size, batch * channels))  # over w
        return both.view(n, len(transform) // n, n, -1).transpose(1, 2).reshape(n * n, -1, channels)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Transform back and add up the overlaps."""
        batch, channels, size, _ = ctx.shape
        transform, n = source_transform(size, ctx.kernel_size, gradient.dtype).T, TILE + ctx.kernel_size - 1
        across = transform.shape[1] // n
        both = gradient.view(n, n, across, -1).transpose(1, 2).reshape(n * across, n * across, -1)
        rows = torch.bmm(transform.expand(len(both), -1, -1), both)
        found = transform @ rows.view(n * across, -1)
        return found.view(size, size, batch, channels).permute(2, 3, 0, 1), None


def to_tiles(source: Float[Tensor, "B C h w"], kernel_size: int) -> Float[Tensor, "P R C"]:
    """Cut into overlapping tiles and transform them: P points of a tile, R tiles of the batch."""
    return TransformSource.apply(source, kernel_size)


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

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
        kernels: one a source, (*R, O, C, k, k) for runs R.
        bias: (*R, O), or None.
    """

    def __init__(self, kernels: Sequence[Tensor], bias: Tensor | None) -> None:
        self.kernel_size, self.bias = kernels[0].shape[-1], bias
        self.spread_bias: Tensor | None = None
        self.gradients = Gradients(len(kernels))
        self.weights = TransformWeights.apply(self.gradients, *kernels)  # each (R * P, C, O)

    def __call__(
        self, tiles: Sequence[Float[Tensor, "RP N _"]], gates: int, leading: torch.Size, size: int
    ) -> Sequence[Float[Tensor, "*RB D h w"]]:
        """The gates of sources that `to_tiles` has transformed; `leading`: their runs, if they have any, and batch."""
        if self.bias is not None and self.spread_bias is None:
            runs, tiles_a_run = leading[:-1].numel(), tiles[0].shape[1]
            self.spread_bias = self.bias.repeat(1, tiles_a_run).view(runs, 1, 1, -1)  # (R, 1, 1, N * O)
        sizes = gates, leading, size, self.kernel_size
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
    """Kernels (*R, O, C, k, k) -> (R * n * n, C, O); its gradient is what `SumProducts` has added up in `gradients`."""

    @staticmethod
    def forward(ctx: Any, gradients: Gradients, *kernels: Tensor) -> tuple[Tensor, ...]:
        """Transform the kernels of all sources."""
        ctx.gradients, ctx.shapes = gradients, [kernel.shape for kernel in kernels]
        ctx.set_materialize_grads(False)
        g, found = kernel_transform(kernels[0].shape[-1], kernels[0].dtype), []
        for kernel in kernels:
            of_runs = kernel.unflatten(0, (-1, kernel.shape[-4])) if kernel.dim() == 4 else kernel
            found.append(torch.cat([torch.einsum("pu,ocuv,qv->pqco", g, one, g).flatten(0, 1) for one in of_runs]))
        return tuple(found)  # run by run: one product of all would round some of their columns otherwise

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *_: None) -> tuple[Tensor | None, ...]:
        """Transform the gradients back; autograd calls this after all time steps."""
        found: list[Tensor | None] = []
        for gradient, shape in zip(ctx.gradients.sums(), ctx.shapes, strict=True):
            if gradient is not None:
                g = kernel_transform(shape[-1], gradient.dtype)
                n = len(g)
                of_runs = gradient.unflatten(0, (-1, n, n))
                gradient = torch.cat([torch.einsum("pu,pqco,qv->ocuv", g, one, g) for one in of_runs]).view(shape)
            found.append(gradient)
        return None, *found


class SumProducts(torch.autograd.Function):
    """The sum over sources of tiles (R * P, N, C) times weights (R * P, C, O), transformed back and split into gates.

    Gradients of the weights are added up in place over all time steps, in the product itself, and handed on once.
    """

    @staticmethod
    def forward(
        ctx: Any, sizes: tuple[int, torch.Size, int, int], gradients: Gradients, bias: Tensor | None, *factors: Tensor
    ) -> tuple[Tensor, ...]:
        """Multiply, add, transform back; `sizes`: gates, runs (if there are) and batch, height and width, kernel."""
        ctx.sizes, ctx.gradients = sizes, gradients
        ctx.save_for_backward(*factors)
        gates, leading, size, kernel_size = sizes
        tiles, weights = factors[: gradients.count], factors[gradients.count :]
        total = torch.bmm(tiles[0], weights[0])
        for tile, weight in zip(tiles[1:], weights[1:], strict=True):
            total.baddbmm_(tile, weight)
        transform, runs = result_transform(kernel_size, total.dtype), leading[:-1].numel()  # (TILE, n)
        rows = product(transform, total.view(runs, transform.shape[1], -1)).view(runs * TILE, transform.shape[1], -1)
        if bias is not None:
            bias = bias.expand(-1, TILE, -1, -1).reshape(runs * TILE, 1, -1)
        both = product(transform, rows, bias)
        across = -(-size // TILE)
        both = both.view(runs, TILE, TILE, across, across, leading[-1], gates, -1).permute(6, 0, 3, 1, 4, 2, 5, 7)
        whole = (gate.reshape(*leading[:-1], across * TILE, across * TILE, leading[-1], -1) for gate in both)
        return tuple(gate[..., :size, :size, :, :].movedim((-4, -3), (-2, -1)) for gate in whole)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *of_gates: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of bias and tiles; those of the weights stay in `gradients`."""
        gates, leading, size, kernel_size = ctx.sizes
        count, factors, sums = ctx.gradients.count, ctx.saved_tensors, ctx.gradients.sums()
        tiles, weights = factors[:count], factors[count:]
        bias_needs, *needs = ctx.needs_input_grad[2:]
        across, width, runs = -(-size // TILE), of_gates[0].shape[-3], leading[:-1].numel()
        missing = across * TILE - size
        both = of_gates[0].new_empty(runs, TILE, TILE, across, across, leading[-1], gates, width)
        for gate, given in enumerate(of_gates):
            if missing:
                given = F.pad(given, (0, missing, 0, missing))
            cut = given.unflatten(-1, (across, TILE)).unflatten(-3, (across, TILE))  # (*R, B, D, a, TILE, a, TILE)
            both[..., gate, :] = cut.view(runs, *cut.shape[-6:]).permute(0, 4, 6, 3, 5, 1, 2)
        both = both.view(runs * TILE, TILE, -1)
        transform = result_transform(kernel_size, both.dtype).T  # (n, TILE)
        rows = product(transform, both).view(runs, TILE, -1)
        gradient = product(transform, rows).view(runs * len(transform) ** 2, -1, gates * width)
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
        of_bias = both.view(runs, TILE, TILE, -1).sum((1, 2), keepdim=True) if bias_needs else None
        return None, None, of_bias, *found, *[None] * count


class TransformSource(torch.autograd.Function):
    """A source (*R, B, C, h, w) cut into overlapping tiles and transformed: (R * P, N, C)."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, kernel_size: int) -> Tensor:
        """Cut and transform."""
        channels, size = source.shape[-3:-1]
        ctx.shape, ctx.kernel_size = source.shape, kernel_size
        runs = source.shape[:-4].numel()
        transform, n = source_transform(size, kernel_size, source.dtype), TILE + kernel_size - 1  # (n * across, size)
        rows = product(transform, source.movedim((-2, -1), (-4, -3)).reshape(runs, size, -1))  # over h
        both = product(transform, rows.view(runs * len(transform), size, -1))  # over w
        return both.view(runs, n, len(transform) // n, n, -1).transpose(2, 3).reshape(runs * n * n, -1, channels)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Transform back and add up the overlaps."""
        *leading, channels, size, _ = ctx.shape
        runs = ctx.shape[:-4].numel()
        transform, n = source_transform(size, ctx.kernel_size, gradient.dtype).T, TILE + ctx.kernel_size - 1
        across = transform.shape[1] // n
        both = gradient.view(runs, n, n, across, -1).transpose(2, 3).reshape(runs * n * across, n * across, -1)
        rows = product(transform, both).view(runs, n * across, -1)
        found = product(transform, rows).view(*leading[:-1], size, size, leading[-1], channels)
        return found.movedim((-4, -3), (-2, -1)), None


def product(transform: Float[Tensor, "m k"], x: Float[Tensor, "n k c"], bias: Tensor | None = None) -> Tensor:
    """`transform` times each matrix of `x`, (n, m, c), plus `bias` if there is one."""
    expanded = transform.expand(len(x), -1, -1)
    return torch.bmm(expanded, x) if bias is None else torch.baddbmm(bias, expanded, x)


def to_tiles(source: Float[Tensor, "*RB C h w"], kernel_size: int) -> Float[Tensor, "RP N C"]:
    """Cut into overlapping tiles and transform them: P points of a tile, N tiles of the batch, for each run R."""
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

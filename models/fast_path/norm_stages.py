"""The norms of gate convolutions as operators of PyTorch, each one launch of a kernel of `norm_kernels.py`.

As in `stages.py` nothing happens on tensors without numbers. `raw` is what a convolution gave: (rows, gates * width),
a row a pixel of a clip; `real` of the `width` columns of a gate are channels.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.fast_path import norm_kernels
from models.fast_path.stages import COLUMNS, OPTIONS, ROWS, operator

PARTS = 16
"""Of a clip, whose sums are taken side by side, at most."""


def parts_of(pixels: int) -> int:
    """In how many parts the sums over a clip are taken: none has fewer rows than a tile."""
    return min(PARTS, triton.next_power_of_2(triton.cdiv(pixels, ROWS)))


def fixed_for(raw: Tensor, gates: int, real: int, pixels: int) -> dict[str, Any]:
    """What every kernel is compiled for."""
    sizes: dict[str, Any] = {"GATES": gates, "WIDTH": raw.shape[1] // gates, "REAL": real, "PARTS": parts_of(pixels)}
    sizes["COMPUTE"] = tl.float64 if raw.dtype == torch.float64 else tl.float32  # of all sums
    return sizes | {"BLOCK_ROWS": ROWS, "BLOCK_COLUMNS": COLUMNS} | OPTIONS


@operator("found")
def moments(raw: Tensor, bias: Tensor, found: Tensor, gates: int, real: int) -> None:
    """Sums and squared distances of the parts of every clip: found (B, parts, 2) in full precision."""
    pixels = len(raw) // len(found)
    norm_kernels.moments_kernel[found.shape[:2]](raw, bias, found, pixels, **fixed_for(raw, gates, real, pixels))


@operator("gates")
def add(
    raws: Sequence[Tensor],
    biases: Sequence[Tensor],
    moments: Sequence[Tensor],
    scales: Sequence[Tensor],
    shifts: Sequence[Tensor],
    places: Sequence[int],
    normed: Sequence[bool],
    gates: Tensor,
    pixels: int,
    real: int,
) -> None:
    """The gates of a stage, each the sum of what several convolutions give to it, normalised.

    Args:
        moments: of each convolution, as `moments` finds them; any tensor of full precision where it has no norm.
        scales: (1 or pixels, columns of raw) of each.
        shifts: the same.
        places: for each gate and in it for each convolution, its first column there; -1 where it does not have it.
        normed: which convolutions have a norm.
        gates: takes the sums, in the precision of convolutions.
        pixels: of a clip.
        real: channels of a gate.
    """
    count = len(places) // len(raws)
    fixed = fixed_for(gates, count, real, pixels) | {"READINGS": len(raws)}
    fixed["NORMED"] = sum(has << place for place, has in enumerate(normed))
    given = [tuple(raws), tuple(one.shape[1] for one in raws), tuple(biases), tuple(moments), tuple(scales)]
    grid = triton.cdiv(len(gates), ROWS), count * triton.cdiv(fixed["WIDTH"], COLUMNS)
    rows_of_scale = int(any(len(one) > 1 for one in scales))
    given += [tuple(shifts), tuple(places), gates, pixels, rows_of_scale, len(gates)]
    norm_kernels.add_kernel[grid](*given, **fixed)


@operator("found")
def norm_sums(
    of_gates: Tensor,
    places: Sequence[int],
    raw: Tensor,
    bias: Tensor,
    moments: Tensor,
    scale: Tensor,
    found: Tensor,
    real: int,
) -> None:
    """Of every part of a clip, the two sums that the gradient at `raw` needs: found (B, parts, 2).

    Args:
        of_gates: gradients at all gates of a cell.
        places: first column there of each gate of this convolution.
    """
    pixels = len(raw) // len(found)
    given = of_gates, of_gates.stride(0), tuple(places), raw, bias, moments, scale, found, pixels, int(len(scale) > 1)
    norm_kernels.norm_sums_kernel[found.shape[:2]](*given, **fixed_for(raw, len(places), real, pixels))


@operator("of_raw", "of_scale", "of_shift")
def norm_backward(
    of_gates: Tensor,
    places: Sequence[int],
    raw: Tensor,
    bias: Tensor,
    moments: Tensor | None,
    sums: Tensor | None,
    scale: Tensor | None,
    of_raw: Tensor,
    of_scale: Tensor | None,
    of_shift: Tensor | None,
    clips: int,
    real: int,
) -> None:
    """The gradient at `raw`, from that at the gates; without `moments` the same, since there is no norm.

    Args:
        sums: as `norm_sums` finds them.
        of_scale: (pixels, columns of raw) in full precision, to which the gradients at the scale are added.
        of_shift: the same for the shift.
    """
    pixels = len(raw) // clips
    fixed = fixed_for(raw, len(places), real, pixels) | {"NORMED": moments is not None}
    grid = triton.cdiv(pixels, ROWS), len(places) * triton.cdiv(fixed["WIDTH"], COLUMNS)
    whole = [bias if one is None else one for one in (moments, sums, scale, of_scale, of_shift)]
    given = [of_gates, of_gates.stride(0), tuple(places), raw, bias, *whole[:3], of_raw, *whole[3:]]
    given += [pixels, int(whole[2].dim() > 1 and len(whole[2]) > 1), clips]
    norm_kernels.norm_backward_kernel[grid](*given, **fixed)

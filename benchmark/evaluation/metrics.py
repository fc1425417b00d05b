"""The metrics of a predicted frame: each one's words and its arithmetic, side by side in `METRICS`.

Table heads and footnotes are made from that registry. Frames are float in [0, 1]; a frame with a NaN or an
infinite pixel scores NaN under every metric.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int16, Shaped
from torch import Tensor

from benchmark.backbone import BACKBONES
from benchmark.errors import UserError

SSIM_WINDOW = 7
# Pixels scored at once: few enough for a CPU's cache, many enough to keep a GPU busy.
_PIXELS_AT_ONCE = {"cpu": 2**18, "cuda": 2**20}

Frames = Float[Tensor, "*frames H W"]
Pixels = Float64[Tensor, "*frames H W"] | Int16[Tensor, "*frames H W"]
Values = Float64[Tensor, "*frames"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One column of frames.parquet."""

    name: str
    """Name of the column."""
    head: str
    """Column head of a table, with the unit and the arrow for better."""
    better: Literal["lower", "higher"]
    """Direction of better."""
    identical: float
    """Value of a prediction equal to the truth; infinite values are left out of means and counted."""
    definition: str
    """What the number is, in words: the footnote of a table."""
    form: Literal["raw", "clipped", "signed", "uint8"]
    """Which form of the two frames `compute` takes, see `bring_to`."""
    compute: Callable[..., Tensor]
    """Function of prediction and truth, and for LPIPS of the network, that returns one value a frame."""


def bring_to(form: str, prediction: Frames, truth: Frames) -> tuple[Pixels, Pixels]:
    """Bring prediction and truth into the form that a metric takes.

    Returns: `raw`: the frames as they are, `clipped`: the prediction clipped to [0, 1], `signed`: that scaled
    to [-1, 1], all in float64; `uint8`: the values of `np.uint8(255 * clipped)`, made in float32, as int16.
    """
    if form == "raw":
        return prediction.double(), truth.double()
    clipped = prediction.clamp(0, 1)
    if form == "uint8":
        return (255 * clipped.float()).to(torch.int16), (255 * truth.float()).to(torch.int16)
    if form == "signed":
        return 2 * clipped.double() - 1, 2 * truth.double() - 1
    return clipped.double(), truth.double()


def squared_error(prediction: Pixels, truth: Pixels) -> Values:
    """Sum over the pixels of a frame of the squared difference."""
    return (prediction - truth).double().square_().sum((-2, -1))


def absolute_error(prediction: Pixels, truth: Pixels) -> Values:
    """Sum over the pixels of a frame of the absolute difference."""
    return (prediction - truth).double().abs_().sum((-2, -1))


def psnr(prediction: Pixels, truth: Pixels, data_range: float) -> Values:
    """Peak signal-to-noise ratio of a frame in dB; infinite where the frames are identical."""
    pixels = prediction.shape[-2] * prediction.shape[-1]
    return 10 * torch.log10(data_range**2 * pixels / squared_error(prediction, truth))


def ssim(prediction: Pixels, truth: Pixels, data_range: float) -> Values:
    """Structural similarity of a frame (Wang et al. 2004) with scikit-image's defaults.

    Uniform window, sample covariance, K1 = 0.01, K2 = 0.03, mean over the windows that lie inside the frame.
    Written in u = x + y and v = x - y, since 4xy = u² - v² and 2(x² + y²) = u² + v²: four window sums do. Those
    of uint8 values, and the spreads n sum(u²) - sum(u)² made of them, are exact integers.
    Raises: UserError where a side of the frame is shorter than the window.
    """
    height, width = prediction.shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        raise UserError(f"frames of {height}x{width} pixels: SSIM needs at least {SSIM_WINDOW}x{SSIM_WINDOW}")
    wide = torch.int32 if prediction.dtype == torch.int16 else torch.float64  # holds n² 510², the largest spread
    n = SSIM_WINDOW**2
    u, v = prediction + truth, prediction - truth
    u_sum, v_sum = _window_sums(u, wide), _window_sums(v, wide)
    u, v = u.to(wide), v.to(wide)
    u_spread, v_spread = _window_sums(u.mul_(u), wide).mul_(n), _window_sums(v.mul_(v), wide).mul_(n)
    u_square, v_square = u_sum.mul_(u_sum), v_sum.mul_(v_sum)
    u_spread -= u_square
    v_spread -= v_square
    c1 = 2 * (0.01 * data_range * n) ** 2
    c2 = 2 * (0.03 * data_range) ** 2 * n * (n - 1)
    likeness = (u_square - v_square).double().add_(c1).mul_((u_spread - v_spread).double().add_(c2))
    largest = u_square.add_(v_square).double().add_(c1).mul_(u_spread.add_(v_spread).double().add_(c2))
    return likeness.div_(largest).mean((-2, -1))


def _window_sums(frames: Shaped[Tensor, "*frames H W"], dtype: torch.dtype) -> Shaped[Tensor, "*frames h w"]:
    """Sum over every 7x7 window inside a frame, added up in the frames' own type and returned as `dtype`.

    Seven rows are summed first. Then all rows are one line, on which seven neighbours add up twice as fast as on
    many short lines; sums that straddle the end of a row are cut off.
    """
    rows = frames.unfold(-2, SSIM_WINDOW, 1).sum(-1, dtype=frames.dtype).contiguous()
    line = rows.reshape(-1)
    two = line[:-1] + line[1:]
    four = two[:-2] + two[2:]
    length = len(line) - SSIM_WINDOW + 1
    seven = four[:length].add_(two[4:][:length]).add_(line[6:])
    width = rows.shape[-1]
    inside = (*rows.shape[:-1], width - SSIM_WINDOW + 1)
    return seven.as_strided(inside, rows.stride()).to(dtype, copy=True)


def perceptual_distance(prediction: Pixels, truth: Pixels, network: torch.nn.Module) -> Values:
    """LPIPS of a frame (Zhang et al. 2018) in full float32, its grey repeated to three channels.
    Raises: UserError where the frame is too small for the network.
    """
    height, width = prediction.shape[-2:]
    smallest = BACKBONES[network.pnet_type].smallest_frame  # pyright: ignore[reportArgumentType]  # LPIPS keeps its name there
    if min(height, width) < smallest:
        needs = f"LPIPS ({network.pnet_type}) needs at least {smallest}x{smallest}"
        raise UserError(f"frames of {height}x{width} pixels: {needs}")
    grey = (frames.float().reshape(-1, 1, height, width) for frames in (prediction, truth))
    deterministic = torch.backends.cudnn.deterministic
    with (
        torch.autocast(prediction.device.type, enabled=False),
        torch.backends.cudnn.flags(enabled=True, deterministic=deterministic, allow_tf32=False),
    ):
        distance = network(*(frames.expand(-1, 3, -1, -1) for frames in grey))
    return distance.double().reshape(prediction.shape[:-2])


_UINT8 = "uint8 frames: 255 times the value, clipped to [0, 1], truncated"
_CLIPPED = "float frames clipped to [0, 1]"
_PSNR = "peak signal-to-noise ratio per frame, infinite values counted and left out of means"
_SSIM = "structural similarity, 7x7 uniform window and sample covariance as in scikit-image"
_LPIPS = "LPIPS of the lpips package, version 0.1, grey repeated to three channels, prediction clipped"

_error = partial(Metric, better="lower", identical=0.0)
_psnr = partial(Metric, better="higher", identical=math.inf)
_ssim = partial(Metric, better="higher", identical=1.0)


def _lpips(net: str) -> list[Metric]:
    return [
        _error(
            name=f"lpips_{net}",
            head=f"LPIPS ({net}) ↓",
            definition=f"{_LPIPS}, backbone {net}, input scaled to [-1, 1]",
            form="signed",
            compute=perceptual_distance,
        ),
        _error(
            name=f"lpips_{net}_unit_input",
            head=f"LPIPS ({net}, input in [0, 1]) ↓",
            definition=f"{_LPIPS}, backbone {net}, input left in [0, 1]",
            form="clipped",
            compute=perceptual_distance,
        ),
    ]


_ALL = [
    _error(
        name="mse",
        head="MSE (per frame) ↓",
        definition="squared error summed over the pixels of a frame, prediction clipped to [0, 1]",
        form="clipped",
        compute=squared_error,
    ),
    _error(
        name="mae",
        head="MAE (per frame) ↓",
        definition="absolute error summed over the pixels of a frame, prediction clipped to [0, 1]",
        form="clipped",
        compute=absolute_error,
    ),
    _psnr(
        name="psnr",
        head="PSNR (dB) ↑",
        definition=f"{_PSNR}, on {_UINT8}",
        form="uint8",
        compute=partial(psnr, data_range=255.0),
    ),
    _ssim(
        name="ssim",
        head="SSIM ↑",
        definition=f"{_SSIM}, data range 255, on {_UINT8}",
        form="uint8",
        compute=partial(ssim, data_range=255.0),
    ),
    _error(
        name="mse_unclipped",
        head="MSE (per frame, unclipped) ↓",
        definition="squared error summed over the pixels of a frame, prediction not clipped",
        form="raw",
        compute=squared_error,
    ),
    _error(
        name="mae_unclipped",
        head="MAE (per frame, unclipped) ↓",
        definition="absolute error summed over the pixels of a frame, prediction not clipped",
        form="raw",
        compute=absolute_error,
    ),
    _psnr(
        name="psnr_unit_range",
        head="PSNR (dB, float) ↑",
        definition=f"{_PSNR}, data range 1, on {_CLIPPED}",
        form="clipped",
        compute=partial(psnr, data_range=1.0),
    ),
    _ssim(
        name="ssim_unit_range",
        head="SSIM (float, range 1) ↑",
        definition=f"{_SSIM}, data range 1, on {_CLIPPED}",
        form="clipped",
        compute=partial(ssim, data_range=1.0),
    ),
    _ssim(
        name="ssim_range2",
        head="SSIM (float, range 2) ↑",
        definition=f"{_SSIM}, data range 2 as in OpenSTL, on {_CLIPPED}",
        form="clipped",
        compute=partial(ssim, data_range=2.0),
    ),
    *(metric for net in BACKBONES for metric in _lpips(net)),
    _error(
        name="box_mse",
        head="MSE in the box (per frame) ↓",
        definition="squared error summed over the pixels of a frame inside the box of the digit that the bar hides,"
        " prediction clipped to [0, 1]",
        form="clipped",
        compute=squared_error,
    ),
]
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
HEADLINE = ("mse", "mae", "psnr", "ssim")
CONVENTIONS = ("mse_unclipped", "mae_unclipped", "psnr_unit_range", "ssim_unit_range", "ssim_range2")


def columns(net: str | None, conventions: bool = False) -> list[str]:
    """Names of the metrics that `score` gives with the LPIPS backbone `net` (None: LPIPS is not measured)."""
    names = [*HEADLINE, *([f"lpips_{net}"] if net else [])]
    if conventions:
        names += [*CONVENTIONS, *([f"lpips_{net}_unit_input"] if net else [])]
    return names


@torch.no_grad()
def score(
    prediction: Float[Tensor, "B T 1 H W"] | Float[Tensor, "N H W"],
    truth: Float[Tensor, "B T 1 H W"] | Float[Tensor, "N H W"],
    lpips: torch.nn.Module | None = None,
    conventions: bool = False,
) -> dict[str, Float64[Tensor, "B T"] | Float64[Tensor, " N"]]:
    """Score every frame under every metric of `columns`, in bounded memory.

    Args: `prediction` as the network gave it and `truth`, float in [0, 1]; `lpips`: the network of
    `load_lpips`, or None to leave LPIPS out; `conventions`: add the conventions of other publications.
    Raises: UserError where the frame is too small for a metric.
    """
    assert prediction.shape == truth.shape, (prediction.shape, truth.shape)
    height, width = prediction.shape[-2:]
    at_once = max(1, _PIXELS_AT_ONCE[prediction.device.type] // (height * width))
    metrics = [METRICS[name] for name in columns(lpips.pnet_type if lpips else None, conventions)]  # pyright: ignore[reportArgumentType]  # LPIPS keeps its name there
    forms = {metric.form for metric in metrics}
    shape = prediction.shape[:2] if prediction.ndim == 5 else prediction.shape[:1]
    # Filled in place: small results kept between large temporary maps would fragment the heap without bound.
    values = prediction.new_empty((len(metrics), math.prod(shape)), dtype=torch.float64)
    batches = (frames.reshape(-1, height, width).split(at_once) for frames in (prediction, truth))
    for columns_of_batch, *batch in zip(values.split(at_once, dim=1), *batches, strict=True):
        undefined = ~batch[0].sum((-2, -1), dtype=torch.float64).isfinite()
        pairs = {form: bring_to(form, *batch) for form in forms}
        for column, metric in zip(columns_of_batch, metrics, strict=True):
            network = [lpips] if metric.compute is perceptual_distance else []
            column.copy_(metric.compute(*pairs[metric.form], *network)).masked_fill_(undefined, math.nan)
    return {metric.name: column.reshape(shape) for metric, column in zip(metrics, values, strict=True)}


def summarise(frames: pd.DataFrame, by: Sequence[str] = ("variant", "seed")) -> pd.DataFrame:
    """Mean of every metric of `frames` (rows of frames.parquet) within each group of `by`.

    Returns: one row a metric and group: metric, the columns of `by`, mean, frames (number the group has) and
    infinite (number of those left out of the mean, the infinite PSNR of identical frames; where there are no
    others the mean is infinite). One NaN makes the mean NaN.
    """
    names = [name for name in frames.columns if name in METRICS]
    values, keys = frames[names], [frames[key] for key in by]
    infinite = (values == math.inf) & [METRICS[name].identical == math.inf for name in names]
    parts = values.mask(infinite, 0.0), infinite, values.isna()
    total, left_out, undefined = (part.groupby(keys).sum() for part in parts)
    count = values.groupby(keys).size()
    mean = (total / left_out.rsub(count, axis=0)).mask(undefined > 0).mask(left_out.eq(count, axis=0), math.inf)
    table = mean.melt(ignore_index=False, var_name="metric", value_name="mean")
    table["frames"] = np.tile(count, len(names))
    table["infinite"] = left_out.to_numpy().ravel(order="F")
    return table.reset_index()[["metric", *by, "mean", "frames", "infinite"]]

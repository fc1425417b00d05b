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
from jaxtyping import Float, Float64
from torch import Tensor

from benchmark.config.lpips_backbones import BACKBONES
from benchmark.evaluation.metric_functions import (
    absolute_error,
    bring_to,
    perceptual_distance,
    psnr,
    squared_error,
    ssim,
)

# Pixels scored at once: few enough for a CPU's cache, many enough to keep a GPU busy.
_PIXELS_AT_ONCE = {"cpu": 2**18, "cuda": 2**20}


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

"""The metrics of a predicted frame, in words: name, unit, direction, definition, decimals. Imports no torch.

Table heads and footnotes are made from this registry; the arithmetic is `benchmark.evaluation.metric_functions`. Frames
are float in [0, 1]; a frame with a NaN or an infinite pixel scores NaN under every metric.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from benchmark.config.lpips_backbones import BACKBONES


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
    compute: str
    """Name of its function in `benchmark.evaluation.metric_functions`."""
    data_range: float | None = None
    """Of PSNR and SSIM: the largest value that a pixel can have in this form."""
    decimals: int
    """With which it is shown."""


_UINT8 = "uint8 frames: 255 times the value, clipped to [0, 1], truncated"
_CLIPPED = "float frames clipped to [0, 1]"
_PSNR = "peak signal-to-noise ratio per frame, infinite values counted and left out of means"
_SSIM = "structural similarity, 7x7 uniform window and sample covariance as in scikit-image"
_LPIPS = "LPIPS of the lpips package, version 0.1, grey repeated to three channels, prediction clipped"

_error = partial(Metric, better="lower", identical=0.0, decimals=1)
_psnr = partial(Metric, better="higher", identical=math.inf, decimals=2)
_ssim = partial(Metric, better="higher", identical=1.0, decimals=3)


def _lpips(net: str) -> list[Metric]:
    return [
        _error(
            name=f"lpips_{net}",
            head=f"LPIPS ({net}) ↓",
            definition=f"{_LPIPS}, backbone {net}, input scaled to [-1, 1]",
            form="signed",
            compute="perceptual_distance",
            decimals=3,
        ),
        _error(
            name=f"lpips_{net}_unit_input",
            head=f"LPIPS ({net}, input in [0, 1]) ↓",
            definition=f"{_LPIPS}, backbone {net}, input left in [0, 1]",
            form="clipped",
            compute="perceptual_distance",
            decimals=3,
        ),
    ]


_ALL = [
    _error(
        name="mse",
        head="MSE (per frame) ↓",
        definition="squared error summed over the pixels of a frame, prediction clipped to [0, 1]",
        form="clipped",
        compute="squared_error",
    ),
    _error(
        name="mae",
        head="MAE (per frame) ↓",
        definition="absolute error summed over the pixels of a frame, prediction clipped to [0, 1]",
        form="clipped",
        compute="absolute_error",
    ),
    _psnr(
        name="psnr",
        head="PSNR (dB) ↑",
        definition=f"{_PSNR}, on {_UINT8}",
        form="uint8",
        compute="psnr",
        data_range=255.0,
    ),
    _ssim(
        name="ssim",
        head="SSIM ↑",
        definition=f"{_SSIM}, data range 255, on {_UINT8}",
        form="uint8",
        compute="ssim",
        data_range=255.0,
    ),
    _error(
        name="mse_unclipped",
        head="MSE (per frame, unclipped) ↓",
        definition="squared error summed over the pixels of a frame, prediction not clipped",
        form="raw",
        compute="squared_error",
    ),
    _error(
        name="mae_unclipped",
        head="MAE (per frame, unclipped) ↓",
        definition="absolute error summed over the pixels of a frame, prediction not clipped",
        form="raw",
        compute="absolute_error",
    ),
    _psnr(
        name="psnr_unit_range",
        head="PSNR (dB, float) ↑",
        definition=f"{_PSNR}, data range 1, on {_CLIPPED}",
        form="clipped",
        compute="psnr",
        data_range=1.0,
    ),
    _ssim(
        name="ssim_unit_range",
        head="SSIM (float, range 1) ↑",
        definition=f"{_SSIM}, data range 1, on {_CLIPPED}",
        form="clipped",
        compute="ssim",
        data_range=1.0,
    ),
    _ssim(
        name="ssim_range2",
        head="SSIM (float, range 2) ↑",
        definition=f"{_SSIM}, data range 2 as in OpenSTL, on {_CLIPPED}",
        form="clipped",
        compute="ssim",
        data_range=2.0,
    ),
    *(metric for net in BACKBONES for metric in _lpips(net)),
    _error(
        name="box_mse",
        head="MSE in the box (per frame) ↓",
        definition="squared error summed over the pixels of a frame inside the box of the digit that the bar hides,"
        " prediction clipped to [0, 1]",
        form="clipped",
        compute="squared_error",
    ),
    Metric(
        name="skill",
        head="Skill ↑",
        better="higher",
        identical=1.0,
        definition="1 - MSE / MSE of the mean training digit, prediction clipped to [0, 1]: 0 is nothing remembered, 1"
        " all",
        form="clipped",
        compute="skill",
        decimals=3,
    ),
    Metric(
        name="nearest",
        head="Nearest ↑",
        better="higher",
        identical=1.0,
        definition="share of predictions, clipped to [0, 1], that are nearer to the cue than to every distractor of"
        " their clip, by squared error",
        form="clipped",
        compute="nearest",
        decimals=3,
    ),
]
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
HEADLINE = ("mse", "mae", "psnr", "ssim")
"""Those of the main table; each of them may be the primary metric of a protocol."""
RECALL = ("skill", "nearest")
"""Those of recall alone, before the others in its tables; the second needs distractors. Each may be primary there."""
CONVENTIONS = ("mse_unclipped", "mae_unclipped", "psnr_unit_range", "ssim_unit_range", "ssim_range2")


def columns(net: str | None, conventions: bool = False, further: Sequence[str] = ()) -> list[str]:
    """Names of the metrics that are taken with the LPIPS backbone `net` (None: LPIPS is not measured).

    Args: `conventions`: also those of other publications; `further`: those that the data have besides, which go first.
    """
    names = [*further, *HEADLINE, *([f"lpips_{net}"] if net else [])]
    if conventions:
        names += [*CONVENTIONS, *([f"lpips_{net}_unit_input"] if net else [])]
    return names

"""Scores of predictions under named conventions, as data frames."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmark.config.metrics import CONVENTIONS, HEADLINE, METRICS, columns
from benchmark.evaluation.lpips_backbone import load_lpips, look_for
from benchmark.evaluation.mean_scores import mean_scores as means_of
from benchmark.evaluation.metric_functions import score as score_frames
from benchmark.system.errors import UserError, unknown
from benchmark.system.installation import extras_named
from deep_in_time.given import as_clips, as_frames


def metrics() -> pd.DataFrame:
    """What is measured: the columns of `score`, by name.

    Returns:
        One row a metric: `head` (as tables call it, with its direction), `definition` (range, window, clipping: with
        which published numbers it may be compared), `shown` (`always`, `conventions` or `lpips`: what of `score` asks
        for it).
    """
    plain = [*HEADLINE, *CONVENTIONS]
    of_lpips = [name for name in METRICS if name.startswith("lpips_")]
    rows = {
        name: {
            "head": METRICS[name].head,
            "definition": METRICS[name].definition,
            "shown": "always" if name in HEADLINE else "conventions" if name in CONVENTIONS else "lpips",
        }
        for name in (*plain, *of_lpips)
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("metric")


@extras_named()
def score(
    prediction: Any,
    truth: Any,
    *,
    conventions: bool = False,
    lpips: str | None = None,
    data_dir: str | Path = "data",
    download: bool = False,
) -> pd.DataFrame:
    """The scores of every predicted frame, as the benchmark's tables have them.

    Args:
        prediction: (B, T, 1, H, W), float as the model gave it (what lies outside 0 to 1 is clipped where the metric
            says so) or uint8, a tensor on any device or an array.
        truth: the same shape, float from 0 to 1 or uint8.
        conventions: add the conventions of other publications: unclipped errors, SSIM on floats, ...
        lpips: backbone under LPIPS, `alex`, `vgg` or `squeeze`; None leaves LPIPS out.
        data_dir: its folder `lpips` is where the backbone is looked for, besides torch's cache.
        download: fetch a backbone that is not there into torch's cache.

    Returns:
        One row a clip and frame, both counted from 1; a column a metric (`metrics` defines them): `mse` and `mae` are
        sums over the pixels of a frame, `psnr` is in dB and infinite for equal frames; a prediction that is not finite
        has NaN.

    Raises:
        ValueError: shapes differ or are not those of clips, frames are not grey or too small, values are not from 0 to
            1, or there is no such backbone.
    """
    predicted, true = as_clips(prediction, "prediction"), as_frames(truth, "truth")
    if predicted.shape != true.shape:
        raise UserError(f"prediction: is {tuple(predicted.shape)} and truth {tuple(true.shape)}; they must be alike")
    if predicted.shape[2] != 1:
        raise UserError(f"prediction: has {predicted.shape[2]} channels; the metrics are defined for frames of one")
    if not predicted.numel():
        raise UserError(f"prediction: is {tuple(predicted.shape)}, without a frame to score")
    network = None
    if lpips is not None:
        record = look_for(lpips, Path(data_dir), download)
        if "how" in record:
            raise UserError(
                f"lpips: {record['status']}; put its file into {Path(data_dir) / 'lpips'} or say download=True"
            )
        network = load_lpips(record, Path(data_dir), predicted.device)
    values = score_frames(predicted, true.to(predicted.device), network, conventions=conventions)
    clips, frames = predicted.shape[:2]
    places = {
        "clip": np.repeat(np.arange(1, clips + 1), frames),
        "frame": np.tile(np.arange(1, frames + 1), clips),
    }
    names = columns(lpips, conventions)
    return pd.DataFrame(places | {name: values[name].cpu().numpy().ravel() for name in names})


def mean_scores(scores: pd.DataFrame, *, by: str | None = None) -> pd.Series | pd.DataFrame:
    """The means of what `score` returns: those of the tables, in which infinite PSNR is left out and NaN is not.

    Args:
        scores: of `score`.
        by: None for one number a metric; `frame` for a curve over the horizon, `clip` for a number a clip.

    Returns:
        Metric -> mean; with `by` one row for each of its values, one column a metric.

    Raises:
        ValueError: `by` is another column.
    """
    if by not in (None, "clip", "frame"):
        raise UserError(unknown("by", by, ["clip", "frame"]))
    names = [name for name in scores.columns if name in METRICS]
    table = means_of(scores.assign(whole=0), by=[by or "whole"])
    wide = table.pivot(index=by or "whole", columns="metric", values="mean")[names].rename_axis(columns=None)
    return wide if by else wide.loc[0].rename(None)

"""Scores of recall: how much of the cue is given out, and whether it is the cue at all (docs/recall.md)."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from benchmark.config.data_sections import DataConfig
from benchmark.config.metrics import METRICS
from benchmark.data.clip_source import Clips
from benchmark.data.tensors import to_float
from benchmark.evaluation.metric_functions import FUNCTIONS, bring_to, squared_error

FurtherScores = Callable[
    [Float[Tensor, "B T C H W"], Float[Tensor, "B frames C H W"]], dict[str, Float64[Tensor, "B T"]]
]
"""Prediction and whole clips -> the scores that only some kinds of data have, by name."""


def recall_scores(data: DataConfig, clips: Clips, mean_target: Float32[Tensor, "1 H W"]) -> FurtherScores:
    """The metrics `data.metrics` of predictions of `clips`, all the clips that a mean of them is taken over.

    Args: `mean_target`: the mean training digit, as the target shows it; its error on `clips` is skill 0.
    """
    targets = to_float(clips[:][:, data.context :]).double()  # (N, T, 1, H, W)
    reference = squared_error(mean_target.double().expand_as(targets), targets).mean().item()

    def scores(prediction: Tensor, frames: Tensor) -> dict[str, Tensor]:
        given, truth = frames[:, : data.context], frames[:, data.context :]
        # of one channel each, so that H and W are the last axes
        pair = (prediction.squeeze(2), truth.squeeze(2))  # (B, T, H, W)
        distractors = given[:, None, 1:, 0].expand(-1, truth.shape[1], -1, -1, -1).double()  # (B, T, g, H, W)
        settings = {"skill": {"reference": reference}, "nearest": {"others": distractors}}
        undefined = ~prediction.isfinite().flatten(2).all(dim=2)
        found = {}
        for name in data.metrics:
            metric = METRICS[name]
            value = FUNCTIONS[metric.compute](*bring_to(metric.form, *pair), **settings[name])
            found[name] = value.masked_fill_(undefined, float("nan"))
        return found

    return torch.no_grad()(scores)

"""Scores of the library are those of the benchmark, in a data frame; what cannot be scored gets a sentence."""

import numpy as np
import pytest
import torch

import deep_in_time as dit
from benchmark.config.metrics import CONVENTIONS, HEADLINE, METRICS, RECALL
from benchmark.evaluation.metric_functions import score as score_frames

DRAW = torch.Generator().manual_seed(0)
TRUTH = torch.rand(3, 4, 1, 16, 16, generator=DRAW)
PREDICTION = TRUTH + 0.3 * torch.randn(TRUTH.shape, generator=DRAW)


def test_there_is_a_row_for_every_clip_and_frame_with_the_scores_of_the_benchmark():
    scores = dit.score(PREDICTION, TRUTH, conventions=True)
    assert list(scores) == ["clip", "frame", *HEADLINE, *CONVENTIONS]
    assert scores[["clip", "frame"]].to_numpy().tolist() == [[c, t] for c in (1, 2, 3) for t in (1, 2, 3, 4)]
    for name, values in score_frames(PREDICTION, TRUTH, conventions=True).items():
        assert scores[name].tolist() == values.flatten().tolist()
    assert list(dit.score(PREDICTION, TRUTH)) == ["clip", "frame", *HEADLINE]


def test_arrays_and_uint8_are_the_same_clips():
    pixels = (255 * TRUTH).to(torch.uint8)
    expected = dit.score(PREDICTION, pixels.float() / 255)
    for truth in (pixels, pixels.numpy()):
        assert dit.score(PREDICTION.numpy(), truth).equals(expected)


def test_means_leave_out_infinite_psnr_and_keep_what_is_not_finite():
    prediction = PREDICTION.clone()
    prediction[0, 0] = TRUTH[0, 0]
    scores = dit.score(prediction, TRUTH)
    assert scores["psnr"][0] == np.inf
    means = dit.mean_scores(scores)
    assert list(means.index) == [*HEADLINE]
    assert means["psnr"] == pytest.approx(scores["psnr"][1:].mean())
    assert means["mse"] == pytest.approx(scores["mse"].mean())
    curve = dit.mean_scores(scores, by="frame")
    assert curve.shape == (4, 4)
    assert curve["mse"].tolist() == pytest.approx(scores.groupby("frame")["mse"].mean().tolist())
    assert len(dit.mean_scores(scores, by="clip")) == 3
    prediction[1, 1] = np.nan
    assert np.isnan(dit.mean_scores(dit.score(prediction, TRUTH))["mse"])
    with pytest.raises(ValueError, match="unknown by 'time'"):
        dit.mean_scores(scores, by="time")


def test_every_column_is_defined():
    about = dit.metrics()
    assert set(dit.score(PREDICTION, TRUTH, conventions=True).columns) - {"clip", "frame"} <= set(about.index)
    assert set(about.index) == METRICS.keys() - {"box_mse", *RECALL}
    assert about["shown"].value_counts()["always"] == len(HEADLINE)
    assert about["definition"].str.len().min() > 20


WRONG = {
    "one clip": ((PREDICTION[0], TRUTH[0]), {}, "prediction: has 4 axes.*prediction\\[None\\]"),
    "other shapes": ((PREDICTION[:2], TRUTH), {}, r"prediction: is \(2, 4, 1, 16, 16\) and truth \(3, 4, 1, 16, 16\)"),
    "colour": ((PREDICTION.repeat(1, 1, 3, 1, 1), TRUTH.repeat(1, 1, 3, 1, 1)), {}, "has 3 channels"),
    "0 to 255": ((PREDICTION, 255 * TRUTH), {}, "truth: has values from .* truth / 255"),
    "too small": ((PREDICTION[..., :6], TRUTH[..., :6]), {}, "SSIM needs at least 7x7"),
    "nothing": ((PREDICTION[:0], TRUTH[:0]), {}, "without a frame"),
    "no backbone of that name": ((PREDICTION, TRUTH), {"lpips": "alexnet"}, "allowed are alex"),
}


@pytest.mark.parametrize(("clips", "options", "said"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_scored_gets_a_sentence(clips, options, said):
    with pytest.raises(ValueError, match=said):
        dit.score(*clips, **options)


def test_a_backbone_that_is_not_there_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"lpips: not measured: no backbone; put its file into .*download=True"):
        dit.score(PREDICTION, TRUTH, lpips="vgg", data_dir=tmp_path)

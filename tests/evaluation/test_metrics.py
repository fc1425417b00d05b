import math
import resource
import string
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from benchmark.config.metrics import CONVENTIONS, HEADLINE, METRICS, columns
from benchmark.evaluation.mean_scores import mean_scores
from benchmark.evaluation.metric_functions import score
from benchmark.system.errors import UserError

GOLDEN = {
    "mse_clipped": "mse",
    "mae_clipped": "mae",
    "psnr_uint8": "psnr",
    "ssim_uint8": "ssim",
    **{name: name for name in CONVENTIONS},
}


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parents[1] / "golden" / "metrics.npz") as arrays:
        return dict(arrays)


def as_clips(frames: np.ndarray) -> torch.Tensor:
    frames = frames.astype(np.float32) / 255 if frames.dtype == np.uint8 else frames
    return torch.from_numpy(frames).unsqueeze(2)


@pytest.fixture(scope="module")
def scores(golden: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return score(as_clips(golden["pred"]), as_clips(golden["true"]), conventions=True)


@pytest.mark.parametrize("reference", GOLDEN)
def test_golden_values_are_reproduced(reference, golden, scores):
    expected = golden[reference]
    error = np.abs(scores[GOLDEN[reference]].numpy() - expected).max() / np.abs(expected).max()
    assert error < 1e-6


def test_every_golden_column_is_reproduced_here_or_with_lpips(golden):
    lpips = {"lpips_squeeze", "lpips_squeeze_unit_input"}
    assert set(golden) - {"pred", "true"} == set(GOLDEN) | lpips


def hard_frames(kind: str, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, *shape, generator=random)
    match kind:
        case "random":
            return first, second
        case "constant":
            return torch.full(shape, 0.7), torch.full(shape, 0.69)
        case "black":
            return torch.zeros(shape), first
        case "saturated":
            return torch.ones(shape), 1 - 0.01 * first
        case "noisy":
            return first + 0.05 * torch.randn(shape, generator=random), first
        case "inverted":
            return 1 - first, first
    raise AssertionError(kind)


@pytest.mark.parametrize("size", [(7, 7), (12, 9), (32, 32), (64, 64)])
@pytest.mark.parametrize("kind", ["random", "constant", "black", "saturated", "noisy", "inverted"])
def test_ssim_and_psnr_agree_with_scikit_image(kind, size):
    prediction, truth = hard_frames(kind, (5, *size))
    ours = score(prediction, truth, conventions=True)
    pairs = list(zip(prediction.clamp(0, 1).numpy(), truth.numpy(), strict=True))
    bytes_ = [(np.uint8(255 * p), np.uint8(255 * t)) for p, t in pairs]
    floats = [(np.float64(p), np.float64(t)) for p, t in pairs]
    expected = {
        "psnr": [peak_signal_noise_ratio(t, p) for p, t in bytes_],
        "ssim": [structural_similarity(p, t) for p, t in bytes_],
        "psnr_unit_range": [peak_signal_noise_ratio(t, p, data_range=1.0) for p, t in floats],
        "ssim_unit_range": [structural_similarity(p, t, data_range=1.0) for p, t in floats],
        "ssim_range2": [structural_similarity(p, t, data_range=2.0) for p, t in floats],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(ours[name].numpy(), values, rtol=0, atol=1e-6, err_msg=name)


def test_mse_and_mae_are_sums_over_the_pixels_of_a_frame():
    prediction = torch.full((1, 8, 8), 0.5)
    prediction[0, 0, 0] = -1.0
    ours = score(prediction, torch.zeros(1, 8, 8), conventions=True)
    assert ours["mse"].item() == 63 * 0.25
    assert ours["mae"].item() == 63 * 0.5
    assert ours["mse_unclipped"].item() == 63 * 0.25 + 1
    assert ours["mae_unclipped"].item() == 63 * 0.5 + 1


def test_identical_frames_score_what_the_registry_says():
    frames = hard_frames("random", (3, 16, 16))[0]
    for name, values in score(frames, frames, conventions=True).items():
        assert values.tolist() == [METRICS[name].identical] * 3, name


def test_every_metric_moves_in_its_direction_of_better():
    truth = hard_frames("random", (4, 16, 16))[0]
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    near, far = (score(truth + size * noise, truth, conventions=True) for size in (0.02, 0.2))
    for name in near:
        lower_when_near = bool((near[name] < far[name]).all())
        assert lower_when_near == (METRICS[name].better == "lower"), name


def test_scores_of_a_frame_do_not_depend_on_its_batch():
    prediction, truth = hard_frames("noisy", (150, 32, 32))
    together = score(prediction, truth, conventions=True)
    alone = score(prediction[149:], truth[149:], conventions=True)
    assert {name: values[149:].tolist() for name, values in together.items()} == {
        name: values.tolist() for name, values in alone.items()
    }


def test_clips_give_one_value_a_clip_and_frame():
    prediction, truth = hard_frames("noisy", (2, 3, 1, 16, 16))
    by_clip = score(prediction, truth)
    by_frame = score(prediction.flatten(0, 2), truth.flatten(0, 2))
    assert list(by_clip) == list(HEADLINE)
    for name, values in by_clip.items():
        assert values.shape == (2, 3)
        assert values.dtype == torch.float64
        assert torch.equal(values.flatten(), by_frame[name])


def test_scores_do_not_depend_on_the_memory_layout():
    prediction, truth = hard_frames("noisy", (4, 16, 12))
    strided = prediction.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    plain = score(prediction, truth, conventions=True)
    for name, values in score(strided, truth, conventions=True).items():
        torch.testing.assert_close(values, plain[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_pixel_that_is_no_number_makes_its_frame_nan_and_no_other(bad):
    prediction, truth = hard_frames("noisy", (3, 16, 16))
    clean = score(prediction, truth, conventions=True)
    prediction[1, 15, 15] = bad
    for name, values in score(prediction, truth, conventions=True).items():
        assert values.isnan().tolist() == [False, True, False], name
        assert values[[0, 2]].tolist() == clean[name][[0, 2]].tolist(), name


def test_the_callers_frames_are_left_as_they_were():
    prediction, truth = hard_frames("noisy", (2, 16, 16))
    before = prediction.clone(), truth.clone()
    score(prediction.double(), truth.double(), conventions=True)
    score(prediction, truth, conventions=True)
    assert torch.equal(prediction, before[0])
    assert torch.equal(truth, before[1])


def test_memory_does_not_grow_with_the_number_of_frames():
    few, many = torch.zeros(64, 64, 64), torch.zeros(1, 64, 64).expand(4_000, 64, 64)
    score(few, few)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    score(many, many)
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 40  # the frames themselves would be 62 MiB in float32


def test_a_frame_smaller_than_the_window_of_ssim_is_named():
    with pytest.raises(UserError, match="6x32 pixels: SSIM needs at least 7x7"):
        score(torch.zeros(1, 6, 32), torch.zeros(1, 6, 32))


def test_the_registry_has_words_for_every_column_and_the_arrow_of_its_direction():
    heads = [metric.head for metric in METRICS.values()]
    definitions = [metric.definition for metric in METRICS.values()]
    assert len(set(heads)) == len(set(definitions)) == len(METRICS)
    for name, metric in METRICS.items():
        assert metric.name == name
        assert set(name) <= set(string.ascii_lowercase + string.digits + "_")
        assert metric.head.endswith({"lower": "↓", "higher": "↑"}[metric.better])


def test_columns_name_the_backbone_of_lpips_and_are_absent_without_one():
    assert columns(None) == ["mse", "mae", "psnr", "ssim"]
    assert columns("vgg") == ["mse", "mae", "psnr", "ssim", "lpips_vgg"]
    assert columns("vgg", conventions=True)[-1] == "lpips_vgg_unit_input"
    assert not [name for name in columns(None, conventions=True) if "lpips" in name]


def table(**values: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"variant": "predrnn", "seed": [1, 1, 2, 2], "clip": 0, "frame": [1, 2, 1, 2], **values})


def test_infinite_psnr_is_left_out_of_the_mean_and_counted():
    summary = mean_scores(table(psnr=[20.0, math.inf, 10.0, 30.0]))
    assert summary["mean"].tolist() == [20.0, 20.0]
    assert summary["infinite"].tolist() == [1, 0]
    assert summary["frames"].tolist() == [2, 2]


def test_a_mean_of_none_but_infinite_psnr_is_infinite():
    summary = mean_scores(table(psnr=[math.inf, math.inf, 10.0, math.inf]))
    assert summary["mean"].tolist() == [math.inf, 10.0]


def test_infinite_errors_and_nan_are_never_left_out_of_a_mean():
    summary = mean_scores(table(mse=[1.0, math.inf, 1.0, 3.0], psnr=[math.nan, math.inf, math.nan, 10.0]))
    means = summary.set_index(["metric", "seed"])["mean"]
    assert means["mse", 1] == math.inf
    assert means["mse", 2] == 2.0
    assert means["psnr"].isna().all()
    assert summary["infinite"].tolist() == [0, 0, 1, 0]


def test_summaries_can_be_made_by_frame():
    summary = mean_scores(table(mse=[1.0, 2.0, 3.0, 4.0]), by=["variant", "frame"])
    assert summary.columns.tolist() == ["metric", "variant", "frame", "mean", "frames", "infinite"]
    assert summary["mean"].tolist() == [2.0, 3.0]

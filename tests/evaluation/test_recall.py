"""Scores of recall: skill and nearest by their formulas, for who remembers, who does not, and who mixes things up."""

import numpy as np
import pytest
import torch

from benchmark.config.data_sections import RecallConfig
from benchmark.data.recall.clips import RecallClips
from benchmark.data.still_digits.bank import load_bank
from benchmark.data.tensors import to_float
from benchmark.evaluation.evaluate import evaluate, score_clips
from benchmark.evaluation.forecasts import mean_digit, named_forecast
from benchmark.evaluation.recall_scores import recall_scores
from benchmark.system.errors import UserError

DATA = {"recall": "optdigits", "digit_size": 8, "frame_size": 12, "gap": 3, "validation_clips": 2, "test_clips": 30}


@pytest.fixture
def source():
    return RecallClips(load_bank("optdigits", 8, None), RecallConfig(**DATA))


@pytest.fixture
def scored(source, make_protocol, protocol_values):
    """The mean of each metric of a forecast on the test clips."""
    protocol = make_protocol(values=protocol_values | {"data": DATA})
    clips = source.fixed_clips("test")
    further = recall_scores(protocol.data, clips, source.mean_target())

    def score(forecast):
        table, _ = score_clips(forecast, clips, protocol, None, "cpu", further=further)
        return table

    return score


def cue(context):
    """Who remembers: frame 1 without its lit row."""
    frame = context[:, :1].clone()
    frame[:, :, :, 0] = 0
    return frame


def test_who_remembers_all_has_skill_and_nearest_1(scored):
    table = scored(cue)
    assert (table["skill"] == 1).all()
    assert (table["nearest"] == 1).all()


def test_the_mean_digit_has_skill_0_and_is_the_best_constant(scored, source):
    mean = source.mean_target()
    assert scored(mean_digit(mean, 1))["skill"].mean() == pytest.approx(0, abs=1e-6)
    for other in (0.5 * mean, torch.zeros_like(mean), torch.ones_like(mean)):
        assert scored(mean_digit(other, 1))["skill"].mean() < -0.05


def test_who_gives_out_a_distractor_is_not_nearest(scored):
    table = scored(lambda context: context[:, 2:3])
    assert (table["nearest"] == 0).all()
    assert table["skill"].mean() < 0


def test_scores_are_their_formulas(scored, source):
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(30, 1, 1, 12, 12, generator=generator)
    frames = to_float(source.fixed_clips("test"))
    places = iter(range(0, 30, 2))  # the batches of the protocol

    def blurred(context):
        first = next(places)
        return 0.6 * cue(context) + 0.9 * noise[first : first + len(context)]

    table = scored(blurred)
    clipped = (0.6 * frames[:, 4:] + 0.9 * noise).clamp(0, 1).double().numpy()[:, 0, 0]
    shown = frames.double().numpy()[:, :, 0]
    mean = source.mean_target().double().numpy()[0]
    error = ((clipped - shown[:, 4]) ** 2).sum((1, 2))
    skill = 1 - error / ((mean - shown[:, 4]) ** 2).sum((1, 2)).mean()
    nearest = [all(error[n] < ((clipped[n] - shown[n, t]) ** 2).sum() for t in (1, 2, 3)) for n in range(30)]
    np.testing.assert_allclose(table["skill"], skill, rtol=1e-5)
    np.testing.assert_array_equal(table["nearest"], nearest)
    assert 0 < np.mean(nearest) < 1


def test_a_prediction_that_is_not_finite_has_no_score(scored):
    table = scored(lambda context: cue(context) / 0)
    assert table[["skill", "nearest"]].isna().all(axis=None)


def test_blank_clips_have_skill_alone(source, make_protocol, protocol_values):
    data = DATA | {"distractors": False}
    protocol = make_protocol(values=protocol_values | {"data": data})
    clips = RecallClips(source.bank, protocol.data).fixed_clips("test")
    further = recall_scores(protocol.data, clips, source.mean_target())
    table, _ = score_clips(cue, clips, protocol, None, "cpu", further=further)
    assert (table["skill"] == 1).all()
    assert "nearest" not in table


def test_other_data_have_no_mean_digit(make_protocol, results):
    protocol = make_protocol()
    with pytest.raises(UserError, match=r"protocol tiny: data\.digits has no baseline mean-digit"):
        named_forecast(protocol, "mean-digit", 0, results, "cpu")
    with pytest.raises(UserError, match="has no baseline mean-digit"):
        evaluate(protocol, "mean-digit", 0, results, results, "cpu")

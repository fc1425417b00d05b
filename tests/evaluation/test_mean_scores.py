"""From the scores of every clip and frame to the means of a run: by frame, and by how long a digit was hidden."""

import math

import numpy as np
import pandas as pd
import pytest

from benchmark.evaluation.mean_scores import summarise_scores


def scored(**columns):
    """Two clips of two predicted frames; `columns` give a value for each, clip by clip."""
    return pd.DataFrame({"clip": [1, 1, 2, 2], "frame": [1, 2, 1, 2]} | columns)


def test_means_are_over_clips_and_frames_and_by_frame_over_clips():
    found = summarise_scores(scored(mse=[1.0, 2.0, 3.0, 6.0]))
    assert found.mean.to_dict() == {"mse": 3.0}
    assert found.per_frame["mse"].to_dict() == {1: 2.0, 2: 4.0}
    assert found.box_mse.empty


def test_where_a_digit_is_hidden_the_means_are_of_clips_without_a_bar():
    clear, hidden = (scored(mse=[mse] * 4, box_mse=[mse / 2] * 4).assign(gap=gap) for gap, mse in ((0, 2.0), (3, 8.0)))
    found = summarise_scores(pd.concat([clear, hidden], ignore_index=True))
    assert found.mean.to_dict() == {"mse": 2.0, "box_mse": 1.0}
    assert found.box_mse.to_dict() == {0: 1.0, 3: 4.0}
    assert "gap" not in found.frames
    assert len(found.frames) == 4


def test_a_frame_that_is_undefined_leaves_no_mean_over_it_and_an_infinite_psnr_is_left_out():
    found = summarise_scores(scored(mse=[1.0, math.nan, 3.0, 6.0], psnr=[10.0, math.inf, 20.0, math.inf]))
    assert math.isnan(found.mean["mse"])
    np.testing.assert_array_equal(found.per_frame["mse"], [2.0, math.nan])
    assert found.mean["psnr"] == pytest.approx(15.0)
    assert found.per_frame["psnr"].to_list() == [15.0, math.inf]

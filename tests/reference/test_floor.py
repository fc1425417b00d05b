"""The best predictor's error, the paths that agree with what was seen, and the ideal line, held against the loops."""

import numpy as np
import pytest
import torch

from benchmark.data.counter_rng import Domain
from benchmark.data.moving_digits.starts import AxisParts, Motion, stream_motion
from benchmark.data.moving_digits.stream import ClipStream
from benchmark.evaluation.floor import FLOOR, draw_path, floor_of, render
from benchmark.evaluation.ideal_line import line_weights
from tests.reference import floor as loops

UNIT, ROOM, CONTEXT, HORIZON = 8, 3, 4, 2
STEPS = [(0, 1), (1, 0), (-1, 2), (3, -2), (-5, -3), (5, 5)]
DIGITS = np.array([[[255, 0], [51, 0]], [[0, 153], [255, 102]]], np.uint8)
EVERY = loops.paths(STEPS, UNIT, ROOM, CONTEXT + HORIZON)


def parts():
    return AxisParts(Motion(np.array(STEPS), UNIT), ROOM, CONTEXT)


@pytest.mark.parametrize("k", range(1, CONTEXT + 1))
def test_the_open_paths_are_those_that_the_loops_find(k):
    for group in loops.agreeing(EVERY, range(CONTEXT - k + 1, CONTEXT + 1)).values():
        ((_, found),) = zip([k], parts().given(np.array(EVERY[group[0]][:CONTEXT]), [k]), strict=True)
        expected = np.bincount([direction for direction, _, _ in group], minlength=len(STEPS))
        assert found.sizes().tolist() == expected.tolist()
        # Words spread evenly over a direction and its starts come to every one of them, and to nothing else.
        spread = np.arange(0, 2**32, 2**32 // 97)
        words = np.stack([spread, spread * 31 % 2**32, spread * 57 % 2**32], axis=1)
        direction, start = found.draw(words)
        assert {*zip(direction.tolist(), *start.T.tolist(), strict=True)} <= {*group}


def test_every_open_path_is_drawn_as_often_as_any_other():
    group = next(each for each in loops.agreeing(EVERY, [CONTEXT]).values() if len(each) > 5)
    (found,) = parts().given(np.array(EVERY[group[0]][:CONTEXT]), [1])
    draws = 20_000
    words = np.random.default_rng(0).integers(0, 2**32, (draws, 3))
    direction, start = found.draw(words)
    keys, counts = np.unique(np.column_stack([direction, start]), axis=0, return_counts=True)
    assert {*map(tuple, keys.tolist())} == {*group}
    expected = draws / len(group)
    assert np.abs(counts - expected).max() < 5 * expected**0.5


def test_windows_asked_for_together_are_those_asked_for_alone():
    path = np.array(EVERY[3, 5, 2][:CONTEXT])
    together = [found.sizes().tolist() for found in parts().given(path, [1, 2, 4])]
    assert together == [next(parts().given(path, [k])).sizes().tolist() for k in (1, 2, 4)]


@pytest.mark.parametrize("known", [True, False])
def test_the_floor_agrees_with_the_loops(known):
    places = np.array([*EVERY.values()])[:, None]
    places = np.concatenate([places] * 5)
    made = floor_of(places, DIGITS, parts(), [1, 2, 4], seed=1)
    found = made.known if known else made.unseen
    for k in (1, 2, 4):
        expected = loops.floor(EVERY, DIGITS / 255, ROOM + 2, CONTEXT, k, known)
        error = found[k].std(axis=0, ddof=1) / len(places) ** 0.5
        assert (np.abs(found[k].mean(axis=0) - expected) < 4 * error + 1e-6).all(), k
        if k < CONTEXT:  # at K hardly anything is open
            assert (4 * error < 0.2 * expected).all(), "too few draws to tell anything"


def test_places_known_and_images_not_is_the_variance_of_the_images():
    places = np.array([*EVERY.values()])[:, None]
    found = floor_of(places, DIGITS, parts(), [1], seed=1).unseen[0].mean()
    expected = ((DIGITS / 255).var(axis=0)).sum()  # where both are drawn, half of the pairs are alike
    assert found == pytest.approx(expected, rel=0.05)


def test_paths_drawn_from_the_motion_of_the_stream_show_what_was_seen():
    digits = np.full((1, 14, 14), 255, np.uint8)
    stream = ClipStream(digits, seed=0, frame_size=32, num_digits=2, frames=20, split="test")
    places = torch.stack(stream.positions(torch.arange(12)), dim=-1).flatten(0, 1).numpy()
    parts = AxisParts(stream_motion(), 18, 10)
    for number, path in enumerate(places):
        for k, found in zip((1, 3, 10), parts.given(path[:10], [1, 3, 10]), strict=True):
            words = np.random.default_rng(number).integers(0, 2**32, (20, 3))
            assert (draw_path(found, words, 20)[:, 10 - k : 10] == path[10 - k : 10]).all()


def test_frames_are_those_of_the_stream():
    digits = np.random.default_rng(0).integers(0, 256, (1, 6, 6)).astype(np.uint8)
    stream = ClipStream(digits, seed=0, frame_size=16, num_digits=2, frames=7)
    places = torch.stack(stream.positions(torch.arange(5)), dim=-1).numpy()
    ours = render(np.repeat(digits[None], 10, axis=0).reshape(5, 2, 6, 6), places, 10)
    assert np.array_equal(ours * 255, stream.clips(torch.arange(5))[:, :, 0].numpy())


@pytest.mark.parametrize(("context", "horizon"), [(2, 1), (3, 5), (10, 10)])
def test_line_weights_agree_with_the_normal_equations(context, horizon):
    assert line_weights(context, horizon) == pytest.approx(loops.line_weights(context, horizon), rel=1e-9, abs=1e-12)


def test_draws_share_no_numbers_with_clips():
    assert max(Domain) < FLOOR

"""Clips of recall: what they show, that they are functions of seed and number, and who is never trained on."""

import hashlib

import numpy as np
import pytest
import torch

from benchmark.config.data_sections import RecallConfig
from benchmark.data.recall.clips import RecallClips
from benchmark.data.recall.stream import RecallStream
from benchmark.data.still_digits.bank import load_bank
from benchmark.data.tensors import to_float


@pytest.fixture
def make(digits):
    def stream(**keys):
        return RecallStream(digits, **{"seed": 1, "frame_size": 9, "frames": 6, "distractors": True} | keys)

    return stream


def framed(digit, size=9):
    """A digit of 6x6 pixels in the middle of a frame whose top row stays free."""
    frame = np.zeros((size, size), np.uint8)
    frame[2:8, 1:7] = digit
    return frame


def which(digits, frame):
    """The number of the digit that a frame shows."""
    (found,) = [number for number, digit in enumerate(digits) if np.array_equal(framed(digit), frame)]
    return found


def test_a_clip_is_a_marked_digit_then_others_then_the_digit_unmarked(make, digits):
    seen = set()
    for clip in make().clips(torch.arange(200)).numpy()[:, :, 0]:
        cue = which(digits, clip[-1])
        marked = framed(digits[cue])
        marked[0] = 255
        np.testing.assert_array_equal(clip[0], marked)
        others = [which(digits, frame) for frame in clip[1:-1]]
        assert cue not in others
        seen |= {(cue, other) for other in others}
    assert len(seen) == 5 * 4  # every digit follows every other one


def test_every_digit_is_as_often_the_cue(make):
    counts = make().digit_numbers(torch.arange(20_000))[:, 0].bincount().double()
    expected = 20_000 / 5
    assert ((counts - expected) ** 2 / expected).sum() < 18.5  # chi squared with 4 degrees of freedom, p = 0.001


def test_blank_clips_have_the_same_cues_and_nothing_between(make):
    full, blank = make().clips(torch.arange(9)), make(distractors=False).clips(torch.arange(9))
    assert torch.equal(full[:, [0, -1]], blank[:, [0, -1]])
    assert blank[:, 1:-1].max() == 0


def test_a_clip_depends_on_seed_split_and_number_alone(make):
    clips = make().clips(torch.arange(20))
    assert torch.equal(make().clips(torch.tensor([7, 3])), clips[[7, 3]])
    for other in ({"seed": 2}, {"split": "test"}, {"pool": 30}):
        assert not torch.equal(make(**other).clips(torch.arange(20)), clips)
    assert torch.equal(make().batch(2, 4), to_float(clips[8:12]))


def test_a_pool_is_shown_once_an_epoch(make):
    stream = make(pool=10)
    numbers = torch.cat([stream.clip_numbers(step, 5) for step in (4, 5)])
    assert sorted(numbers.tolist()) == list(range(10))


@pytest.mark.parametrize(
    ("seed", "sha256"),
    [
        (1, "6bdcc420acf56019542b2d7135cfa9743f95362e976b0b935bae66a95c2d42f5"),
        (2, "38106f3be8e15bb8c751d4a901aaa5bb1203eedbd5afafdcc7af7731f096edee"),
    ],
)
def test_clips_are_the_same_bytes_for_ever(seed, sha256):
    bank = load_bank("optdigits", 14, None)
    stream = RecallStream(bank.train, seed=seed, frame_size=16, frames=6, distractors=True)
    assert hashlib.sha256(stream.clips(torch.arange(100)).numpy()).hexdigest() == sha256


def test_no_digit_of_a_fixed_clip_is_trained_on():
    data = RecallConfig(recall="optdigits", digit_size=8, frame_size=9, gap=3, validation_clips=50, test_clips=60)
    bank = load_bank("optdigits", 8, None)
    source = RecallClips(bank, data)
    trained = {digit.tobytes() for digit in bank.train}
    shared = 0
    for split, count in (("validation", 50), ("test", 60)):
        clips = source.fixed_clips(split)
        assert clips.shape == (count, 5, 1, 9, 9)
        own = {digit.tobytes() for digit in bank.splits[split]}
        shown = {frame.tobytes() for frame in np.ascontiguousarray(clips[:, 1:, 0, 1:, :8].numpy()).reshape(-1, 8, 8)}
        assert shown <= own
        shared += len(shown & trained)
    assert shared == 0


def test_the_mean_target_is_the_mean_of_the_training_digits():
    data = RecallConfig(recall="optdigits", digit_size=8, frame_size=10, gap=1, validation_clips=1, test_clips=1)
    bank = load_bank("optdigits", 8, None)
    expected = np.zeros((1, 10, 10))
    expected[0, 1:9, 1:9] = bank.train.astype(float).mean(axis=0) / 255
    np.testing.assert_allclose(RecallClips(bank, data).mean_target().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("size", "told"), [(16, "digit_size 16 leaves no row of frame_size 16 free"), (17, "no row")])
def test_a_digit_leaves_a_row_for_the_mark(size, told):
    with pytest.raises(ValueError, match=told):
        RecallConfig(recall="optdigits", digit_size=size, frame_size=16, gap=1, validation_clips=1, test_clips=1)

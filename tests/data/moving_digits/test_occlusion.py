"""Occlusion: a bar lies where and when it should, over the same clips, and the truth stays as it is."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from benchmark.data.moving_digits.clips import DigitClips
from benchmark.data.moving_digits.occlusion import GREY, box, draw_gaps, occlude
from benchmark.data.moving_digits.stream import ClipStream
from benchmark.data.still_digits.bank import DigitBank
from benchmark.data.tensors import to_float

GAPS = (0, 1, 3)


@pytest.fixture
def data(data_config):
    return data_config(digit_size=6, context=4, horizon=3, gaps=GAPS)


@pytest.fixture
def make_stream(digits):
    return lambda **keys: ClipStream(digits, **{"seed": 1, "frame_size": 16, "num_digits": 2, "frames": 7} | keys)


@pytest.fixture
def source(digits):
    return lambda data: DigitClips(DigitBank("optdigits", digits, digits, digits), data)


@pytest.mark.parametrize("gap", [*GAPS, "mixed"])
@pytest.mark.parametrize("as_float", [False, True])
def test_the_bar_covers_the_first_digit_in_the_last_frames_of_the_context_and_nothing_else(
    gap, as_float, data, make_stream
):
    stream, numbers = make_stream(), torch.arange(12)
    clips, (_, left) = stream.clips(numbers), stream.positions(numbers)
    gaps = [gap] * 12 if isinstance(gap, int) else [number % 4 for number in range(12)]
    expected = clips.numpy().copy()
    for clip, length in enumerate(gaps):
        for t in range(4 - length, 4):
            column = left[clip, 0, t].item()
            expected[clip, t, :, :, column : column + 6] = 128
    frames = to_float(clips) if as_float else clips
    before = frames.clone()
    shown = occlude(frames, left[:, 0], gap if isinstance(gap, int) else torch.tensor(gaps), data)
    assert torch.equal(shown, to_float(torch.from_numpy(expected)) if as_float else torch.from_numpy(expected))
    assert torch.equal(frames, before)


def test_no_pixel_of_the_first_digit_is_left_under_the_bar(data, make_stream):
    alone, numbers = make_stream(num_digits=1), torch.arange(20)
    _, left = alone.positions(numbers)
    shown = occlude(alone.clips(numbers), left[:, 0], 3, data)[:, 1:4]
    assert set(shown.unique().tolist()) == {0, GREY}


def test_the_box_holds_all_pixels_of_its_digit_and_is_as_large_as_it(data, make_stream):
    alone, numbers = make_stream(num_digits=1), torch.arange(20)
    inside = box(*(start[:, 0] for start in alone.positions(numbers)), data)
    clips = alone.clips(numbers)
    assert torch.equal(inside, clips > 0)  # these digits have no black pixel
    assert (inside.sum((2, 3, 4)) == 36).all()


def test_what_a_network_is_shown_is_the_stream_itself_without_gaps(data_config, make_stream, source):
    stream = make_stream()
    frames = stream.batch(0, 4)
    assert source(data_config()).inputs(frames, stream.clip_numbers(0, 4), stream) is frames


@pytest.mark.parametrize("pool", [None, 9])
def test_a_clip_is_shown_with_the_same_bar_in_any_batch_and_only_the_context_changes(pool, data, make_stream, source):
    stream = make_stream(pool=pool)

    def shown(step, batch_size):
        return source(data).inputs(stream.batch(step, batch_size), stream.clip_numbers(step, batch_size), stream)

    whole = shown(0, 12)
    assert torch.equal(torch.cat([shown(step, 3) for step in range(4)]), whole)
    frames = stream.batch(0, 12)
    assert torch.equal(whole[:, 4:], frames[:, 4:])
    assert torch.equal(whole[:, 0], frames[:, 0])
    assert not torch.equal(whole[:, 3], frames[:, 3])
    gaps = draw_gaps(GAPS, 1, stream.clip_numbers(0, 12))
    assert [int((a != b).any()) for a, b in zip(whole, frames, strict=True)] == gaps.clamp(max=1).tolist()


def test_every_gap_is_drawn_about_equally_often_and_seeds_draw_differently():
    numbers = torch.arange(6000)
    one, other = draw_gaps((0, 2, 4), 1, numbers), draw_gaps((0, 2, 4), 2, numbers)
    assert chisquare(np.unique(one, return_counts=True)[1]).pvalue > 1e-4
    assert set(one.tolist()) == {0, 2, 4}
    table = np.histogram2d(one, other, bins=3)[0]
    assert chisquare(table.ravel()).pvalue > 1e-4


@pytest.mark.gpu
def test_gpu_inputs_equal_cpu_inputs_and_wait_for_nothing(data, make_stream, source):
    cpu, gpu = make_stream(), make_stream(device="cuda")

    def shown(stream, step):
        return source(data).inputs(stream.batch(step, 16), stream.clip_numbers(step, 16), stream)

    shown(gpu, 0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches = [shown(gpu, step) for step in range(1, 4)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for step, batch in enumerate(batches, start=1):
        assert torch.equal(batch.cpu(), shown(cpu, step))

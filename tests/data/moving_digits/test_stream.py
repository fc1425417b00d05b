"""The stream: a clip is a pure function of (seed, index), whoever asks, in any batch, on any device."""

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from benchmark.data.counter_rng import Domain, counter_hash
from benchmark.data.moving_digits.stream import ClipStream, trajectory
from benchmark.data.tensors import to_float

GOLDEN = Path(__file__).parents[2] / "golden" / "trajectories.npz"
CLIPS = "63e46875add936dab2c6a15a92bcc43a2bf91261a33332a148729a792de411fb"
BATCH = "4daa1195f26cae715fd1f479773b249a3465afef78a1bcc75adec58c5f924d34"
POOL_BATCH = "7d894820da63bdc956d4a4fbc5baff4af93dc0f29ac2923f2e3b9437ea5f4979"
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.gpu),
]


def make(digits, **keys):
    return ClipStream(digits, **{"seed": 1, "frame_size": 16, "num_digits": 2, "frames": 7} | keys)


def sha256(tensor):
    return hashlib.sha256(tensor.cpu().contiguous().numpy()).hexdigest()


@pytest.mark.parametrize("device", DEVICES)
def test_golden_trajectories_are_met_exactly(device):
    golden = {name: torch.from_numpy(values) for name, values in np.load(GOLDEN).items()}
    room = int(golden["canvas"] - golden["digit"])
    for start, direction, pixels in (("y0", torch.sin, "top"), ("x0", torch.cos, "left")):
        step = golden["step"] * direction(golden["theta"])
        path = trajectory(golden[start].to(device), step.to(device), frames=40)
        assert torch.equal((path * room).to(torch.int32).cpu(), golden[pixels])


def test_a_digit_that_lands_exactly_on_a_wall_turns_at_once():
    start, step = (
        torch.tensor([0.5, 0.5], dtype=torch.float64),
        torch.tensor([0.25, -0.25], dtype=torch.float64),
    )
    assert trajectory(start, step, frames=4).tolist() == [[0.75, 1, 0.75, 0.5], [0.25, 0, 0.25, 0.5]]


@pytest.mark.parametrize("device", DEVICES)
def test_pixels_are_pinned(device, digits):
    stream = make(digits, device=device)
    assert sha256(stream.clips(torch.arange(6))) == CLIPS
    assert sha256(stream.batch(3, 4)) == BATCH
    assert sha256(make(digits, pool=5, device=device).batch(3, 4)) == POOL_BATCH


def test_batches_of_any_size_give_the_same_clips_in_the_same_order(digits):
    stream = make(digits)
    expected = torch.cat([stream.batch(step, 1) for step in range(12)])
    for batch_size in (2, 3, 4, 6, 12):
        batches = [stream.batch(step, batch_size) for step in range(12 // batch_size)]
        assert torch.equal(torch.cat(batches), expected)


def test_a_clip_does_not_depend_on_its_neighbours_or_on_what_was_asked_before(digits):
    expected = make(digits).clips(torch.arange(10))
    stream = make(digits)
    stream.batch(5, 3)
    for indices in ([7], [3, 9], [9, 3, 3, 0]):
        assert torch.equal(stream.clips(torch.tensor(indices)), expected[indices])


def test_threads_do_not_matter(digits):
    threads = torch.get_num_threads()
    try:
        batches = []
        for count in (1, 2):
            torch.set_num_threads(count)
            batches.append(make(digits, frame_size=32, frames=20).batch(0, 16))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*batches)


def test_batches_are_the_clips_as_exact_fractions_of_255(digits):
    stream = make(digits)
    clips = stream.clips(torch.arange(8, 12)).numpy()
    assert np.array_equal(stream.batch(2, 4).numpy(), clips.astype(np.float32) / np.float32(255))
    assert np.array_equal(to_float(torch.from_numpy(clips)).numpy(), clips.astype(np.float32) / np.float32(255))


def test_seeds_splits_and_pools_give_other_clips(digits):
    streams = [
        make(digits),
        make(digits, seed=2),
        make(digits, split="validation"),
        make(digits, split="test"),
        make(digits, pool=50),
    ]
    hashes = {sha256(stream.clips(torch.tensor([index]))) for stream in streams for index in range(50)}
    assert len(hashes) == 250


@pytest.mark.parametrize("num_digits", [1, 2, 3])
def test_frames_are_digits_at_their_positions_overlapping_by_maximum(num_digits):
    digit = np.arange(1, 65, dtype=np.uint8).reshape(1, 8, 8)
    stream = make(digit, num_digits=num_digits, frame_size=12)
    indices = torch.arange(20)
    top, left = stream.positions(indices)
    expected = np.zeros((20, 7, 1, 12, 12), np.uint8)
    overlaps = 0
    for b, n, t in np.ndindex(20, num_digits, 7):
        y, x = top[b, n, t].item(), left[b, n, t].item()
        window = expected[b, t, 0, y : y + 8, x : x + 8]
        overlaps += bool(window.any())
        np.maximum(window, digit[0], out=window)
    assert np.array_equal(stream.clips(indices).numpy(), expected)
    assert (overlaps > 0) == (num_digits > 1)


def test_more_digits_and_more_frames_only_add(digits):
    indices = torch.arange(6)
    few, many = make(digits, num_digits=1, frames=4), make(digits, num_digits=3, frames=9)
    for a, b in zip(few.positions(indices), many.positions(indices), strict=True):
        assert torch.equal(a, b[:, :1, :4])
    one, three = few.clips(indices), many.clips(indices)[:, :4]
    assert (one <= three).all()
    assert not torch.equal(one, three)


def test_every_digit_is_shown_about_equally_often(digits):
    flat = np.repeat(np.arange(1, 6, dtype=np.uint8), 36).reshape(5, 6, 6)
    shown = make(flat, num_digits=1, frames=1).clips(torch.arange(5000)).amax((1, 2, 3, 4))
    assert chisquare(np.bincount(shown, minlength=6)[1:]).pvalue > 1e-4


def test_digits_start_anywhere_and_go_everywhere(digits):
    room = 1000
    stream = make(digits, num_digits=1, frames=2, frame_size=room + 6)
    place = torch.cat(stream.positions(torch.arange(4000)), dim=1).numpy()  # (B, top and left, T)
    place = place[((place[:, :, 0] > 0.1 * room) & (place[:, :, 0] < 0.9 * room)).all(1)]
    way = place[:, :, 1] - place[:, :, 0]
    for coordinate in (0, 1):
        assert chisquare(np.histogram(place[:, coordinate, 0], 8, (100, 900))[0]).pvalue > 1e-4
    assert chisquare(np.histogram(np.arctan2(*way.T), 12, (-np.pi, np.pi))[0]).pvalue > 1e-4
    assert np.abs(np.hypot(*way.T) - 0.1 * room).max() < 2


def test_positions_are_those_of_a_plain_loop(digits):
    room, frames, found = 10, 30, make(digits, frames=30).positions(torch.arange(100, 104))
    for clip, slot, coordinate in np.ndindex(4, 2, 2):
        draw = [counter_hash(1, Domain.TRAIN, 100 + clip, 4 * slot + field) for field in range(4)]
        angle = 2 * math.pi * (draw[3] >> 16) / 65536
        place = draw[1 + coordinate] / 2**32
        step = round(0.1 * (math.sin, math.cos)[coordinate](angle) * 2**32) / 2**32
        for frame in range(frames):
            place += step
            if place <= 0:
                place, step = 0.0, -step
            if place >= 1:
                place, step = 1.0, -step
            assert found[coordinate][clip, slot, frame] == int(place * room)


def test_digits_stay_inside_and_reach_all_walls(digits):
    top, left = make(digits, frames=40).positions(torch.arange(50))
    for place in (top, left):
        assert (place.min(), place.max()) == (0, 10)


def test_each_epoch_shows_every_clip_of_a_pool_once_in_a_new_order(digits):
    stream = make(digits, pool=24)
    epochs = [torch.cat([stream.clip_numbers(6 * epoch + step, 4) for step in range(6)]) for epoch in range(3)]
    for order in epochs:
        assert order.sort().values.tolist() == list(range(24))
    assert len({tuple(order.tolist()) for order in [*epochs, torch.arange(24)]}) == 4


@pytest.mark.parametrize("batch_size", [1, 5, 7, 23])
def test_batches_may_lie_across_epochs_of_a_pool(digits, batch_size):
    in_order, jumping = make(digits, pool=10), make(digits, pool=10)
    expected = torch.cat([in_order.clip_numbers(step, 10) for step in range(12)])
    for step in (4, 0, 3, 1):
        start = step * batch_size
        assert torch.equal(jumping.clip_numbers(step, batch_size), expected[start : start + batch_size])


def test_the_seed_orders_a_pool_but_does_not_change_its_clips(digits):
    one, other = make(digits, pool=30, seed=1), make(digits, pool=30, seed=2)
    assert torch.equal(one.clips(torch.arange(30)), other.clips(torch.arange(30)))
    numbers = one.clip_numbers(0, 30), other.clip_numbers(0, 30)
    assert not torch.equal(*numbers)
    assert torch.equal(one.batch(0, 30)[numbers[0].argsort()], other.batch(0, 30)[numbers[1].argsort()])


@pytest.mark.gpu
@pytest.mark.parametrize("pool", [None, 40])
def test_gpu_batches_equal_cpu_batches_and_wait_for_nothing(digits, pool):
    cpu, gpu = make(digits, pool=pool), make(digits, pool=pool, device="cuda")
    gpu.batch(0, 16)
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches = [gpu.batch(step, 16) for step in range(1, 8)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for step, batch in enumerate(batches, start=1):
        assert torch.equal(batch.cpu(), cpu.batch(step, 16))

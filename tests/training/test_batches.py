"""Batches that are made several at once are those that are made one by one."""

import copy
from dataclasses import replace

import pytest
import torch

from benchmark.data.moving_digits.stream import ClipStream
from benchmark.training import batches as feeding
from benchmark.training.batches import load_batches


@pytest.fixture
def made(monkeypatch):
    """How many clips each call of the stream has made."""
    counts, batch = [], ClipStream.batch

    def counted(stream, step, size):
        counts.append(size)
        return batch(stream, step, size)

    monkeypatch.setattr(ClipStream, "batch", counted)
    return counts


@pytest.mark.parametrize("data", [{}, {"train_clips": 7}, {"gaps": [0, 2]}], ids=str)
def test_batches_made_ahead_are_those_made_one_by_one(make_protocol, results, made, data):
    run = make_protocol(data=data).run("convlstm", 1)
    one_by_one = load_batches(run, results, "cpu")
    ahead = replace(copy.copy(one_by_one), ahead=4)
    assert one_by_one.ahead == 1
    steps = [5, 6, 7, 8, 9, 2]  # as a run that goes on at step 5, and one that goes back
    expected = [one_by_one.batch(step) for step in steps]
    made.clear()
    found = [ahead.batch(step) for step in steps]
    assert made == [8, 8, 8]
    for batch, other in zip(expected, found, strict=True):
        assert all(map(torch.equal, batch, other))


@pytest.mark.gpu
def test_a_gpu_makes_digits_ahead_and_keeps_the_validation_clips(make_protocol, results, made):
    run = make_protocol().run("convlstm", 1)
    on_gpu, on_cpu = (load_batches(run, results, device) for device in ("cuda", "cpu"))
    assert (on_gpu.ahead, on_gpu.validation.device.type) == (feeding.AHEAD, "cuda")
    for step in range(feeding.AHEAD + 1):
        for one, other in zip(on_gpu.batch(step), on_cpu.batch(step), strict=True):
            assert torch.equal(one.cpu(), other)

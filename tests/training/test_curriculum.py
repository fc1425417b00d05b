"""When training shows the true frame: rates by formula, masks by rate, equal for every variant."""

import math

import pytest
import torch

from benchmark.config.sections import SamplingConfig
from benchmark.training.masks import feed_mask, feed_rates, gradient_mask

REVERSE = SamplingConfig(kind="reverse", stop=50, reverse_start=10, reverse_decay=8.0)


def mask(sampling, step=0, seed=1, batch_size=400, context=4, horizon=3):
    return feed_mask(
        sampling, seed=seed, step=step, batch_size=batch_size, context=context, horizon=horizon, device="cpu"
    )


@pytest.mark.parametrize(("step", "horizon"), [(0, 1.0), (10, 0.8), (25, 0.5), (50, 0.0), (99, 0.0)])
def test_scheduled_sampling_falls_linearly_in_the_horizon_only(step, horizon):
    assert feed_rates(SamplingConfig(kind="scheduled", stop=50), step) == pytest.approx((1.0, horizon))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, (0.5, 0.5)),
        (9, (0.5, 0.5)),
        (10, (0.5, 0.5)),
        (18, (1 - 0.5 / math.e, 0.4)),
        (30, (1 - 0.5 * math.exp(-20 / 8), 0.25)),
        (50, (1.0, 0.0)),
        (99, (1.0, 0.0)),
    ],
)
def test_reverse_sampling_hides_the_context_first_and_the_horizon_at_last(step, expected):
    assert feed_rates(REVERSE, step) == pytest.approx(expected)


def test_no_sampling_shows_true_frames_throughout():
    assert feed_rates(SamplingConfig(), 10_000) == (1.0, 1.0)
    assert mask(SamplingConfig()).min() == 1


@pytest.mark.parametrize("step", [0, 10, 18, 30])
@pytest.mark.parametrize("sampling", [SamplingConfig(kind="scheduled", stop=40), REVERSE], ids=["scheduled", "reverse"])
def test_mask_shows_true_frames_at_the_rates(sampling, step):
    shown = mask(sampling, step)
    context, horizon = feed_rates(sampling, step)
    assert shown.shape == (400, 6)
    assert set(shown.unique().tolist()) <= {0.0, 1.0}
    assert shown[:, 1:4].mean().item() == pytest.approx(context, abs=0.05)
    assert shown[:, 4:].mean().item() == pytest.approx(horizon, abs=0.07)


@pytest.mark.parametrize("step", [0, 30, 99])
def test_first_frame_is_always_true(step):
    assert mask(REVERSE, step)[:, 0].min() == 1


def test_mask_is_a_function_of_seed_and_step():
    sampling = SamplingConfig(kind="scheduled", stop=50)
    assert torch.equal(mask(sampling, 20), mask(sampling, 20))
    assert not torch.equal(mask(sampling, 20), mask(sampling, 21))
    assert not torch.equal(mask(sampling, 20), mask(sampling, 20, seed=2))


@pytest.mark.parametrize("every", [1, 2, 3, 8])
def test_gradient_ends_at_every_kth_step_from_a_first_one_that_is_drawn_anew(every):
    def flows(step, seed=1):
        return gradient_mask(every, seed=seed, step=step, batch_size=3, steps=16, device="cpu")

    firsts = []
    for step in range(200):
        found = flows(step)
        assert found.shape == (3, 16)
        assert torch.equal(found, found[:1].expand(3, 16))
        closed = (found[0] == 0).nonzero().flatten()
        assert len(closed)
        assert torch.equal(closed, torch.arange(int(closed[0]), 16, every))
        firsts.append(int(closed[0]))
        assert torch.equal(found, flows(step))
    counts = [firsts.count(first) for first in range(every)]
    assert sum(counts) == 200
    assert min(counts) > 0.5 * 200 / every
    assert every == 1 or firsts != [int((flows(step, seed=2)[0] == 0).nonzero()[0]) for step in range(200)]


def test_gradient_that_flows_everywhere_has_no_mask():
    assert gradient_mask(None, seed=1, step=0, batch_size=3, steps=16, device="cpu").numel() == 0

"""The feed mask, as both samplings draw it and as every cell's network obeys it."""

import math

import pytest
import torch

from benchmark.config.sections import SamplingConfig
from benchmark.training.masks import feed_mask, feed_rates
from models.predictor import build
from models.spec import CELLS
from tests.helpers.tiny import random_clips, tiny_spec

SCHEDULED = SamplingConfig(kind="scheduled", stop=1000)
REVERSE = SamplingConfig(kind="reverse", reverse_start=200, reverse_decay=100, stop=1000)
CONTEXT, HORIZON = 3, 4


def draw(sampling: SamplingConfig, step: int, batch_size: int = 4, seed: int = 0) -> torch.Tensor:
    sizes = {"batch_size": batch_size, "context": CONTEXT, "horizon": HORIZON}
    return feed_mask(sampling, seed=seed, step=step, device="cpu", **sizes)


@pytest.mark.parametrize("sampling", [SCHEDULED, REVERSE], ids=lambda sampling: sampling.kind)
@pytest.mark.parametrize("cell", CELLS)
def test_the_network_sees_the_true_frame_just_where_the_mask_is_1(cell, sampling):
    spec = tiny_spec(cell, highway_slot=1)
    network = build(spec, seed=1).double()
    frames = random_clips(spec, batch=4, frames=CONTEXT + HORIZON).requires_grad_()
    mask = draw(sampling, step=500).double()
    assert 0 < mask[:, CONTEXT:].mean() < 1
    predictions = network(frames, mask)
    (gradient,) = torch.autograd.grad(predictions.square().sum(), frames)
    seen = (gradient != 0).flatten(2).any(dim=2)
    assert torch.equal(seen[:, :-1], mask == 1)
    assert not seen[:, -1].any()


@pytest.mark.parametrize("sampling", [SCHEDULED, REVERSE], ids=lambda sampling: sampling.kind)
@pytest.mark.parametrize("cell", CELLS)
def test_where_the_mask_is_0_the_network_sees_its_last_prediction(cell, sampling):
    spec = tiny_spec(cell, highway_slot=1)
    network = build(spec, seed=1).double()
    frames = random_clips(spec, batch=4, frames=CONTEXT + HORIZON)
    mask = draw(sampling, step=500).double()
    predictions = network(frames, mask)
    shown = frames.clone()
    shown[:, 1:-1] = torch.where(mask[:, 1:, None, None, None] == 1, frames[:, 1:-1], predictions[:, :-1])
    torch.testing.assert_close(network(shown, torch.ones_like(mask)), predictions, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("sampling", "step", "context_rate", "horizon_rate"),
    [
        (SamplingConfig(), 0, 1, 1),
        (SamplingConfig(), 10**6, 1, 1),
        (SCHEDULED, 0, 1, 1),
        (SCHEDULED, 250, 1, 0.75),
        (SCHEDULED, 1000, 1, 0),
        (SCHEDULED, 5000, 1, 0),
        (REVERSE, 0, 0.5, 0.5),
        (REVERSE, 199, 0.5, 0.5),
        (REVERSE, 300, 1 - 0.5 * math.exp(-1), 0.5 * (1 - 100 / 800)),
        (REVERSE, 600, 1 - 0.5 * math.exp(-4), 0.25),
        (REVERSE, 1000, 1, 0),
        (REVERSE, 5000, 1, 0),
    ],
)
def test_masks_are_drawn_at_the_rates_of_the_curriculum(sampling, step, context_rate, horizon_rate):
    assert feed_rates(sampling, step) == pytest.approx((context_rate, horizon_rate))
    mask = draw(sampling, step, batch_size=2000)
    assert mask.unique().tolist() in ([0, 1], [1])
    assert (mask[:, 0] == 1).all()
    four_sigma = 4 * 0.5 / math.sqrt(2000)
    for column in range(1, CONTEXT + HORIZON - 1):
        rate = context_rate if column < CONTEXT else horizon_rate
        assert mask[:, column].mean().item() == pytest.approx(rate, abs=four_sigma * (0 < rate < 1)), column


def test_masks_are_a_function_of_seed_and_step():
    mask = draw(REVERSE, step=5, batch_size=8)
    assert torch.equal(draw(REVERSE, step=5, batch_size=8), mask)
    assert torch.equal(draw(REVERSE, step=5, batch_size=3), mask[:3])
    assert not torch.equal(draw(REVERSE, step=6, batch_size=8), mask)
    assert not torch.equal(draw(REVERSE, step=5, batch_size=8, seed=1), mask)

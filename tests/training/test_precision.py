"""Convolutions in bfloat16 learn what those in single precision learn."""

import numpy as np
import pytest
import torch

from benchmark.config.sections import TrainingConfig
from benchmark.data.moving_digits.stream import ClipStream
from benchmark.training import step as engine
from benchmark.training.acceleration.captured_step import make_step
from benchmark.training.step import Batch
from models.predictor import build, free_running_mask
from models.spec import ModelSpec

STEPS, WINDOW = 60, 10


def curve(cell: str, precision: str, seed: int) -> np.ndarray:
    """Mean losses of windows of a short training on moving squares; clips and first weights are the seed's."""
    training = TrainingConfig(steps=STEPS, batch_size=4, learning_rate=3e-3, clip_norm=1.0, precision=precision)
    digits = np.full((2, 8, 8), 255, np.uint8)
    stream = ClipStream(digits, seed=seed, frame_size=16, num_digits=2, frames=8, device="cpu")
    spec = ModelSpec(cell=cell, hidden_channels=(8, 8), frame_size=16, kernel_size=3, highway_slot=1)
    network = build(spec, seed)
    step = make_step(network, engine.make_optimizer(network, training), training)
    losses = []
    for number in range(STEPS):
        frames = stream.batch(number, 4)
        losses.append(step(Batch(frames, frames, free_running_mask(4, 4, 4, frames))).loss.item())
    return np.array(losses).reshape(-1, WINDOW).mean(axis=1)


@pytest.mark.parametrize(
    "cell", ["convlstm", *(pytest.param(cell, marks=pytest.mark.slow) for cell in ("st_lstm", "causal_lstm"))]
)
def test_loss_curves_in_bf16_lie_within_the_spread_of_seeds(cell):
    seeds = 1, 2, 3, 4
    fp32, bf16 = (np.array([curve(cell, precision, seed) for seed in seeds]) for precision in ("fp32", "bf16"))
    spread = fp32.std(axis=0, ddof=1)
    assert (np.abs(bf16 - fp32) < spread).all()
    assert not torch.equal(torch.tensor(bf16), torch.tensor(fp32))
    assert (fp32[:, -1] < 0.75 * fp32[:, 0]).all()  # it learns, so that there is something to keep up with

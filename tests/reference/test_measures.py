"""Training loss, gradient norms, reach and half-life, held against the loops."""

import numpy as np
import pandas as pd
import pytest
import torch

from benchmark.decay import decay
from benchmark.engine import loss_of
from benchmark.probe import MEASURES, fixed_cotangent, gradient_norms, roll_out
from benchmark.sections import TrainingConfig
from models.predictor import Predictor
from models.spec import ModelSpec
from tests.reference import measures, network
from tests.reference.cells import details


@pytest.mark.parametrize("loss", ["l2", "l1+l2"])
@pytest.mark.parametrize("reduction", ["mean", "half-sum"])
def test_training_loss_agrees_with_the_loops(loss, reduction):
    training = TrainingConfig(steps=1, batch_size=2, learning_rate=1e-3, loss=loss, loss_reduction=reduction)
    prediction, target = torch.rand(2, 2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 0.5
    expected = measures.training_loss(prediction.numpy(), target.numpy(), loss, reduction)
    assert loss_of(prediction, target, training).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("cell", "slot"), [("convlstm", 0), ("st_lstm", 0), ("causal_lstm", 1)])
def test_gradient_norms_agree_with_the_loops(cell, slot, measure):
    context, frame_size = 2, 2
    spec = ModelSpec(
        cell=cell, hidden_channels=(2, 2), frame_size=frame_size, patch_size=1, kernel_size=3, highway_slot=slot
    )
    random = torch.Generator().manual_seed(0)
    predictor = Predictor(spec).double()
    for parameter in predictor.parameters():
        parameter.data.normal_(0, 0.5, generator=random)
    frames = torch.rand(2, context + 3, 1, frame_size, frame_size, generator=random, dtype=torch.float64)
    cotangent, path = MEASURES[measure]
    ours = gradient_norms(roll_out(predictor, frames, context, path), cotangent)

    weights = {name: parameter.detach().numpy() for name, parameter in predictor.named_parameters()}
    mask = np.array([1, 1, 0, 0])
    shape = {"cell": cell, "widths": (2, 2), "patch_size": 1, "slot": slot, "highway_width": 2}
    direction = fixed_cotangent(frames[:, -1]).numpy() if cotangent == "fixed" else None

    def run(given, visit):
        cut = {"kept": path, "context": context}
        return network.roll_out(weights, details(), given, mask, **shape, **cut, visit=visit)

    clip = 1
    expected = measures.gradient_norms(run, frames[clip].numpy(), context, direction)
    found = {(*key, t): norms[clip, t - 1].item() for key, norms in ours.items() for t in range(1, norms.shape[1] + 1)}
    assert set(found) == set(expected)
    for key, norm in expected.items():
        assert found[key] == pytest.approx(norm, rel=1e-10, abs=1e-300), key


def test_fixed_cotangent_is_one_direction_of_norm_1():
    batch = torch.zeros(3, 1, 4, 4, dtype=torch.float64)
    direction = fixed_cotangent(batch)
    assert direction.norm().item() == pytest.approx(1, rel=1e-12)
    assert torch.equal(direction, fixed_cotangent(torch.ones(1, 1, 4, 4, dtype=torch.float64)))


NORMS = np.random.default_rng(0).lognormal(size=(3, 6))
DECAYING = NORMS**0.1 * 2.0 ** np.arange(6)


@pytest.mark.parametrize("norms", [NORMS, DECAYING, DECAYING[:, ::-1]], ids=["flat", "decaying", "growing"])
def test_reach_and_half_life_agree_with_the_loops(norms):
    found = decay(pd.DataFrame(norms, columns=range(1, 7)))
    assert found["reach"] == pytest.approx(measures.reach(norms), rel=1e-12)
    expected = measures.half_life(norms)
    assert found["half_life"] == (expected and pytest.approx(expected, rel=1e-12))


def test_half_life_of_a_norm_that_halves_every_two_frames_is_two():
    norms = pd.DataFrame([2.0 ** (np.arange(5) / 2)], columns=range(1, 6))
    found = decay(norms)
    assert found["half_life"] == pytest.approx(2, rel=1e-12)
    assert found["reach"] == pytest.approx(0.25, rel=1e-12)
    assert decay(norms.iloc[:, ::-1])["half_life"] is None

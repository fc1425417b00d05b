"""Training loss, gradient norms, saturation, reach and half-life, held against the loops."""

from itertools import cycle

import numpy as np
import pandas as pd
import pytest
import torch

from benchmark.config.sections import TrainingConfig
from benchmark.data.tensors import to_float
from benchmark.evaluation.gradient_decay import FURTHER, decay
from benchmark.evaluation.gradient_probe import (
    MEASURES,
    directions,
    fixed_cotangent,
    gradient_norms,
    measure,
    roll_out,
)
from benchmark.training.step import Batch, forecast_loss, forward, loss_of
from models.predictor import Predictor
from models.spec import ModelSpec
from tests.reference import cells, measures, network
from tests.reference.cells import details


@pytest.mark.parametrize("loss", ["l2", "l1+l2"])
@pytest.mark.parametrize("reduction", ["mean", "half-sum"])
def test_training_loss_agrees_with_the_loops(loss, reduction):
    training = TrainingConfig(steps=1, batch_size=2, learning_rate=1e-3, loss=loss, loss_reduction=reduction)
    prediction, target = torch.rand(2, 2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 0.5
    expected = measures.training_loss(prediction.numpy(), target.numpy(), loss, reduction)
    assert loss_of(prediction, target, training).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("reference", [True, False], ids=["reference", "optimised"])
@pytest.mark.parametrize("reduction", ["mean", "half-sum"])
def test_decoupling_loss_agrees_with_the_loops(reduction, reference):
    training = TrainingConfig(
        steps=1, batch_size=2, learning_rate=1e-3, loss_reduction=reduction, decouple_beta=0.3, loss_frames=1
    )
    spec = ModelSpec(
        cell="st_lstm", hidden_channels=(3, 3), frame_size=4, patch_size=2, kernel_size=3, highway_slot=1, adapter=True
    )
    random = torch.Generator().manual_seed(0)
    predictor = Predictor(spec).double()
    predictor.reference_path = reference
    for parameter in predictor.parameters():
        parameter.data.normal_(0, 0.5, generator=random)
    frames = torch.rand(2, 4, 1, 4, 4, generator=random, dtype=torch.float64)
    mask = torch.tensor([[1, 0, 1], [1, 1, 0]], dtype=torch.float64)
    batch = Batch(frames, frames, mask)
    forecast = forward(predictor, batch, training)

    weights = {name: parameter.detach().numpy() for name, parameter in predictor.named_parameters()}
    shape = {"cell": "st_lstm", "widths": (3, 3), "patch_size": 2, "slot": 1, "highway_width": 3}
    found = {"C increment": [], "M increment": []}

    def visit(name, layer, t, value):
        found.get(name, []).append(value)
        return value

    for clip, fed in zip(frames.numpy(), mask.numpy(), strict=True):
        network.roll_out(weights, details(), clip, fed, **shape, visit=visit)
    pairs = list(zip(*found.values(), strict=True))
    assert len(pairs) == 2 * 2 * 3  # clips, layers, steps
    expected = measures.decoupling(weights["adapter.weight"][..., 0, 0], pairs)
    assert forecast.decoupling.mean().item() == pytest.approx(expected, rel=1e-12)
    error = loss_of(forecast.frames, frames[:, 1:], training).item()
    assert forecast_loss(forecast, batch, training).item() == pytest.approx(error + 0.3 * expected, rel=1e-12)


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
    drawn = directions(frames[:, -1]).numpy()
    used = {"residual": [None], "fixed": drawn[:1], "directions": drawn}[cotangent]

    def run(given, visit):
        cut = {"kept": path, "context": context}
        return network.roll_out(weights, details(), given, mask, **shape, **cut, visit=visit)

    clip = 1
    found = [measures.gradient_norms(run, frames[clip].numpy(), context, direction) for direction in used]
    expected = measures.root_mean_square(found)
    found = {(*key, t): norms[clip, t - 1].item() for key, norms in ours.items() for t in range(1, norms.shape[1] + 1)}
    assert set(found) == set(expected)
    for key, norm in expected.items():
        assert found[key] == pytest.approx(norm, rel=1e-10, abs=1e-300), key


ORDER = {
    "convlstm": "i f g o -",
    "st_lstm": "i f g i' f' g' o -",
    "causal_lstm": "i f g i' f' g' - o -",
    "spatial_to_temporal": "i' f' g' - i f g o -",
}
"""In what order the loops take the nonlinearities of a cell; `-` is of no gate."""


class Watched:
    """numpy, with a note of each tanh."""

    def __init__(self, note):
        self._note = note

    def __getattr__(self, name):
        return (lambda a: self._note(np.tanh(a), np.tanh(a) ** 2 > 0.81)) if name == "tanh" else getattr(np, name)


@pytest.mark.parametrize("order", ORDER)
def test_share_of_saturated_gates_agrees_with_the_loops(order, monkeypatch):
    cell, keys = (order, {}) if order != "spatial_to_temporal" else ("causal_lstm", {"memory_order": order})
    widths, frame_size, steps = (2, 2), 3, 3
    biases = {"forget_bias": 1.5, "highway_gate_bias": -2.0}
    spec = ModelSpec(
        cell=cell,
        hidden_channels=widths,
        frame_size=frame_size,
        patch_size=1,
        kernel_size=3,
        highway_slot=1,
        **keys,
        **biases,
    )
    random = torch.Generator().manual_seed(0)
    predictor = Predictor(spec).double()
    for parameter in predictor.parameters():
        parameter.data.normal_(0, 1.2, generator=random)
    clips = torch.randint(256, (3, 4, 1, frame_size, frame_size), generator=random, dtype=torch.uint8)

    noted = []

    def note(value, is_saturated):
        noted.append(is_saturated.mean())
        return value

    def sigmoid(a):
        value = 1 / (1 + np.exp(-a))
        return note(value, value * (1 - value) < 0.19 / 4)

    monkeypatch.setattr(cells, "sigmoid", sigmoid)
    monkeypatch.setattr(cells, "np", Watched(note))
    weights = {name: parameter.detach().numpy() for name, parameter in predictor.named_parameters()}
    shape = {"cell": cell, "widths": widths, "patch_size": 1, "slot": 1, "highway_width": 2}
    for frames in to_float(clips).double().numpy():
        network.roll_out(weights, details(**keys, **biases), frames, np.array([1, 1, 0]), **shape)
    of_cell = ORDER[order].split()
    names = [*((gate, 1) for gate in of_cell), ("p", 1), ("s", 1), *((gate, 2) for gate in of_cell)]
    assert len(noted) == len(clips) * steps * len(names)
    expected = {}
    for (gate, layer), one in zip(cycle(names), noted, strict=False):
        if gate != "-":
            expected.setdefault(gate, {}).setdefault(layer, []).append(one)

    found = measure(predictor, clips, context=2, batch_size=2, device="cpu", measures=("residual",)).saturated
    assert found.keys() == expected.keys()
    for gate, by_layer in expected.items():
        assert found[gate] == pytest.approx([np.mean(by_layer[layer]) for layer in sorted(by_layer)], rel=1e-12)
    assert all(0 < max(shares) < 1 for shares in found.values())


def test_directions_are_eight_of_norm_1_and_begin_with_the_fixed_one():
    batch = torch.zeros(3, 1, 4, 4, dtype=torch.float64)
    drawn = directions(batch)
    assert drawn.shape == (8, 1, 4, 4)
    assert torch.equal(drawn[0], fixed_cotangent(batch))
    assert drawn.flatten(1).norm(dim=1).numpy() == pytest.approx(np.ones(8), rel=1e-12)
    assert (drawn.flatten(1) @ drawn.flatten(1).T).fill_diagonal_(0).abs().max() < 0.9


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


@pytest.mark.parametrize("name", FURTHER)
@pytest.mark.parametrize("frames", [7, 10])
def test_further_definitions_of_reach_agree_with_the_loops(name, frames):
    norms = np.random.default_rng(frames).lognormal(size=(3, frames)) * 1.5 ** np.arange(frames)
    expected = getattr(measures, name)(norms)
    assert FURTHER[name](np.log(norms).mean(axis=0)) == pytest.approx(expected, rel=1e-12)
    far = norms * 1e-300  # such norms are measured: their ratios are the same
    assert FURTHER[name](np.log(far).mean(axis=0)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "fewest"),
    zip(FURTHER, [4, 3, 6, 7, 2], strict=True),
)
def test_a_definition_of_reach_is_nan_where_frames_are_too_few_or_a_norm_is_none(name, fewest):
    curve = np.linspace(-1, 0, fewest)
    assert np.isfinite(FURTHER[name](curve))
    assert np.isnan(FURTHER[name](curve[1:]))
    for place, value in [(0, -np.inf), (-1, np.nan), (fewest // 2, np.inf)]:
        spoilt = curve.copy()
        spoilt[place] = value
        assert np.isnan(FURTHER[name](spoilt))


def test_the_slope_leaves_out_both_ends_and_is_minus_one_where_norms_halve_with_each_frame_of_age():
    curve = np.log(2) * np.arange(8.0)
    curve[[0, -1]] = [50, -50]
    assert FURTHER["inner_slope"](curve) == pytest.approx(-1, rel=1e-12)

"""Initial weights are those of Eq. 14, and a function of spec and seed alone."""

import math

import pytest
import torch
from torch import nn

from models.convolution import GateConv, initialise
from models.gradient_highway import GradientHighwayUnit
from models.predictor import build
from models.spec import CELLS, INITS
from tests.helpers.tiny import tiny_spec

AUTHORS = INITS[1]


def convolutions(cell: str, init: str, **fields) -> dict[str, nn.Conv2d]:
    """All convolutions of a network wide enough for statistics, by name."""
    spec = tiny_spec(cell, init=init, hidden_channels=(16, 16), highway_slot=1, **fields)
    return {name: module for name, module in build(spec, seed=1).named_modules() if isinstance(module, nn.Conv2d)}


def is_uniform(weight: torch.Tensor, bound: float) -> bool:
    """Within the bound, nearly up to it, with the mean and the spread of a uniform distribution."""
    spread, n = bound / math.sqrt(3), weight.numel()
    return (
        0.95 * bound < weight.abs().max() <= bound
        and abs(weight.mean()) < 4 * spread / math.sqrt(n)
        and abs(weight.std() / spread - 1) < 4 * math.sqrt(0.2 / n)
    )


def exceptions(names: dict[str, nn.Conv2d]) -> set[str]:
    return {name for name in names if name.endswith("conv_memories") or name == "to_frame"}


@pytest.mark.parametrize("equations", ["code", "paper"])
@pytest.mark.parametrize("cell", CELLS)
def test_the_authors_weights_are_uniform_in_a_thousandth_with_two_exceptions(cell, equations):
    found = convolutions(cell, AUTHORS, equations=equations)
    assert len(exceptions(found)) == {"convlstm": 1, "st_lstm": 3, "causal_lstm": 3}.get(cell, len(exceptions(found)))
    for name, convolution in found.items():
        fans = (convolution.in_channels + convolution.out_channels) * convolution.kernel_size[0] ** 2
        bound = math.sqrt(6 / fans) if name in exceptions(found) else 0.001
        assert is_uniform(convolution.weight, bound), name
        assert (convolution.bias == 0).all(), name


@pytest.mark.parametrize("cell", CELLS)
def test_default_weights_and_biases_are_uniform_in_one_over_the_root_of_the_fan_in(cell):
    for name, convolution in convolutions(cell, "default").items():
        bound = 1 / math.sqrt(convolution.in_channels * convolution.kernel_size[0] ** 2)
        assert is_uniform(convolution.weight, bound), name
        assert convolution.bias.abs().max() <= bound, name
        assert convolution.bias.std() > bound / 4, name


@pytest.mark.parametrize("norm", ["channel", "element"])
@pytest.mark.parametrize("init", INITS)
def test_norms_start_as_the_identity_after_standardising(init, norm):
    network = build(tiny_spec("causal_lstm", init=init, norm=norm, highway_slot=1), seed=1)
    norms = {name: value for name, value in network.named_parameters() if ".norm." in name}
    assert len(norms) == 2 * (2 * 6 + 2)  # scale and shift of six gate convolutions a cell and two of the highway
    for name, value in norms.items():
        assert (value == (1 if name.endswith("weight") else 0)).all(), name


def test_an_untrained_highway_halves_its_memory_unless_its_bias_says_otherwise():
    for bias, openness in ((0.0, 0.5), (-3.0, 1 / (1 + math.exp(-3)))):
        spec = tiny_spec("causal_lstm", init=AUTHORS, highway_slot=1, highway_gate_bias=bias)
        trace = {}
        build(spec, seed=1)(torch.rand(1, 4, 1, 8, 8), torch.ones(1, 3), trace)
        for switch in trace["S", 1]:
            assert (1 - switch).mean().item() == pytest.approx(openness, abs=1e-3)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_seed_gives_the_same_weights_whatever_was_drawn_before(cell, init):
    spec = tiny_spec(cell, init=init, highway_slot=1)
    torch.manual_seed(5)
    first = build(spec, seed=1).state_dict()
    torch.rand(7)
    state = torch.get_rng_state()
    second, other = build(spec, seed=1).state_dict(), build(spec, seed=2).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["to_frame.weight"], other["to_frame.weight"])


def biases(cell: str, frames: int | None, **fields) -> tuple[dict, dict]:
    """All weights of a network, and for each of its cells' gates the sum of its learned biases, by channel."""
    network = build(tiny_spec(cell, hidden_channels=(64, 64), chrono_frames=frames, **fields), seed=1)
    sums = {}
    for layer, module in enumerate(network.cells):
        for conv in [child for child in module.children() if isinstance(child, GateConv)]:
            for gate, bias in zip(conv.gates, conv.conv.bias.detach().chunk(len(conv.gates)), strict=True):
                sums[layer, gate] = sums.get((layer, gate), 0) + bias
    return network.state_dict(), sums


@pytest.mark.parametrize("order", ["temporal_to_spatial", "spatial_to_temporal"])
@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("cell", CELLS)
def test_chrono_biases_are_logarithms_of_uniform_times_and_all_else_is_as_before(cell, init, order):
    fields = {"init": init} | ({"memory_order": order} if cell == "causal_lstm" else {})
    (weights, sums), (before, sums_before) = biases(cell, 20, **fields), biases(cell, None, **fields)
    for layer in range(2):
        forget = sums[layer, "f"]
        assert torch.equal(sums[layer, "i"], -forget)
        times = forget.exp()
        assert 1 <= times.min() < 3
        assert 17 < times.max() <= 19
        assert abs(times.mean() - 10) < 4 * (18 / math.sqrt(12)) / math.sqrt(64)
    assert not torch.equal(sums[0, "f"], sums[1, "f"])
    assert all(torch.equal(sums[key], sums_before[key]) for key in sums if key[1] not in ("i", "f"))
    assert all(torch.equal(weights[name], before[name]) for name in weights if not name.endswith("bias"))
    assert tiny_spec(cell, chrono_frames=20).forget_bias == 0


def test_a_spec_without_chrono_says_nothing_of_it():
    assert "chrono_frames" not in tiny_spec("convlstm").to_dict()
    assert tiny_spec("convlstm", chrono_frames=9).to_dict()["chrono_frames"] == 9


def test_chrono_needs_gates_i_and_f():
    spec = tiny_spec("convlstm", highway_slot=1, chrono_frames=9)
    with pytest.raises(ValueError, match="chrono_frames: convlstm has no gates i and f"):
        initialise(GradientHighwayUnit(spec, 3), spec)

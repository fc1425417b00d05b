"""What the fused stages compute, in Triton's interpreter on a CPU; `test_fused_stages.py` runs this file.

In a process of its own: whether kernels are interpreted is settled when Triton is imported.
"""

import copy

import pytest
import torch

from benchmark.config.sections import TrainingConfig
from benchmark.training.acceleration.captured_step import make_step
from benchmark.training.step import Batch, make_optimizer
from models.convolution import SEPARATE, Watched
from models.fast_path import norm_stages, stages
from models.fast_path.fused_plan import Plan
from models.fast_path.fused_roll_out import RollOut
from models.fast_path.joined_weights import padded
from models.fast_path.stage_plans import PLANS
from models.gradient_highway import GradientHighwayUnit
from models.predictor import Predictor, build, cell_class, free_running_mask, to_patches
from models.spec import MEMORY_ORDERS, NORMS, ModelSpec
from tests.helpers.tiny import random_clips, tiny_spec

WIDTHS = 3, 64, 75
BATCH, CONTEXT, HORIZON = 2, 3, 2
FIELDS = [
    {},
    {"highway_slot": 0},
    {"highway_channels": 5},
    {"conv_bias": False},
    {"kernel_size": 5, "forget_bias": 0.5, "highway_gate_bias": -0.7},
    {"kernel_size": 1},
    {"patch_size": 1, "frame_size": 3},  # patches of one channel, padded to 8
    {"hidden_channels": (3, 3, 3), "highway_slot": 2},
]
OF_CAUSAL = [
    {"memory_order": MEMORY_ORDERS[1]},
    {"equations": "paper", "kernel_size": 5},  # W3 of 1x1, no H in o, M in g'
    {"first_gates_see_c": False},
    {"hidden_channels": (4, 9), "highway_slot": 0},
]
CASES = [(cell, fields) for cell in PLANS for fields in FIELDS] + [("causal_lstm", fields) for fields in OF_CAUSAL]
CASES += [(cell, {"hidden_channels": (width, width), "frame_size": 4}) for cell in PLANS for width in WIDTHS]
CASES += [
    ("causal_lstm", {"hidden_channels": (width, 8), "frame_size": 4, "memory_order": MEMORY_ORDERS[1]})
    for width in WIDTHS
]
NORMED = [(cell, {"norm": norm}) for cell in PLANS for norm in NORMS[1:]]
NORMED += [("causal_lstm", OF_CAUSAL[0] | {"norm": "element"}), ("causal_lstm", OF_CAUSAL[1] | {"norm": "channel"})]
NORMED += [("causal_lstm", {"hidden_channels": (4, 9), "highway_slot": 0, "norm": "element"})]
NORMED += [("convlstm", {"norm": "element", "frame_size": 2})]  # a clip of one pixel
NORMED += [("convlstm", {"norm": "channel", "conv_bias": False}), ("st_lstm", {"norm": "channel", "kernel_size": 1})]
NORMED += [
    ("causal_lstm", {"hidden_channels": (width, 3), "frame_size": 4, "norm": norm, "memory_order": order})
    for width, norm, order in zip(
        WIDTHS, ("channel", "element", "channel"), MEMORY_ORDERS + MEMORY_ORDERS, strict=False
    )
]


def fused(network: Predictor, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The predictions by way of the stages, which nothing but the environment asks for."""
    assert network.why_unfused(frames) is None
    return network(frames, mask)


def both_ways(spec: ModelSpec, frames: torch.Tensor, mask: torch.Tensor) -> list[list[torch.Tensor]]:
    """Predictions and gradients of all parameters, on the reference path and by the stages."""
    network, found = build(spec, seed=1).to(frames.dtype), []
    for way in (network, lambda *given: fused(network, *given)):
        network.reference_path = way is network
        predictions = way(frames, mask)
        weights = torch.linspace(-1, 1, predictions.numel(), dtype=frames.dtype).view_as(predictions)
        gradients = torch.autograd.grad((predictions.square() * weights).sum(), list(network.parameters()))
        found.append([predictions.detach(), *gradients])
    return found


@pytest.mark.parametrize(("cell", "fields"), CASES, ids=str)
def test_predictions_and_all_gradients_are_those_of_the_cells(cell, fields):
    spec = tiny_spec(cell, **{"highway_slot": 1} | fields)
    frames = random_clips(spec, BATCH, CONTEXT + HORIZON)
    mask = free_running_mask(BATCH, CONTEXT, HORIZON, frames)
    mask[1, 3] = 0.25  # what a clip sees is its own
    reference, optimised = both_ways(spec, frames, mask)
    for expected, found in zip(reference, optimised, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert all(gradient.abs().max() > 0 for gradient in reference[1:])


@pytest.mark.parametrize("cell", PLANS)
def test_frames_need_not_be_square_and_fill_no_tile(cell):
    frames = torch.rand(3, 4, 1, 6, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reference, optimised = both_ways(tiny_spec(cell, highway_slot=1), frames, torch.ones_like(frames[:, :3, 0, 0, 0]))
    for expected, found in zip(reference, optimised, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("cell", "fields"), NORMED, ids=str)
def test_with_norms_predictions_and_all_gradients_are_those_of_the_cells(cell, fields):
    spec = tiny_spec(cell, **{"highway_slot": 1} | fields)
    frames = random_clips(spec, BATCH, 3)
    mask = free_running_mask(BATCH, 1, 2, frames)
    reference, optimised = both_ways(spec, frames, mask)
    for expected, found in zip(reference, optimised, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert all(gradient.abs().max() > 0 for gradient in reference[1:])


def test_a_norm_sums_over_a_clip_in_parts_that_need_not_be_equal():
    frames = torch.rand(2, 3, 1, 10, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert norm_stages.parts_of(35) == 4  # of 9 pixels, the last one of 8
    spec = tiny_spec("causal_lstm", hidden_channels=(3,), norm="channel")
    reference, optimised = both_ways(spec, frames, torch.ones_like(frames[:, :2, 0, 0, 0]))
    for expected, found in zip(reference, optimised, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_moments_stand_where_the_mean_is_a_thousand_times_the_deviation():
    raw = 1000 + torch.randn(2 * 40, 3 * 8, generator=torch.Generator().manual_seed(0))
    parts, bias = torch.empty(2, norm_stages.parts_of(40), 2), torch.zeros(24)
    norm_stages.moments(raw, bias, parts, 3, 8)
    gates = torch.empty_like(raw)
    ones = torch.ones(1, 24)
    norm_stages.add([raw], [bias], [parts], [ones], [0 * ones], [0, 8, 16], [True], gates, 40, 8)
    expected = torch.nn.functional.layer_norm(raw.double().view(2, -1), (40 * 24,), eps=1e-5).view_as(raw)
    torch.testing.assert_close(gates.double(), expected, rtol=0, atol=5e-4)  # 1000 is known to 3e-5


@pytest.mark.parametrize("cell", PLANS)
def test_in_single_precision_and_without_a_way_back(cell):
    spec = tiny_spec(cell, highway_slot=1)
    frames = random_clips(spec, BATCH, CONTEXT + HORIZON, torch.float32)
    mask = free_running_mask(BATCH, CONTEXT, HORIZON, frames)
    reference, optimised = both_ways(spec, frames, mask)
    for expected, found in zip(reference, optimised, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # one step of buffers serves all
        torch.testing.assert_close(fused(build(spec, seed=1), frames, mask), optimised[0], rtol=0, atol=0)


LOW = [(cell, *low, "none") for low in ((torch.float16, 2.5), (torch.bfloat16, 8)) for cell in PLANS]


@pytest.mark.parametrize(
    ("cell", "low", "times", "norm"), [*LOW, ("causal_lstm", torch.float16, 2.5, "channel")], ids=str
)
def test_low_precision_departs_from_single_precision_as_on_a_cpu(cell, low, times, norm, monkeypatch):
    """The interpreter cuts off what bfloat16 does not hold, where it rounds to float16, and a GPU rounds to either."""
    spec = tiny_spec(cell, highway_slot=1, hidden_channels=(8, 8), norm=norm)
    frames = random_clips(spec, BATCH, 12, torch.float32)
    mask = free_running_mask(BATCH, 6, 6, frames)

    def outcome(precision, way):
        network = build(spec, seed=1)
        with torch.autocast("cpu", low, enabled=precision == "low"):
            predictions = way(network)(frames, mask)
        gradients = torch.autograd.grad(predictions.square().sum(), list(network.parameters()))
        return predictions.detach(), torch.cat([gradient.flatten() for gradient in gradients])

    found = outcome("low", lambda network: lambda *given: fused(network, *given))
    monkeypatch.delenv("TRITON_INTERPRET")  # and what a CPU does by itself is asked for
    exact, on_cpu = outcome("fp32", lambda network: network), outcome("low", lambda network: network)
    assert {one.dtype for one in found} == {torch.float32}
    assert not torch.equal(found[0], found[0].to(low).float())  # frames that are scored are not rounded
    for ours, cpus, true in zip(found, on_cpu, exact, strict=True):
        assert 0 < (ours - true).norm() < times * (cpus - true).norm()


@pytest.mark.parametrize("order", MEMORY_ORDERS)
@pytest.mark.parametrize("cell", PLANS)
def test_the_way_back_passes_gradcheck(cell, order):
    if cell != "causal_lstm" and order != MEMORY_ORDERS[0]:
        pytest.skip("has one order")
    fields = {"memory_order": order} if cell == "causal_lstm" else {}
    spec = tiny_spec(cell, highway_slot=1, hidden_channels=(2, 2), frame_size=4, **fields)
    network, frames = build(spec, seed=1).double(), random_clips(spec, BATCH, 4)
    mask, plan = free_running_mask(BATCH, 2, 2, frames), Plan(network)
    patches = to_patches(frames, spec.patch_size)

    def predict(*parameters):
        return RollOut.apply(plan, patches, mask, torch.float64, *parameters)

    assert torch.autograd.gradcheck(predict, tuple(network.parameters()), fast_mode=True)


@pytest.mark.parametrize(("cell", "norm"), [*zip(PLANS, ("element", "channel", "channel"), strict=True)])
def test_the_way_back_through_norms_passes_gradcheck(cell, norm):
    spec = tiny_spec(cell, hidden_channels=(2,), frame_size=4, norm=norm)
    network, frames = build(spec, seed=1).double(), random_clips(spec, BATCH, 3)
    mask, plan = free_running_mask(BATCH, 1, 2, frames), Plan(network)
    patches, weights = to_patches(frames, spec.patch_size), dict(network.named_parameters())
    for name, weight in weights.items():  # a norm begins with a scale of 1 and a shift of 0
        weight.requires_grad_("norm" in name or "conv_x" in name)

    def predict(*parameters):
        return RollOut.apply(plan, patches, mask, torch.float64, *parameters)

    assert torch.autograd.gradcheck(predict, tuple(weights.values()), fast_mode=True)


class Given:
    """Gates that are given; only W5 is computed."""

    def __init__(self, gates):
        self.gates, self.mix, self.increment = gates, SEPARATE.mix, SEPARATE.increment
        self.read, self.again = lambda *_: None, lambda: self

    def sum(self, names, *_):
        return [self.gates[name] for name in names.split()]


def matrix(image: torch.Tensor, width: int) -> torch.Tensor:
    """(B, D, h, w) -> (rows, D padded)."""
    rows = image.permute(0, 2, 3, 1).reshape(-1, image.shape[1])
    return torch.nn.functional.pad(rows, (0, width - rows.shape[1])).contiguous()


def gates_of(unit, states) -> dict[str, torch.Tensor]:
    """The gates that a cell sums of these states, its norm applied; as leaves."""
    seen: dict[str, torch.Tensor] = {}
    unit(*states, Watched(SEPARATE, seen.__setitem__))
    return {name: gate.detach().requires_grad_() for name, gate in seen.items()}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("order", MEMORY_ORDERS)
@pytest.mark.parametrize("cell", [*PLANS, "highway"])
def test_each_stage_is_the_lines_of_the_cell_that_it_stands_for(cell, order, norm, width):
    if cell != "causal_lstm" and order != MEMORY_ORDERS[0]:
        pytest.skip("has one order")
    fields = {"memory_order": order} if cell == "causal_lstm" else {}
    spec = tiny_spec(cell if cell in PLANS else "convlstm", norm=norm, kernel_size=1, **fields)
    random = torch.Generator().manual_seed(3)
    columns = padded(width)

    def draw(*shape):
        return torch.randn(shape, generator=random, dtype=torch.float64)

    with torch.random.fork_rng():
        torch.manual_seed(1)
        if cell == "highway":
            spec = ModelSpec(
                **spec.to_dict() | {"highway_slot": 1, "highway_channels": width, "highway_gate_bias": 0.3}
            )
            unit = GradientHighwayUnit(spec, 3).double()
        else:
            unit = cell_class(cell)(spec, 3, width, width).double()
    x, h, c, m = draw(2, 3, 4, 4), *(draw(2, width, 4, 4).requires_grad_() for _ in "hcm")
    states = (x, c) if cell == "highway" else (x, h, c, m if "M" in unit.states else None)
    gates = gates_of(unit, states)
    made = unit(*states, Given(gates))
    given = {name: draw(32, columns) for name in "hcmz"}

    def raw(names):
        return torch.cat([matrix(gates[name].detach(), columns) for name in names.split()], dim=1)

    def empty(times=1):
        return torch.full((32, times * columns), torch.nan, dtype=torch.float64)

    def nothing(gates):
        return torch.zeros(gates.shape[1], dtype=torch.float64)

    def held_to(expected, found):
        torch.testing.assert_close(found, matrix(expected.detach(), columns), rtol=1e-12, atol=1e-12)

    def held_back(state, of_state, names, of_raw, memory=None, of_memory=None):
        """The way back: gradients at the gates, and at the memory that was updated."""
        images = of_state.view(2, 4, 4, columns)[..., :width].permute(0, 3, 1, 2)
        leaves = [gates[name] for name in names.split()] + ([] if memory is None else [memory])
        expected = [matrix(one, columns) for one in torch.autograd.grad(state, leaves, images, retain_graph=True)]
        found = [*of_raw.split(columns, dim=1), *([] if memory is None else [of_memory])]
        for one, other in zip(expected, found, strict=True):
            torch.testing.assert_close(other[:, :width], one[:, :width], rtol=1e-11, atol=1e-12)

    def update(names, state, before, constant):
        """Whose memory is `before`, or the tanh of a gate where there is none."""
        own, memory = raw(names), None if before is None else matrix(before.detach(), columns)
        new, target = (None if before is None else empty()), empty()
        stages.update(own, nothing(own), memory, new, [target], constant, False)
        held_to(state, target)
        of_raw, of_memory = torch.full_like(own, torch.nan), None if before is None else empty()
        half = given["c"] / 2  # a gradient comes from several readers
        stages.update_backward(own, nothing(own), memory, None, [half, half], of_raw, of_memory, constant, False)
        held_back(state, given["c"], names, of_raw, before, of_memory)

    if cell == "convlstm":
        own, memory = raw("i f g o"), matrix(c.detach(), columns)
        new, target, of_raw, of_memory = empty(), empty(), torch.full_like(own, torch.nan), empty()
        stages.update(own, nothing(own), memory, new, [target], spec.forget_bias, True)
        held_to(made[0], target)
        held_to(made[1], new)
        arguments = nothing(own), memory, given["c"], [given["h"]], of_raw, of_memory, spec.forget_bias, True
        stages.update_backward(own, *arguments)
        both = (made[0] * as_images(given["h"], width)).sum() + (made[1] * as_images(given["c"], width)).sum()
        expected = torch.autograd.grad(both, [*(gates[name] for name in "ifgo"), c])
        for one, found in zip(expected, [*of_raw.split(columns, 1), of_memory], strict=True):
            torch.testing.assert_close(found[:, :width], matrix(one, columns)[:, :width], rtol=1e-11, atol=1e-12)
        return
    if cell == "highway":
        own, memory = raw("p s"), matrix(c.detach(), columns)
        new, target, of_raw, of_memory = empty(), empty(), torch.full_like(own, torch.nan), empty()
        stages.highway(own, nothing(own), memory, new, [target], spec.highway_gate_bias)
        held_to(made[0], target)
        held_to(made[0], new)
        arguments = nothing(own), memory, given["z"], [given["h"]], of_raw, of_memory, spec.highway_gate_bias
        stages.highway_backward(own, *arguments)
        held_back(made[0], given["z"] + given["h"], "p s", of_raw, c, of_memory)
        return
    new_h, new_c, new_m = made
    update("i f g", new_c, c, spec.forget_bias)
    if cell == "st_lstm":
        update("i' f' g'", new_m, m, spec.forget_bias)
    else:
        update("i' f' g' w3", new_m, None, spec.forget_bias)
    own, both = raw("o"), torch.cat([matrix(new_c.detach(), columns), matrix(new_m.detach(), columns)], dim=1)
    weight = torch.zeros(columns, 2, columns, dtype=torch.float64)
    weight[:width, :, :width] = unit.conv_memories.weight.detach()[:, :, 0, 0].view(width, 2, width)
    weight, bias = weight.flatten(1), torch.nn.functional.pad(unit.conv_memories.bias.detach(), (0, columns - width))
    mixed, target, of_raw, of_mixed, of_both = empty(), empty(), empty(), empty(), empty(2)
    sigmoid = cell == "st_lstm"
    stages.output(own, nothing(own), both, weight, bias, mixed, [target], sigmoid)
    held_to(new_h, target)
    stages.output_backward(own, nothing(own), mixed, weight, [given["h"]], of_raw, of_mixed, of_both, sigmoid)
    held_back(new_h, given["h"], "o", of_raw)
    through = torch.autograd.grad(new_h, [new_c, new_m], as_images(given["h"], width), retain_graph=True)
    for one, found in zip(through, of_both.split(columns, 1), strict=True):
        torch.testing.assert_close(found[:, :width], matrix(one, columns)[:, :width], rtol=1e-11, atol=1e-12)


def as_images(rows: torch.Tensor, width: int) -> torch.Tensor:
    """(32, D padded) -> (2, D, 4, 4)."""
    return rows.view(2, 4, 4, -1)[..., :width].permute(0, 3, 1, 2)


def test_a_second_way_back_finds_the_same():
    spec = tiny_spec("causal_lstm", highway_slot=1)
    network, frames = build(spec, seed=1).double(), random_clips(spec, BATCH, 4)
    loss = fused(network, frames, torch.ones(BATCH, 3, dtype=torch.float64)).square().sum()
    weights = list(network.parameters())
    first = torch.autograd.grad(loss, weights, retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(loss, weights)))


def test_a_step_of_training_is_that_of_the_reference_path():
    spec, training = tiny_spec("causal_lstm", highway_slot=1), TrainingConfig(steps=9, batch_size=2, learning_rate=0.01)
    frames, found = random_clips(spec, BATCH, 4), []
    for reference_path in (True, False):
        network = build(spec, seed=1).double()
        network.reference_path = reference_path
        step = make_step(network, make_optimizer(network, training), training)
        losses = [step(Batch(frames, frames, torch.ones_like(frames[:, 1:, 0, 0, 0]))).loss for _ in range(3)]
        found.append([*losses, *network.parameters()])
    for expected, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-10)


def test_weights_that_were_replaced_are_those_that_count():
    spec = tiny_spec("convlstm", highway_slot=1)
    network, other = (build(spec, seed).double() for seed in (1, 2))
    frames = random_clips(spec, BATCH, 3)
    mask = torch.ones(BATCH, 2, dtype=torch.float64)
    fused(network, frames, mask)
    network.load_state_dict(other.state_dict(), assign=True)
    assert torch.equal(fused(network, frames, mask), fused(other, frames, mask))


def test_a_copy_of_a_network_has_weights_of_its_own():
    spec = tiny_spec("causal_lstm", highway_slot=1)
    network, frames = build(spec, seed=1).double(), random_clips(spec, BATCH, 3)
    mask = torch.ones(BATCH, 2, dtype=torch.float64)
    before, other = fused(network, frames, mask), copy.deepcopy(network)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(2)
    assert not torch.equal(fused(other, frames, mask), before)
    assert torch.equal(fused(network, frames, mask), before)

"""The optimised path gives what the reference path gives: predictions, gradients, whole trainings."""

import weakref

import pytest
import torch

from benchmark.config.sections import TrainingConfig
from benchmark.training.step import Batch, make_optimizer, train_one_step
from models.convolution import GateConv
from models.fast_path.merged_gates import Merged
from models.fast_path.winograd import Winograd, to_tiles
from models.predictor import Predictor, build, free_running_mask
from models.spec import CELLS, NORMS, ModelSpec
from tests.helpers.tiny import random_clips, tiny_spec

CONTEXT, HORIZON = 3, 2
FIELDS = [
    *({"kernel_size": size} for size in (1, 3, 5, 7)),
    *({"norm": norm} for norm in NORMS),
    {"conv_bias": False},
    {"equations": "paper", "kernel_size": 5},
    {"frame_size": 10, "kernel_size": 5},  # grid of 5 by 5: tiles of 4 do not fill it
    {"frame_size": 4},  # grid of 2 by 2, smaller than a tile
    {"highway_slot": 0},
]
CASES = [(cell, fields) for cell in CELLS for fields in FIELDS]
CASES += [("causal_lstm", {"memory_order": "spatial_to_temporal"}), ("causal_lstm", {"hidden_channels": (4, 2)})]


def paths(spec: ModelSpec, dtype: torch.dtype = torch.float64) -> list[Predictor]:
    """The same network on the reference and on the optimised path."""
    networks = [build(spec, seed=1).to(dtype), build(spec, seed=1).to(dtype)]
    networks[0].reference_path = True
    return networks


@pytest.mark.parametrize(("cell", "fields"), CASES, ids=lambda value: str(value))
def test_predictions_and_all_gradients_are_those_of_the_plain_path(cell, fields):
    spec = tiny_spec(cell, **{"highway_slot": 1} | fields)
    results = []
    for network in paths(spec):
        frames = random_clips(spec, batch=2, frames=CONTEXT + HORIZON).requires_grad_()
        predictions = network(frames, free_running_mask(2, CONTEXT, HORIZON, frames))
        predictions.square().sum().backward()
        results.append([predictions.detach(), frames.grad, *(parameter.grad for parameter in network.parameters())])
    for reference, optimised in zip(*results, strict=True):
        torch.testing.assert_close(optimised, reference, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_frames_need_not_be_square(cell):
    frames = torch.rand(2, 4, 1, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reference, optimised = (
        network(frames, torch.ones_like(frames[:, :3, 0, 0, 0])) for network in paths(tiny_spec(cell))
    )
    assert reference.shape == (2, 3, 1, 8, 12)
    torch.testing.assert_close(optimised, reference, rtol=1e-10, atol=1e-12)


def losses_of_training(network: Predictor, dtype: torch.dtype) -> list[float]:
    training = TrainingConfig(steps=20, batch_size=2, learning_rate=1e-3)
    frames = random_clips(network.spec, batch=2, frames=6, dtype=dtype)
    optimizer, mask = make_optimizer(network, training), free_running_mask(2, 3, 3, frames)
    return [train_one_step(network, optimizer, Batch(frames, frames, mask), training).loss.item() for _ in range(20)]


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("cell", CELLS)
def test_twenty_steps_of_training_end_at_the_weights_of_the_plain_path(cell, kernel_size):
    reference, optimised = paths(tiny_spec(cell, highway_slot=1, kernel_size=kernel_size))
    for network in (reference, optimised):
        losses_of_training(network, torch.float64)
    for name, weights in reference.state_dict().items():
        torch.testing.assert_close(optimised.state_dict()[name], weights, rtol=0, atol=1e-9)
    assert not torch.equal(reference.to_frame.weight, build(reference.spec, seed=1).double().to_frame.weight)


@pytest.mark.parametrize("cell", CELLS)
def test_twenty_losses_in_single_precision_are_those_of_the_plain_path(cell):
    spec = tiny_spec(cell, highway_slot=1, kernel_size=5, hidden_channels=(8, 8), frame_size=16)
    reference, optimised = (losses_of_training(network, torch.float32) for network in paths(spec, torch.float32))
    assert reference == pytest.approx(optimised, rel=1e-4)
    assert reference != optimised


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("size", [3, 4, 6])
def test_winograd_passes_gradcheck(kernel_size, size):
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_()

    first, second, bias = draw(2, 2, size, size), draw(2, 3, size, size), draw(4)
    kernels = draw(4, 2, kernel_size, kernel_size), draw(4, 3, kernel_size, kernel_size)

    def convolve(first, second, bias, *kernels):
        convolution = Winograd(kernels, bias)
        tiles = [to_tiles(source, kernel_size) for source in (first, second)]
        again = [to_tiles(source, kernel_size) for source in (2 * second[:, :2], first.repeat(1, 2, 1, 1)[:, :3])]
        batch = first.shape[:1]
        return *convolution(tiles, 2, batch, size), *convolution(again, 2, batch, size)

    assert torch.autograd.gradcheck(convolve, (first, second, bias, *kernels))
    joined = torch.nn.functional.conv2d(
        torch.cat([first, second], 1), torch.cat(kernels, 1), bias, padding=kernel_size // 2
    )
    torch.testing.assert_close(torch.cat(convolve(first, second, bias, *kernels)[:2], 1), joined)


def test_a_second_backward_pass_through_the_same_roll_out_gives_the_same_gradients():
    spec = tiny_spec("causal_lstm", highway_slot=1)
    network = build(spec, seed=1).double()
    frames = random_clips(spec, batch=2, frames=4)
    loss = network(frames, torch.ones(2, 3, dtype=torch.float64)).square().sum()
    weights = list(network.parameters())
    first = torch.autograd.grad(loss, weights, retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(loss, weights)))


def test_gradients_of_states_taken_first_leave_no_trace_in_those_of_weights():
    spec = tiny_spec("causal_lstm", highway_slot=1)
    network = build(spec, seed=1).double()
    frames = random_clips(spec, batch=2, frames=4).requires_grad_()
    loss = network(frames, torch.ones(2, 3, dtype=torch.float64)).square().sum()
    weights = list(network.parameters())
    alone = torch.autograd.grad(loss, weights, retain_graph=True)
    torch.autograd.grad(loss, frames, retain_graph=True)
    assert all(map(torch.equal, alone, torch.autograd.grad(loss, weights)))


def test_under_autocast_states_stay_in_single_precision():
    spec = tiny_spec("causal_lstm", highway_slot=1, kernel_size=5)
    trace = {}
    with torch.autocast("cpu", torch.bfloat16):
        frames = random_clips(spec, batch=2, frames=4, dtype=torch.float32)
        build(spec, seed=1)(frames, torch.ones(2, 3), trace)
    assert {state.dtype for states in trace.values() for state in states} == {torch.float32}


@pytest.mark.parametrize("low_precision", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kernel_size", [3, 7], ids=["Winograd", "direct"])
def test_without_a_way_back_no_state_is_kept_once_it_is_read(kernel_size, low_precision):
    alive, conv = [], GateConv(tiny_spec("convlstm", kernel_size=kernel_size), 2, width=1, gates="i")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=low_precision):
        gates = Merged("cpu")
        for _ in range(3):
            source = torch.rand(1, 2, 8, 8)
            alive.append(weakref.ref(source))
            gates.sum("i", gates.read(conv, source))
        del source
    assert [one() for one in alive] == [None] * 3


@pytest.mark.parametrize("size", [(8, 8), (8, 12)], ids=["square", "not square"])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_under_autocast_a_cpu_rounds_what_convolutions_read_and_adds_up_in_single_precision(kernel_size, size):
    rounds_to_1 = 1 + 2**-9
    conv = GateConv(tiny_spec("convlstm", kernel_size=kernel_size, conv_bias=False), 2, width=1, gates="i")
    torch.nn.init.constant_(conv.conv.weight, rounds_to_1)
    source = torch.full((1, 2, *size), rounds_to_1, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        gates = Merged("cpu")
        (gate,) = gates.sum("i", gates.read(conv, source))
    taps = torch.nn.functional.conv2d(
        torch.ones(1, 2, *size), torch.ones_like(conv.conv.weight), padding=kernel_size // 2
    )
    torch.testing.assert_close(gate, taps, rtol=0, atol=0)
    signs = torch.ones(size).index_fill(0, torch.arange(4), -rounds_to_1)  # gradients are rounded, too
    (gate * signs).sum().backward()
    center = conv.conv.weight.grad[0, :, kernel_size // 2, kernel_size // 2]
    torch.testing.assert_close(center, torch.zeros(2), rtol=0, atol=1e-4)


@pytest.mark.parametrize("reference", [True, False], ids=["reference", "optimised"])
@pytest.mark.parametrize("cell", CELLS)
def test_recomputation_changes_no_prediction_and_no_gradient(cell, reference):
    spec = tiny_spec(cell, highway_slot=1, kernel_size=5)
    results = []
    for recompute in (False, True):
        network = build(spec, seed=1).double()
        network.reference_path, network.recompute = reference, recompute
        frames = random_clips(spec, batch=2, frames=CONTEXT + HORIZON)
        predictions = network(frames, free_running_mask(2, CONTEXT, HORIZON, frames))
        predictions.square().sum().backward()
        results.append([predictions.detach(), *(parameter.grad for parameter in network.parameters())])
    for kept, computed_again in zip(*results, strict=True):
        torch.testing.assert_close(computed_again, kept, rtol=1e-12, atol=1e-14)


def test_recomputation_keeps_fewer_activations():
    spec = tiny_spec("causal_lstm", highway_slot=1, kernel_size=5)
    kept = []
    for recompute in (False, True):
        network, sizes = build(spec, seed=1), []
        network.recompute = recompute
        frames = random_clips(spec, batch=2, frames=12, dtype=torch.float32)

        def count(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            network(frames, torch.ones(2, 11))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 3

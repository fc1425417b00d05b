"""What every cell in the registry must keep, alone and with a highway; a new cell is tested without writing a test."""

import io

import pytest
import torch

from benchmark.config.sections import TrainingConfig
from benchmark.training.step import Batch, make_optimizer, train_one_step
from models.convolution import SWITCH, TANH
from models.predictor import Cut, Predictor, build, cell_class, free_running_mask
from models.spec import CELLS, NORMS, ModelSpec
from tests.helpers.tiny import random_clips, states_of, tiny_spec

CONTEXT = 3


@pytest.fixture(params=[0, 1], ids=["", "ghu"])
def slot(request) -> int:
    return request.param


@pytest.fixture(params=CELLS)
def spec(request, slot) -> ModelSpec:
    return tiny_spec(request.param, highway_slot=slot)


@pytest.fixture
def network(spec) -> Predictor:
    return build(spec, seed=1).double()


@pytest.fixture
def frames(spec) -> torch.Tensor:
    return random_clips(spec, batch=2, frames=6)


def all_true(frames: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(frames), frames.shape[1] - 1, dtype=frames.dtype)


def gradient_at_context(
    network: Predictor, frames: torch.Tensor, horizon: int, cut: Cut | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Free-running predictions, and the gradient of the last one's sum at the context frames."""
    used = frames[:, : CONTEXT + horizon].clone().requires_grad_()
    predictions = network(used, free_running_mask(len(frames), CONTEXT, horizon, frames), cut=cut)
    (gradient,) = torch.autograd.grad(predictions[:, -1].sum(), used)
    return predictions.detach(), gradient[:, :CONTEXT]


def test_predictions_and_states_have_the_shapes_of_the_spec(network, spec, frames):
    trace = {}
    predictions = network(frames, all_true(frames), trace)
    steps = frames.shape[1] - 1
    assert predictions.shape == (2, steps, spec.channels, spec.frame_size, spec.frame_size)
    states = states_of(network)
    assert {name for name, _ in trace} == states | ({"Z", "S"} if spec.highway_slot else set())
    assert "H" in states
    assert states == set(cell_class(spec.cell).states)
    for (name, layer), states in trace.items():
        width = spec.highway_channels if name in "ZS" else spec.hidden_channels[layer - 1]
        assert [state.shape for state in states] == [(2, width, spec.patches, spec.patches)] * steps
        assert all(state.isfinite().all() for state in states)


def test_the_cell_declares_the_nonlinearity_of_every_sum_it_asks_for_and_of_no_other(network, spec, frames):
    gates = {}
    network(frames, all_true(frames), gate_trace=gates)
    declared = dict(cell_class(spec.cell).nonlinearities)
    declared |= {"p": TANH, "s": SWITCH} if spec.highway_slot else {}
    assert {name for name, _ in gates} == set(declared)
    assert {nonlinearity.bias for nonlinearity in declared.values() if nonlinearity} <= {None, *spec.to_dict()}


def test_what_the_cell_keeps_is_a_state_of_its_own_times_a_sigmoid_gate(spec):
    cell = cell_class(spec.cell)
    for memory, keep in getattr(cell, "keeps", {}).items():
        assert memory in cell.states
        assert cell.nonlinearities[keep.gate].function == "sigmoid"


def test_a_prediction_depends_on_no_later_frame(network, frames):
    before = network(frames, all_true(frames))
    for changed in range(frames.shape[1]):
        other = frames.clone()
        other[:, changed] = 1 - other[:, changed]
        after = network(other, all_true(frames))
        assert torch.equal(after[:, :changed], before[:, :changed])
        assert not (after[:, changed:] == before[:, changed:]).flatten(2).all(2).any()


def test_a_clip_does_not_depend_on_the_others_in_its_batch(network, frames):
    together = network(frames, all_true(frames))
    other = frames.clone()
    other[0] = 1 - other[0]
    assert torch.equal(network(other, all_true(frames))[1], together[1])
    alone = network(frames[1:], all_true(frames[1:]))
    torch.testing.assert_close(alone, together[1:], rtol=1e-12, atol=1e-12)


def test_forward_and_backward_are_deterministic(network, frames):
    results = []
    for _ in range(2):
        network.zero_grad()
        predictions = network(frames, all_true(frames))
        predictions.square().sum().backward()
        results.append([predictions.detach(), *(parameter.grad.clone() for parameter in network.parameters())])
    assert all(map(torch.equal, *results))


def test_predict_feeds_on_its_own_predictions(network, frames):
    context, horizon = frames[:, :CONTEXT], 3
    predicted = network.predict(context, horizon)
    shown = torch.cat([context, predicted], dim=1)
    again = network(shown, all_true(shown))[:, CONTEXT - 1 :]
    torch.testing.assert_close(again, predicted, rtol=1e-12, atol=1e-12)


def test_gradient_of_the_last_prediction_reaches_every_pixel_of_the_first_frame(network, frames):
    _, gradient = gradient_at_context(network, frames, horizon=3)
    assert (gradient[:, 0] != 0).all()


def test_state_dict_makes_the_same_network(network, spec, frames):
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other = build(spec, seed=2).double()
    expected = network(frames, all_true(frames))
    assert not torch.equal(other(frames, all_true(frames)), expected)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(frames, all_true(frames)), expected)


def test_training_saved_and_loaded_goes_on_to_the_same_weights(spec, frames):
    training = TrainingConfig(steps=4, batch_size=2, learning_rate=1e-3)
    clips, mask = frames.float(), all_true(frames).float()

    def train(steps: int, state: bytes | None) -> bytes:
        network = build(spec, seed=1)
        parts = {"network": network, "optimizer": make_optimizer(network, training)}
        if state:
            for name, values in torch.load(io.BytesIO(state), weights_only=True).items():
                parts[name].load_state_dict(values)
        for _ in range(steps):
            train_one_step(network, parts["optimizer"], Batch(clips, clips, mask), training)
        file = io.BytesIO()
        torch.save({name: part.state_dict() for name, part in parts.items()}, file)
        return file.getvalue()

    paused, straight = train(2, train(2, None)), train(4, None)
    weights = [torch.load(io.BytesIO(state), weights_only=True)["network"] for state in (paused, straight)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    assert not torch.equal(weights[1]["to_frame.weight"], build(spec, seed=1).to_frame.weight)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("cell", CELLS)
def test_bf16_agrees_with_fp32_to_2_percent_and_its_gradient_to_5_percent(cell, norm):
    spec = tiny_spec(cell, norm=norm, highway_slot=1)
    frames = random_clips(spec, batch=2, frames=6, dtype=torch.float32)
    results = []
    for low_precision in (False, True):
        network = build(spec, seed=1)
        with torch.autocast("cpu", torch.bfloat16, enabled=low_precision):
            predictions = network(frames, all_true(frames))
        (predictions.float() - frames[:, 1:]).square().mean().backward()
        gradient = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
        results.append((predictions.float().detach(), gradient))
    (fp32, fp32_gradient), (bf16, bf16_gradient) = results
    assert 0 < (bf16 - fp32).norm() / fp32.norm() < 0.02
    assert 0 < (bf16_gradient - fp32_gradient).norm() / fp32_gradient.norm() < 0.05


@pytest.mark.parametrize("kept", ["memory", "frames"])
def test_a_cut_changes_gradients_but_no_prediction(network, frames, kept):
    predictions, gradient = gradient_at_context(network, frames, horizon=3)
    with_cut, through_one = gradient_at_context(network, frames, horizon=3, cut=Cut(kept=kept, first=CONTEXT))
    assert torch.equal(with_cut, predictions)
    assert not torch.allclose(through_one, gradient, rtol=1e-3)
    assert (through_one != 0).all()


def test_memory_and_generated_frames_are_all_paths_of_a_horizon_of_two_and_not_of_three(network, frames):
    def gradients(horizon: int) -> tuple[torch.Tensor, torch.Tensor]:
        cuts = [Cut(kept="memory", first=CONTEXT), Cut(kept="frames", first=CONTEXT)]
        parts = [gradient_at_context(network, frames, horizon, cut)[1] for cut in cuts]
        return gradient_at_context(network, frames, horizon)[1], sum(parts)

    whole, parts = gradients(2)
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-15)
    whole, parts = gradients(3)
    assert not torch.allclose(parts, whole, rtol=1e-6)


def test_a_horizon_of_one_has_nothing_to_cut(network, frames):
    whole = gradient_at_context(network, frames, horizon=1)[1]
    for kept in ("memory", "frames"):
        assert torch.equal(gradient_at_context(network, frames, 1, Cut(kept=kept, first=CONTEXT))[1], whole)

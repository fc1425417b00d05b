"""The whole predictor, held against the loops: predictions, every state at every step, and gradients."""

import numpy as np
import pytest
import torch

from models.predictor import Predictor, Truncation, to_frames, to_patches
from models.spec import ModelSpec
from tests.reference import network
from tests.reference.cells import details
from tests.reference.complex_step import derivative

CASES = {
    "one layer": {"cell": "causal_lstm", "hidden_channels": (2,)},
    "convlstm": {"cell": "convlstm", "hidden_channels": (2, 3, 2), "forget_bias": 0.0},
    "convlstm-ghu": {"cell": "convlstm", "hidden_channels": (3, 2), "highway_slot": 1, "norm": "channel"},
    "predrnn": {"cell": "st_lstm", "hidden_channels": (2, 2, 2), "norm": "element"},
    "predrnn-ghu": {"cell": "st_lstm", "hidden_channels": (2, 2, 2), "highway_slot": 2, "highway_channels": 3},
    "convgru": {"cell": "conv_gru", "hidden_channels": (2, 3), "norm": "channel"},
    "convgru-ghu": {"cell": "conv_gru", "hidden_channels": (3, 2), "highway_slot": 1},
    "linear-recurrence": {"cell": "linear_recurrence", "hidden_channels": (2, 3, 2)},
    "linear-recurrence-ghu": {"cell": "linear_recurrence", "hidden_channels": (2, 2), "highway_slot": 1},
    "causal-lstm": {"cell": "causal_lstm", "hidden_channels": (3, 2, 4), "norm": "channel", "conv_bias": False},
    "causal-lstm-s2t": {"cell": "causal_lstm", "hidden_channels": (2, 3), "memory_order": "spatial_to_temporal"},
    "predrnnpp": {"cell": "causal_lstm", "hidden_channels": (3, 2, 2), "highway_slot": 1, "norm": "channel"},
    "predrnnpp-paper": {
        "cell": "causal_lstm",
        "hidden_channels": (3, 2),
        "highway_slot": 1,
        "highway_channels": 1,
        "highway_gate_bias": -1.0,
        "equations": "paper",
        "norm": "element",
    },
    "predrnnpp-middle": {"cell": "causal_lstm", "hidden_channels": (2, 3, 2, 2), "highway_slot": 2},
    "predrnnpp-top": {"cell": "causal_lstm", "hidden_channels": (2, 2, 2, 2), "highway_slot": 3, "equations": "paper"},
}
SHAPE = (2, 5, 2, 4, 4)  # two clips of five frames with two channels; patches of 2 give a 2 x 2 grid
FEED_MASK = np.array([[1, 1, 0, 1], [1, 0, 0, 1]])
LOOP_FIELDS = ("norm", "equations", "memory_order", "conv_bias", "forget_bias", "highway_gate_bias")


Case = tuple[Predictor, dict, torch.Tensor]


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request) -> Case:
    """A network in float64, all weights random and of order 1, the fields it was made of, and frames."""
    spec = ModelSpec(frame_size=4, patch_size=2, channels=2, kernel_size=3, **request.param)
    random = torch.Generator().manual_seed(0)
    predictor = Predictor(spec).double()
    for parameter in predictor.parameters():
        parameter.data.normal_(0, 0.5, generator=random)
    return predictor, request.param, torch.rand(SHAPE, generator=random, dtype=torch.float64)


def run_loops(fields: dict, weights: dict, frames: np.ndarray, **options) -> np.ndarray:
    """The predictions of the loops for both clips."""
    slot, widths = fields.get("highway_slot", 0), fields["hidden_channels"]
    shape = {
        "cell": fields["cell"],
        "widths": widths,
        "patch_size": 2,
        "slot": slot,
        "highway_width": fields.get("highway_channels", widths[slot - 1]),
    }
    given = details(**{name: fields[name] for name in LOOP_FIELDS if name in fields})
    clips = zip(frames, FEED_MASK, strict=True)
    return np.stack([network.roll_out(weights, given, clip, mask, **shape, **options) for clip, mask in clips])


def weights_of(predictor: Predictor) -> dict[str, np.ndarray]:
    return {name: parameter.detach().numpy() for name, parameter in predictor.named_parameters()}


def test_predictions_and_states_agree_with_the_loops(case):
    predictor, fields, frames = case
    trace, seen = {}, {}

    def visit(name, layer, t, value):
        if name in {*"HCMZS"}:
            seen.setdefault((name, layer, t), []).append(value)
        return value

    predictions = predictor(frames, torch.from_numpy(FEED_MASK).double(), trace)
    expected = run_loops(fields, weights_of(predictor), frames.numpy(), visit=visit)
    assert np.abs(predictions.detach().numpy() - expected).max() < 1e-10 * np.abs(expected).max()
    ours = {(*key, t): state for key, steps in trace.items() for t, state in enumerate(steps, start=1)}
    assert set(ours) == set(seen)
    for key, clips in seen.items():
        assert np.abs(ours[key].detach().numpy() - np.stack(clips)).max() < 1e-10 * np.abs(clips).max(), key


def test_gradients_agree_with_complex_steps(case):
    predictor, fields, frames = case
    random = np.random.default_rng(0)
    frames.requires_grad_()
    predictions = predictor(frames, torch.from_numpy(FEED_MASK).double())
    cotangent = random.standard_normal(predictions.shape)
    predictions.backward(torch.from_numpy(cotangent))
    gradients = {"frames": frames.grad.numpy()} | {n: p.grad.numpy() for n, p in predictor.named_parameters()}
    at = {"frames": frames.detach().numpy()} | weights_of(predictor)

    def scalar(arrays):
        weights = {name: array for name, array in arrays.items() if name != "frames"}
        return (run_loops(fields, weights, arrays["frames"]) * cotangent).sum()

    for names in (["frames"], list(weights_of(predictor)), list(at)):
        direction = {name: random.standard_normal(at[name].shape) for name in names}
        expected = derivative(scalar, at, direction)
        ours = sum((gradients[name] * direction[name]).sum() for name in names)
        scale = max(np.abs(gradients[name]).max() for name in names)
        assert abs(ours - expected) < 1e-10 * scale


def test_truncated_gradient_is_that_of_steps_that_read_constants(case):
    predictor, _, frames = case
    flows = torch.tensor([[1, 1, 0, 1], [0, 0, 1, 1]]).double()
    mask = torch.from_numpy(FEED_MASK).double()
    cotangent = torch.rand(2, 4, *SHAPE[2:], generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    parameters = list(predictor.parameters())
    predictions = predictor(frames, mask, cut=Truncation(flows))
    found = torch.autograd.grad((predictions * cotangent).sum(), parameters)
    assert torch.equal(predictions, predictor(frames, mask))

    total = torch.zeros(())
    for clip in range(2):
        patches, states = to_patches(frames[clip : clip + 1], 2), None
        prediction = patches[:, 0]
        for t in range(4):
            if t and not flows[clip, t]:
                prediction = prediction.detach()
                states = {name: None if state is None else state.detach() for name, state in states.items()}
            x = patches[:, t] if FEED_MASK[clip, t] else prediction
            prediction, states = predictor.step(x, states)
            total = total + (to_frames(prediction[:, None], 2)[0, 0] * cotangent[clip, t]).sum()
    expected = torch.autograd.grad(total, parameters, materialize_grads=True)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12 * float(theirs.abs().max()))


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_are_folded_and_unfolded_as_in_the_loops(channels):
    frames = torch.rand(1, 1, channels, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    folded = to_patches(frames, 3)
    assert np.array_equal(folded[0, 0].numpy(), network.to_patches(frames[0, 0].numpy(), 3))
    assert torch.equal(to_frames(folded, 3), frames)
    assert np.array_equal(network.to_frame(folded[0, 0].numpy(), 3), frames[0, 0].numpy())


def test_gradcheck():
    spec = ModelSpec(
        cell="causal_lstm", hidden_channels=(2, 2), frame_size=4, patch_size=2, kernel_size=3, highway_slot=1
    )
    torch.manual_seed(0)
    frames = torch.rand(1, 4, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(Predictor(spec).double(), (frames, mask), fast_mode=True)

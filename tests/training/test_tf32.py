"""TF32 is on where a run asks for it, in the forward and in the backward pass, and nowhere else."""

import pytest
import torch

from benchmark.config.sections import TrainingConfig
from benchmark.training import step as engine
from benchmark.training.acceleration.stacked_step import Member, StackedStep
from models.precision import tensor_cores
from models.predictor import build, predict
from tests.helpers.tiny import random_clips, tiny_spec

BACKENDS = torch.backends.cuda.matmul, torch.backends.cudnn


def allowed():
    return [backend.allow_tf32 for backend in BACKENDS]


@pytest.fixture(autouse=True)
def off():
    before = allowed()
    for backend in BACKENDS:
        backend.allow_tf32 = False
    yield
    for backend, allow in zip(BACKENDS, before, strict=True):
        backend.allow_tf32 = allow


@pytest.mark.parametrize(
    ("precision", "device", "inside"),
    [("tf32", "cuda", True), ("tf32", "cpu", False), ("fp32", "cuda", False), ("bf16", "cuda", False)],
)
def test_it_is_on_inside_and_as_before_outside(precision, device, inside):
    with tensor_cores(precision, device):
        assert allowed() == [inside] * 2
    assert allowed() == [False] * 2


def test_it_is_off_again_after_an_error():
    with pytest.raises(ZeroDivisionError), tensor_cores("tf32", "cuda"):
        raise ZeroDivisionError
    assert allowed() == [False] * 2


def test_what_was_on_before_stays_on():
    torch.backends.cudnn.allow_tf32 = True
    with tensor_cores("tf32", "cuda"):
        pass
    assert allowed() == [False, True]


@pytest.fixture
def seen(monkeypatch):
    """What is allowed at each convolution, forward and backward, of tensors that are said to be on a GPU."""
    found = {"forward": set(), "backward": set()}

    class Noted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            found["forward"].add(tuple(allowed()))
            return x.view_as(x)

        @staticmethod
        def backward(ctx, gradient):
            found["backward"].add(tuple(allowed()))
            return gradient

    def on_a_gpu(precision, device):
        return tensor_cores(precision, "cuda")

    convolve = torch.nn.Conv2d.forward
    monkeypatch.setattr(torch.nn.Conv2d, "forward", lambda conv, x: Noted.apply(convolve(conv, x)))
    for module in ("benchmark.training.step", "benchmark.training.acceleration.stacked_step", "models.predictor"):
        monkeypatch.setattr(f"{module}.tensor_cores", on_a_gpu)
    return found


def a_run(precision):
    """Network, optimiser, batch and settings."""
    training = TrainingConfig(steps=2, batch_size=2, learning_rate=0.01, precision=precision)
    network = build(tiny_spec("convlstm", norm="channel"), seed=1)  # a norm leaves convolutions as they are
    frames = random_clips(network.spec, 2, 4, torch.float32)
    batch = engine.Batch(frames, frames, torch.ones(2, 3))
    return network, engine.make_optimizer(network, training), batch, training


@pytest.mark.parametrize(("precision", "on"), [("fp32", False), ("tf32", True)])
def test_both_ways_of_a_training_step_have_it(seen, precision, on):
    engine.train_one_step(*a_run(precision))
    assert seen == {"forward": {(on, on)}, "backward": {(on, on)}}
    assert allowed() == [False] * 2


@pytest.mark.parametrize(("precision", "on"), [("fp32", False), ("tf32", True)])
def test_a_forecast_has_it(seen, precision, on):
    network, _, batch, _ = a_run(precision)
    predict(network, batch.frames[:, :2], 2, precision)
    assert seen == {"forward": {(on, on)}, "backward": set()}


@pytest.mark.parametrize(("precision", "on"), [("fp32", False), ("tf32", True)])
def test_both_ways_of_a_stacked_step_have_it(seen, precision, on):
    members = []
    for _ in range(2):
        network, optimizer, batch, training = a_run(precision)
        members.append(Member(network, optimizer, training))
    StackedStep(members)(engine.Batch(*(torch.stack([part, part]) for part in batch)))
    assert seen == {"forward": {(on, on)}, "backward": {(on, on)}}

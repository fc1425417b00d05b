"""What a GPU does in training never waits for the host and keeps to its device: shown without one."""

import contextlib

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from benchmark.config.data_sections import DigitsConfig
from benchmark.config.metrics import CONVENTIONS, HEADLINE, METRICS
from benchmark.config.sections import SamplingConfig, TrainingConfig
from benchmark.data.moving_digits.clips import DigitClips
from benchmark.data.moving_digits.stream import ClipStream
from benchmark.data.still_digits.bank import DigitBank
from benchmark.evaluation.gate_saturation import saturated
from benchmark.evaluation.gradient_probe import roll_out
from benchmark.evaluation.metric_functions import bring_to, compute
from benchmark.training import step as engine
from benchmark.training.masks import feed_mask
from models.predictor import build, free_running_mask
from models.spec import CELLS, ModelSpec
from tests.helpers.pretended import NoWaiting, Waited, devices, pretended_gpu


@pytest.fixture(autouse=True)
def gpu():
    with pretended_gpu():
        yield


@contextlib.contextmanager
def low_precision():
    """`torch.autocast` in bfloat16 without asking for a driver; CUDA's own choice is float16."""
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", before)


def test_low_precision_is_bfloat16_as_in_a_training():
    with low_precision():
        convolved = torch.nn.functional.conv2d(torch.rand(1, 1, 4, 4), torch.rand(1, 1, 3, 3))
    assert convolved.dtype is torch.bfloat16


def in_precision(precision, device):
    """In place of `engine.low_precision`, whose `torch.autocast` asks for a driver."""
    return low_precision() if precision == "bf16" else contextlib.nullcontext()


def no_way_back(network, loss):
    """In place of `engine.backward`, which needs a driver."""
    return [torch.empty_like(weights) for weights in network.parameters()]


def take_steps(spec, reference=False, backward=no_way_back, **keys):
    """Two optimiser steps; returns loss and norm of the second."""
    settings = TrainingConfig(**{"steps": 10, "batch_size": 2, "learning_rate": 0.01, "clip_norm": 1.0} | keys)
    network = build(spec, 1)
    network.reference_path = reference
    engine.set_computation(network, settings)
    optimizer = engine.make_optimizer(network, settings)
    frames = torch.rand(2, 4, 1, 16, 16)
    mask = free_running_mask(2, 2, 2, frames)
    batch = engine.Batch(frames, frames, mask)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "low_precision", in_precision)
        patch.setattr(engine, "backward", backward)
        engine.forward(network, batch, settings)  # the plan of its stages goes to the device once
        with NoWaiting():
            for _ in range(2):
                found = engine.train_one_step(network, optimizer, batch, settings)
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("reference", [True, False], ids=["reference", "optimised"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_step_waits_for_nothing(cell, reference, precision):
    spec = ModelSpec(cell=cell, hidden_channels=(8, 8), frame_size=16, highway_slot=1)
    assert devices(take_steps(spec, reference, precision=precision)) == {"cuda"}


@pytest.mark.parametrize(
    "keys",
    [{"recompute": True}, {"on_divergence": "lower_lr"}, {"loss": "l1+l2"}, {"clip_norm": None}],
    ids=str,
)
@pytest.mark.parametrize("norm", ["none", "element"])
def test_no_setting_makes_a_step_wait(keys, norm):
    spec = ModelSpec(cell="causal_lstm", hidden_channels=(8, 8), frame_size=16, highway_slot=1, norm=norm)
    assert devices(take_steps(spec, precision="bf16", **keys)) == {"cuda"}


@pytest.mark.parametrize("keys", [{}, {"recompute": True}, {"precision": "bf16"}], ids=str)
def test_the_decoupling_loss_makes_no_step_wait(keys):
    spec = ModelSpec(cell="st_lstm", hidden_channels=(8, 8), frame_size=16, adapter=True)
    assert devices(take_steps(spec, decouple_beta=0.1, **keys)) == {"cuda"}


@pytest.mark.parametrize(
    "spoil",
    [lambda loss: loss.item() > 0, lambda loss: bool(loss > 0), lambda loss: loss.cpu(), lambda loss: loss.nonzero()],
)
def test_a_step_that_waits_is_noticed(spoil):
    def waits(network, loss):
        spoil(loss)
        return no_way_back(network, loss)

    with pytest.raises((Waited, torch._subclasses.fake_tensor.DynamicOutputShapeException)):
        take_steps(ModelSpec(cell="convlstm", hidden_channels=(8,), frame_size=16), backward=waits)


def tapes(tensor):
    """What roll-outs in stages keep for the way back from a tensor."""
    seen, left = set(), [tensor.grad_fn]
    while left:
        node = left.pop()
        seen.add(node)
        left += [before for before, _ in node.next_functions if before is not None and before not in seen]
    return [node.tape for node in seen if hasattr(node, "tape")]


def kept_mib(steps, recompute=False):
    """Memory that a PredRNN++ of 128x128 frames, 128 channels and batch 8 keeps in bf16 for the way back, in MiB."""
    spec = ModelSpec(cell="causal_lstm", hidden_channels=(128,) * 4, frame_size=128, highway_slot=1, kernel_size=5)
    network, frames = build(spec, 1), torch.rand(8, steps + 1, 1, 128, 128)
    network.recompute, kept = recompute, {}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), low_precision():
        predictions = network(frames, torch.ones(8, steps))
    for tape in tapes(predictions):
        for tensor in tree_leaves(vars(tape)):
            if isinstance(tensor, torch.Tensor):
                keep(tensor)
        gates = sum(one.shape[0] for one in tape.plan.forms) * tape.rows * tape.steps
        kept[tape] = 2 * gates, None  # their gradients come to it on the way back
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    return sum(size for place, (size, _) in kept.items() if place not in weights) / 2**20


def test_thirty_large_frames_fit_a_card_of_24_gib():
    one, two = kept_mib(1), kept_mib(2)
    assert two - one == pytest.approx(253, abs=1)  # docs/speed_experiments.md
    assert one + 28 * (two - one) < 12 * 2**10


def test_what_is_computed_again_is_not_kept():
    two, three = kept_mib(2, recompute=True), kept_mib(3, recompute=True)
    assert 0 < three - two < 253 / 5


@pytest.mark.parametrize("pool", [None, 9])
@pytest.mark.parametrize("gaps", [(), (0, 2)])
def test_a_batch_waits_for_nothing(pool, gaps):
    digits = np.zeros((5, 6, 6), np.uint8)
    stream = ClipStream(digits, seed=1, frame_size=16, num_digits=2, frames=7, pool=pool, device="cuda")
    sizes = {"digit_size": 6, "frame_size": 16, "context": 4, "horizon": 3, "validation_clips": 1, "test_clips": 1}
    data = DigitsConfig(digits="optdigits", gaps=gaps, **sizes)
    source = DigitClips(DigitBank("optdigits", digits, digits, digits), data)

    def batch(step):
        frames = stream.batch(step, 4)
        return frames, source.inputs(frames, stream.clip_numbers(step, 4), stream)

    batch(0)  # tables go to the device once
    with NoWaiting():
        for step in range(1, 4):
            assert [(made.device.type, made.shape) for made in batch(step)] == [("cuda", (4, 7, 1, 16, 16))] * 2


@pytest.mark.parametrize("kind", ["none", "scheduled", "reverse"])
def test_a_feed_mask_waits_for_nothing(kind):
    stops = {"none": {}, "scheduled": {"stop": 6}, "reverse": {"stop": 6, "reverse_start": 2, "reverse_decay": 1.0}}
    sampling = SamplingConfig(kind=kind, **stops[kind])
    with NoWaiting():
        mask = feed_mask(sampling, seed=1, step=3, batch_size=4, context=4, horizon=3, device="cuda")
    assert (mask.device.type, mask.shape) == ("cuda", (4, 6))


@pytest.mark.parametrize("name", [*HEADLINE, *CONVENTIONS])
def test_scores_are_computed_where_the_frames_are(name):
    prediction, truth = torch.rand(2, 3, 1, 16, 16), torch.rand(2, 3, 1, 16, 16)
    metric = METRICS[name]
    with NoWaiting():
        found = compute(metric, *bring_to(metric.form, prediction, truth))
    assert (found.device.type, found.shape) == ("cuda", (2, 3, 1))


@pytest.mark.parametrize("path", ["all", "memory", "frames"])
@pytest.mark.parametrize("cell", CELLS)
def test_the_roll_out_of_the_probe_keeps_to_its_device(cell, path):
    spec = ModelSpec(cell=cell, hidden_channels=(8, 8), frame_size=16, highway_slot=1)
    network, gates = build(spec, 1), {}
    network.reference_path = True
    with NoWaiting():
        rolled = roll_out(network, torch.rand(2, 4, 1, 16, 16), 2, path, gates)
        shares = saturated(gates, spec)
    states = [state for steps in rolled.states.values() for state in steps]
    assert devices((rolled.last, states, shares)) == {"cuda"}

"""One optimiser step does what its configuration says, number by number."""

import math

import numpy as np
import pytest
import torch

from benchmark.config.sections import TrainingConfig
from benchmark.system.devices import prepare_device
from benchmark.training import step as engine
from benchmark.training.acceleration.captured_step import make_step, save_in_memory
from benchmark.training.step import Batch
from models.fast_path.stage_plans import PLANS
from models.predictor import build, free_running_mask
from models.spec import ModelSpec

SPEC = ModelSpec(cell="convlstm", hidden_channels=(3, 2), frame_size=8, kernel_size=3)


def training(**keys):
    return TrainingConfig(**{"steps": 10, "batch_size": 2, "learning_rate": 0.01} | keys)


@pytest.fixture
def frames():
    return torch.rand(2, 5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, lambda error: (error**2).mean()),
        ({"loss": "l1+l2"}, lambda error: (error**2 + np.abs(error)).mean()),
        ({"loss_reduction": "half-sum"}, lambda error: (error**2).sum() / 2),
        ({"loss": "l1+l2", "loss_reduction": "half-sum"}, lambda error: (error**2 + np.abs(error)).sum() / 2),
        ({"loss_frames": 2}, lambda error: (error[:, 3:] ** 2).mean()),
        ({"loss_frames": 1, "loss_reduction": "half-sum"}, lambda error: (error[:, 4:] ** 2).sum() / 2),
    ],
)
def test_loss_is_its_formula(frames, keys, expected):
    target = frames.flip(0)
    error = frames.double().numpy() - target.double().numpy()
    assert engine.loss_of(frames, target, training(**keys)).item() == pytest.approx(expected(error), rel=1e-6)


def test_loss_of_a_half_precision_prediction_is_computed_in_single_precision(frames):
    prediction = (frames + 0.1).bfloat16()
    loss = engine.loss_of(prediction, frames, training())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((prediction.double() - frames.double()).square().mean().item(), rel=1e-6)


def test_update_is_one_step_of_adam_on_the_loss(frames):
    mask = free_running_mask(2, 3, 2, frames)
    network, plain = build(SPEC, 1), build(SPEC, 1)
    loss, norm = engine.train_one_step(
        network, engine.make_optimizer(network, training()), Batch(frames, frames, mask), training()
    )
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    expected = (plain(frames, mask) - frames[:, 1:]).square().mean()
    expected.backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in plain.parameters()])
    optimizer.step()
    assert loss.item() == expected.item()
    assert norm.item() == pytest.approx(gradient.norm().item(), rel=1e-5)
    for trained, by_hand in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(trained, by_hand, rtol=0, atol=1e-6)


def test_clipping_limits_the_gradient_and_reports_its_norm_before(frames):
    network = build(SPEC, 1)
    mask = free_running_mask(2, 3, 2, frames)
    clipped = training(clip_norm=0.01)
    _, norm = engine.train_one_step(
        network, engine.make_optimizer(network, clipped), Batch(frames, frames, mask), clipped
    )
    after = torch.cat([parameter.grad.flatten() for parameter in network.parameters()]).norm()
    assert norm.item() > 0.02
    assert after.item() == pytest.approx(0.01, rel=1e-3)


def rates(**keys):
    network = build(SPEC, 1)
    optimizer = engine.make_optimizer(network, training(**keys))
    schedule = engine.make_schedule(optimizer, training(**keys))
    found = []
    for _ in range(training(**keys).steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_constant_schedule_keeps_the_learning_rate():
    assert rates() == [0.01] * 10


def test_one_cycle_rises_to_the_learning_rate_and_falls_to_nearly_nothing():
    def cosine(start, end, part):
        return end + (start - end) / 2 * (1 + math.cos(math.pi * part))

    low, peak, end = 0.01 / 25, 0.01, 0.01 / 25 / 1e4
    top = 0.3 * 20 - 1  # after 30 % of the steps, counted from 0
    expected = [
        cosine(low, peak, step / top) if step <= top else cosine(peak, end, (step - top) / (19 - top))
        for step in range(20)
    ]
    assert rates(schedule="one-cycle", steps=20) == pytest.approx(expected, rel=1e-9)


def test_one_cycle_leaves_the_momentum_of_adam_alone():
    network = build(SPEC, 1)
    optimizer = engine.make_optimizer(network, training(schedule="one-cycle"))
    engine.make_schedule(optimizer, training(schedule="one-cycle"))
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)


def test_bf16_computes_in_half_precision_and_keeps_single_precision_weights(frames):
    mask = free_running_mask(2, 3, 2, frames)
    half, single = training(precision="bf16"), training()
    network, plain = build(SPEC, 1), build(SPEC, 1)
    loss, _ = engine.train_one_step(network, engine.make_optimizer(network, half), Batch(frames, frames, mask), half)
    full, _ = engine.train_one_step(plain, engine.make_optimizer(plain, single), Batch(frames, frames, mask), single)
    assert loss.item() != full.item()
    assert loss.item() == pytest.approx(full.item(), rel=0.02)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_roll_out_predicts_in_the_precision_of_the_run_and_returns_single_precision(make_protocol):
    run = make_protocol().run("predrnnpp", 1)
    half = make_protocol(training={"precision": "bf16"}).run("predrnnpp", 1)
    context = torch.rand(2, 3, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    network = build(run.model, 1)
    predicted, rounded = engine.roll_out(network, context, run), engine.roll_out(network, context, half)
    assert predicted.shape == (2, 2, 1, 12, 12)
    assert (predicted.dtype, rounded.dtype, rounded.requires_grad) == (torch.float32, torch.float32, False)
    assert not torch.equal(predicted, rounded)
    torch.testing.assert_close(predicted, rounded, rtol=0.05, atol=0.02)


def test_device_is_prepared_with_the_threads_of_the_protocol_and_deterministic_algorithms():
    before = torch.get_num_threads()
    try:
        prepare_device("cpu", 2)
        assert torch.get_num_threads() == 2
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(before)


def test_the_step_of_a_cpu_is_train_one_step(frames):
    mask = free_running_mask(2, 3, 2, frames)
    stepped, updated = build(SPEC, 1), build(SPEC, 1)
    found = make_step(stepped, engine.make_optimizer(stepped, training()), training())(Batch(frames, frames, mask))
    expected = engine.train_one_step(
        updated, engine.make_optimizer(updated, training()), Batch(frames, frames, mask), training()
    )
    assert found == expected
    assert all(map(torch.equal, stepped.parameters(), updated.parameters()))


@pytest.mark.parametrize("steps_before", [0, 2])
def test_what_a_warm_up_changes_is_put_back_in_place(frames, steps_before):
    mask = free_running_mask(2, 3, 2, frames)
    trained, straight = build(SPEC, 1), build(SPEC, 1)
    optimizers = [engine.make_optimizer(network, training()) for network in (trained, straight)]
    for _ in range(steps_before):
        engine.train_one_step(trained, optimizers[0], Batch(frames, frames, mask), training())
        engine.train_one_step(straight, optimizers[1], Batch(frames, frames, mask), training())
    restore = save_in_memory(trained, optimizers[0])
    places = [parameter.data_ptr() for parameter in trained.parameters()]
    engine.train_one_step(trained, optimizers[0], Batch(frames, frames, mask), training())
    restore()
    assert [parameter.data_ptr() for parameter in trained.parameters()] == places
    assert all(map(torch.equal, trained.parameters(), straight.parameters()))
    engine.train_one_step(trained, optimizers[0], Batch(frames, frames, mask), training())
    engine.train_one_step(straight, optimizers[1], Batch(frames, frames, mask), training())
    assert all(map(torch.equal, trained.parameters(), straight.parameters()))


def on_gpu(precision, reference_path=False, eager=False, steps=6, **keys):
    """Losses and weights of a short training on the GPU, by the captured step or by `train_one_step`."""
    settings = training(precision=precision, clip_norm=1.0, schedule="one-cycle", steps=20, **keys)
    prepare_device("cuda", 1)
    network = build(ModelSpec(cell="causal_lstm", hidden_channels=(16, 16), frame_size=16, highway_slot=1), 1).cuda()
    network.reference_path = reference_path
    optimizer = engine.make_optimizer(network, settings)
    schedule = engine.make_schedule(optimizer, settings)
    clips = torch.rand(steps, 4, 5, 1, 16, 16, generator=torch.Generator().manual_seed(1)).cuda()
    mask = free_running_mask(4, 3, 2, clips)
    step = make_step(network, optimizer, settings)
    losses = []
    for frames in clips:
        found = (
            engine.train_one_step(network, optimizer, Batch(frames, frames, mask), settings)
            if eager
            else step(Batch(frames, frames, mask))
        )
        losses.append(found[0])
        schedule.step()
    return torch.stack(losses).cpu(), [parameter.detach().cpu() for parameter in network.parameters()]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_captured_step_gives_the_training_of_the_eager_one(precision, recompute):
    captured, eager = (on_gpu(precision, eager=eager, recompute=recompute) for eager in (False, True))
    torch.testing.assert_close(captured[0], eager[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(captured[1], eager[1], rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
def test_fast_and_plain_agree_on_a_gpu_in_single_precision():
    optimised, reference = on_gpu("fp32"), on_gpu("fp32", reference_path=True, eager=True)
    torch.testing.assert_close(optimised[0], reference[0], rtol=1e-4, atol=0)


@pytest.mark.gpu
@pytest.mark.parametrize(("cell", "norm"), [*((cell, "none") for cell in PLANS), ("convlstm", "channel")])
def test_fused_stages_on_a_gpu_are_the_cells(cell, norm):
    prepare_device("cuda", 1)
    spec = ModelSpec(cell=cell, hidden_channels=(16, 16), frame_size=16, highway_slot=1, norm=norm)
    network, found = build(spec, 1).cuda(), {}
    frames = torch.rand(3, 6, 1, 16, 16, generator=torch.Generator().manual_seed(1)).cuda()
    mask = free_running_mask(3, 3, 3, frames)
    assert network.why_unfused(frames) is None
    for reference_path in (True, False):
        network.reference_path = reference_path
        for precision in ("fp32", "bf16"):
            prediction = engine.forward(network, Batch(frames, frames, mask), training(precision=precision))
            loss = (prediction - frames[:, 1:]).square().sum()
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            found[reference_path, precision] = torch.cat(
                [prediction.detach().flatten(), *(g.flatten() for g in gradients)]
            )
    exact = found[True, "fp32"]
    torch.testing.assert_close(found[False, "fp32"], exact, rtol=1e-4, atol=1e-5)
    assert 0 < (found[False, "bf16"] - exact).norm() < 2 * (found[True, "bf16"] - exact).norm()


@pytest.mark.gpu
def test_single_precision_on_tensor_cores_departs_little_and_does():
    exact, found = on_gpu("fp32"), on_gpu("tf32")
    torch.testing.assert_close(found[0], exact[0], rtol=1e-2, atol=0)
    assert not torch.equal(found[0], exact[0])


@pytest.mark.gpu
@pytest.mark.parametrize("eager", [False, True])
def test_no_step_waits_for_the_gpu(eager):
    prepare_device("cuda", 1)
    network = build(SPEC, 1).cuda()
    settings = training(precision="bf16", clip_norm=1.0)
    optimizer = engine.make_optimizer(network, settings)
    frames = torch.rand(2, 5, 1, 8, 8).cuda()
    mask = free_running_mask(2, 3, 2, frames)
    step = make_step(network, optimizer, settings)
    for _ in range(2):
        step(Batch(frames, frames, mask))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            engine.train_one_step(network, optimizer, Batch(frames, frames, mask), settings) if eager else step(
                Batch(frames, frames, mask)
            )
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_two_captured_trainings_are_bit_identical():
    first, second = on_gpu("bf16"), on_gpu("bf16")
    assert torch.equal(first[0], second[0])
    assert all(map(torch.equal, first[1], second[1]))

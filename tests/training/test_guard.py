"""No update that is not finite reaches the weights; what follows is what the protocol says, and can be made again."""

import json
import math

import pandas as pd
import pytest
import torch
from torch import nn

from benchmark.config.sections import TrainingConfig
from benchmark.data.moving_digits.stream import ClipStream
from benchmark.data.still_digits.bank import load_digits
from benchmark.system.files import read_json, read_json_lines
from benchmark.training import step as engine
from benchmark.training.checkpoint import read_checkpoint, save_checkpoint
from benchmark.training.cohort import train_cohort
from benchmark.training.divergence_guard import LIMIT, DivergenceGuard, GuardedAdam, take_guarded_step
from benchmark.training.masks import feed_mask
from benchmark.training.train import train
from benchmark.training.weight_files import load_weights
from models.predictor import build
from tests.helpers import extent

FINITE, NAN, INF = torch.tensor(1.0), torch.tensor(float("nan")), torch.tensor(float("inf"))


def training(**keys):
    return TrainingConfig(**{"steps": 30, "batch_size": 2, "learning_rate": 0.5} | keys)


def updates(judged, fused=False, **keys):
    """The weight after each update with gradient 1, under these (loss, norm), and the guard."""
    weight = nn.Parameter(torch.zeros(1))
    settings = training(**keys)
    optimizer = GuardedAdam([weight], DivergenceGuard(settings, weight.device), lr=settings.learning_rate, fused=fused)
    found = []
    for loss, norm in judged:
        weight.grad = torch.ones(1)
        take_guarded_step(optimizer, loss, norm)
        found.append(weight.item())
    return found, optimizer.guard


def adam(rates):
    """The weight after updates of plain Adam with gradient 1; rate 0 = no update."""
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([weight])
    found = []
    for rate in rates:
        if rate:
            optimizer.param_groups[0]["lr"] = rate
            weight.grad = torch.ones(1)
            optimizer.step()
        found.append(weight.item())
    return found


GOOD, LOSS, GRADIENT = (FINITE, FINITE), (NAN, FINITE), (FINITE, INF)
BOTH_KERNELS = pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused, as on a GPU"])


@BOTH_KERNELS
def test_stop_leaves_out_the_bad_update_and_all_after_it(fused):
    weights, guard = updates([GOOD, GOOD, GRADIENT, GOOD, LOSS], fused)
    assert weights == pytest.approx(adam([0.5, 0.5, 0, 0, 0]), rel=1e-6)
    verdict = guard.read()
    assert (verdict.diverged, verdict.step, verdict.batch, verdict.what) == (True, 3, 2, "gradient")


@BOTH_KERNELS
def test_skip_step_leaves_out_and_counts_and_goes_on(fused):
    weights, guard = updates([GOOD, LOSS, GOOD, GRADIENT, GRADIENT, GOOD], fused, on_divergence="skip_step")
    assert weights == pytest.approx(adam([0.5, 0, 0.5, 0, 0, 0.5]), rel=1e-6)
    assert guard.read()[:2] == (3, False)


@BOTH_KERNELS
def test_lower_lr_halves_the_rate_for_each_update_left_out(fused):
    weights, guard = updates([GOOD, LOSS, GOOD, LOSS, LOSS, GOOD], fused, on_divergence="lower_lr")
    assert weights == pytest.approx(adam([0.5, 0, 0.25, 0, 0, 0.0625]), rel=1e-6)
    assert guard.read()[:2] == (3, False)


@BOTH_KERNELS
@pytest.mark.parametrize("policy", ["skip_step", "lower_lr"])
def test_a_row_of_bad_updates_ends_the_run_at_the_first_of_them(fused, policy):
    row = [LOSS] * (LIMIT - 1)
    weights, guard = updates([GOOD, *row, GOOD, *row], fused, on_divergence=policy)
    assert not guard.read().diverged
    weights, guard = updates([GOOD, *row, GOOD, *row, GRADIENT, GOOD], fused, on_divergence=policy)
    assert weights[-1] == weights[LIMIT]
    verdict = guard.read()
    assert (verdict.diverged, verdict.step, verdict.what) == (True, LIMIT + 2, "loss")
    assert verdict.left_out == 2 * LIMIT - 1


def test_second_update_of_a_step_is_named_as_the_reversed_batch():
    _, guard = updates([GOOD, GOOD, GOOD, LOSS], reversed_second_step=True)
    assert guard.read().to_dict() == {"batch": 1, "non_finite": "loss", "reversed": True}
    _, guard = updates([GOOD, GOOD, LOSS], reversed_second_step=True)
    assert guard.read().to_dict() == {"batch": 1, "non_finite": "loss"}


def test_every_policy_trains_an_undisturbed_run_to_the_same_bits(make_protocol, results):
    found = []
    for policy in ("stop", "skip_step", "lower_lr"):
        run = make_protocol(training={"on_divergence": policy, "schedule": "one-cycle"}).run("predrnn", 1)
        train(run, results, "cpu")
        found.append(load_weights(run.path(results) / "model.safetensors").state_dict())
    for other in found[1:]:
        assert all(torch.equal(tensor, other[name]) for name, tensor in found[0].items())


def test_policy_is_part_of_what_a_run_is_and_stop_is_what_it_always_was(make_protocol):
    runs = {
        policy: make_protocol(training={"on_divergence": policy}).run("predrnn", 1) for policy in ("stop", "lower_lr")
    }
    assert runs["stop"].identity() == make_protocol().run("predrnn", 1).identity() != runs["lower_lr"].identity()
    own = {"id": "predrnn", "training": {"on_divergence": "skip_step"}}
    assert make_protocol(variants=["convlstm", own]).run("predrnn", 1).training.on_divergence == "skip_step"


def batch_of(run, results, step):
    """Clips and feed mask of one step, made apart from the training."""
    data, keys = run.data, run.training
    frames = data.context + data.horizon
    digits = load_digits(results / "tiny" / "data").train
    stream = ClipStream(digits, seed=run.seed, frame_size=data.frame_size, num_digits=data.num_digits, frames=frames)
    sizes = {"batch_size": keys.batch_size, "context": data.context, "horizon": data.horizon}
    mask = feed_mask(keys.sampling, seed=run.seed, step=step, device="cpu", **sizes)
    return stream.batch(step, keys.batch_size), mask


def gradient_norm(network, run, results, step):
    """Loss and gradient norm of one batch, by plain means."""
    frames, mask = batch_of(run, results, step)
    loss = (network(frames, mask) - frames[:, 1:]).square().mean()
    network.zero_grad()
    loss.backward()
    gradients = [parameter.grad.norm() for parameter in network.parameters()]
    return loss.item(), torch.stack(gradients).norm().item()


def exploding(run, rate=1e25):
    """`run` with a learning rate that no protocol may have."""
    return run.model_copy(update={"training": run.training.model_copy(update={"learning_rate": rate})})


def test_exploding_run_stops_at_that_step_and_its_batch_makes_it_again(make_protocol, results):
    run = exploding(make_protocol(training={"log_every": 5, "checkpoint_every": 4}).run("predrnnpp", 1))
    train(run, results, "cpu")
    folder = run.path(results)
    status = read_json(folder / "status.json")
    assert (status["state"], status["seed"], status["batch"]) == ("diverged", 1, status["step"] - 1)
    network = load_weights(folder / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())
    loss, norm = gradient_norm(network, run, results, status["batch"])
    assert {"loss": math.isfinite(loss), "gradient": math.isfinite(norm)}[status["non_finite"]] is False
    before = build(run.model, 1)  # at the steps before it nothing was wrong
    for step in range(status["batch"]):
        assert math.isfinite(gradient_norm(before, run, results, step)[1])
        optimizer = torch.optim.Adam(before.parameters(), lr=run.training.learning_rate)
        if step == 0:
            optimizer.step()
            assert all(map(torch.equal, before.parameters(), network.parameters()))
    assert max((line["step"] for line in read_json_lines(folder / "metrics.jsonl")), default=0) < status["step"]
    assert not list(folder.glob("checkpoint*"))


@pytest.fixture
def borderline(make_protocol, results):
    """Begins a run whose weights are so large that the gradient norm of some batches, not of all, is beyond fp32."""

    def begin(policy, steps=24):
        keys = {"on_divergence": policy, "steps": steps, "learning_rate": 1e-4, "checkpoint_every": 5}
        run = make_protocol(training=keys).run("convlstm", 1)
        low, high = 0.0, 38.0
        for _ in range(40):
            power = (low + high) / 2
            network = enlarged(build(run.model, 1), 10**power)
            bad = sum(not math.isfinite(gradient_norm(network, run, results, step)[1]) for step in range(steps))
            if steps / 4 <= bad <= steps / 2:
                return run, 10**power
            low, high = (power, high) if bad < steps / 4 else (low, power)
        raise AssertionError("no scale found")

    return begin


@torch.no_grad()
def enlarged(network, factor):
    network.to_frame.weight.mul_(factor)
    return network


def begin_with(run, network, results, monkeypatch):
    """Train `run` with `network` as its initial weights."""
    from benchmark.training import run_state as trainee

    with monkeypatch.context() as patch:
        patch.setattr(trainee, "build_network", lambda spec, seed: network)
        train(run, results, "cpu")


@pytest.mark.parametrize("policy", ["skip_step", "lower_lr"])
def test_run_with_some_bad_batches_is_the_plain_loop_that_leaves_them_out(borderline, results, monkeypatch, policy):
    run, factor = borderline(policy)
    begin_with(run, enlarged(build(run.model, 1), factor), results, monkeypatch)
    by_hand, rate, skipped = enlarged(build(run.model, 1), factor), 1e-4, []
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=rate)
    for step in range(run.training.steps):
        frames, mask = batch_of(run, results, step)
        loss = engine.loss_of(by_hand(frames, mask), frames[:, 1:], run.training)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(by_hand.parameters(), float("inf"))
        if norm.isfinite() and loss.isfinite():
            optimizer.step()
        else:
            skipped.append(step + 1)
            rate /= 2 if policy == "lower_lr" else 1
            optimizer.param_groups[0]["lr"] = rate
    folder = run.path(results)
    weights = load_weights(folder / "model.safetensors")
    assert 0 < len(skipped) < run.training.steps
    assert all(map(torch.equal, weights.parameters(), by_hand.parameters()))
    status = read_json(folder / "status.json")
    assert status == {"state": "finished", "step": 24, "steps": 24, "skipped": len(skipped)}
    lines = [line for line in read_json_lines(folder / "metrics.jsonl") if "train/skipped" in line]
    assert [line["step"] for line in lines if "train/grad_norm" not in line] == skipped
    assert lines[-1]["train/skipped"] == len(skipped)
    assert lines[-1]["train/learning_rate"] == rate
    json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1], parse_constant=pytest.fail)


def test_what_was_left_out_and_halved_survives_a_restart(borderline, results, monkeypatch):
    run, factor = borderline("lower_lr")
    begin_with(run, enlarged(build(run.model, 1), factor), results, monkeypatch)
    folder = run.path(results)
    expected = (folder / "model.safetensors").read_bytes(), (folder / "metrics.jsonl").read_text()
    batch = ClipStream.batch

    def interrupted(stream, step, size):
        if step == 13:
            raise KeyboardInterrupt
        return batch(stream, step, size)

    with monkeypatch.context() as patch:
        patch.setattr(ClipStream, "batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            begin_with(run, enlarged(build(run.model, 1), factor), results, monkeypatch)
    assert read_checkpoint(folder / "checkpoint.pt")["guard"]["state"][1] > 0
    train(run, results, "cpu", resume_only=True)
    assert ((folder / "model.safetensors").read_bytes(), (folder / "metrics.jsonl").read_text()) == expected


def test_diverged_run_is_scored_probed_and_shown_and_so_are_the_others(write_protocol, make_protocol, results, forker):
    entries = ["convlstm", {"id": "predrnn", "training": {"on_divergence": "skip_step", "steps": 16}}, "predrnnpp"]
    changes = {"variants": entries, "seeds": [1], "baselines": []}
    file, protocol = write_protocol(**changes), make_protocol(**changes)
    options = ["--protocol", file, "--results-dir", results]
    for verb in ("plan", "backbone"):
        assert forker.run(verb, *options, *(["--data-dir", results] if verb == "backbone" else []))[0] == 0
    runs = protocol.runs()
    for run in runs[:2]:
        explode_from(run, results)
    for run in runs:
        for verb in ("train", "evaluate", "probe", "record"):
            code, output = forker.run(verb, *options, "--variant", run.variant, "--seed", "1")
            assert code == 0, output
    states = [read_json(run.path(results) / "status.json") for run in runs]
    assert [(state["state"], state["step"]) for state in states] == [("diverged", 4), ("diverged", 4), ("finished", 8)]
    assert states[1]["skipped"] == LIMIT
    for verb in extent.of(("tables",), ("tables", "figures")):
        code, output = forker.run(verb, *options)
        assert code == 0, output
    table = pd.read_csv(results / "tiny" / "tables" / "main.csv").set_index("variant")
    assert table["mse_mean"].isna()[["convlstm", "predrnn", "predrnnpp"]].tolist() == [True, True, False]
    text = (results / "tiny" / "tables" / "main.md").read_text()
    assert "ConvLSTM, seed 1: diverged at step 4" in text


def explode_from(run, results):
    """Leave a checkpoint of step 3 with weights from which no batch gives a finite loss."""
    batch, folder = ClipStream.batch, run.path(results)

    def stopped(stream, step, size):
        if step == 4:
            raise KeyboardInterrupt
        return batch(stream, step, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClipStream, "batch", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(run, results, "cpu")
    state = read_checkpoint(folder / "checkpoint.pt")
    state["network"]["to_frame.weight"] *= 1e30
    save_checkpoint(folder / "checkpoint.pt", state.pop("identity"), state)


def test_diverged_run_of_a_cohort_keeps_its_own_weights_and_harms_none(make_protocol, results):
    variants = [{"id": "convlstm", "training": {"on_divergence": "skip_step"}}, "predrnn"]
    runs = [run for run in make_protocol(variants=variants, training={"steps": 16}).runs() if run.seed == 1]
    runs[0] = exploding(runs[0])
    train_cohort(runs, results, "cpu")
    first, second = (read_json(run.path(results) / "status.json") for run in runs)
    assert (first["state"], first["skipped"], second["state"]) == ("diverged", LIMIT, "finished")


@pytest.mark.gpu
@pytest.mark.parametrize("policy", ["stop", "skip_step"])
def test_a_gpu_that_is_asked_now_and_then_ends_in_the_same_state(make_protocol, results, policy):
    keys = {"device": "cuda", "steps": 30, "log_every": 30, "validate_every": 30, "checkpoint_every": 29}
    run = make_protocol(training=keys | {"on_divergence": policy}).run("predrnnpp", 1)
    found = []
    for every in (30, 1):
        changed = run.training.model_copy(update={"learning_rate": 1e25, "log_every": every})
        train(run.model_copy(update={"training": changed}), results, "cuda")
        folder = run.path(results)
        found.append((read_json(folder / "status.json"), (folder / "model.safetensors").read_bytes()))
    assert found[0][0]["state"] == "diverged"
    assert found[0] == found[1]


@pytest.mark.parametrize(("wrote", "goes_on"), [(False, True), (True, False)], ids=["unfused to fused", "and back"])
def test_checkpoint_of_one_form_of_the_optimiser_goes_on_in_another_as_that_form(wrote, goes_on):
    """As a run does that begins on a CPU and goes on with a GPU: there Adam is fused, here it is not."""

    def make(fused):
        weights = [torch.nn.Parameter(torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3))]
        return weights, GuardedAdam(weights, DivergenceGuard(training(), torch.device("cpu")), lr=0.1, fused=fused)

    def step(weights, optimizer, number):
        weights[0].grad = torch.full_like(weights[0], 1.0 + number)
        optimizer.step()

    (weights, optimizer), (others, expected) = make(wrote), make(goes_on)
    for number in range(3):
        step(weights, optimizer, number)
        step(others, expected, number)
    again, resumed = make(goes_on)
    again[0].data.copy_(weights[0].data)
    resumed.load_state_dict(optimizer.state_dict())
    assert {group["fused"] for group in resumed.param_groups} == {goes_on}
    assert resumed.state[again[0]]["step"].dtype == torch.float32
    for number in range(3, 6):
        step(again, resumed, number)
        step(others, expected, number)
    assert torch.allclose(again[0], others[0], rtol=1e-12, atol=0)

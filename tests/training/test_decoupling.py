"""PredRNN-V2: a training with the decoupling loss, and where its adapter goes."""

import pytest
import torch
from safetensors.torch import load_file

from benchmark.__main__ import main
from benchmark.config.sections import TrainingConfig
from benchmark.system.errors import UserError
from benchmark.training import step as engine
from benchmark.training.acceleration.captured_step import make_step
from benchmark.training.cohort import train_cohort
from benchmark.training.step import Batch
from benchmark.training.train import train
from benchmark.training.weight_files import load_weights
from models.counts import count_parameters
from models.predictor import build, free_running_mask
from models.spec import CELLS, DECOUPLED
from tests.helpers.tiny import random_clips, tiny_spec

SPEC = tiny_spec("st_lstm", adapter=True)


def training(**keys):
    return TrainingConfig(**{"steps": 9, "batch_size": 5, "learning_rate": 0.01, "decouple_beta": 0.5} | keys)


def trained(spec=SPEC, dtype=torch.float64, steps=4, **keys):
    """The network after some steps, and its losses."""
    network, keys = build(spec, 1).to(dtype), training(**keys)
    step = make_step(network, engine.make_optimizer(network, keys), keys)
    frames = random_clips(spec, batch=5, frames=5, dtype=dtype)
    batch = Batch(frames, frames, free_running_mask(5, 3, 2, frames))
    return network, [step(batch).loss.item() for _ in range(steps)]


def flat(network):
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


@pytest.fixture
def threads():
    """Sets the number of threads."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_the_loss_changes_what_is_learnt_and_trains_the_adapter():
    network, losses = trained()
    plain, plain_losses = trained(tiny_spec("st_lstm"), decouple_beta=None)
    assert losses[0] > plain_losses[0]
    assert not torch.equal(network.to_frame.weight, plain.to_frame.weight)
    assert not torch.equal(network.adapter.weight, build(SPEC, 1).double().adapter.weight)


def test_the_adapter_changes_no_other_initial_weight_and_no_count():
    for fields in ({}, {"init": "uniform(0.001)"}, {"chrono_frames": 7}):
        with_it = build(tiny_spec("st_lstm", adapter=True, **fields), 3)
        without = build(tiny_spec("st_lstm", **fields), 3)
        for name, weight in without.named_parameters():
            assert torch.equal(weight, with_it.get_parameter(name)), name
    assert count_parameters(SPEC) == count_parameters(tiny_spec("st_lstm"))


@pytest.mark.parametrize("reduction", ["mean", "half-sum"])
def test_parts_of_a_batch_train_what_the_whole_batch_trains(threads, reduction):
    keys = {"loss_reduction": reduction, "clip_norm": 0.5}
    whole, losses = trained(**keys)
    threads(3)  # parts of 2, 2 and 1 clips
    by_parts, losses_by_parts = trained(**keys)
    torch.testing.assert_close(flat(by_parts), flat(whole), rtol=0, atol=1e-9)
    assert losses_by_parts == pytest.approx(losses, rel=1e-9)


def test_recomputed_steps_train_the_same():
    kept, losses = trained()
    again, losses_again = trained(recompute=True)
    torch.testing.assert_close(flat(again), flat(kept), rtol=0, atol=1e-12)
    assert losses_again == pytest.approx(losses, rel=1e-12)


def test_bf16_rounds_the_adapter_as_other_convolutions():
    single, losses = trained(dtype=torch.float32)
    half, rounded = trained(dtype=torch.float32, precision="bf16")
    assert rounded[0] != losses[0]
    assert rounded == pytest.approx(losses, rel=0.05)
    assert {weight.dtype for weight in half.parameters()} == {torch.float32}
    assert not torch.equal(half.adapter.weight, single.adapter.weight)


def test_truncated_gradient_goes_with_it():
    network, keys = build(SPEC, 1).double(), training()
    frames = random_clips(SPEC, batch=5, frames=5)
    mask = free_running_mask(5, 3, 2, frames)
    nowhere = torch.zeros(5, 4, dtype=torch.float64)
    found = []
    for flows in (nowhere + 1, nowhere):
        forecast = engine.forward(network, Batch(frames, frames, mask, flows), keys)
        gradients = torch.autograd.grad(forecast.decoupling.sum(), list(network.cells[0].parameters()))
        found.append((forecast.decoupling, gradients))
    assert torch.equal(found[0][0], found[1][0])
    assert any(not torch.equal(*pair) for pair in zip(found[0][1], found[1][1], strict=True))


def test_a_run_goes_on_from_its_checkpoint_and_stacks_with_the_same_bits(make_protocol, results, tmp_path):
    protocol = make_protocol(
        variants=[{"id": "predrnn-v2", "training": {"reversed_second_step": True}}], training={"batch_size": 32}
    )
    runs = protocol.runs()
    elsewhere = tmp_path / "alone"
    (elsewhere / "tiny").mkdir(parents=True)
    (elsewhere / "tiny" / "data").symlink_to(results / "tiny" / "data")
    train_cohort(runs, results, "cpu")
    for run in runs:
        train(run, elsewhere, "cpu")
        stacked, alone = (run.path(folder) / "model.safetensors" for folder in (results, elsewhere))
        assert stacked.read_bytes() == alone.read_bytes()
        adapter = load_file(alone)["adapter.weight"]
        assert torch.equal(adapter, load_weights(alone).adapter.weight)
        assert not torch.equal(adapter, build(run.model, run.seed).adapter.weight)


def test_the_registry_has_its_training(make_protocol):
    protocol = make_protocol(variants=["predrnn", "predrnn-v2"])
    plain, run = (protocol.first_run(variant) for variant in ("predrnn", "predrnn-v2"))
    assert (run.training.decouple_beta, run.model.adapter) == (0.1, True)
    assert run.training.sampling.model_dump() == {
        "kind": "reverse",
        "stop": 6,
        "reverse_start": 3,
        "reverse_decay": 1.0,
    }
    assert (plain.training.decouple_beta, plain.model.adapter) == (None, False)
    assert protocol.references()["predrnn-v2"] == "predrnn"
    assert "decouple_beta" not in plain.to_dict()["training"]
    assert "adapter" not in plain.to_dict()["model"]
    assert plain.identity() != run.identity()


def test_an_entry_sets_its_training_otherwise(make_protocol):
    entry = {"id": "predrnn-v2", "training": {"decouple_beta": None, "sampling": {"kind": "none"}}}
    run = make_protocol(variants=[entry]).first_run("predrnn-v2")
    assert (run.training.decouple_beta, run.model.adapter, run.training.sampling.kind) == (None, False, "none")
    entry = {"id": "mine", "base": "predrnn", "training": {"decouple_beta": 0.2}}
    run = make_protocol(variants=[entry]).first_run("mine")
    assert (run.training.decouple_beta, run.model.adapter, run.training.sampling.kind) == (0.2, True, "scheduled")


@pytest.mark.parametrize("cell", sorted(set(CELLS) - set(DECOUPLED)))
def test_a_cell_without_the_increments_is_refused_in_a_sentence(make_protocol, cell):
    with pytest.raises(UserError) as raised:
        make_protocol(variants=[{"id": "mine", "cell": cell, "training": {"decouple_beta": 0.2}}])
    said = str(raised.value)
    assert (
        "variants: mine: training.decouple_beta: 0.2 is of what a step adds to C and to M, which st_lstm alone" in said
    )
    assert f"not {cell}; leave it out" in said
    assert "\n" not in said


def test_a_network_without_an_adapter_gives_no_overlaps():
    spec = tiny_spec("st_lstm")
    frames = random_clips(spec, batch=1, frames=3, dtype=torch.float32)
    with pytest.raises(ValueError, match="overlaps: are of networks whose spec has `adapter: true`"):
        build(spec, 1)(frames, torch.ones(1, 2), overlaps=[])


@pytest.mark.parametrize("code_base", ["predrnn-pytorch", "openstl"])
def test_weights_go_out_with_their_adapter_and_come_back(make_protocol, results, tmp_path, code_base, capsys):
    protocol = make_protocol(variants=["predrnn-v2"], model={"conv_bias": False}, seeds=[1])
    (run,) = protocol.runs()
    train(run, results, "cpu")
    ours, theirs, back = run.path(results) / "model.safetensors", tmp_path / "out.ckpt", tmp_path / "back.safetensors"
    assert main(["export-weights", "--to", code_base, "--input", str(ours), "--output", str(theirs)]) == 0
    assert "with the adapter of the decoupling loss" in capsys.readouterr().out
    (stored,) = torch.load(theirs, weights_only=True).values()
    (name,) = [name for name in stored if name.endswith("adapter.weight")]
    assert torch.equal(stored[name], load_weights(ours).adapter.weight)
    assert main(["import-weights", "--from", code_base, "--input", str(theirs), "--output", str(back)]) == 0
    first, second = load_weights(ours), load_weights(back)
    for (name, before), (_, after) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(before, after), name

"""Runs of several seeds trained as one network: each is byte for byte the run alone, and none harms another."""

import shutil

import pytest
import torch
import yaml

from benchmark.__main__ import main
from benchmark.data.moving_digits.stream import ClipStream
from benchmark.system.files import read_json
from benchmark.training.acceleration.stacked_step import StackedStep
from benchmark.training.cohort import train_cohort
from benchmark.training.train import train

SEEDS = (1, 2, 3)


@pytest.fixture
def runs(make_protocol):
    """The runs of three seeds of a variant; keywords change the protocol."""

    def make(variants=("predrnnpp",), training=None, seeds=SEEDS, **changes):
        training = {"batch_size": 32} | (training or {})  # whose states fill whole vectors
        protocol = make_protocol(variants=list(variants), seeds=seeds, training=training, **changes)
        return list(protocol.runs())

    return make


@pytest.fixture
def sizes(monkeypatch):
    """How many runs each step was taken of at once, where it was of several."""
    found, call = [], StackedStep.__call__

    def watched(step, batch):
        found.append(len(step.members))
        return call(step, batch)

    monkeypatch.setattr(StackedStep, "__call__", watched)
    return found


def outcome(run, results):
    """What equal runs have in common, byte for byte."""
    names = ("model.safetensors", "metrics.jsonl", "status.json", "run.yaml")
    return {name: (run.path(results) / name).read_bytes() for name in names}


def alone(run, results):
    """The outcome of a run that is trained by itself, in a folder of its own."""
    elsewhere = results.parent / f"alone-{run.variant}-{run.seed}"
    if not elsewhere.exists():
        shutil.copytree(results / "tiny" / "data", elsewhere / "tiny" / "data")
        train(run, elsewhere, "cpu")
    return outcome(run, elsewhere)


def test_stacked_runs_are_the_runs_trained_alone(runs, results, sizes):
    three = runs()
    train_cohort(three, results, "cpu")
    assert sizes == [3] * three[0].training.steps
    for run in three:
        assert outcome(run, results) == alone(run, results)


def test_stacked_runs_whose_gradient_is_cut_are_the_runs_trained_alone(runs, results, sizes):
    cut = runs(training={"detach_every": 2})
    train_cohort(cut, results, "cpu")
    assert sizes == [3] * cut[0].training.steps
    for run in cut:
        assert outcome(run, results) == alone(run, results)


def test_runs_that_differ_in_how_they_are_optimised_stack(runs, results, sizes):
    rates = [
        {"id": f"fast-{number}", "base": "convlstm", "forget_bias": number, "training": {"learning_rate": rate}}
        for number, rate in enumerate((0.001, 0.01))
    ]
    six = runs(variants=rates)
    train_cohort(six, results, "cpu")
    assert set(sizes) == {6}
    for run in six:
        assert outcome(run, results) == alone(run, results)


def test_variants_and_seeds_in_one_job_stack_by_network(runs, results, sizes):
    six = runs(variants=("convlstm", "predrnnpp"), training={"reversed_second_step": True})
    train_cohort(six, results, "cpu")
    assert set(sizes) == {3}
    for run in six:
        assert outcome(run, results) == alone(run, results)


def test_several_threads_share_the_batches_of_each_run_instead(runs, results, sizes):
    two = runs(training={"threads": 2})[:2]
    train_cohort(two, results, "cpu")
    assert sizes == []
    for run in two:
        assert outcome(run, results) == alone(run, results)


def test_a_run_that_diverges_freezes_and_the_others_go_on(runs, results, sizes, monkeypatch):
    three, batch = runs(), ClipStream.batch

    def poisoned(stream, step, size):
        frames = batch(stream, step, size)
        return frames * float("nan") if (stream.seed, step) == (2, 3) else frames

    monkeypatch.setattr(ClipStream, "batch", poisoned)
    train_cohort(three, results, "cpu")
    assert sizes == [3] * 4 + [2] * (three[0].training.steps - 4)
    assert read_json(three[1].path(results) / "status.json")["state"] == "diverged"
    for run in three:
        assert outcome(run, results) == alone(run, results)


def test_a_stack_goes_on_from_checkpoints_and_a_seed_joins_later(runs, results, sizes, monkeypatch):
    three, batch = runs(training={"checkpoint_every": 2}), ClipStream.batch

    def interrupted(stream, step, size):
        if step == 5:
            raise KeyboardInterrupt
        return batch(stream, step, size)

    with monkeypatch.context() as patch:
        patch.setattr(ClipStream, "batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_cohort(three[:2], results, "cpu")
    train_cohort(three, results, "cpu", skip_trained=True)
    steps = three[0].training.steps
    assert sizes == [2] * 5 + [3] * (steps - 4)  # seed 3 walks its first four steps alone
    train_cohort(three, results, "cpu", skip_trained=True)
    assert len(sizes) == steps + 1  # nothing was left to train
    for run in three:
        assert outcome(run, results) == alone(run, results)


def test_the_command_takes_several_seeds(make_protocol, results, tmp_path, capsys, sizes):

    protocol = make_protocol(variants=["convlstm"], seeds=SEEDS, training={"batch_size": 32})
    values = protocol.model_dump(mode="json", exclude_none=True)
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(values))
    options = ["train", "--protocol", str(file), "--results-dir", str(results), "--variant", "convlstm"]
    assert main([*options, "--seed", "1,3"]) == 0
    assert set(sizes) == {2}
    assert main([*options, "--seed", "1,1"]) == 2
    assert "--seed: 1,1 names 1 twice" in capsys.readouterr().err
    assert main([*options, "--seed", "1,7"]) == 2
    assert "unknown seed 7 (allowed: 1, 2, 3)" in capsys.readouterr().err


def test_groups_of_variants_and_seeds(make_protocol):
    protocol = make_protocol(variants=["convlstm", "predrnn"], seeds=SEEDS, stack=2)
    assert protocol.groups() == [
        (["convlstm"], (1, 2)),
        (["convlstm"], (3,)),
        (["predrnn"], (1, 2)),
        (["predrnn"], (3,)),
    ]
    protocol = make_protocol(variants=["convlstm", "predrnn"], seeds=SEEDS, stack=3, cohort=2)
    assert protocol.groups() == [(["convlstm", "predrnn"], SEEDS)]


@pytest.mark.gpu
def test_stacked_runs_on_a_gpu_stay_near_the_runs_alone(runs, results):
    """Convolutions with groups may round otherwise: bound over all steps, relative to the largest weight."""
    from benchmark.training.weight_files import WEIGHTS, load_weights

    eight = runs(training={"steps": 200, "device": "cuda"}, seeds=tuple(range(1, 9)))

    def place(name):
        elsewhere = results.parent / name
        shutil.copytree(results / "tiny" / "data", elsewhere / "tiny" / "data")
        return elsewhere

    def weights(run, elsewhere):
        return [parameter.detach() for parameter in load_weights(run.path(elsewhere) / WEIGHTS).parameters()]

    alone = place("alone")
    for run in eight:
        train(run, alone, "cuda")
    for count in (2, 4, 8):
        stacked = place(f"stacked-{count}")
        train_cohort(eight[:count], stacked, "cuda")
        for run in eight[:count]:
            for one, other in zip(weights(run, stacked), weights(run, alone), strict=True):
                torch.testing.assert_close(one, other, rtol=0.0, atol=1e-3 * float(other.abs().max()))

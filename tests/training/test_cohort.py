"""Variants trained side by side: fed by one stream, each bit for bit what it becomes alone, none harmed by another."""

import contextlib
import hashlib
import json
import os
import shutil

import numpy as np
import pytest
import torch

from benchmark.__main__ import main
from benchmark.config.sections import TrainingConfig
from benchmark.data.moving_digits.clips import DigitClips
from benchmark.data.moving_digits.stream import ClipStream
from benchmark.data.prepared_folder import read_arrays, read_data_record
from benchmark.data.still_digits.bank import DigitBank
from benchmark.system.errors import UserError
from benchmark.system.files import read_json, read_json_lines, write_json
from benchmark.system.locks import hold
from benchmark.training import step as engine
from benchmark.training.checkpoint import read_checkpoint
from benchmark.training.cohort import train_cohort
from benchmark.training.train import train
from models.spec import ModelSpec

VARIANTS = (
    {"id": "convlstm", "training": {"learning_rate": 0.003}},
    {"id": "predrnn", "training": {"schedule": "one-cycle", "loss": "l1+l2"}},
    {"id": "predrnnpp", "training": {"reversed_second_step": True, "clip_norm": 0.1}},
)


@pytest.fixture
def cohort(make_protocol):
    """The runs of three variants that differ in all that they may differ in; keywords change the protocol."""

    def make(**changes):
        protocol = make_protocol(**{"variants": VARIANTS} | changes)
        return [protocol.run(entry.id, 1) for entry in protocol.variants]

    return make


def another(results, name):
    """A second results folder with the same data."""
    shutil.copytree(results / "tiny" / "data", results.parent / name / "tiny" / "data")
    return results.parent / name


def outcome(run, results):
    """What equal runs have in common, byte for byte."""
    folder = run.path(results)
    names = ("model.safetensors", "metrics.jsonl", "status.json", "run.yaml")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def alone():
    """The outcome of a run trained by itself in a folder of its own; each is trained once."""
    known = {}

    def outcome_of(run, results):
        key = (run.variant, run.identity())
        if key not in known:
            elsewhere = another(results, f"alone-{run.variant}")
            train(run, elsewhere, "cpu")
            known[key] = outcome(run, elsewhere)
        return known[key]

    return outcome_of


def flat(state):
    """A checkpoint as a list of plain values, to compare."""
    if isinstance(state, torch.Tensor):
        return [state.tolist()]
    if isinstance(state, dict):
        return [value for key, part in state.items() for value in [key, *flat(part)]]
    if isinstance(state, list | tuple):
        return [value for part in state for value in flat(part)]
    return [state]


@contextlib.contextmanager
def batches(monkeypatch, stop=None):
    """The steps whose batches are made; Ctrl-C while that of step `stop` (from 0) is."""
    made, batch = [], ClipStream.batch

    def watched(stream, step, size):
        if step == stop:
            raise KeyboardInterrupt
        made.append(step)
        return batch(stream, step, size)

    with monkeypatch.context() as patch:
        patch.setattr(ClipStream, "batch", watched)
        with contextlib.nullcontext() if stop is None else pytest.raises(KeyboardInterrupt):
            yield made


@contextlib.contextmanager
def no_memory_for(monkeypatch, cell, after):
    """A real refusal of the allocator, in place of an update of the network of `cell` after that many."""
    update, done = engine.train_one_step, []

    def hungry(network, *arguments):
        if network.spec.cell == cell:
            if len(done) == after:
                torch.empty(2**55)
            done.append(network)
        return update(network, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "train_one_step", hungry)
        yield


def test_each_run_of_a_cohort_is_the_run_trained_alone(cohort, results, alone):
    runs = cohort()
    train_cohort(runs, results, "cpu")
    for run in runs:
        assert outcome(run, results) == alone(run, results)


def test_checkpoints_on_the_way_are_those_of_the_runs_trained_alone(cohort, results, monkeypatch):
    runs = cohort()
    with batches(monkeypatch, stop=7):
        train_cohort(runs, results, "cpu")
    for run in runs:
        elsewhere = another(results, run.variant)
        with batches(monkeypatch, stop=7):
            train(run, elsewhere, "cpu")
        ours, theirs = (read_checkpoint(run.path(where) / "checkpoint.pt") for where in (results, elsewhere))
        assert ours["step"] == 6
        assert len(flat(ours["optimizer"])) > 50
        assert flat(ours) == flat(theirs)


def test_each_batch_is_made_once_for_all(cohort, results, monkeypatch):
    with batches(monkeypatch) as made:
        train_cohort(cohort(), results, "cpu")
    assert made == list(range(8))


def test_bars_are_drawn_once_for_all_and_hide_the_same_from_each(cohort, results, monkeypatch):
    drawn, seen, inputs_of, update = [], {}, DigitClips.inputs, engine.train_one_step

    def watched(source, frames, numbers, stream):
        drawn.append(numbers.tolist())
        return inputs_of(source, frames, numbers, stream)

    def watching(network, optimizer, batch, *arguments):
        assert not torch.equal(batch.frames, batch.inputs)
        seen.setdefault(network.spec.cell, []).append(batch.inputs.data_ptr())
        return update(network, optimizer, batch, *arguments)

    monkeypatch.setattr(DigitClips, "inputs", watched)
    monkeypatch.setattr(engine, "train_one_step", watching)
    runs = cohort(variants=["convlstm", "predrnn", "predrnnpp"], data={"gaps": [0, 1, 2]}, training={"batch_size": 8})
    train_cohort(runs, results, "cpu")
    assert drawn[1:] == [list(range(first, first + 8)) for first in range(0, 64, 8)]  # [0] is validation
    assert seen["convlstm"] == seen["st_lstm"] == seen["causal_lstm"]


def test_runs_of_different_steps_go_on_each_from_its_own(cohort, results, monkeypatch, alone):
    first, second, third = runs = cohort()
    expected = [alone(run, results) for run in runs]
    with batches(monkeypatch, stop=7):
        train(first, results, "cpu")  # to its checkpoint of step 6
    with batches(monkeypatch, stop=4):
        train(second, results, "cpu")  # of step 3
    with batches(monkeypatch) as made:
        train_cohort([first, second], results, "cpu", resume_only=True)
    assert made == [3, 4, 5, 6, 7]
    train_cohort([third], results, "cpu")
    assert [outcome(run, results) for run in runs] == expected
    assert [line["step"] for line in read_json_lines(first.path(results) / "timing.jsonl")] == list(range(1, 9))


def test_runs_of_different_lengths_each_end_at_their_own(cohort, results, alone):
    runs = cohort(variants=[{"id": "convlstm", "training": {"steps": 0}}, {"id": "predrnn", "training": {"steps": 5}}])
    train_cohort(runs, results, "cpu")
    assert [read_json(run.path(results) / "status.json")["step"] for run in runs] == [0, 5]
    for run in runs:
        assert outcome(run, results) == alone(run, results)


def test_diverged_run_ends_alone_and_well(cohort, results, monkeypatch, capsys, alone):
    runs = cohort(variants=[{"id": "convlstm", "training": {"learning_rate": 1}}, *VARIANTS[1:]])
    huge = runs[0].training.model_copy(update={"learning_rate": 1e30})
    runs[0] = runs[0].model_copy(update={"training": huge})
    train_cohort(runs, results, "cpu")
    states = [read_json(run.path(results) / "status.json")["state"] for run in runs]
    assert states == ["diverged", "finished", "finished"]
    assert "convlstm seed=1: diverged at step" in capsys.readouterr().out
    for run in runs:
        assert outcome(run, results) == alone(run, results)
    with batches(monkeypatch) as made:
        train_cohort(runs, results, "cpu", skip_trained=True)
    assert made == []  # a diverged run is through as well


def test_run_without_memory_ends_alone_is_named_and_goes_on_later(cohort, results, monkeypatch, capsys, alone):
    runs = cohort()
    with (
        no_memory_for(monkeypatch, "st_lstm", after=4),
        pytest.raises(
            UserError,
            match=r"^predrnn seed=1, step 5: out of memory with batches of 2 clips .* goes on from its checkpoint$",
        ),
    ):
        train_cohort(runs, results, "cpu")
    said = [line for line in capsys.readouterr().out.splitlines() if "memory" in line]
    assert len(said) == 1
    assert said[0].startswith("predrnn seed=1, step 5: out of memory with batches of 2 clips (peak ")
    assert "can't allocate memory" in said[0]
    assert read_json(runs[1].path(results) / "status.json") == {"state": "failed", "step": 4, "steps": 8}
    for run in (runs[0], runs[2]):
        assert outcome(run, results) == alone(run, results)
    with batches(monkeypatch) as made:
        train_cohort(runs, results, "cpu", skip_trained=True)
    assert made == [3, 4, 5, 6, 7]
    assert outcome(runs[1], results) == alone(runs[1], results)


def test_network_that_finds_no_memory_at_all_leaves_the_others_unharmed(cohort, results, monkeypatch, alone):
    from benchmark.training import run_state as trainee

    def build(spec: ModelSpec, seed):
        return built(spec, seed) if spec.cell != "st_lstm" else torch.empty(2**55)

    runs, built = cohort(), trainee.build_network
    with monkeypatch.context() as patch:
        patch.setattr(trainee, "build_network", build)
        with pytest.raises(UserError, match=r"^predrnn seed=1, step 1: out of memory "):
            train_cohort(runs, results, "cpu")
    assert [path.name for path in runs[1].path(results).iterdir()] == [".lock"]
    for run in (runs[0], runs[2]):
        assert outcome(run, results) == alone(run, results)


def test_error_that_is_not_about_memory_is_not_held_back(cohort, results, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(engine, "train_one_step", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train_cohort(cohort(), results, "cpu")


def test_trained_runs_are_left_alone_and_their_removed_weights_come_back(cohort, results, monkeypatch, capsys):
    runs = cohort()
    train_cohort(runs, results, "cpu")
    expected = [outcome(run, results) for run in runs]
    for run in runs[:2]:
        (run.path(results) / "model.safetensors").unlink()
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*.json*")}
    with batches(monkeypatch) as made:
        train_cohort(runs, results, "cpu", skip_trained=True)
    assert made == []
    assert [outcome(run, results) for run in runs] == expected
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*.json*")} == before
    said = capsys.readouterr().out.splitlines()
    assert [f"{run.variant} seed=1: trained before by this config and code; left alone" for run in runs] == [
        line for line in said if "left alone" in line
    ]


@pytest.mark.parametrize("other", ["config", "code", "digits"])
def test_stale_run_alone_is_trained_again(cohort, results, monkeypatch, capsys, other):
    from benchmark.training import run_state as module

    train_cohort(cohort(), results, "cpu")
    runs, hashed, stale = cohort(), module.code_hash, {"predrnn"}
    if other == "config":
        changed = runs[1].training.model_copy(update={"learning_rate": 0.02})
        runs[1] = runs[1].model_copy(update={"training": changed})
    elif other == "code":
        edited = {"st_lstm": "edited"}
        monkeypatch.setattr(module, "code_hash", lambda stage, spec: edited.get(spec.cell) or hashed(stage, spec))
    else:
        reverse_training_digits(results / "tiny" / "data")
        stale = {run.variant for run in runs}
    capsys.readouterr()
    train_cohort(runs, results, "cpu", skip_trained=True)
    left = {line.partition(" ")[0] for line in capsys.readouterr().out.splitlines() if "left alone" in line}
    assert left == {run.variant for run in runs} - stale
    assert [read_json(run.path(results) / "status.json")["state"] for run in runs] == ["finished"] * 3


def reverse_training_digits(folder):
    """Make a prepared folder one of other digits for training."""
    record, splits = read_data_record(folder), ("train", "validation", "test")
    arrays = dict(zip(splits, read_arrays(folder, *splits), strict=True))
    arrays["train"] = arrays["train"][::-1].copy()
    np.savez(folder / "digits.npz", **arrays)
    record["digits_sha256"] = DigitBank(record["source"], *arrays.values()).sha256
    del record["data_hash"]
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    write_json(folder / "data.json", record | {"data_hash": digest})


def test_run_begun_anew_and_cut_off_does_not_pass_for_trained(cohort, results, monkeypatch):
    (run, *_), keep = cohort(), {"skip_trained": True}
    train(run, results, "cpu")
    with batches(monkeypatch, stop=2):
        train(run, results, "cpu")
    with batches(monkeypatch) as made:
        train_cohort([run], results, "cpu", **keep)
    assert made == list(range(8))


def test_without_the_flag_a_trained_run_is_trained_again(cohort, results, monkeypatch):
    (run, *_) = cohort()
    train(run, results, "cpu")
    with batches(monkeypatch) as made:
        train(run, results, "cpu")
    assert made == list(range(8))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"batch_size": 4}, "training.batch_size: is 2 for convlstm and 4 for predrnn"),
        ({"detach_every": 2}, "training.detach_every: is None for convlstm and 2 for predrnn"),
        ({"sampling": {"stop": 3}}, "training.sampling: is .* for convlstm and .*stop=3.* for predrnn"),
    ],
)
def test_variants_that_cannot_share_batches_are_refused_and_named(make_protocol, results, keys, told):
    variants = ["convlstm", {"id": "predrnn", "training": keys}]
    runs = make_protocol(variants=variants).runs()[::2]
    with pytest.raises(UserError, match=rf"^--variant: {told}.*; train them apart$"):
        train_cohort(runs, results, "cpu")
    assert not (results / "tiny" / "runs").exists()
    with pytest.raises(UserError, match=told):
        make_protocol(variants=variants, cohort=2)


def test_folder_in_use_stops_the_cohort_before_anything_is_written(cohort, results):
    runs = cohort()
    with hold(runs[2].path(results)), pytest.raises(UserError, match=f"predrnnpp/seed=1: in use by pid {os.getpid()}"):
        train_cohort(runs, results, "cpu")
    assert {path.name for path in (results / "tiny" / "runs").rglob("*") if path.is_file()} == {".lock"}


def test_timing_says_how_many_runs_shared_the_process(cohort, results):
    runs = cohort(variants=["convlstm", {"id": "predrnn", "training": {"steps": 5}}])
    train_cohort(runs, results, "cpu")
    lines = read_json_lines(runs[0].path(results) / "timing.jsonl")
    assert [line.get("runs_beside", 0) for line in lines] == [1] * 5 + [0] * 3


def test_protocol_groups_its_variants_in_their_order(make_protocol):
    assert make_protocol().cohorts() == [["convlstm"], ["predrnn"], ["predrnnpp"]]
    assert make_protocol(cohort=2).cohorts() == [["convlstm", "predrnn"], ["predrnnpp"]]
    assert make_protocol(cohort=4).cohorts() == [["convlstm", "predrnn", "predrnnpp"]]


def test_cohort_is_no_part_of_a_run(make_protocol):
    one, two = (make_protocol(cohort=size).run("predrnn", 1) for size in (1, 2))
    assert one == two
    assert "cohort" not in TrainingConfig.model_fields


@pytest.mark.parametrize(
    ("variants", "told"),
    [
        ("convlstm,predrn", "protocol tiny: unknown variant 'predrn'; did you mean 'predrnn'?"),
        ("convlstm,predrnn,convlstm", "convlstm,predrnn,convlstm names 'convlstm' twice; name each once"),
        ("convlstm,", "protocol tiny: unknown variant ''"),
    ],
)
def test_mistake_in_a_list_of_variants_is_named(write_protocol, results, capsys, variants, told):
    options = ["--protocol", str(write_protocol()), "--seed", "1", "--results-dir", str(results)]
    assert main(["train", *options, "--variant", variants]) == 2
    assert capsys.readouterr().err.startswith(f"error: --variant: {told}")
    assert not (results / "tiny" / "runs").exists()


def test_command_line_takes_several_variants_and_its_status_tells_whether_all_are_through(
    write_protocol, results, monkeypatch, capsys
):
    options = ["--protocol", str(write_protocol()), "--seed", "1", "--results-dir", str(results)]
    command = ["train", *options, "--variant", "convlstm,predrnn"]
    with no_memory_for(monkeypatch, "convlstm", after=2):
        assert main(command) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: convlstm seed=1, step 3: out of memory ")
    assert main([*command, "--skip-trained"]) == 0
    assert "predrnn seed=1: trained before" in capsys.readouterr().out
    states = [read_json(path)["state"] for path in results.glob("tiny/runs/*/seed=1/status.json")]
    assert states == ["finished"] * 2


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "counts"), [("fp32", (2,)), ("bf16", (1, 2, 4, 8))])
def test_each_run_of_a_cohort_on_a_gpu_is_the_run_trained_alone(cohort, results, precision, counts):
    """Graphs are replayed side by side, so that what two of them share in memory would show."""
    rates = [{"id": f"{v['id']}-{n}", "base": v["id"], "training": v["training"]} for n in range(3) for v in VARIANTS]
    keys = {"device": "cuda", "steps": 200, "validate_every": 200, "precision": precision}
    runs, alone = cohort(variants=rates[: max(counts)], training=keys), another(results, "alone")
    for run in runs:
        train(run, alone, "cuda")
    for count in counts:
        together = another(results, f"of-{count}")
        train_cohort(runs[:count], together, "cuda")
        for run in runs[:count]:
            assert outcome(run, together) == outcome(run, alone)


@pytest.mark.gpu
def test_run_of_a_cohort_that_finds_no_gpu_memory_leaves_the_others_unharmed(cohort, results, monkeypatch):
    update = engine.train_one_step

    def hungry(network, *arguments):
        if network.spec.cell == "st_lstm":
            torch.empty(2**45, device="cuda")
        return update(network, *arguments)

    runs = cohort(training={"device": "cuda"})
    with monkeypatch.context() as patch:
        patch.setattr(engine, "train_one_step", hungry)
        with pytest.raises(UserError, match=r"^predrnn seed=1, step 1: out of memory "):
            train_cohort(runs, results, "cuda")
    states = [read_json(run.path(results) / "status.json")["state"] for run in runs]
    assert states == ["finished", "failed", "finished"]

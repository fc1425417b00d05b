"""Real trainings of tiny networks: they learn, resume bit for bit, and do what their keys say."""

import contextlib
import json
import math
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from benchmark.data.moving_digits.stream import ClipStream
from benchmark.data.still_digits.bank import load_digits
from benchmark.reporting.tracking.background_mirror import BackgroundMirror
from benchmark.system.errors import UserError
from benchmark.system.files import append_json_line, read_json, read_json_lines
from benchmark.system.locks import hold
from benchmark.training import step as engine
from benchmark.training.batches import Batches
from benchmark.training.masks import feed_mask
from benchmark.training.train import train
from benchmark.training.weight_files import load_weights, weights_after
from models.predictor import build

ROOT = Path(__file__).parents[2]


def trained(run, results, **options):
    """Train `run` and return its folder."""
    train(run, results, "cpu", **options)
    return run.path(results)


def another(results, name):
    """A second results folder with the same data."""
    shutil.copytree(results / "tiny" / "data", results.parent / name / "tiny" / "data")
    return results.parent / name


def curve(folder, key):
    return [line[key] for line in read_json_lines(folder / "metrics.jsonl") if key in line]


def outcome(folder):
    """What two equal runs have in common, byte for byte."""
    return (folder / "model.safetensors").read_bytes(), (folder / "metrics.jsonl").read_text()


@contextlib.contextmanager
def interrupted_at(monkeypatch, step):
    """Ctrl-C while the batch of `step` (from 0) is made."""
    batch = Batches.batch

    def interrupted(batches, number):
        if number == step:
            raise KeyboardInterrupt
        return batch(batches, number)

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield


def stream_of(run, results):
    data = run.data
    digits = load_digits(results / "tiny" / "data").train
    frames = data.context + data.horizon
    return ClipStream(digits, seed=run.seed, frame_size=data.frame_size, num_digits=data.num_digits, frames=frames)


def batch_of(run, results, step):
    """Clips and feed mask of one step, made apart from the training."""
    data, training = run.data, run.training
    mask = feed_mask(
        training.sampling,
        seed=run.seed,
        step=step,
        batch_size=training.batch_size,
        context=data.context,
        horizon=data.horizon,
        device="cpu",
    )
    return stream_of(run, results).batch(step, training.batch_size), mask


@pytest.mark.parametrize("variant", ["convlstm", "predrnn", "predrnnpp"])
def test_training_learns_and_leaves_a_whole_run_folder(make_protocol, results, variant, capsys):
    run = make_protocol(training={"steps": 40}).run(variant, 1)
    folder = trained(run, results)
    loss, validation = curve(folder, "train/loss"), curve(folder, "validation/mse")
    assert len(loss) == 40
    assert len(validation) == 10
    assert np.mean(loss[-5:]) < 0.7 * np.mean(loss[:5])
    assert validation[-1] < 0.7 * validation[0]
    assert read_json(folder / "status.json") == {"state": "finished", "step": 40, "steps": 40}
    written = yaml.safe_load((folder / "run.yaml").read_text())
    assert (written["variant"], written["seed"], written["model"]["cell"]) == (variant, 1, run.model.cell)
    assert written["parameters"] == sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())
    assert not (folder / "checkpoint.pt").exists()
    said = f"{variant} seed=1: trained, 40 steps; error on validation clips {validation[-1]:.4g} (MSE per frame,"
    assert said in capsys.readouterr().out.splitlines()[-1]
    timing = read_json_lines(folder / "timing.jsonl")
    assert [line["step"] for line in timing] == list(range(1, 41))
    assert min(line["clips_per_s"] for line in timing) > 0


def test_validation_score_is_the_squared_error_of_the_trained_network(make_protocol, results):
    from benchmark.data.clips import load_clips

    run = make_protocol().run("predrnnpp", 1)
    folder = trained(run, results)
    clips = load_clips(results / "tiny" / "data", run.data, "validation").float() / 255
    with torch.no_grad():
        prediction = load_weights(folder / "model.safetensors").predict(clips[:, :3], 2).clamp(0, 1)
    expected = (prediction - clips[:, 3:]).square().sum(dim=(2, 3, 4)).mean()
    assert curve(folder, "validation/mse")[-1] == pytest.approx(expected.item(), rel=1e-5)


def test_same_seed_gives_the_same_bits_and_another_seed_others(make_protocol, results):
    protocol = make_protocol()
    once = outcome(trained(protocol.run("predrnnpp", 1), results))
    again = outcome(trained(protocol.run("predrnnpp", 1), another(results, "again")))
    other = outcome(trained(protocol.run("predrnnpp", 2), results))
    assert once == again
    assert once[0] != other[0]
    assert once[1] != other[1]


@pytest.mark.parametrize(
    "keys",
    [
        {"sampling": {"kind": "reverse", "stop": 6, "reverse_start": 2}, "schedule": "one-cycle"},
        {"reversed_second_step": True, "clip_norm": 0.1},
    ],
    ids=["reverse one-cycle", "reversed second step"],
)
def test_resumed_run_is_bit_identical_to_the_uninterrupted_one(make_protocol, results, monkeypatch, keys):
    run = make_protocol(training=keys).run("predrnnpp", 1)
    expected = outcome(trained(run, another(results, "uninterrupted")))
    folder = run.path(results)
    for step in (5, 7):  # the checkpoints are of steps 3 and 6
        with interrupted_at(monkeypatch, step):
            train(run, results, "cpu")
        assert read_json(folder / "status.json")["state"] == "interrupted"
        assert read_json_lines(folder / "metrics.jsonl")[-1]["step"] == step  # past the checkpoint
    train(run, results, "cpu", resume_only=True)
    assert outcome(folder) == expected
    assert [line["step"] for line in read_json_lines(folder / "timing.jsonl")] == list(range(1, 9))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_run_resumed_on_a_gpu_is_bit_identical_to_the_uninterrupted_one(make_protocol, results, monkeypatch, precision):
    keys = {"device": "cuda", "precision": precision, "schedule": "one-cycle"}
    run = make_protocol(training=keys).run("predrnnpp", 1)
    elsewhere = another(results, "whole")
    train(run, elsewhere, "cuda")
    with interrupted_at(monkeypatch, 4):
        train(run, results, "cuda")
    train(run, results, "cuda", resume_only=True)
    assert outcome(run.path(results)) == outcome(run.path(elsewhere))


@pytest.mark.gpu
@pytest.mark.parametrize("devices", [("cpu", "cuda"), ("cuda", "cpu")], ids=" to ".join)
def test_a_run_goes_on_on_another_device_from_where_it_was(make_protocol, results, monkeypatch, devices):
    run = make_protocol(training={"learning_rate": 1e-4}).run("predrnnpp", 1)
    elsewhere = another(results, "whole")
    train(run, elsewhere, devices[1])
    with interrupted_at(monkeypatch, 4):
        train(run, results, devices[0])
    train(run, results, devices[1], resume_only=True)
    weights, expected = (load_file(run.path(folder) / "model.safetensors") for folder in (results, elsewhere))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)
    assert not all(torch.equal(weights[name], expected[name]) for name in weights)  # the first steps were the other's


def test_killed_process_is_resumed_bit_for_bit(write_protocol, make_protocol, results, forker):
    file = write_protocol(training={"steps": 30})
    run = make_protocol(training={"steps": 30}).run("predrnn", 1)
    folder = run.path(results)
    command = ["train", "--protocol", file, "--variant", "predrnn", "--seed", "1", "--results-dir", results]
    job = forker.start(*command)
    while len(read_json_lines(folder / "metrics.jsonl")) < 5:
        assert job.running(), job.wait()
        time.sleep(0.001)
    job.send(signal.SIGKILL)
    assert job.wait()[0] == -signal.SIGKILL
    assert read_json(folder / "status.json")["state"] == "running"
    with (folder / "metrics.jsonl").open("a") as log:
        log.write('{"step": 6, "train/lo')
    train(run, results, "cpu", resume_only=True)
    assert outcome(folder) == outcome(trained(run, another(results, "uninterrupted")))


def test_stale_checkpoint_is_set_aside_and_the_run_starts_anew(make_protocol, results, monkeypatch, capsys):
    old, new = (make_protocol(training={"learning_rate": rate}).run("convlstm", 1) for rate in (0.01, 0.02))
    with interrupted_at(monkeypatch, 5):
        train(old, results, "cpu")
    with pytest.raises(UserError, match=r"checkpoint.pt: is of other config; train without --resume-only"):
        train(new, results, "cpu", resume_only=True)
    folder = trained(new, results)
    said = [line for line in capsys.readouterr().out.splitlines() if "checkpoint" in line]
    (stale,) = folder.glob("checkpoint.*.stale")
    assert said == [f"checkpoint of other config set aside as {stale.name}; starting at step 0"]
    assert outcome(folder) == outcome(trained(new, another(results, "fresh")))


def test_checkpoint_of_other_code_is_stale(make_protocol, results, monkeypatch, capsys):
    run = make_protocol().run("convlstm", 1)
    with interrupted_at(monkeypatch, 5):
        train(run, results, "cpu")
    monkeypatch.setattr("benchmark.training.run_state.code_hash", lambda stage, spec: "edited")
    trained(run, results)
    assert "checkpoint of other code set aside" in capsys.readouterr().out


def test_resume_only_needs_a_checkpoint(make_protocol, results):
    with pytest.raises(UserError, match=r"checkpoint.pt: no checkpoint to resume from"):
        train(make_protocol().run("convlstm", 1), results, "cpu", resume_only=True)


def test_second_living_writer_is_refused_and_the_first_named(make_protocol, results):
    run = make_protocol().run("convlstm", 1)
    folder = run.path(results)
    with hold(folder), pytest.raises(UserError, match=f"seed=1: in use by pid {os.getpid()}"):
        train(run, results, "cpu")
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_missing_data_are_an_error_before_anything_is_written(make_protocol, results):
    shutil.rmtree(results / "tiny" / "data")
    run = make_protocol().run("convlstm", 1)
    with pytest.raises(UserError, match=r"cannot be read .* run the command `data`"):
        train(run, results, "cpu")
    assert {path.name for path in run.path(results).iterdir()} <= {".lock"}


def test_unreachable_store_stops_no_training_and_is_said(make_protocol, results, capsys):
    folder = trained(make_protocol().run("convlstm", 1), results, beside=BackgroundMirror)
    assert read_json(folder / "status.json")["state"] == "finished"
    said = capsys.readouterr().err
    assert said.count("not sent to MLflow yet: MLflow store sqlite:////proc/no/mlflow.db cannot be used") == 1
    assert f"not yet in MLflow: {folder}; `python -m benchmark sync --results-dir {results}` sends what" in said


def test_training_appears_in_a_real_store_while_it_runs_and_when_it_ends(make_protocol, results, tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    run = make_protocol().run("predrnnpp", 1)

    def runs():
        client = MlflowClient(store)
        return client.search_runs([client.get_experiment_by_name("tiny").experiment_id])

    with interrupted_at(monkeypatch, 5):
        train(run, results, "cpu", beside=BackgroundMirror)
    (begun,) = runs()
    assert (begun.info.status, begun.data.tags["state"]) == ("KILLED", "interrupted")
    folder = trained(run, results, beside=BackgroundMirror)
    (ended,) = runs()
    assert (ended.info.run_id, ended.info.status) == (begun.info.run_id, "FINISHED")
    history = MlflowClient(store).get_metric_history(ended.info.run_id, "train/loss")
    assert [point.value for point in sorted(history, key=lambda p: p.step)] == curve(folder, "train/loss")


def test_variants_of_one_seed_see_the_same_clips_and_masks_in_the_same_order(make_protocol, results, monkeypatch):
    seen = []
    update = engine.train_one_step

    def watched(network, optimizer, batch, *arguments):
        seen.append((batch.frames.numpy().tobytes(), batch.feed_mask.numpy().tobytes()))
        return update(network, optimizer, batch, *arguments)

    monkeypatch.setattr(engine, "train_one_step", watched)
    protocol = make_protocol()
    for variant, seed in (("convlstm", 1), ("predrnnpp", 1), ("convlstm", 2)):
        train(protocol.run(variant, seed), results, "cpu")
    first, same, other = seen[:8], seen[8:16], seen[16:]
    assert len({clips for clips, _ in first}) == 8
    assert first == same
    assert {clips for clips, _ in first}.isdisjoint(clips for clips, _ in other)
    assert [mask for _, mask in first] != [mask for _, mask in other]


@pytest.mark.parametrize(
    ("keys", "formula"),
    [
        ({}, lambda error: (error**2).mean()),
        ({"loss": "l1+l2"}, lambda error: (error**2 + np.abs(error)).mean()),
        ({"loss_reduction": "half-sum"}, lambda error: (error**2).sum() / 2),
    ],
    ids=["l2", "l1+l2", "half-sum"],
)
def test_logged_loss_is_its_formula(make_protocol, results, keys, formula):
    run = make_protocol(training=keys | {"steps": 1}).run("predrnnpp", 1)
    frames, mask = batch_of(run, results, 0)
    with torch.no_grad():
        error = build(run.model, 1)(frames, mask).double().numpy() - frames[:, 1:].double().numpy()
    assert curve(trained(run, results), "train/loss") == [pytest.approx(formula(error), rel=1e-5)]


def test_reversed_second_step_learns_from_the_clip_backwards_under_the_same_mask(make_protocol, results):
    run = make_protocol(training={"reversed_second_step": True, "steps": 1}).run("predrnnpp", 1)
    frames, mask = batch_of(run, results, 0)
    network = build(run.model, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for clip in (frames, frames[:, [4, 3, 2, 1, 0]]):
        loss = (network(clip, mask) - clip[:, 1:]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    folder = trained(run, results)
    assert curve(folder, "train/loss") == [pytest.approx(np.mean(losses), rel=1e-5)]
    for name, tensor in load_weights(folder / "model.safetensors").state_dict().items():
        torch.testing.assert_close(tensor, network.state_dict()[name], rtol=0, atol=1e-5)


def test_one_cycle_and_reverse_sampling_are_logged_as_they_were_used(make_protocol, results, monkeypatch):
    masks, update = [], engine.train_one_step

    def watched(network, optimizer, batch, *arguments):
        masks.append(batch.feed_mask)
        return update(network, optimizer, batch, *arguments)

    monkeypatch.setattr(engine, "train_one_step", watched)
    sampling = {"kind": "reverse", "stop": 16, "reverse_start": 8, "reverse_decay": 4.0}
    keys = {"schedule": "one-cycle", "sampling": sampling, "steps": 20, "batch_size": 16}
    folder = trained(make_protocol(training=keys).run("convlstm", 1), results)
    rates = curve(folder, "train/learning_rate")
    assert rates[0] == pytest.approx(0.01 / 25)
    assert (max(rates), rates.index(max(rates))) == (pytest.approx(0.01), 5)
    assert rates[-1] == pytest.approx(0.01 / 25 / 1e4)
    assert curve(folder, "train/feed_context")[:9] == [0.5] * 9
    assert curve(folder, "train/feed_context")[12] == pytest.approx(1 - 0.5 / math.e)
    assert curve(folder, "train/feed_horizon")[12] == pytest.approx(0.25)
    assert curve(folder, "train/feed_horizon")[16:] == [0.0] * 4
    early, late = torch.cat(masks[:8]), torch.cat(masks[16:])
    assert early[:, 1:].mean().item() == pytest.approx(0.5, abs=0.07)
    assert (late[:, :3].min().item(), late[:, 3:].max().item()) == (1, 0)


def test_half_precision_training_keeps_single_precision_weights(make_protocol, results):
    folders = [
        trained(make_protocol(training={"precision": precision}).run("predrnnpp", 1), another(results, precision))
        for precision in ("fp32", "bf16")
    ]
    single, half = (np.array(curve(folder, "train/loss")) for folder in folders)
    assert (single != half).all()
    np.testing.assert_allclose(half, single, rtol=0.05)
    assert {tensor.dtype for tensor in load_file(folders[1] / "model.safetensors").values()} == {torch.float32}


def test_fixed_training_clips_come_again_every_epoch(make_protocol, results, monkeypatch):
    seen, batch = [], ClipStream.batch

    def watched(stream, step, size):
        frames = batch(stream, step, size)
        seen.extend(clip.numpy().tobytes() for clip in frames)
        return frames

    monkeypatch.setattr(ClipStream, "batch", watched)
    train(make_protocol(data={"train_clips": 4}).run("convlstm", 1), results, "cpu")
    epochs = [seen[first : first + 4] for first in range(0, 16, 4)]
    assert [len(set(epoch)) for epoch in epochs] == [4] * 4
    assert len(set(seen)) == 4


def test_run_without_steps_keeps_the_initial_weights(make_protocol, results):
    run = make_protocol(training={"steps": 0}).run("predrnnpp", 1)
    folder = trained(run, results)
    assert read_json(folder / "status.json") == {"state": "finished", "step": 0, "steps": 0}
    weights = load_weights(folder / "model.safetensors").state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in build(run.model, 1).state_dict().items())


def test_weights_after_the_steps_of_the_probe_are_those_of_a_shorter_training(make_protocol, results, monkeypatch):
    short = trained(make_protocol(training={"steps": 5}).run("predrnnpp", 1), another(results, "short"))
    run = make_protocol(probe={"steps": [5, 2]}).run("predrnnpp", 1)
    with interrupted_at(monkeypatch, 6):
        train(run, results, "cpu")
    folder = trained(run, results)
    kept, expected = load_file(folder / weights_after(5)), load_file(short / "model.safetensors")
    assert all(torch.equal(kept[name], weight) for name, weight in expected.items())
    load_weights(folder / weights_after(2), run.identity())


def test_kept_weights_of_a_training_that_was_another_are_removed(make_protocol, results):
    folder = trained(make_protocol(probe={"steps": [2, 5]}).run("convlstm", 1), results)
    trained(make_protocol(probe={"steps": [5]}).run("convlstm", 1), results)
    assert [file.name for file in folder.glob(weights_after("*"))] == [weights_after(5)]


def test_what_is_written_names_no_machine(make_protocol, results, tmp_path):
    folder = trained(make_protocol().run("convlstm", 1), results)
    text = "".join((folder / name).read_text() for name in ("run.yaml", "provenance.json", "status.json"))
    assert str(tmp_path) not in text
    assert os.uname().nodename not in json.loads((folder / "provenance.json").read_text()).values()
    assert str(ROOT) not in text


def test_log_of_another_step_is_cut_before_the_run_begins(make_protocol, results):
    run = make_protocol().run("convlstm", 1)
    folder = run.path(results)
    folder.mkdir(parents=True)
    append_json_line(folder / "metrics.jsonl", {"step": 99, "train/loss": 5.0})
    assert max(line["step"] for line in read_json_lines(trained(run, results) / "metrics.jsonl")) == 8

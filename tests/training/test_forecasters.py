"""Models outside the benchmark as rows: trained, resumed bit for bit, scored, probed; and what they may not do."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from benchmark.config.code_sources import code_hash, sources
from benchmark.evaluation.gradient_probe import probe
from benchmark.exchange.predict import predict as predict_clips
from benchmark.system.errors import UserError
from benchmark.system.files import read_json, read_json_lines
from benchmark.training import step as engine
from benchmark.training.cohort import train_cohort
from benchmark.training.train import train
from benchmark.training.weight_files import load_run_weights, load_weights
from models.counts import count_macs, count_parameters
from models.forecasters.network import build_network
from models.forecasters.outside import ForecasterError, source_files

OWN = "tests.helpers.own_models"


def entry(name, **args):
    return {"id": "mine", "model": f"{OWN}:{name}", "args": args}


@pytest.fixture
def run_of(make_protocol):
    """The run of a model of `own_models`, by its name."""

    def make(name, sections=None, **args):
        return make_protocol(variants=[entry(name, **args)], primary={}, **(sections or {})).run("mine", 1)

    return make


def weights_of(run, results):
    train(run, results, "cpu")
    return load_file(run.path(results) / "model.safetensors")


def break_at(monkeypatch, number):
    """Let optimiser step `number` (from 0) be broken off, once."""
    seen, update = [], engine.train_one_step

    def breaking(*arguments):
        seen.append(number)
        if len(seen) == number + 1:
            raise KeyboardInterrupt
        return update(*arguments)

    monkeypatch.setattr(engine, "train_one_step", breaking)


@pytest.mark.parametrize("name", ["Mean", "Recurrent", "OwnLoss"])
def test_a_model_learns_and_its_files_are_those_of_any_run(run_of, results, name):
    run = run_of(name, {"training": {"steps": 40, "learning_rate": 0.03, "log_every": 1}})
    train(run, results, "cpu")
    folder = run.path(results)
    losses = [line["train/loss"] for line in read_json_lines(folder / "metrics.jsonl") if "train/loss" in line]
    assert losses[-1] < losses[0]
    assert read_json(folder / "status.json")["state"] == "finished"
    assert f"model: {OWN}:{name}" in (folder / "run.yaml").read_text()


def test_the_loss_is_that_of_the_protocol_on_the_frames_of_the_horizon(run_of, results):
    run = run_of("Mean", {"training": {"steps": 1, "loss": "l1+l2"}})
    seen = []
    original = engine.train_one_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "train_one_step", lambda *given: (seen.append(given[2].frames), original(*given))[1])
        train(run, results, "cpu")
    context = run.data.context
    with torch.no_grad():
        predicted = build_network(run.model, 1).predict(seen[0][:, :context], seen[0].shape[1] - context)
    error = (predicted - seen[0][:, context:]).double()
    (line,) = [line for line in read_json_lines(run.path(results) / "metrics.jsonl") if "train/loss" in line]
    assert line["train/loss"] == pytest.approx((error.square() + error.abs()).mean().item(), rel=1e-5)


def test_with_dropout_and_running_means_it_goes_on_to_the_same_bits(run_of, results, tmp_path, monkeypatch):
    run = run_of("Mean", {"training": {"steps": 8, "checkpoint_every": 3}}, dropout=0.5)
    whole = weights_of(run, results)
    again = tmp_path / "again"
    again.mkdir()
    (again / run.protocol).mkdir()
    (again / run.protocol / "data").symlink_to((results / run.protocol / "data").resolve())
    break_at(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        train(run, again, "cpu")
    resumed = weights_of(run, again)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert resumed["model.seen"] == 8


def test_dropout_differs_from_step_to_step_and_seed_to_seed_and_leaves_other_random_numbers_alone(run_of, results):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    weights_of(run_of("Mean", dropout=0.5), results)
    assert torch.equal(torch.rand(3), expected)
    plain = weights_of(run_of("Mean"), results)
    dropped = weights_of(run_of("Mean", dropout=0.5), results)
    assert not torch.equal(plain["model.weights"], dropped["model.weights"])


def test_buffers_keep_their_values_at_an_update_that_is_left_out(run_of, results, monkeypatch):
    run = run_of("Mean", {"training": {"steps": 3, "on_divergence": "skip_step"}})
    original = engine.train_one_step
    calls = []

    def poisoned(network, optimizer, batch, *rest):
        calls.append(network.model.seen.item())
        frames = batch.frames * float("nan") if len(calls) == 2 else batch.frames
        return original(network, optimizer, batch._replace(frames=frames, inputs=frames), *rest)

    monkeypatch.setattr(engine, "train_one_step", poisoned)
    weights = weights_of(run, results)
    assert calls == [0, 1, 1]
    assert weights["model.level"].isfinite()


def test_a_stack_trains_it_by_itself_beside_our_networks(make_protocol, results, tmp_path):
    variants = [entry("Mean"), {"id": "convlstm", "hidden_channels": 4}]
    protocol = make_protocol(variants=variants, primary={}, seeds=[1, 2], stack=2, training={"steps": 3})
    alone = weights_of(protocol.run("mine", 2), results)
    beside = tmp_path / "beside"
    (beside / protocol.name).mkdir(parents=True)
    (beside / protocol.name / "data").symlink_to((results / protocol.name / "data").resolve())
    train_cohort([protocol.run("mine", seed) for seed in (1, 2)], beside, "cpu")
    found = load_file(protocol.run("mine", 2).path(beside) / "model.safetensors")
    assert all(torch.equal(alone[name], found[name]) for name in alone)


def test_probe_measures_frames_and_named_states(run_of, results):
    run = run_of("Recurrent")
    train(run, results, "cpu")
    probe(run, results, "cpu")
    table = pd.read_parquet(run.path(results) / "probe.parquet")
    assert set(zip(table["state"], table["layer"], strict=True)) == {("X", 0), ("H", 1)}
    assert set(table["measure"]) == {"residual", "fixed"}
    steps = run.data.context + run.data.horizon - 1
    assert table[table["state"] == "H"]["t"].max() == steps
    found = read_json(run.path(results) / "probe.json")["trained"]
    assert (found["openness"], found["saturated"]) == ([], {})


def test_gradient_of_a_weighted_mean_is_its_weights(run_of, results):
    run = run_of("Mean", {"training": {"steps": 0}})
    train(run, results, "cpu")
    probe(run, results, "cpu")
    table = pd.read_parquet(run.path(results) / "probe.parquet")
    norms = table[(table["measure"] == "fixed") & (table["stage"] == "init")].groupby("t")["norm"].mean()
    weights = torch.linspace(0.1, 1.0, run.data.context, dtype=torch.float32).double().numpy()
    np.testing.assert_allclose(norms.to_numpy(), weights / weights.sum(), rtol=1e-6)


def test_counts_are_those_of_the_class(run_of):
    run = run_of("Recurrent")
    steps = run.data.context + run.data.horizon - 1
    assert count_parameters(run.model) == 2 * 9 + 1
    assert count_macs(run.model, run.data.context, run.data.horizon) == steps * 2 * 9 * run.data.frame_size**2


def test_arguments_decide_the_identity_and_the_source_the_code_hash(run_of, tmp_path, monkeypatch):
    assert run_of("Mean").identity() != run_of("Mean", gain=2.0).identity()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_a.py").write_text("from mine_b import half\n\n\nclass Net:\n    f = half\n")
    (tmp_path / "mine_b.py").write_text("def half(x):\n    return x / 2\n")
    spec = run_of("Mean").model
    moved = type(spec)(model="mine_a:Net", args="{}", context=1, horizon=1, frame_size=8)
    assert [path.name for path in source_files("mine_a:Net")] == ["mine_a.py", "mine_b.py"]
    assert str(tmp_path / "mine_b.py") in sources("train", moved)
    before = code_hash("train", moved)
    (tmp_path / "mine_b.py").write_text("def half(x):\n    # a comment\n    return x / 2\n")
    assert code_hash("train", moved) == before
    (tmp_path / "mine_b.py").write_text("def half(x):\n    return x / 3\n")
    assert code_hash("train", moved) != before


def test_no_file_of_weights_makes_its_class_be_imported(run_of, results, tmp_path):
    run = run_of("Mean")
    train(run, results, "cpu")
    path = run.path(results) / "model.safetensors"
    assert torch.is_tensor(load_run_weights(path, run).predict(torch.rand(1, 3, 1, 12, 12), 2))
    code = f"""
import sys
from pathlib import Path
from benchmark.system.errors import UserError
from benchmark.training.weight_files import load_weights
try:
    load_weights(Path({str(path)!r}))
except UserError as error:
    print(error)
print({OWN!r} in sys.modules)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert "which no file of weights makes this program import" in said[0]
    assert said[1] == "False"
    with pytest.raises(UserError, match="outside the benchmark"):
        predict_clips(
            path,
            tmp_path / "clip.npy",
            tmp_path / "out.npy",
            layout=None,
            white=None,
            context=None,
            horizon=None,
            fit=False,
            batch_size=1,
            device="cpu",
        )


def test_weights_that_name_an_outside_cell_are_refused_as_well(make_protocol, results):
    variants = [{"id": "mine", "cell": "examples.conv_mgu:ConvMGUCell", "hidden_channels": 3}]
    run = make_protocol(variants=variants, primary={}).run("mine", 1)
    train(run, results, "cpu")
    path = run.path(results) / "model.safetensors"
    assert load_run_weights(path, run).spec == run.model
    with pytest.raises(UserError, match=r"ConvMGUCell, a class outside the benchmark"):
        load_weights(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "mymodule"}, "variants.0.model: 'mymodule'"),
        ({"model": "mymodule.MyNet"}, "variants.0.model: 'mymodule.MyNet'"),
        ({"hidden_channels": 3}, "hidden_channels: is a field of our networks"),
        ({"highway_slot": 1}, "highway_slot: is a field of our networks"),
        ({"base": "convlstm"}, "does not go with base convlstm"),
        ({"cell": "convlstm"}, "does not go with cell convlstm"),
        ({"id": "convlstm"}, "does not go with convlstm of the registry"),
        ({"training": {"detach_every": 2}}, "training.detach_every: 2 is for networks of the benchmark"),
        ({"training": {"recompute": True}}, "training.recompute: True is for networks of the benchmark"),
    ],
)
def test_an_entry_that_cannot_be_is_told(make_protocol, change, told):
    with pytest.raises(UserError) as raised:
        make_protocol(variants=[entry("Mean") | change], primary={}).runs()
    assert told in str(raised.value)


def test_arguments_without_a_model_are_told(make_protocol):
    with pytest.raises(UserError, match="args: are those of a model"):
        make_protocol(variants=[{"id": "convlstm", "args": {"width": 3}}], primary={})


def test_a_loss_of_its_own_is_not_shown_what_gaps_hide(run_of, results):
    run = run_of("OwnLoss", {"data": {"gaps": [0, 1]}})
    with pytest.raises(UserError, match="loss of its own, which does not go with"):
        train(run, results, "cpu")


def test_a_wrong_shape_names_what_was_needed(run_of):
    network = build_network(run_of("OneHorizon").model, 1)
    with pytest.raises(ForecasterError, match=r"predict gave \(2, 3, 1, 12, 12\) after 3 frames; needed is \(2, 2,"):
        network.predict(torch.rand(2, 3, 1, 12, 12), 2)


def test_a_record_names_the_class(run_of, results):
    run = run_of("Mean")
    assert json.loads(json.dumps(run.to_dict()["model"]))["model"] == f"{OWN}:Mean"

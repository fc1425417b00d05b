"""A run is made again from its record alone; what came out otherwise is named, and so is what may explain it."""

import copy
import json
from pathlib import Path

import pytest

from benchmark.__main__ import main
from benchmark.data.moving_digits.stream import ClipStream
from benchmark.reporting import record as records
from benchmark.reporting.reproduce import curve_difference, differences
from benchmark.system.files import read_json, write_json


@pytest.fixture
def published(make_protocol, write_protocol, results, tmp_path, monkeypatch):
    """The record of a really trained tiny run, published."""
    from benchmark.reporting.publish import publish_records

    monkeypatch.setattr("benchmark.reporting.published_records.FOLDER", tmp_path / "reference")
    changes = {
        "variants": [{"id": "open", "base": "predrnnpp", "highway_gate_bias": -2.0, "training": {"clip_norm": 1.0}}],
        "seeds": [3],
        "baselines": [],
    }
    protocol, file = make_protocol(**changes), str(write_protocol(**changes))
    for arguments in (["backbone"], *([verb, "--variant", "open", "--seed", "3"] for verb in VERBS)):
        assert main([arguments[0], "--protocol", file, "--results-dir", str(results), *arguments[1:]]) == 0
    publish_records(protocol, results)
    return tmp_path / "reference" / "tiny" / "records" / "open.seed=3.json"


VERBS = ("train", "evaluate", "probe", "record")


@pytest.fixture
def reproduce(tmp_path, monkeypatch, capsys):
    """Run the verb on a record; returns its exit status and what it said, in any folder."""

    def run(path, *arguments):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/no/mlflow.db")
        capsys.readouterr()
        status = main(["reproduce", str(path), "--results-dir", str(tmp_path / "again"), *arguments])
        said = capsys.readouterr()
        return status, said.err + said.out

    return run


def cut_off(monkeypatch):
    """Ctrl-C in the step after the one at 6, from which the checkpoint is."""
    batch = ClipStream.batch

    def interrupted(stream, number, size):
        if number == 7:
            raise KeyboardInterrupt
        return batch(stream, number, size)

    monkeypatch.setattr(ClipStream, "batch", interrupted)


def test_run_is_made_again_from_its_record_and_each_difference_is_found(published, reproduce, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        cut_off(patch)
        assert reproduce(published)[0] not in (0, 1, 2)
    status, said = reproduce(published)
    assert (status, said.splitlines()[-1]) == (0, "open seed=3 of tiny: equal")
    assert "code, data, versions and device: as recorded" in said
    assert "not sent to MLflow" not in said
    assert [path.name for path in tmp_path.glob("again/*")] == ["reproduced"]
    recorded = read_json(published)

    other = copy.deepcopy(recorded)  # of other code and weights, whose curves parted after step 5
    other["provenance"] |= {"code_hash": "c0de", "versions": recorded["provenance"]["versions"] | {"torch": "1.0"}}
    for step in (6, 7, 8):
        other["curve"]["hash"][step - 1] = "0" * 12
    other["curve"]["loss"][5] = 0.5
    other["weights_sha256"] = "0" * 64
    write_json(published, other)
    status, said = reproduce(published)
    assert status == 1
    assert "other here: code_hash: c0de recorded, " in said
    assert "other here: versions.torch: 1.0 recorded, " in said
    here = recorded["curve"]["loss"][5]
    assert f"curves: differ at step 6, after being equal up to step 5: loss 0.5 recorded, {here} here" in said
    assert "mse: equal" in said
    assert said.splitlines()[-1] == "open seed=3 of tiny: differs, first in: curves"
    assert "trained before by this config and code; left alone" in said

    other = copy.deepcopy(recorded)  # the same training, scored otherwise
    other["per_clip"]["mse"][2], other["scores_sha256"]["mse"] = 1.0, "0"
    other["probe"]["trained"]["residual"]["reach"] = 2.0
    other["mean"]["lpips_squeeze"] = 0.5
    write_json(published, other)
    status, said = reproduce(published)
    assert status == 1
    assert f"mse: clip 3: 1.0 recorded, {recorded['per_clip']['mse'][2]} here" in said
    assert "lpips_squeeze: not compared" in said
    assert "probe: trained.residual.reach: 2.0 recorded, " in said
    assert said.splitlines()[-1] == "open seed=3 of tiny: differs, first in: mse"

    older = {key: value for key, value in recorded.items() if key not in ("curve", "weights_sha256", "scores_sha256")}
    write_json(published, older)
    status, said = reproduce(published)
    assert (status, said.splitlines()[-1]) == (0, "open seed=3 of tiny: equal")
    assert "not compared: curve, weights_sha256, scores_sha256, which the record lacks" in said


REFERENCE = "results/reference/quick/records/predrnn.seed=1.json"


def change(key, value):
    """A change of a record at a dotted key; None takes the key away."""

    def apply(recorded):
        *path, last = key.split(".")
        for name in path:
            recorded = recorded[name]
        if value is None:
            del recorded[last]
        else:
            recorded[last] = value

    return apply


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (change("config", None), "config is no mapping: no record of a run"),
        (change("provenance.device", None), "provenance.device is missing; publish the run again"),
        (change("config.training.batch_size", 0), "config: training.batch_size: 0: input should be greater"),
        (change("config.training.momentum", 1), "config: training.momentum: unknown key 'momentum'"),
        (change("config.model.cell", "gru"), "this version knows no such run"),
        (change("config.model.dropout", 0.5), "config.model.dropout: 0.5 recorded, nothing here"),
        (change("config.variant", "../x"), "config: variants.0.id: '../x'"),
        (change("config.protocol", "../../x"), "config: name: '../../x'"),
        (change("provenance.config_hash", "../../x"), "provenance.config_hash: '../../x' is no hash"),
        (change("provenance.device", "cuda"), "provenance.device: cuda was asked for, but no CUDA device is visible"),
    ],
)
def test_record_that_cannot_be_run_is_one_line(reproduce, tmp_path, monkeypatch, spoil, told):
    monkeypatch.setattr("benchmark.system.devices.cuda_count", lambda: 0)
    recorded = read_json(Path(__file__).parents[2] / REFERENCE)
    spoil(recorded)
    write_json(tmp_path / "record.json", recorded)
    status, said = reproduce(tmp_path / "record.json")
    assert status == 2
    assert said.startswith(f"error: {tmp_path / 'record.json'}: ")
    assert told in said
    assert not list(tmp_path.glob("again/reproduced/*/*/runs"))


@pytest.mark.parametrize("text", ["", "[1]", '{"config": 1}', "\x00"])
def test_file_that_is_no_record_is_one_line(reproduce, tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    status, said = reproduce(tmp_path / "record.json")
    assert (status, said.count("\n")) == (2, 1)
    assert reproduce(tmp_path / "none.json")[0] == 2


def points(count, changed=None):
    lines = [{"step": step, "train/loss": 1 / step, "train/grad_norm": 1.0} for step in range(1, count + 1)]
    if changed:
        lines[changed - 1]["train/grad_norm"] = 2.0
    return lines


def test_curves_of_any_length_are_kept_small_and_a_change_between_two_points_is_seen():
    recorded = json.loads(json.dumps(records.thinned(records.curve(points(80_000)))))
    assert len(recorded["step"]) == records.CURVE_POINTS
    assert (recorded["step"][0], recorded["step"][-1]) == (1, 80_000)
    assert len(json.dumps(recorded, indent=2)) < 25_000
    assert curve_difference(recorded, points(80_000)) is None
    before, after = recorded["step"][100:102]
    told = curve_difference(recorded, points(80_000, changed=before + 1))
    assert f"differ at step {after}, after being equal up to step {before}: loss" in told
    assert "differ at step 80000, which was not reached" in curve_difference(recorded, points(79_999))


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ({"a": [1, 2]}, {"a": [1, 2]}, []),
        ({"a": [1, 2]}, {"a": [1, 3]}, ["a 2: 2 recorded, 3 here"]),
        ({"a": [1]}, {"a": [1, 2]}, ["a: [1] recorded, [1, 2] here"]),
        ({"a": {"b": None}}, {"a": {}}, ["a.b: None recorded, nothing here"]),
        ({}, {"c": 1}, ["c: nothing recorded, 1 here"]),
        ({"a": float("nan")}, {"a": float("nan")}, []),
    ],
)
def test_differences_name_the_place_and_both_values(was, now, told):
    assert list(differences(was, now, "")) == told

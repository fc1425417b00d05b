"""`measure`: all seeds of a variant that nothing is trained of, in one process, are what the single verbs make."""

import pandas as pd
import pytest

from benchmark.__main__ import main
from benchmark.reporting import published_records as reference
from benchmark.system.files import read_json, write_json

UNTRAINED = {"training": {"steps": 0}, "seeds": [1, 2], "baselines": []}
NAMES = ("model.safetensors", "frames.parquet", "probe.parquet", "record.json")


@pytest.fixture
def protocol(write_protocol, tmp_path):
    """A tiny protocol that trains nothing, prepared in two folders."""
    file = str(write_protocol(**UNTRAINED))
    for base in ("at-once", "singly"):
        for verb in ("data", "backbone"):
            assert main([verb, "--protocol", file, "--results-dir", str(tmp_path / base)]) == 0
    return file


def test_all_seeds_at_once_are_what_the_single_verbs_make(protocol, tmp_path):
    at_once, singly = tmp_path / "at-once", tmp_path / "singly"
    options = ["--protocol", protocol, "--variant", "convlstm"]
    assert main(["measure", *options, "--results-dir", str(at_once)]) == 0
    for seed in ("1", "2"):
        for verb in ("train", "evaluate", "probe", "record"):
            assert main([verb, *options, "--seed", seed, "--results-dir", str(singly)]) == 0
        folders = [base / "tiny" / "runs" / "convlstm" / f"seed={seed}" for base in (at_once, singly)]
        weights = [(folder / "model.safetensors").read_bytes() for folder in folders]
        assert weights[0] == weights[1]
        for name in ("frames.parquet", "probe.parquet"):
            pd.testing.assert_frame_equal(*(pd.read_parquet(folder / name) for folder in folders), check_exact=True)
        first, second = (read_json(folder / "record.json") for folder in folders)
        for key in ("identity", "mean", "probe", "norms", "weights_sha256"):
            assert first[key] == second[key]


def test_what_is_published_is_not_made_again(protocol, tmp_path, monkeypatch):
    options = ["measure", "--protocol", protocol, "--variant", "convlstm", "--results-dir", str(tmp_path / "at-once")]
    runs = tmp_path / "at-once" / "tiny" / "runs" / "convlstm"
    assert main(options) == 0
    monkeypatch.setattr(reference, "FOLDER", tmp_path / "published")
    write_json(reference.record_path("tiny", "convlstm", 2), read_json(runs / "seed=2" / "record.json"))
    for record in runs.glob("*/record.json"):
        record.unlink()
    assert main([*options, "--reuse"]) == 0
    assert [record.parent.name for record in runs.glob("*/record.json")] == ["seed=1"]


def test_a_protocol_that_trains_is_refused(write_protocol, tmp_path, capsys):
    file = str(write_protocol())
    assert main(["measure", "--protocol", file, "--variant", "convlstm", "--results-dir", str(tmp_path)]) == 2
    assert (
        capsys.readouterr().err
        == "error: measure: protocol tiny trains its runs; use train, evaluate, probe and record\n"
    )

"""What the rules are made of, without Snakemake: the configuration as typed, options of commands, source files."""

import shlex
from pathlib import Path

import pytest

from benchmark.config import workflow
from benchmark.config.code_sources import ROOT
from benchmark.config.protocol import load_protocol
from benchmark.config.workflow import WorkflowConfig, options_of, read_config
from benchmark.system.errors import UserError

HOSTILE = 'it\'s a "test" $(touch pwned) ? %20 `x` & | > *'


def test_whole_number_is_the_folder_of_that_name():
    assert read_config({"results_dir": 2024}, ["snakemake", "--config", "results_dir=2024"]).results_dir == Path("2024")
    assert read_config({"results_dir": 7}).results_dir == Path("7")


@pytest.mark.parametrize(
    ("value", "word", "told"),
    [
        (777, "0777", "--config: results_dir: 0777 is read as 777; put ./ before it (./0777)"),
        (10, "1_0", "--config: results_dir: 1_0 is read as 10; put ./ before it (./1_0)"),
        (1000.0, "1e3", "--config: results_dir: is read as 1000.0, not as a name; put ./ before it (./NAME)"),
        (None, "", "--config: results_dir: is read as nothing, not as a name; put ./ before it (./NAME)"),
    ],
)
def test_name_that_snakemake_reads_as_something_else_is_refused_in_one_line(value, word, told):
    with pytest.raises(UserError) as raised:
        read_config({"results_dir": value}, ["snakemake", "--config", f"results_dir={word}"])
    assert str(raised.value) == told


@pytest.mark.parametrize("below", ["", "inner"])
def test_results_below_a_file_are_refused_in_one_line(tmp_path, below):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError) as raised:
        read_config({"results_dir": str(file / below)})
    assert str(raised.value) == f"--config: results_dir: {file} is a file; name a folder"


def test_every_option_is_one_word_to_a_shell_whatever_is_in_it():
    config = WorkflowConfig.model_validate(
        {"protocol": f"{HOSTILE}.yaml", "results_dir": HOSTILE, "data_dir": HOSTILE, "device": "cpu", "reuse": True}
    )
    protocol, place, data = f"--protocol={HOSTILE}.yaml", f"--results-dir={HOSTILE}", f"--data-dir={HOSTILE}"
    options = options_of(config)
    assert shlex.split(options.protocol) == [protocol]
    assert shlex.split(options.run) == [protocol, place, data, "--device=cpu"]
    assert shlex.split(options.fetch) == [protocol, place, data]
    assert shlex.split(options.reuse) == [protocol, place, "--reuse"]
    assert shlex.split(options.measure) == [protocol, place, data, "--device=cpu", "--reuse"]


def test_command_to_paste_is_what_was_given():
    command = workflow.command_of(["--report", f"{HOSTILE}/report.html"], {"results_dir": HOSTILE, "reuse": True})
    words = ["snakemake", "--report", f"{HOSTILE}/report.html", "--config", f"results_dir={HOSTILE}", "reuse=True"]
    assert shlex.split(command) == words
    assert workflow.command_of(["all"], {}) == "snakemake all"


def test_sources_are_files_as_the_working_directory_sees_them(monkeypatch, tmp_path):
    protocol = load_protocol("smoke")
    monkeypatch.chdir(ROOT)
    files = workflow.stage_sources(protocol, "train", ["predrnn"])
    assert "models/st_lstm.py" in files
    assert "models/st_lstm.py" not in workflow.stage_sources(protocol, "train", ["convlstm"])
    assert {"models/st_lstm.py", "models/convlstm.py"} <= {*workflow.plan_sources(protocol)}
    assert {*files} < {*workflow.measure_sources(protocol, "predrnn")}
    assert not any(name.startswith("models/") for name in workflow.stage_sources(protocol, "evaluate"))
    monkeypatch.chdir(tmp_path)
    assert all(Path(name).is_file() for name in workflow.stage_sources(protocol, "train", ["predrnn"]))


def test_files_of_a_run_are_those_that_its_rules_make():
    protocol = load_protocol("smoke")
    names = ["model.safetensors", "frames.parquet", "examples.npz", "film.png", "film.gif"]
    probed = ["probe.parquet", "probe.json", "memory.parquet", "probe.png"]
    assert workflow.run_files(protocol) == [*names, *probed, "record.json"]
    assert "memory.parquet" not in workflow.run_files(load_protocol("quick"))
    assert "beyond.parquet" in workflow.run_files(load_protocol("study-main"))


def test_a_row_that_is_not_trained_is_its_name_with_the_seed_of_none(make_protocol, tmp_path):
    entry = {"id": "theirs", "predictions": str(tmp_path / "theirs.npy")}
    protocol = make_protocol(variants=["predrnn", entry])
    for name in ("black", "theirs"):
        assert workflow.is_not_trained(protocol, name, 0)
        assert not workflow.is_not_trained(protocol, name, 1)
    assert not workflow.is_not_trained(protocol, "predrnn", 0)


def test_predictions_are_read_by_the_rule_that_scores_them(make_protocol, tmp_path):
    entry = {"id": "theirs", "predictions": str(tmp_path / "theirs")}
    protocol = make_protocol(variants=["predrnn", entry])
    with pytest.raises(UserError, match=r"theirs: no such file or folder"):
        workflow.predictions_files(protocol, "theirs")
    (tmp_path / "theirs").mkdir()
    for name in ("2.npy", "1.npy", ".hidden"):
        (tmp_path / "theirs" / name).touch()
    found = workflow.predictions_files(protocol, "theirs")
    assert found == [str(tmp_path / "theirs" / name) for name in ("1.npy", "2.npy")]
    assert workflow.predictions_files(protocol, "black") == []

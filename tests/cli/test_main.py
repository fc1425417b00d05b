"""The commands as processes: a mistake is a line and exit status 2, at once, without torch, and nothing is written."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.__main__ import main
from benchmark.cli.all_commands import COMMANDS

ROOT = Path(__file__).parents[2]
PROGRAM = """
import atexit, runpy, sys
slow = {"torch", "mlflow", "pandas", "matplotlib", "snakemake"}
atexit.register(lambda: print("imported:", *sorted(slow & sys.modules.keys())))
runpy.run_module("benchmark", run_name="__main__")
"""


@pytest.fixture
def ended(tmp_path):
    """Run a command in an empty folder and check that nothing is in it afterwards and nothing slow was imported."""
    folder = tmp_path / "empty"
    folder.mkdir()

    def run(*arguments):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert list(folder.iterdir()) == []
        assert done.stdout.splitlines()[-1].strip() == "imported:"
        return done

    return run


def run_of(protocol, variant="predrnn", seed=1):
    return "--protocol", protocol, "--variant", variant, "--seed", seed


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("train", *run_of("smok")), ["unknown protocol 'smok'; did you mean 'smoke'?", "study-main"]),
        (("plan", "--protocol", "missing.yaml"), ["missing.yaml: cannot be read (No such file or directory)"]),
        (
            ("train", *run_of("smoke", "predrn")),
            ["--variant", "smoke", "'predrn'; did you mean 'predrnn'?", "convlstm,"],
        ),
        (("train", *run_of("smoke", "../predrnn")), ["--variant", "'../predrnn'", "allowed: convlstm,"]),
        (("probe", *run_of("smoke", "black", 0)), ["--variant", "'black'", "allowed: convlstm,"]),
        (("train", *run_of("smoke", seed=9)), ["--seed", "smoke", "9", "allowed: 1, 2"]),
        (("evaluate", *run_of("smoke", "black", 1)), ["--seed", "1", "allowed: 0"]),
        (("train", *run_of("smoke"), "--device", "cuda"), ["--device: cuda", "no CUDA device", "use auto or cpu"]),
        (("evaluate", *run_of("smoke"), "--device", "cuda"), ["--device: cuda", "no CUDA device"]),
        (("data", "--protocol", "study-main", "--data-dir", "none"), ["data_dir: none/mnist/t10k-images", "not found"]),
        (("sync", "--results-dir", "none"), ["no run matches none/*/runs/*/seed=*"]),
    ],
)
def test_mistake_is_one_line_with_what_is_allowed(ended, arguments, told):
    done = ended(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert [part for part in told if part not in done.stderr] == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"training": {"lerning_rate": 1}}, ["training.lerning_rate", "'learning_rate'"]),
        ({"model": {"patch_size": 5}}, ["patch_size: 5 does not divide frame_size 12"]),
        ({"training": {"device": "cuda"}}, ["protocol tiny: training.device: cuda", "no CUDA device"]),
    ],
)
def test_mistake_in_a_protocol_file_is_found_before_anything_is_computed(ended, write_protocol, changes, told):
    done = ended("train", *run_of(write_protocol(**changes)))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert [part for part in told if part not in done.stderr] == []


def test_damaged_digit_file_is_named(ended, tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b\x08\x00torn")
    done = ended("data", "--protocol", "study-main", "--data-dir", tmp_path)
    assert done.returncode == 2
    assert f"error: data_dir: {tmp_path}/mnist/t10k-images-idx3-ubyte.gz is damaged" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help_says_what_the_command_does(ended, name):
    done = ended(*filter(None, (name, "--help")))
    assert done.returncode == 0
    assert "usage: python -m benchmark" in done.stdout
    wanted = COMMANDS if name is None else [COMMANDS[name].about.split()[0]]
    assert [word for word in wanted if word not in done.stdout] == []


@pytest.mark.parametrize(
    "arguments", [(), ("trian",), ("train",), ("train", *run_of("smoke", seed="one")), ("plan", "--protocl", "smoke")]
)
def test_wrong_command_line_is_refused_with_the_usage(ended, arguments):
    done = ended(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")
    assert "Traceback" not in done.stderr


def test_interrupt_is_no_traceback(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "plan", dataclasses.replace(COMMANDS["plan"], run=interrupted))
    assert main(["plan", "--protocol", "smoke"]) == 130
    told = capsys.readouterr().err
    assert told == "interrupted; the same command goes on, from the last checkpoint where there is one\n"


def test_unmatched_parameters_are_refused_with_the_counts_and_no_plan_is_left(write_protocol, tmp_path, capsys):
    file = write_protocol(target_parameters=1000)
    assert main(["plan", "--protocol", str(file), "--results-dir", str(tmp_path / "results")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: protocol tiny: parameters off target_parameters 1,000 by more than 7%: ")
    assert "change hidden_channels or set target_parameters: null" in told
    assert not (tmp_path / "results" / "tiny" / "plan.csv").exists()


def test_matched_parameters_are_printed_with_their_counts(write_protocol, tmp_path, capsys):
    results = str(tmp_path / "results")
    assert main(["plan", "--protocol", str(write_protocol()), "--results-dir", results]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "results" / "tiny" / "plan.csv").read_text().count("\n") == 4
    assert [variant for variant in ("convlstm", "predrnn", "predrnnpp") if variant not in printed] == []

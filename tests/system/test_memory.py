"""Where memory really runs out: one message with what helps, no half result, and the same command goes on."""

import os
import re
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from benchmark.__main__ import main
from benchmark.config.protocol import Protocol
from benchmark.config.sections import EvaluationConfig, ProbeConfig, TrainingConfig
from benchmark.system import memory
from benchmark.system.errors import UserError
from benchmark.system.files import read_json
from benchmark.training.train import less_memory

SECTIONS = {"training": TrainingConfig, "evaluation": EvaluationConfig, "probe": ProbeConfig}


@pytest.fixture
def verb(forker, write_protocol, tmp_path):
    """Runs a verb of this protocol with large batches; its data are prepared."""
    file = write_protocol(
        data={"test_clips": 6000},
        training={"steps": 2, "batch_size": 4000, "validate_every": 2, "checkpoint_every": 1},
        evaluation={"batch_size": 6000},
        probe={"clips": 3000, "batch_size": 3000},
    )

    def run(name, *more, **keys):
        options = ["--protocol", file, "--results-dir", tmp_path / "results"]
        one = ["--variant", "predrnn", "--seed", "1"] if name in ("train", "evaluate", "probe") else []
        return forker.run(name, *options, *one, *more, **keys)

    assert run("data")[0] == 0
    return run


def refused(outcome):
    """The one message that a verb without memory ended with."""
    code, output = outcome
    assert code == 2, output
    assert "Traceback" not in output
    (message,) = (line for line in output.splitlines() if line.startswith("error: "))
    assert re.search(r"out of memory with batches of \d+ clips \(peak [\d,]+ MiB\)", message)
    return message


def keys_in(message):
    """The protocol keys that a message names, which must exist."""
    keys = re.findall(r"\b(training|evaluation|probe)\.(\w+)", message)
    assert [key for section, key in keys if key not in SECTIONS[section].model_fields] == []
    return {".".join(key) for key in keys}


def test_without_memory_every_verb_says_so_and_leaves_no_half_result(verb, forker, tmp_path):
    folder = tmp_path / "results" / "tiny" / "runs" / "predrnn" / "seed=1"
    weights = folder / "model.safetensors"
    message = refused(verb("train", spare_mib=150))
    assert "predrnn seed=1, step 1: out of memory with batches of 4000 clips" in message
    assert keys_in(message) == {"training.recompute", "training.batch_size", "evaluation.batch_size"}
    assert read_json(folder / "status.json")["state"] == "failed"
    assert not weights.exists()
    assert verb("train", "--resume-only")[0] == 0
    assert read_json(folder / "status.json") == {"state": "finished", "step": 2, "steps": 2}

    assert verb("backbone", "--data-dir", tmp_path)[0] == 0
    before = {path.name for path in folder.iterdir()}
    for name, key, size in (("evaluate", "evaluation.batch_size", 6000), ("probe", "probe.batch_size", 3000)):
        message = refused(verb(name, spare_mib=60))
        assert f"predrnn seed=1, {name}: out of memory with batches of {size} clips" in message
        assert keys_in(message) == {key}
        assert {path.name for path in folder.iterdir()} == before

    np.save(tmp_path / "clips.npy", np.zeros((5000, 5, 12, 12), dtype=np.uint8))
    own = ["--weights", weights, "--data", tmp_path / "clips.npy", "--output", tmp_path / "scores.parquet"]
    message = refused(forker.run("evaluate", *own, "--batch-size", 5000, "--layout", "NTHW", spare_mib=60))
    assert f"error: {weights}: out of memory with batches of 5000 clips (peak " in message
    assert "make --batch-size smaller" in message
    assert not (tmp_path / "scores.parquet").exists()


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"test_clips": 4_000_000, "frame_size": 1024}, "data.test_clips: 4000000"),
        ({"validation_clips": 4_000_000, "frame_size": 1024}, "data.validation_clips: 4000000"),
        ({"digit_size": 4095, "frame_size": 4096}, "data.digit_size: 4095"),
    ],
)
def test_clips_larger_than_the_memory_are_refused_before_any_is_made_and_named_by_plan(
    write_protocol, tmp_path, capsys, monkeypatch, data, key
):
    monkeypatch.setattr(memory, "available_bytes", lambda: 8 * 2**30)
    file = write_protocol(data=data)
    options = ["--protocol", str(file), "--results-dir", str(tmp_path / "results"), "--data-dir", str(tmp_path)]
    assert main(["data", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    said = rf"protocol tiny: data: {key} takes [\d,.]+ GiB of memory, and 8.0 GiB are available here; make it smaller"
    assert re.match(f"error: {said}", line), line
    assert not (tmp_path / "results" / "tiny" / "data").exists()
    assert main(["plan", *options[:4]]) == 0
    assert re.search(said, capsys.readouterr().out)


def test_clips_that_find_no_memory_after_all_end_in_one_message(verb, tmp_path, write_protocol):
    code, output = verb("data", "--results-dir", tmp_path / "small", spare_mib=1)
    assert (code, "Traceback" in output) == (2, False), output
    assert re.search(r"error: protocol tiny: data: .*data\.\w+: \d+", output)
    assert not (tmp_path / "small" / "tiny" / "data" / "data.json").exists()


def test_what_is_available_is_that_of_the_container_or_of_a_limit_where_that_is_less(tmp_path, monkeypatch):
    for name, text in (("memory.max", "3000000000"), ("memory.current", "2999999000"), ("memory.stat", "anon 7")):
        (tmp_path / name).write_text(f"{text}\n")
    alone = memory.available_bytes()
    assert 0 < alone <= 2**20 * memory.memory_of("cpu") + 1024 * memory._numbers("/proc/meminfo")["SwapTotal"]
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.available_bytes() == 1000
    (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 500\n")
    assert memory.available_bytes() == 1500


def test_memory_of_a_gpu_is_that_of_the_one_this_process_has(monkeypatch):
    sizes = [8 * 2**30, 24 * 2**30]
    fake = types.SimpleNamespace(
        current_device=lambda: 1,
        get_device_properties=lambda number: types.SimpleNamespace(total_memory=sizes[number]),
    )
    monkeypatch.setattr(torch, "cuda", fake)
    assert memory.memory_of("cuda") == 24 * 1024


def test_too_little_shared_memory_is_one_line_with_what_to_do(monkeypatch):
    monkeypatch.setattr(memory.os, "statvfs", lambda path: types.SimpleNamespace(f_bavail=16, f_frsize=2**20))
    memory.check_shared_memory(16 * 2**20, "training.threads: 1")
    with pytest.raises(UserError) as raised:
        memory.check_shared_memory(20 * 2**20, "training.threads: 1")
    assert str(raised.value) == (
        "/dev/shm: 20.0 MiB of shared memory needed, 16.0 MiB are free; give the container more"
        " (docker run --shm-size=2g), or set training.threads: 1"
    )


SMALL = 'mount -t tmpfs -o size=256k tmpfs /dev/shm && exec "$@"'


def test_training_by_two_threads_in_a_container_with_little_shared_memory_fails_by_name(write_protocol, tmp_path):
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("a mount of its own is refused here")
    model = {"hidden_channels": 24}
    file = write_protocol(training={"threads": 2, "steps": 2, "validate_every": 2}, variants=["predrnn"], model=model)
    options = ["--protocol", str(file), "--results-dir", str(tmp_path / "results")]
    assert main(["data", *options]) == 0
    train = [sys.executable, "-m", "benchmark", "train", *options, "--variant", "predrnn", "--seed", "1"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": "off"}
    command = ["unshare", "-m", "sh", "-c", SMALL, "sh", *train]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    line = done.stderr.splitlines()[-1]
    assert re.match(r"error: /dev/shm: [\d.]+ MiB of shared memory needed, 0\.\d MiB are free; .*--shm-size=", line)
    assert line.endswith("or set training.threads: 1 in place of 2")
    status = read_json(tmp_path / "results" / "tiny" / "runs" / "predrnn" / "seed=1" / "status.json")
    assert status == {"state": "failed", "step": 0, "steps": 2}


def test_what_is_suggested_to_trainings_exists_and_can_help(make_protocol):
    (alone, beside) = make_protocol(seeds=[1]).runs()[:2]
    everything = {"training.recompute", "training.batch_size", "evaluation.batch_size"}
    assert keys_in(less_memory([alone])) == everything
    assert "cohort" not in less_memory([alone])
    assert "cohort" in less_memory([alone, beside])
    assert "cohort" in Protocol.model_fields
    saving = make_protocol(training={"recompute": True}).run("predrnn", 1)
    assert keys_in(less_memory([saving])) == everything - {"training.recompute"}

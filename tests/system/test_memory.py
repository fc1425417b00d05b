"""Where memory really runs out: one message with what helps, no half result, and the same command goes on."""

import re

import numpy as np
import pytest

from benchmark.config.protocol import Protocol
from benchmark.config.sections import EvaluationConfig, ProbeConfig, TrainingConfig
from benchmark.system.files import read_json
from benchmark.training.job import less_memory

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


def test_what_is_suggested_to_trainings_exists_and_can_help(make_protocol):
    (alone, beside) = make_protocol(seeds=[1]).runs()[:2]
    everything = {"training.recompute", "training.batch_size", "evaluation.batch_size"}
    assert keys_in(less_memory([alone])) == everything
    assert "cohort" not in less_memory([alone])
    assert "cohort" in less_memory([alone, beside])
    assert "cohort" in Protocol.model_fields
    saving = make_protocol(training={"recompute": True}).run("predrnn", 1)
    assert keys_in(less_memory([saving])) == everything - {"training.recompute"}

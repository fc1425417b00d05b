"""One run under Snakemake, killed in every way in turn; the same command each time, and the same bits in the end."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
import yaml

from benchmark.system.files import read_json
from tests.helpers.forked import Forker
from tests.workflow import test_workflow
from tests.workflow.test_workflow import lines, snakemake, start

checkout = test_workflow.checkout
RESULTS = ("model.safetensors", "metrics.jsonl", "frames.parquet", "probe.parquet", "status.json", "run.yaml")


TARGETS = [f"results/killed/runs/predrnn/seed=1/{name}" for name in ("frames.parquet", "probe.parquet", ".mirrored")]
CALL = [*TARGETS, "--config", "protocol=killed"]


@pytest.fixture(scope="module")
def folder(checkout):
    """Where the run will be."""
    values = yaml.safe_load((checkout / "workflows" / "protocols" / "smoke.yaml").read_text())
    training = values["training"] | {"steps": 240, "log_every": 1, "checkpoint_every": 25, "validate_every": 40}
    values |= {"seeds": [1], "training": training, "variants": [{"id": "predrnn", "hidden_channels": 6}]}
    (checkout / "workflows" / "protocols" / "killed.yaml").write_text(yaml.safe_dump(values))
    return checkout / "results" / "killed" / "runs" / "predrnn" / "seed=1"


def begun(checkout, folder):
    """A Snakemake whose training has done three steps more than there were."""
    known = len(lines(folder / "metrics.jsonl")) if (folder / "metrics.jsonl").exists() else 0
    process = start(checkout, *CALL)
    while not (folder / "metrics.jsonl").exists() or training_pid(folder) is None or steps(folder) < min(known, 3) + 3:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    while steps(folder) < known + 3:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    return process


def steps(folder):
    return (folder / "metrics.jsonl").read_bytes().count(b"train/loss")


def training_pid(folder):
    """The pid that the lock of the run names, if it lives."""
    found = re.fullmatch(r"pid (\d+).*", (folder / ".lock").read_text()) if (folder / ".lock").exists() else None
    return int(found[1]) if found and Path(f"/proc/{found[1]}").exists() else None


def killed(checkout, folder, number):
    """Kill Snakemake with all its children as a terminal or a machine that stops does; its output."""
    process = begun(checkout, folder)
    os.killpg(process.pid, number)
    output, _ = process.communicate()
    wait_for_end_of(training_pid(folder))
    return output


def wait_for_end_of(pid):
    while pid is not None and Path(f"/proc/{pid}").exists():
        time.sleep(0.02)


def state(folder):
    return read_json(folder / "status.json")


@pytest.mark.slow
def test_run_killed_in_every_way_is_the_run_that_was_never_interrupted(checkout, folder, tmp_path):
    killed(checkout, folder, signal.SIGKILL)
    assert state(folder)["state"] == "running"

    killed(checkout, folder, signal.SIGINT)
    assert state(folder) == {"state": "interrupted", "step": steps(folder), "steps": 240}
    log = (checkout / "results" / "killed" / "logs" / "train" / "predrnn.seed=1.log").read_text()
    assert "SIGINT: predrnn seed=1 at step " in log
    assert "Traceback" not in log

    process = begun(checkout, folder)
    os.kill(process.pid, signal.SIGKILL)  # its jobs live on
    process.wait()
    orphan = training_pid(folder)
    assert b"train" in Path(f"/proc/{orphan}/cmdline").read_bytes().split(b"\0")
    os.kill(orphan, signal.SIGSTOP)  # or it may be through before the second Snakemake comes to its training
    status, output = snakemake(checkout, *CALL)
    assert status != 0
    assert f"seed=1: in use by pid {orphan}" in output
    assert Path(f"/proc/{orphan}").exists()
    os.kill(orphan, signal.SIGTERM)
    os.kill(orphan, signal.SIGCONT)
    wait_for_end_of(orphan)
    process.stdout.close()

    status, output = snakemake(checkout, *CALL)
    assert status == 0, output
    assert "--unlock" not in output
    assert_mirrored(checkout, folder)
    straight = trained_straight(checkout, tmp_path)
    assert [name for name in RESULTS if (folder / name).read_bytes() != (straight / name).read_bytes()] == []


def trained_straight(checkout, tmp_path):
    """The folder of the same run that nothing interrupts, by hand."""
    forker = Forker(tmp_path)
    options = ["--protocol", checkout / "workflows" / "protocols" / "killed.yaml", "--results-dir", tmp_path]
    for verb in ("data", "backbone", "train", "evaluate", "probe"):
        run = ["--variant", "predrnn", "--seed", "1"] if verb in ("train", "evaluate", "probe") else []
        status, output = forker.run(verb, *options, *run)
        assert status == 0, output
    forker.close()
    return tmp_path / "killed" / "runs" / "predrnn" / "seed=1"


def assert_mirrored(checkout, folder):
    """MLflow has one run, each point of its curves once."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{checkout / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("killed").experiment_id])
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    logged = [(line["step"], line["train/loss"]) for line in lines(folder / "metrics.jsonl") if "train/loss" in line]
    assert sorted((point.step, point.value) for point in history) == logged
    assert [step for step, _ in logged] == list(range(1, 241))

"""Trainings killed by real signals, again and again: nothing lost, nothing twice, the same bits in the end."""

import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from benchmark.system.files import read_json, read_json_lines
from tests.helpers import extent
from tests.helpers.forked import ROOT

RESULTS = ("model.safetensors", "metrics.jsonl", "frames.parquet", "probe.parquet", "probe.json", "run.yaml")
GOES_ON = {signal.SIGTERM: 143, signal.SIGINT: 130}
WRITING = "while the checkpoint is written"


def another(results, name):
    """A second results folder with the same data."""
    shutil.copytree(results / "tiny" / "data", results.parent / name / "tiny" / "data")
    return results.parent / name


def options(file, results, variant="predrnnpp"):
    return ["--protocol", file, "--variant", variant, "--seed", "1", "--results-dir", results]


def leftovers(folder):
    """Checkpoints that a kill cut off while they were written."""
    return list(folder.glob(".checkpoint-*.pt"))


def points(folder):
    return len(read_json_lines(folder / "metrics.jsonl"))


def wait_for(condition, job, every_s=0.002):
    """Wait for what the job does; it must not end by itself."""
    while not condition():
        assert job.running(), job.wait()
        time.sleep(every_s)


def scored(forker, file, results):
    """What a run ends in, byte for byte, once it is scored and probed."""
    shutil.copy(results.parent / "lpips_backbone.json", results / "tiny")
    for verb in ("evaluate", "probe"):
        code, output = forker.run(verb, *options(file, results))
        assert code == 0, output
    folder = results / "tiny" / "runs" / "predrnnpp" / "seed=1"
    return {name: (folder / name).read_bytes() for name in RESULTS} | {"status": read_json(folder / "status.json")}


def test_run_killed_again_and_again_is_the_run_that_was_never_interrupted(write_protocol, results, forker, tmp_path):
    file = write_protocol(training={"steps": 100, "checkpoint_every": 2, "validate_every": 10})
    folder, chance = results / "tiny" / "runs" / "predrnnpp" / "seed=1", random.Random(6)
    kills, cut_writes = [], 0
    plan = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, WRITING]
    while len(kills) < extent.of(4, 20) or cut_writes < extent.of(1, 3):
        known, kind = points(folder), plan[len(kills) % 4]
        job = forker.start("train", *options(file, results))
        if kind == WRITING:
            wait_for(lambda before=known: points(folder) > before, job)
            wait_for(lambda: leftovers(folder), job, every_s=0)
        else:
            more = chance.randint(kind != signal.SIGKILL, 4)  # a kill may come before the first step, too
            wait_for(lambda least=known + more: points(folder) >= least, job)
            time.sleep(chance.uniform(0, 0.03))
        job.send(signal.SIGKILL if kind == WRITING else kind)
        code, output = job.wait()
        kills.append(kind)
        cut_writes += bool(leftovers(folder))
        if kind in GOES_ON:
            assert code == GOES_ON[kind], output
            reached = read_json(folder / "status.json")
            assert reached["state"] == "interrupted"
            said = (
                f"{signal.Signals(kind).name}: predrnnpp seed=1 at step {reached['step']} of 100, checkpoint written; "
            )
            assert output.splitlines()[-1].startswith(f"{said}go on with: python -m benchmark train --protocol ")
            assert "Traceback" not in output
        else:
            assert code == -signal.SIGKILL
    assert len(kills) < 60
    assert forker.run("train", *options(file, results), "--resume-only")[0] == 0
    assert leftovers(folder) == []
    assert list(folder.glob("checkpoint*")) == []

    straight = another(results, "straight")
    assert forker.run("train", *options(file, straight))[0] == 0
    assert forker.run("backbone", "--protocol", file, "--results-dir", tmp_path, "--data-dir", tmp_path)[0] == 0
    shutil.move(tmp_path / "tiny" / "lpips_backbone.json", tmp_path)
    assert scored(forker, file, results) == scored(forker, file, straight)
    assert forker.run("sync", "--results-dir", results)[0] == 0
    assert_mirrored(f"sqlite:///{tmp_path / 'mlflow.db'}", folder)


def assert_mirrored(store, folder):
    """The store holds one run a folder (of two here), each point once and none too few."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert run.info.status == "FINISHED"
    wanted = {}
    for line in read_json_lines(folder / "metrics.jsonl"):
        for key in line.keys() - {"step"}:
            name = key.replace("validation/", "val/")  # MLflow's section of the page
            wanted.setdefault(name, []).append((line["step"], line[key]))
    for key, expected in wanted.items():
        history = client.get_metric_history(run.info.run_id, key)
        assert sorted((point.step, point.value) for point in history) == expected, key
    assert [step for step, _ in wanted["train/loss"]] == list(range(1, 101))
    for key in ("system/clips_per_s", "system/peak_memory_mib"):
        steps = sorted(point.step for point in client.get_metric_history(run.info.run_id, key))
        assert len(steps) == len(set(steps))


def statuses(store):
    """The statuses of the runs in a store."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store)
    return [run.info.status for run in client.search_runs([client.get_experiment_by_name("tiny").experiment_id])]


def test_all_runs_of_a_cohort_are_left_with_a_checkpoint(write_protocol, results, forker):
    file = write_protocol(training={"steps": 60, "checkpoint_every": 50}, variants=["convlstm", "predrnn"])
    both, folders = (
        "convlstm,predrnn",
        [results / "tiny" / "runs" / name / "seed=1" for name in ("convlstm", "predrnn")],
    )
    job = forker.start("train", *options(file, results, both))
    wait_for(lambda: points(folders[1]) > 6, job)
    job.send(signal.SIGINT)
    code, output = job.wait()
    assert (code, "Traceback" in output) == (130, False)
    (step,) = {read_json(folder / "status.json")["step"] for folder in folders}
    assert 6 <= step < 50
    assert {read_json(folder / "status.json")["state"] for folder in folders} == {"interrupted"}
    assert f": convlstm seed=1 at step {step} of 60, predrnn seed=1 at step {step} of 60, checkpoint" in output
    if "not yet in MLflow" in output:  # an end waits for a store that answers slowly only so long, and says so
        assert forker.run("sync", "--results-dir", results)[0] == 0
    assert statuses(f"sqlite:///{results.parent / 'mlflow.db'}") == ["KILLED"] * 2
    code, output = forker.run("train", *options(file, results, both), "--resume-only")
    assert (code, f"predrnn seed=1: going on from step {step} of 60" in output) == (0, True)
    assert statuses(f"sqlite:///{results.parent / 'mlflow.db'}") == ["FINISHED"] * 2
    straight = another(results, "straight")
    assert forker.run("train", *options(file, straight, both))[0] == 0
    for folder in folders:
        for name in ("model.safetensors", "metrics.jsonl"):
            theirs = straight / folder.relative_to(results) / name
            assert (folder / name).read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize(
    ("number", "listens"), [pytest.param(signal.SIGTERM, True, marks=pytest.mark.slow), (signal.SIGINT, False)]
)
def test_command_line_ends_at_a_signal_with_its_status_even_if_nobody_reads_its_output_any_more(
    write_protocol, results, number, listens
):
    file = write_protocol(training={"steps": 100_000, "checkpoint_every": 100_000})
    folder = results / "tiny" / "runs" / "predrnnpp" / "seed=1"
    command = [sys.executable, "-m", "benchmark", "train", *map(str, options(file, results))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            while points(folder) < 3:
                assert process.poll() is None
                time.sleep(0.01)
            if not listens:
                process.stdout.close()  # as a `tee` or a terminal that ended first
            process.send_signal(number)
            process.wait(60)
        finally:
            process.kill()
        if listens:
            said = process.stdout.read()
            assert f"go on with: python -m benchmark train --protocol {file}" in said.splitlines()[-1]
            assert "Traceback" not in said
    assert process.returncode == GOES_ON[number]
    status = read_json(folder / "status.json")
    assert (status["state"], status["step"]) == ("interrupted", read_json_lines(folder / "metrics.jsonl")[-1]["step"])


def test_second_signal_ends_at_once_and_the_last_whole_checkpoint_stands(write_protocol, results, forker):
    file = write_protocol(training={"steps": 100_000, "checkpoint_every": 5})
    folder = results / "tiny" / "runs" / "predrnnpp" / "seed=1"
    job = forker.start("train", *options(file, results))
    wait_for(lambda: points(folder) > 6, job)
    for _ in range(2):
        job.send(signal.SIGTERM)
        time.sleep(0.0005)
    code, _ = job.wait()
    assert code in (143, -signal.SIGTERM)  # the second may come when the first is done with
    job = forker.start("train", *options(file, results), "--resume-only")
    wait_for(lambda: read_json_lines(folder / "metrics.jsonl")[-1]["step"] > 12, job)
    job.send(signal.SIGTERM)
    code, output = job.wait()
    assert code == 143
    assert int(re.search("going on from step ([0-9]+) of", output)[1]) >= 5

"""One run shared by two processes that torchrun starts is the run of one process, but for rounding."""

import contextlib
import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from benchmark.__main__ import main
from benchmark.config.protocol import load_protocol
from benchmark.data.moving_digits.prepare import prepare
from benchmark.data.moving_digits.stream import ClipStream
from benchmark.evaluation import lpips_backbone as backbone
from benchmark.evaluation.evaluate import evaluate
from benchmark.system import processes
from benchmark.system.files import read_json, read_json_lines
from benchmark.training import step as engine
from benchmark.training.run_state import add_process_count
from benchmark.training.train import train
from tests.helpers.fixtures import TINY

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = os.environ | {
    "MLFLOW_TRACKING_URI": "sqlite:////proc/no/mlflow.db",
    "PYTHONPATH": str(ROOT),
    "GLOO_SOCKET_IFNAME": "lo",
    "OMP_NUM_THREADS": "1",
}
CLOSE = {"rtol": 1e-4, "atol": 1e-6}
"""Losses and norms in float32 after a few steps."""
NEAR = {"rtol": 0, "atol": 1e-5}
"""Weights then: a thousandth of what one step of Adam changes."""


class Shared(NamedTuple):
    """What a task left."""

    run: object
    results: Path
    codes: list[int]
    seen: list[list[dict]]
    """By process, update by update."""
    said: list[str]


def write(folder, **changes):
    """The tiny protocol with these changes and its data in a folder of its own; (protocol, file, results)."""
    values = copy.deepcopy(TINY) | {"variants": ["predrnnpp"]}
    for key, value in changes.items():
        values[key] = values[key] | value
    folder.mkdir()
    file, results = folder / "tiny.yaml", folder / "results"
    file.write_text(yaml.safe_dump(values))
    protocol = load_protocol(str(file))
    prepare(protocol.data, folder / "no-downloads", results / "tiny" / "data")
    backbone.prepare("squeeze", None, results / "tiny" / "lpips_backbone.json", False)
    return protocol, file, results


def another(results, name):
    """A second results folder with the same data."""
    shutil.copytree(results / "tiny" / "data", results.parent / name / "tiny" / "data")
    return results.parent / name


@contextlib.contextmanager
def interrupted_at(step):
    """Ctrl-C while the batch of `step` (from 0) is made."""
    batch = ClipStream.batch

    def interrupted(stream, number, size):
        if number == step:
            raise KeyboardInterrupt
        return batch(stream, number, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClipStream, "batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield


FOUR = {"batch_size": 4}
CASES = {
    "mean": {"training": FOUR, "evaluation": {"beyond": 4}},
    "half-sum": {
        "training": FOUR
        | {"loss_reduction": "half-sum", "clip_norm": 0.5, "reversed_second_step": True, "loss": "l1+l2"},
    },
    "gaps": {
        "training": FOUR,
        "data": {"gaps": [0, 1, 2], "train_clips": 7},
        "evaluation": {"film_clips": [2, 5]},
    },
    "poisoned": {"training": FOUR | {"on_divergence": "skip_step"}},
    "resumed": {"training": FOUR | {"schedule": "one-cycle"}},
    "refused": {"training": FOUR},
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """All cases, trained and scored by two processes of one torchrun; case -> what training and evaluation left."""
    top, tasks, found = tmp_path_factory.mktemp("shared"), [], {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", ENVIRONMENT["MLFLOW_TRACKING_URI"])
        for name, changes in CASES.items():
            protocol, file, results = write(top / name, **changes)
            run = protocol.run("predrnnpp", 1)
            found[name] = (run, results)
            if name == "resumed":
                with interrupted_at(5):
                    train(run, results, "cpu")
            options = ["--protocol", str(file), "--variant", "predrnnpp", "--seed", "1", "--results-dir", str(results)]
            more = ["--resume-only"] if name in ("resumed", "refused") else []
            tasks.append({"arguments": ["train", *options, *more], "poison": [2, 3] if name == "poisoned" else []})
            if name in ("mean", "gaps"):
                tasks.append({"arguments": ["evaluate", *options, "--data-dir", str(top)]})
    (top / "tasks.json").write_text(json.dumps(tasks))
    command = [*TORCHRUN, str(ROOT / "tests" / "helpers" / "shared_runs.py"), str(top)]
    done = subprocess.run(command, cwd=top, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    left = {}
    for number, task in enumerate(tasks):
        verb, file = task["arguments"][0], Path(task["arguments"][2])
        told = [json.loads((top / f"{number}.{rank}.json").read_text()) for rank in range(2)]
        said = [(top / f"{number}.{rank}.log").read_text() for rank in range(2)]
        codes, seen = [one["code"] for one in told], [one["seen"] for one in told]
        left[f"{verb} {file.parent.name}"] = Shared(*found[file.parent.name], codes, seen, said)
    return left


def alone(run, results):
    """What every update of one process is given and gives, and the folder of its run."""
    elsewhere = another(results, "alone")
    seen, update = [], engine.train_one_step

    def watched(network, optimizer, batch, *arguments):
        result = update(network, optimizer, batch, *arguments)
        seen.append((*batch, result.loss.item(), result.gradient_norm.item()))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "train_one_step", watched)
        patch.setenv("MLFLOW_TRACKING_URI", ENVIRONMENT["MLFLOW_TRACKING_URI"])
        train(run, elsewhere, "cpu")
    return seen, run.path(elsewhere)


def curves(folder):
    return pd.DataFrame(read_json_lines(folder / "metrics.jsonl"))


def assert_same_but_for_rounding(folder, expected):
    pd.testing.assert_frame_equal(curves(folder), curves(expected), check_exact=False, **CLOSE)
    weights = load_file(folder / "model.safetensors")
    for name, tensor in load_file(expected / "model.safetensors").items():
        torch.testing.assert_close(weights[name], tensor, **NEAR)


@pytest.mark.parametrize("case", ["mean", "half-sum", "gaps"])
def test_two_processes_share_each_batch_and_take_the_steps_of_one(shared, case):
    from tests.helpers.shared_runs import digest

    task = shared[f"train {case}"]
    assert task.codes == [0, 0]
    expected, folder = alone(task.run, task.results)
    first, second = task.seen
    assert len(first) == len(second) == len(expected) == (16 if case == "half-sum" else 8)
    for ours, theirs, (frames, inputs, mask, _, loss, norm) in zip(first, second, expected, strict=True):
        assert len(ours["frames"]) == len(theirs["frames"]) == 2
        assert ours["frames"] + theirs["frames"] == [digest([clip]) for clip in frames]
        assert ours["inputs"] + theirs["inputs"] == [digest([clip]) for clip in inputs]
        assert ours["mask"] + theirs["mask"] == mask.tolist()
        assert (ours["loss"], ours["norm"]) == (theirs["loss"], theirs["norm"])
        assert ours["weights"] == theirs["weights"]
        np.testing.assert_allclose([ours["loss"], ours["norm"]], [loss, norm], rtol=1e-4)
    assert_same_but_for_rounding(task.run.path(task.results), folder)


def test_first_process_alone_writes_and_speaks(shared):
    task = shared["train mean"]
    assert task.said[1] == ""
    assert "predrnnpp seed=1 | step 8/8" in task.said[0]
    folder = task.run.path(task.results)
    assert [line["step"] for line in read_json_lines(folder / "timing.jsonl")] == list(range(1, 9))
    assert read_json(folder / "status.json") == {"state": "finished", "step": 8, "steps": 8}


def test_record_says_how_many_processes_shared_the_run(shared):
    origin = read_json(shared["train mean"].run.path(shared["train mean"].results) / "provenance.json")
    assert origin["processes"] == {"0": 2}
    assert origin["command"].startswith("torchrun --nproc-per-node 2 -m benchmark train --protocol tiny ")


def test_share_that_is_not_finite_stops_the_update_of_all(shared):
    task = shared["train poisoned"]
    assert task.codes == [0, 0]
    folder = task.run.path(task.results)
    assert read_json(folder / "status.json") == {"state": "finished", "step": 8, "steps": 8, "skipped": 2}
    for seen in task.seen:
        assert [np.isfinite(one["loss"]) for one in seen] == [step not in (2, 3) for step in range(8)]
        assert seen[1]["weights"] == seen[2]["weights"] == seen[3]["weights"] != seen[4]["weights"]
    assert [one["weights"] for one in task.seen[0]] == [one["weights"] for one in task.seen[1]]


def test_two_processes_go_on_from_the_checkpoint_of_one(shared):
    task = shared["train resumed"]
    assert task.codes == [0, 0]
    assert [len(seen) for seen in task.seen] == [5, 5]
    assert task.seen[0][-1]["weights"] == task.seen[1][-1]["weights"]
    assert "predrnnpp seed=1: going on from step 3 of 8" in task.said[0]
    _, expected = alone(task.run, task.results)
    folder = task.run.path(task.results)
    assert_same_but_for_rounding(folder, expected)
    assert read_json(folder / "provenance.json")["processes"] == {"0": 1, "3": 2}


def test_what_the_first_process_refuses_ends_all_and_is_said_once(shared):
    task = shared["train refused"]
    assert task.codes == [2, 2]
    assert task.said[0].startswith("error: ")
    assert "no checkpoint to resume from" in task.said[0]
    assert task.said[1] == ""


@pytest.mark.parametrize("case", ["mean", "gaps"])
def test_two_processes_score_each_clip_once_and_as_one_does(shared, case):
    task = shared[f"evaluate {case}"]
    assert (task.codes, task.said) == ([0, 0], ["", ""])
    folder = task.run.path(task.results)
    names = ["frames.parquet", "examples.npz", "film.png", "film.gif"] + ["beyond.parquet"] * (case == "mean")
    found = {name: (folder / name).read_bytes() for name in names}
    scored = pd.read_parquet(folder / "frames.parquet")
    gaps = [scored] if case == "mean" else [table for _, table in scored.groupby("gap")]
    for table in gaps:  # 5 clips in 3 batches, of which one process has two
        assert list(table["clip"]) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    protocol = load_protocol(str(task.results.parent / "tiny.yaml"))
    evaluate(protocol, "predrnnpp", 1, task.results, Path("none"), "cpu")
    assert [name for name, content in found.items() if (folder / name).read_bytes() != content] == []


def process_of(torchrun, rank):
    """The pid of the process of that rank, which this torchrun started."""
    for pid in Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return int(pid)
    raise AssertionError(f"torchrun has no process of rank {rank}")


@pytest.mark.slow
def test_training_survives_a_killed_process_and_term_and_ends_in_one_process(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ENVIRONMENT["MLFLOW_TRACKING_URI"])
    protocol, file, results = write(tmp_path / "killed", training=FOUR | {"steps": 150, "checkpoint_every": 20})
    run = protocol.run("predrnnpp", 1)
    folder = run.path(results)
    options = ["--protocol", str(file), "--variant", "predrnnpp", "--seed", "1", "--results-dir", str(results)]
    output = tmp_path / "output"

    def start():
        with output.open("w") as log:
            command = [*TORCHRUN, "-m", "benchmark", "train", *options]
            return subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=log, stderr=log)

    def wait_for(process, step):
        while max((line["step"] for line in read_json_lines(folder / "metrics.jsonl")), default=0) < step:
            assert process.poll() is None, output.read_text()
            time.sleep(0.02)

    process = start()
    try:
        wait_for(process, 30)
        os.kill(process_of(process.pid, 1), signal.SIGKILL)
        assert process.wait(600) == 1
    finally:
        process.kill()
    said = output.read_text()
    assert re.search(r"error: another process of this run has ended \(.*\); the same command goes on\n", said)
    assert read_json(folder / "status.json")["state"] == "running"

    reached = read_json_lines(folder / "metrics.jsonl")[-1]["step"]
    process = start()
    try:
        wait_for(process, reached + 5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(600) != 0
    finally:
        process.kill()
    said, status = output.read_text(), read_json(folder / "status.json")
    assert status["state"] == "interrupted"
    assert f"going on from step {reached // 20 * 20} of 150" in said
    command = f"go on with: torchrun --nproc-per-node 2 -m benchmark train --protocol {file} "
    assert f"SIGTERM: predrnnpp seed=1 at step {status['step']} of 150, checkpoint written; {command}" in said

    train(run, results, "cpu", resume_only=True)
    assert read_json(folder / "provenance.json")["processes"] == {"0": 2, str(status["step"]): 1}
    _, straight = alone(run, results)
    losses, expected = (curves(one)["train/loss"].dropna().to_numpy() for one in (folder, straight))
    assert len(losses) == 150
    np.testing.assert_allclose(losses[:30], expected[:30], rtol=1e-4)
    np.testing.assert_allclose(losses, expected, rtol=0.05)


@pytest.fixture
def one_of_two(monkeypatch):
    """Let this process be the one of that rank of two, as torchrun tells it."""

    def be(rank):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        for name, value in names.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")

    return be


RUN = ["--variant", "predrnn", "--seed", "1"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["tables"], "tables: is for one process; start `python -m benchmark` without torchrun"),
        (["probe", *RUN], "probe: is for one process; start `python -m benchmark` without torchrun"),
        (["evaluate", "--weights", "none"], "evaluate: --weights is for one process; start `python -m benchmark` wi"),
        (["train", "--variant", "convlstm,predrnn", "--seed", "1"], "--variant: 2 processes share one run, not 2 side"),
        (["train", *RUN], "protocol tiny: training.batch_size: 3 clips cannot be shared equally by 2 processes; give"),
    ],
)
def test_what_processes_cannot_share_is_refused_in_one_line(one_of_two, write_protocol, tmp_path, capsys, words, told):
    command = [*words, "--protocol", str(write_protocol(training={"batch_size": 3})), "--results-dir", str(tmp_path)]
    one_of_two(0)
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {told}")
    assert said.count("\n") == 1
    one_of_two(1)
    assert main(command) == 2
    assert capsys.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_names_that_schedulers_set_mean_nothing_without_torchrun(one_of_two, monkeypatch):
    one_of_two(1)
    assert (processes.count(), processes.is_first(), processes.launcher()[0]) == (2, False, "torchrun")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert (processes.count(), processes.is_first(), processes.launcher()[0]) == (1, True, "python")


def test_share_of_a_run_is_told_step_by_step(one_of_two):
    assert add_process_count({0: 1}, 0) == {0: 1}
    assert add_process_count({0: 2, 30: 1}, 50) == {0: 2, 30: 1}
    one_of_two(0)
    assert add_process_count({0: 1}, 0) == {0: 2}
    assert add_process_count({0: 2, 30: 1}, 50) == {0: 2, 30: 1, 50: 2}
    assert add_process_count({0: 2, 30: 1}, 30) == {0: 2}

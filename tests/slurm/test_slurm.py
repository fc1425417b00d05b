"""The workflow as jobs of a real Slurm, which `cluster.py` starts on this machine (Debian: slurm-wlm, munge)."""

import contextlib
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from benchmark.system.files import read_json
from tests.helpers.agreement import BY_HAND, hold_against_each_other
from tests.helpers.servers import Server
from tests.slurm import cluster
from tests.workflow import test_workflow
from tests.workflow.test_workflow import BASELINES, DATA_DIR, ROOT, RUNS, SEEDS, SMOKE, VARIANTS, environment

ABSENT = cluster.missing()
pytestmark = pytest.mark.skipif(
    bool(ABSENT), reason=f"needs Slurm ({', '.join(ABSENT)} missing): apt-get install slurm-wlm munge"
)
checkout = test_workflow.checkout
STEPS = 400
RUN = "predrnn/seed=1"


@pytest.fixture(scope="module")
def slurm():
    """The environment of a user of a cluster without a GPU that a training could use, and without MLflow."""
    with cluster.running() as user:
        names = ("PYTHONPATH", "SNAKEMAKE_PROFILE")
        kept = {name: value for name, value in user.items() if name not in names}
        yield kept | {"MLFLOW_TRACKING_URI": "off", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def protocol(checkout, tmp_path):
    """One training of some seconds, which writes a checkpoint only if it is told to end."""
    values = yaml.safe_load((checkout / "workflows" / "protocols" / "smoke.yaml").read_text())
    often = {"log_every": 1, "checkpoint_every": STEPS, "validate_every": STEPS}
    values["training"] |= {"steps": STEPS, "threads": 1} | often
    values |= {"seeds": [1], "variants": [{"id": "predrnn", "hidden_channels": 6}]}
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(values | {"job": {"memory_mb": 1234, "minutes": 56}}))
    return path


@pytest.fixture
def start(checkout, slurm):
    """Starts Snakemake with the profile, which asks Slurm every second; ended with the test."""
    often = ["--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5"]  # one disk
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm", *often]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with contextlib.ExitStack() as ends:

        def begin(*arguments, **variables):
            process = subprocess.Popen([*command, *map(str, arguments)], cwd=checkout, env=slurm | variables, **pipes)
            ends.callback(cluster.end, process)
            return process

        yield begin


def ended(process):
    """Exit status and output."""
    output, _ = process.communicate()
    return process.returncode, output


def asked(user, *command):
    """What a program of Slurm answers."""
    return subprocess.run(command, env=user, capture_output=True, text=True, check=True).stdout


def until(process, reached):
    """Wait for `reached()`, as long as `process` lives."""
    while not reached():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def running_job(user):
    """The first job that runs, if any."""
    return next(iter(asked(user, "squeue", "--noheader", "--states=RUNNING", "--format=%A").split()), None)


@pytest.mark.parametrize(
    ("name", "tracking", "told"),
    [
        ("study-main", "off", "protocol study-main: training.device: auto lets each node choose; say --config device"),
        ("smoke", "", "MLFLOW_TRACKING_URI: is not set, and SQLite is not for nodes that share a disk"),
    ],
)
def test_what_nodes_cannot_share_is_refused_in_one_line(start, tmp_path, name, tracking, told):
    config = [f"protocol={name}", f"results_dir={tmp_path / 'results'}"]
    status, output = ended(start("all", "--config", *config, MLFLOW_TRACKING_URI=tracking))
    assert status != 0
    (message,) = (line for line in output.splitlines() if line.startswith("error: "))
    assert told in message
    assert "Traceback" not in output
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_job_asks_for_what_the_protocol_says_and_its_node_looks_for_the_gpu(start, slurm, protocol, tmp_path):
    protocol.write_text(protocol.read_text().replace("threads: 1", "threads: 2"))
    weights = tmp_path / "one" / "runs" / RUN / "model.safetensors"
    config = ["--config", f"protocol={protocol}", f"results_dir={tmp_path}", "device=cuda"]
    process = start(weights, *config)
    until(process, lambda: running_job(slurm))
    job = dict(re.findall(r"(\S+?)=(\S+)", asked(slurm, "scontrol", "show", "job", running_job(slurm))))
    status, output = ended(process)
    assert status != 0
    assert "cuda was asked for, but no CUDA device is visible here" in output
    wanted = {"TresPerJob": "gres:gpu:1", "MinMemoryNode": "1234M", "TimeLimit": "00:56:00", "CPUs/Task": "2"}
    assert job.items() >= (wanted | {"Requeue": "1"}).items()


@pytest.mark.slow
def test_training_requeued_preempted_and_cancelled_ends_with_the_bytes_of_one_left_alone(
    checkout, start, slurm, protocol, tmp_path
):
    folder, log = tmp_path / "one" / "runs" / RUN, tmp_path / "one" / "logs" / "train" / "predrnn.seed=1.log"
    call = [folder / "model.safetensors", "--config", f"protocol={protocol}", f"results_dir={tmp_path}"]
    process = start(*call)
    until(process, lambda: steps(folder) >= 3)
    job = running_job(slurm)
    reached = 0
    for end in (["scontrol", "requeue", job], ["sbatch", "--partition=urgent", "--exclusive", "--wrap=true"]):
        asked({**slurm, "SBATCH_OUTPUT": "/dev/null"}, *end)
        until(process, lambda: state(folder)["state"] == "interrupted")
        assert state(folder)["step"] >= reached + 3
        reached = state(folder)["step"]
        until(process, lambda: steps(folder) >= reached + 3)  # noqa: B023
        assert f"going on from step {reached} of {STEPS}" in log.read_text()
    assert "Restarts=2" in asked(slurm, "scontrol", "show", "job", job)

    asked(slurm, "scancel", job)
    status, output = ended(process)
    assert status != 0
    assert f"SLURM-job '{job}' failed, SLURM status is: 'CANCELLED'" in output
    assert state(folder) == {"state": "interrupted", "step": steps(folder), "steps": STEPS}
    assert f"SIGTERM: predrnn seed=1 at step {steps(folder)}" in log.read_text()

    status, output = ended(start(*call))
    assert status == 0, output
    alone = tmp_path / "alone"
    for verb, which in (("data", []), ("train", ["--variant", "predrnn", "--seed", "1"])):
        command = [sys.executable, "-m", "benchmark", verb, "--protocol", protocol, "--results-dir", alone, *which]
        subprocess.run(command, cwd=checkout, env=slurm, capture_output=True, check=True)
    for name in ("model.safetensors", "metrics.jsonl", "status.json", "run.yaml"):
        assert (folder / name).read_bytes() == (alone / "one" / "runs" / RUN / name).read_bytes(), name


def steps(folder):
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"train/loss") if path.exists() else 0


def state(folder):
    return read_json(folder / "status.json")


@pytest.mark.slow
def test_smoke_through_slurm_with_a_job_cancelled_gives_the_bytes_of_smoke_by_hand(checkout, start, slurm, tmp_path):
    server = Server(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
    server.start()
    try:
        process = start(*SMOKE, MLFLOW_TRACKING_URI=server.uri)
        until(process, lambda: running_job(slurm))
        cancelled = running_job(slurm)
        asked(slurm, "scancel", cancelled)
        status, output = ended(process)
        assert status != 0
        assert f"SLURM-job '{cancelled}' failed, SLURM status is: 'CANCELLED'" in output
        status, output = ended(start(*SMOKE, MLFLOW_TRACKING_URI=server.uri))
        assert status == 0, output
        assert_on_server(server.uri)
    finally:
        server.kill()
    names = (",".join(map(str, each)) for each in (VARIANTS, BASELINES, SEEDS))
    command = [sys.executable, "-c", BY_HAND, "by-hand", str(DATA_DIR), *names]
    surroundings = environment() | {"PYTHONPATH": str(checkout), "MLFLOW_TRACKING_URI": "off"}
    done = subprocess.run(command, cwd=checkout, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    hold_against_each_other(checkout / "results" / "smoke", checkout / "by-hand" / "smoke", RUNS, BASELINES)


def assert_on_server(uri):
    """The server has every run of smoke once, finished and with its scores."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("smoke").experiment_id])
    assert sorted((run.data.tags["variant"], int(run.data.tags["seed"])) for run in runs) == sorted(RUNS)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all("test/mse" in run.data.metrics for run in runs)


def test_script_that_is_ended_leaves_no_process_and_no_file():
    words = "echo $SLURM_CONF; sbatch --output=/dev/null --wrap 'sleep 600' > /dev/null; echo; exec sleep 600"
    command = [sys.executable, "tests/slurm/cluster.py", "sh", "-c", words]
    script = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    folder = Path(script.stdout.readline().strip()).parent
    script.stdout.readline()
    assert users_of(folder)
    script.send_signal(signal.SIGTERM)
    assert script.wait() == 128 + signal.SIGTERM
    assert not folder.exists()
    assert users_of(folder) == []


def users_of(folder):
    """The processes that were started with `folder` in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += [path.parent.name] * (str(folder).encode() in path.read_bytes())
        except OSError:  # it ended, or belongs to somebody else
            continue
    return found

"""MLflow beside trainings: stores that are away, slow, killed or used by sixteen processes at once, all real."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time

import pytest

from benchmark.reporting.tracking import background_mirror as mirroring
from benchmark.reporting.tracking.background_mirror import BackgroundMirror
from benchmark.reporting.tracking.mirror import mirror, sync
from benchmark.reporting.tracking.store import TrackingUnavailable, create_store
from benchmark.system.console import Stopwatch
from benchmark.system.files import read_json, write_json
from benchmark.training.train import train
from tests.helpers import extent
from tests.helpers.run_folders import STEPS, begin_run, client_of, content, points, runs_in, train_to
from tests.helpers.servers import Gate, Server, find_postgres, free_port, postgres

SECRET = "s3cr3t"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request, tmp_path_factory):
    """A real `mlflow server`; how it keeps its runs is the parameter."""
    folder = tmp_path_factory.mktemp("server")
    if request.param == "sqlite":
        yield from running(f"sqlite:///{folder}/server.db", folder)
        return
    pytest.importorskip("psycopg2", reason="needs psycopg2-binary, which requirements.lock has")
    if (programs := find_postgres()) is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    with postgres(programs) as backend:
        yield from running(backend, folder)


def running(backend, folder):
    server = Server(backend, folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def impatient(monkeypatch):
    """Short pauses, one request a call, and a server that may take ten minutes to answer."""
    monkeypatch.setattr(mirroring, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(mirroring, "LONGEST_PAUSE_S", 0.2)
    monkeypatch.setattr(mirroring, "PATIENCE_S", 0.5)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")


def until(true, within_s=60):
    """Wait until `true()`; what is waited for happens in another thread."""
    ended = time.monotonic() + within_s
    while not (found := true()):
        assert time.monotonic() < ended, "it did not happen"
        time.sleep(0.05)
    return found


def ended_training(results, seed):
    """The folder of a training that has ended and was not scored yet."""
    folder = begin_run(results, seed=seed)
    for step in STEPS:
        train_to(folder, step)
    write_json(folder / "status.json", {"state": "finished", "step": STEPS[-1], "steps": 60})
    return folder


def the_run(store, seed):
    """Content of the one run with this seed, apart from what differs between seeds."""
    (run,) = [run for run in runs_in(store) if run.data.tags["seed"] == str(seed)]
    found = content(store, run.info.run_id)
    for key in ("seed", "run_key", "mlflow.source.name", "mlflow.runName", "files_hash"):
        del found["tags"][key]
    del found["name"], found["times"]
    return found


def test_training_waits_for_no_server_that_never_answers(make_protocol, results, impatient, monkeypatch, capsys):
    run = make_protocol().run("convlstm", 1)
    folder = run.path(results)
    train(run, results, "cpu", beside=BackgroundMirror)
    alone = (folder / "model.safetensors").read_bytes()
    shutil.rmtree(folder)

    with Gate(fail=lambda *_: "silent") as gate:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", gate.uri)
        train(run, results, "cpu", beside=BackgroundMirror)
        assert (len(gate.requests), gate.pending) == (1, 1)  # it still owes the answer to the first question
    assert (folder / "model.safetensors").read_bytes() == alone
    assert read_json(folder / "status.json")["state"] == "finished"
    assert f"not yet in MLflow: {folder}; `python -m benchmark sync" in capsys.readouterr().err


@pytest.mark.parametrize("failure", ["500", "403", "garbage", "unheard", "nobody"])
def test_server_that_refuses_stops_no_training_is_said_once_and_sync_sends_it_later(
    make_protocol, results, impatient, monkeypatch, capsys, store, failure
):
    run = make_protocol().run("convlstm", 1)
    with Gate(fail=lambda *_: failure) as gate:
        address = f"127.0.0.1:{free_port()}" if failure == "nobody" else gate.uri.removeprefix("http://")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:{SECRET}@{address}")
        train(run, results, "cpu", beside=BackgroundMirror)
    folder, said = run.path(results), capsys.readouterr().err
    assert read_json(folder / "status.json")["state"] == "finished"
    assert said.count(f"not sent to MLflow yet: MLflow store http://{address} cannot be used: ") == 1
    assert said.count("not yet in MLflow: ") == 1
    assert SECRET not in said
    assert [path.name for path in folder.iterdir() if SECRET.encode() in path.read_bytes()] == []

    (run_id,) = sync(results, store=store).values()
    assert [step for step, _ in points(store, run_id)["train/loss"]] == list(range(1, 9))


def test_outage_in_the_middle_is_said_once_and_made_up_for(store, tmp_path, impatient, capsys):
    said = []

    def hears(text):
        said.append(capsys.readouterr().err)
        return text in "".join(said)

    folder = begin_run(tmp_path / "results")
    create_store("quick", store=store)
    with pytest.MonkeyPatch.context() as patch, Gate(fail=lambda *_: "500") as gate:
        patch.setenv("MLFLOW_TRACKING_URI", store)
        with BackgroundMirror([folder], Stopwatch()):
            train_to(folder, 20)
            until(lambda: runs_in(store))
            patch.setenv("MLFLOW_TRACKING_URI", gate.uri)
            train_to(folder, 40)
            until(lambda: len(gate.requests) > 3)
            patch.setenv("MLFLOW_TRACKING_URI", store)
            until(lambda: hears("MLflow is back"))
            train_to(folder, 60)
    hears("")
    assert "".join(said).count("not sent to MLflow yet") == 1
    assert "".join(said).count("MLflow is back") == 1
    assert "not yet in MLflow" not in "".join(said)
    (run,) = runs_in(store)
    assert [step for step, _ in points(store, run.info.run_id)["train/loss"]] == list(STEPS)


def test_store_that_is_away_is_asked_less_and_less_often(tmp_path, monkeypatch):
    monkeypatch.setattr(mirroring, "LOOK_EVERY_S", 0.01)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/no/mlflow.db")
    folder, pauses = begin_run(tmp_path), []
    beside = BackgroundMirror([folder], Stopwatch())
    for _ in range(16):
        pauses.append(beside._send([folder], pauses[-1] if pauses else 0.01))
    assert pauses[:4] == [0.01, 0.02, 0.04, 0.08]
    assert pauses[-2:] == [mirroring.LONGEST_PAUSE_S] * 2


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
def test_slow_server_holds_up_no_training_and_gets_everything(server, make_protocol, results, impatient, monkeypatch):
    run = make_protocol().run("convlstm", 1)
    with Gate(server.uri, lambda *_: "slow") as gate:
        gate.slow_s = 0.5  # of which one mirror needs a dozen, and the training waits for one at most
        monkeypatch.setenv("MLFLOW_TRACKING_URI", gate.uri)
        train(run, results, "cpu", beside=BackgroundMirror)
        assert len(gate.requests) < 8
        (run_id,) = sync(results).values()
    assert [step for step, _ in points(server.uri, run_id)["train/loss"]] == list(range(1, 9))


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
def test_answer_lost_at_any_request_leaves_one_whole_run(server, tmp_path, monkeypatch, impatient):
    """A server that dies after it did what it was asked: the client cannot know, and asks for it again."""
    reference = ended_training(tmp_path, seed=100)
    with Gate(server.uri) as gate:
        mirror(reference, store=gate.uri)
        asked = list(gate.requests)
        mirror(ended_training(tmp_path, seed=101), store=gate.uri)  # without what only the first needs
        requests = len(gate.requests) - len(asked)
    assert requests > 10
    expected = the_run(server.uri, 100)
    for lost in range(1, requests + 1, extent.of(4, 1)):
        folder = ended_training(tmp_path, seed=lost)
        with Gate(server.uri, lambda number, *_, lost=lost: "unanswered" if number == lost else None) as gate:
            with pytest.raises(TrackingUnavailable):
                mirror(folder, store=gate.uri)
            mirror(folder, store=gate.uri)
        assert the_run(server.uri, lost) == expected, asked[lost - 1]


@pytest.mark.parametrize(
    "server", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True, scope="module"
)
def test_server_killed_and_started_again_in_the_middle_has_every_point_once(server, tmp_path, impatient, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setattr(mirroring, "PATIENCE_S", 60)
    folders = [begin_run(tmp_path, "killed", seed) for seed in (1, 2, 3)]
    many = range(1, 301)

    def do_train(folder):
        with BackgroundMirror([folder], Stopwatch()):
            for step in many:
                train_to(folder, step)
                time.sleep(0.005)
                if step == 200:
                    again.wait()

    again = threading.Event()
    trainings = [threading.Thread(target=do_train, args=[folder]) for folder in folders]
    for training in trainings:
        training.start()
    until(lambda: {"1", "2", "3"} <= {run.data.tags["seed"] for run in runs_of(server.uri, "killed")})
    server.kill()  # some mirror is under way: they follow each other without pause
    server.start()
    again.set()
    for training in trainings:
        training.join()
    for folder in folders:
        mirror(folder)
    runs = runs_of(server.uri, "killed")
    assert sorted(run.data.tags["seed"] for run in runs) == ["1", "2", "3"]
    for run in runs:
        history = client_of(server.uri).get_metric_history(run.info.run_id, "train/loss")
        assert sorted((point.step, point.value) for point in history) == [(step, 1 / (3 * step)) for step in many]


def runs_of(store, variant):
    experiment = client_of(store).get_experiment_by_name("quick")
    if experiment is None:
        return []
    return client_of(store).search_runs([experiment.experiment_id], f"tags.variant = '{variant}'")


SIXTEEN = """
import os, pathlib, sys
from benchmark.reporting.tracking.store import create_store, load
from benchmark.reporting.tracking.mirror import mirror
from tests.helpers.run_folders import train_to
store, folders = sys.argv[1], [pathlib.Path(name) for name in sys.argv[2:]]
load(store)  # imported once, before the fork; no store is open yet
readable, writable = os.pipe()
for folder in folders:
    if os.fork() == 0:
        os.close(writable)
        os.read(readable, 1)  # all at once, when the parent closes its end
        try:
            create_store("quick", store=store)
            for step in range(1, 11):
                train_to(folder, step)
                if step % 5 == 0:
                    mirror(folder, store=store)
        except BaseException as error:
            print(folder, repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
os.close(writable)
sys.exit(sum(os.wait()[1] != 0 for _ in folders))
"""


def all_at_once(store, results):
    seeds = range(1, extent.of(4, 16) + 1)
    folders = [begin_run(results, "sixteen", seed) for seed in seeds]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", SIXTEEN, store, *map(str, folders)]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert (done.stderr, done.returncode) == ("", 0)
    runs = runs_of(store, "sixteen")
    assert sorted(int(run.data.tags["seed"]) for run in runs) == list(seeds)
    for run in runs:
        found = points(store, run.info.run_id)
        assert len(found) == 5
        assert {tuple(step for step, _ in curve) for curve in found.values()} == {tuple(range(1, 11))}


def test_sixteen_processes_share_a_sqlite_store_that_none_has_created_yet(tmp_path):
    all_at_once(f"sqlite:///{tmp_path}/fresh/mlflow.db", tmp_path / "results")


@pytest.mark.parametrize("server", ["postgresql"], indirect=True)
def test_sixteen_processes_share_a_server(server, tmp_path):
    all_at_once(server.uri, tmp_path / "results")


def test_password_of_a_database_is_in_no_message(tmp_path, monkeypatch):
    pytest.importorskip("psycopg2", reason="needs psycopg2-binary, which requirements.lock has")
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1)  # else MLflow tries for 100 s
    port = free_port()
    for uri in (
        f"postgresql://someone:{SECRET}@127.0.0.1:{port}/runs",
        f"postgresql://someone:a/{SECRET}@127.0.0.1:{port}/runs",
        f"postgresql://127.0.0.1:{port}/runs?user=someone&password={SECRET}",
    ):
        with pytest.raises(TrackingUnavailable, match=re.escape(f"127.0.0.1:{port}/runs")) as caught:
            mirror(begin_run(tmp_path, seed=len(list(tmp_path.glob("**/seed=*")))), store=uri)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("saving_s", "lines"), [(1.0, 0), (60.0, 1)])
def test_what_checkpoints_and_mlflow_cost_is_said_where_it_is_much(tmp_path, monkeypatch, capsys, saving_s, lines):
    """A second of waiting is 4 % of a run of half a minute, and matters to nobody."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "off")
    watch = Stopwatch()
    with BackgroundMirror([begin_run(tmp_path)], watch):
        watch.saving_s = saving_s
    assert capsys.readouterr().err.count(" s for checkpoints, ") == lines


def test_training_without_tracking_imports_no_mlflow_and_says_nothing_of_it(tmp_path):
    said = beside_a_training(begin_run(tmp_path), "MLFLOW_TRACKING_URI=off")
    assert said == ("mlflow imported: False\n", "")


def test_training_without_mlflow_installed_is_told_once_and_ends_well(tmp_path):
    folder = begin_run(tmp_path)
    out, err = beside_a_training(folder, "MLFLOW_TRACKING_URI=sqlite:///x.db", "sys.modules['mlflow'] = None\n")
    assert out.startswith("mlflow imported: ")
    first, second = err.splitlines()
    assert first.startswith("not sent to MLflow yet: MLflow cannot be imported (")
    assert "pip install -r requirements.lock, or set MLFLOW_TRACKING_URI=off" in first
    assert second.startswith(f"not yet in MLflow: {folder}; `python -m benchmark sync --results-dir {tmp_path}`")


def test_fault_of_ours_in_the_mirror_is_one_line_and_stops_no_training(tmp_path, monkeypatch, impatient, capsys):
    def fail(folder):
        raise KeyError("http://someone:pw@host/?key=secret")

    monkeypatch.setattr(mirroring, "mirror", fail)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/x.db")
    folder = begin_run(tmp_path)
    with BackgroundMirror([folder], Stopwatch()):
        train_to(folder, 20)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "no longer sent to MLflow: KeyError: 'http://host/?key=...'"
    assert second.startswith("not yet in MLflow: ")


BESIDE = """
from benchmark.reporting.tracking.background_mirror import BackgroundMirror
from benchmark.system.console import Stopwatch
from tests.helpers.run_folders import train_to
folder = pathlib.Path(sys.argv[1])
with BackgroundMirror([folder], Stopwatch()):
    train_to(folder, 20)
print("mlflow imported:", bool(sys.modules.get("mlflow")))
"""


def beside_a_training(folder, environment, before=""):
    """What a process prints that does as a training does with a mirror beside it."""
    environment = dict([environment.split("=", 1)]) | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", f"import pathlib, sys\n{before}{BESIDE}", str(folder)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("results", "quoted"), [("a b", "'{}'"), ("$(touch x)", "'{}'"), ("it's", None), ("a\nb", None), ("plain", "{}")]
)
def test_command_that_is_suggested_reads_back_as_the_folder_it_names(tmp_path, monkeypatch, capsys, results, quoted):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "foo://x")
    folder = begin_run(tmp_path / results)
    with BackgroundMirror([folder], Stopwatch()):
        train_to(folder, 20)
    said = capsys.readouterr().err
    command = said.split("`")[1]
    assert "\n" not in command
    shown = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
    assert shown.split(b"\0")[-2] == os.fsencode(tmp_path / results)
    if quoted:
        assert command.endswith(quoted.format(tmp_path / results))

"""The MLflow mirror, in real SQLite stores read back through MLflow's own client."""

import contextlib
import getpass
import json
import math
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from benchmark.reporting.tracking.mirror import mirror, sync
from benchmark.reporting.tracking.saved_view import VIEW
from benchmark.reporting.tracking.store import TrackingUnavailable, create_store, tracking_uri
from benchmark.system.errors import UserError
from benchmark.system.files import append_json_line, read_json, read_json_lines, write_json
from tests.helpers.run_folders import (
    PROVENANCE,
    RUN,
    STEPS,
    begin_run,
    client_of,
    content,
    finish,
    finished_run,
    points,
    runs_in,
    train_to,
)


def test_default_store_is_the_one_a_plain_mlflow_ui_opens(monkeypatch):
    from mlflow.store.tracking import DEFAULT_TRACKING_URI

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri() == DEFAULT_TRACKING_URI
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert tracking_uri() == "http://127.0.0.1:1"


def test_run_is_named_tagged_and_described(store, tmp_path):
    run = client_of(store).get_run(mirror(finished_run(tmp_path), store=store))
    expected = {
        "protocol": "quick",
        "variant": "predrnnpp",
        "label": "PredRNN++",
        "cell": "causal_lstm",
        "highway": "slot 1",
        "layers": "2",
        "seed": "1",
        "state": "finished",
        "git_commit": PROVENANCE["git_commit"],
        "data_hash": PROVENANCE["data_hash"],
    }
    assert run.info.run_name == "predrnnpp seed=1"
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 7500
    assert expected.items() <= run.data.tags.items()
    assert run.data.params == {
        "model.cell": "causal_lstm",
        "model.hidden_channels": "[8, 8]",
        "model.highway_slot": "1",
        "model.norm": "none",
        "data.digits": "optdigits",
        "data.frame_size": "32",
        "data.num_digits": "2",
        "data.context": "3",
        "data.horizon": "3",
        "training.steps": "60",
        "training.learning_rate": "0.001",
        "training.sampling.kind": "scheduled",
        "training.sampling.stop": "50",
        "parameters": "145000",
    }


def test_curves_in_the_store_equal_the_logs_point_by_point(store, tmp_path):
    folder = finished_run(tmp_path)
    found = points(store, mirror(folder, store=store))
    expected = {}
    for line in read_json_lines(folder / "metrics.jsonl"):
        for key in line.keys() - {"step"}:
            expected.setdefault(key.replace("validation/", "val/"), []).append((line["step"], line[key]))
    for line in read_json_lines(folder / "timing.jsonl"):
        for key in ("clips_per_s", "peak_memory_mib"):
            expected.setdefault(f"system/{key}", []).append((line["step"], line[key]))
    logged = {key: value for key, value in found.items() if key.startswith(("train/", "val/", "system/"))}
    assert logged == expected


def test_scores_and_probe_become_metrics(store, tmp_path):
    found = points(store, mirror(finished_run(tmp_path), store=store))
    assert found["test/mse"] == [(0, pytest.approx(1.0))]
    assert found["test/psnr"] == [(0, 20.5)]
    assert found["test/per_frame/mse"] == [(frame, pytest.approx(frame / 2)) for frame in (1, 2, 3)]
    assert found["probe/reach_init"] == found["probe/reach_trained"] == [(0, 0.125)]
    assert found["probe/half_life_trained"] == [(0, 4.5)]
    assert "probe/half_life_init" not in found
    assert found["probe/reach"] == [(0, 0.125), (60, 0.125)]
    assert found["probe/openness"] == [(0, 0.5), (20, pytest.approx(2 / 3)), (60, 1.0)]
    assert not any("step-20" in key for key in found)
    assert found["probe/trained/H.2"] == [(t, pytest.approx(1.5 * t / 7)) for t in range(1, 7)]
    assert {key for key in found if key.startswith("probe/init/")} == {
        f"probe/init/{state}" for state in ("X", "H.1", "H.2", "Z.1")
    }


def test_figures_and_tables_are_artifacts_beside_the_database(store, tmp_path):
    folder = finished_run(tmp_path / "results")
    shutil.copy(folder / "frames.parquet", folder / "beyond.parquet")
    run_id = mirror(folder, store=store)
    tables = ["frames.parquet", "probe.json", "probe.parquet"]
    names = ["beyond.parquet", "film.gif", "film.png", *tables, "provenance.json", "run.yaml"]
    assert content(store, run_id)["files"] == names
    assert sorted(path.name for path in (tmp_path / "mlruns").glob(f"quick/{run_id}/artifacts/*")) == names


def test_data_set_is_an_input(store, tmp_path):
    run = client_of(store).get_run(mirror(begin_run(tmp_path), store=store))
    inputs = {entry.dataset.name: entry for entry in run.inputs.dataset_inputs}
    assert set(inputs) == {"moving-optdigits-training", "moving-optdigits-test"}
    entry = inputs["moving-optdigits-test"]
    assert entry.dataset.digest == PROVENANCE["data_hash"][:36]
    assert json.loads(entry.dataset.profile) == RUN["data"]
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "test")]


def test_nothing_of_the_machine_is_in_a_run(store, tmp_path):
    run = client_of(store).get_run(mirror(finished_run(tmp_path), store=store))
    datasets = [entry.dataset.to_dictionary() for entry in run.inputs.dataset_inputs]
    text = json.dumps([run.data.tags, run.data.params, datasets, run.info.user_id])
    for private in (str(tmp_path), os.getcwd(), str(Path.home()) + "/", socket.gethostname(), sys.executable):
        assert private not in text
    assert run.info.user_id == "unknown"
    assert f'"{getpass.getuser()}"' not in text


def test_three_instalments_equal_one_mirror(store, tmp_path):
    folder = begin_run(tmp_path / "a")
    ids = {mirror(folder, store=store)}
    for step in STEPS:
        train_to(folder, step)
        ids.add(mirror(folder, store=store))
        assert client_of(store).get_run(max(ids)).info.status == "RUNNING"
    finish(folder)
    ids.add(mirror(folder, store=store))
    (run_id,) = ids
    instalments = content(store, run_id)

    client_of(store).delete_run(run_id)
    once = mirror(folder, store=store)
    assert once != run_id
    assert content(store, once) == instalments


def test_resumed_run_has_no_step_twice(store, tmp_path):
    folder = begin_run(tmp_path)
    for step in STEPS:
        train_to(folder, step)
    run_id = mirror(folder, store=store)
    before = points(store, run_id)
    for name in ("metrics.jsonl", "timing.jsonl"):
        kept = [line for line in read_json_lines(folder / name) if line["step"] <= 20]
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in kept))
    for step in STEPS[1:]:
        train_to(folder, step, elapsed_s=9.0)
        assert mirror(folder, store=store) == run_id
    assert points(store, run_id) == before


def test_mirroring_again_changes_nothing(store, tmp_path):
    folder = finished_run(tmp_path)
    run_id = mirror(folder, store=store)
    first = content(store, run_id)
    assert mirror(folder, store=store) == run_id
    assert content(store, run_id) == first
    assert len(runs_in(store)) == 1


def test_what_lies_past_the_checkpoint_of_a_running_training_is_not_sent(store, tmp_path):
    """A resumed training on a GPU may find other values there, and MLflow takes no point back."""
    folder = begin_run(tmp_path)
    for step in STEPS:
        train_to(folder, step)
    write_json(folder / "status.json", {"state": "running", "step": 40, "steps": 60})
    found = points(store, mirror(folder, store=store))
    assert {"train/loss", "val/mse", "system/clips_per_s"} < found.keys()
    assert {tuple(step for step, _ in curve) for curve in found.values()} == {(20, 40)}


def test_torn_last_line_waits_until_it_is_whole(store, tmp_path):
    folder = begin_run(tmp_path)
    train_to(folder, 20)
    with (folder / "metrics.jsonl").open("a") as log:
        log.write('{"step": 40, "train/loss": 0.0')
    assert points(store, mirror(folder, store=store))["train/loss"] == [(20, 1 / 60)]
    with (folder / "metrics.jsonl").open("a") as log:
        log.write("5}\n")
    write_json(folder / "status.json", {"state": "running", "step": 40, "steps": 60})
    assert points(store, mirror(folder, store=store))["train/loss"] == [(20, 1 / 60), (40, 0.05)]


def test_points_and_parameters_beyond_one_call_all_arrive(store, tmp_path):
    model = RUN["model"] | {f"field_{number}": number for number in range(150)}
    folder = begin_run(tmp_path, model=model)
    for step in range(1, 1201):
        append_json_line(folder / "metrics.jsonl", {"step": step, "train/loss": step / 3, "train/grad_norm": 1.0})
    write_json(folder / "status.json", {"state": "running", "step": 1200, "steps": 1200})
    run_id = mirror(folder, store=store)
    assert points(store, run_id)["train/loss"] == [(step, step / 3) for step in range(1, 1201)]
    assert len(points(store, run_id)["train/grad_norm"]) == 1200
    assert client_of(store).get_run(run_id).data.params["model.field_149"] == "149"


def test_diverged_run_is_finished_and_says_so(store, tmp_path):
    folder = begin_run(tmp_path)
    train_to(folder, 20)
    append_json_line(folder / "metrics.jsonl", {"step": 40, "train/loss": math.nan, "train/grad_norm": math.inf})
    write_json(folder / "status.json", {"state": "diverged", "step": 40, "steps": 60})
    run_id = mirror(folder, store=store)
    assert mirror(folder, store=store) == run_id
    run = client_of(store).get_run(run_id)
    assert (run.info.status, run.data.tags["state"]) == ("FINISHED", "diverged")
    (_, (step, loss)) = points(store, run_id)["train/loss"]
    assert step == 40
    assert math.isnan(loss)


@pytest.mark.parametrize("change", ["values", "parameters"])
def test_retrained_folder_replaces_its_run(store, tmp_path, change):
    folder = finished_run(tmp_path)
    before = mirror(folder, store=store)
    if change == "values":
        log = folder / "metrics.jsonl"
        log.write_text(log.read_text().replace(repr(1 / 120), "0.25"))
    else:
        (folder / "run.yaml").write_text((folder / "run.yaml").read_text().replace("145000", "146000"))
    after = mirror(folder, store=store)
    assert [run.info.run_id for run in runs_in(store)] == [after]
    assert client_of(store).get_run(before).info.lifecycle_stage == "deleted"
    if change == "values":
        assert points(store, after)["train/loss"][1] == (40, 0.25)
    else:
        assert runs_in(store)[0].data.params["parameters"] == "146000"


def test_another_configuration_is_another_run(store, tmp_path):
    folder = finished_run(tmp_path)
    before = mirror(folder, store=store)
    write_json(folder / "provenance.json", PROVENANCE | {"config_hash": "0ther"})
    after = mirror(folder, store=store)
    assert {run.info.run_id for run in runs_in(store)} == {before, after}


def test_new_figure_is_sent_again(store, tmp_path):
    folder = finished_run(tmp_path)
    run_id = mirror(folder, store=store)
    Image.new("L", (8, 8), color=200).save(folder / "film.png")
    mirror(folder, store=store)
    sent = tmp_path / "mlruns" / "quick" / run_id / "artifacts" / "film.png"
    assert sent.read_bytes() == (folder / "film.png").read_bytes()


def test_run_and_experiment_deleted_in_the_page_come_back(store, tmp_path):
    folder = finished_run(tmp_path)
    mirror(folder, store=store)
    client = client_of(store)
    client.delete_experiment(client.get_experiment_by_name("quick").experiment_id)
    run_id = mirror(folder, store=store)
    assert [run.info.run_id for run in runs_in(store)] == [run_id]


def test_sync_rebuilds_a_deleted_store(store, tmp_path):
    results = tmp_path / "results"
    for seed in (1, 2):
        finished_run(results, seed=seed)
    sync(results, store=store)
    before = [content(store, run.info.run_id) for run in runs_in(store)]

    (tmp_path / "mlflow.db").unlink()
    shutil.rmtree(tmp_path / "mlruns")
    code = "import sys, pathlib; from benchmark.reporting.tracking.mirror import sync; sync(pathlib.Path(sys.argv[1]))"
    environment = os.environ | {"MLFLOW_TRACKING_URI": store}
    subprocess.run([sys.executable, "-c", code, str(results)], check=True, env=environment)
    rebuilt = f"{store}?rebuilt"  # another URI, so that this process opens the new file
    after = [content(rebuilt, run.info.run_id) for run in runs_in(rebuilt)]
    assert sorted(after, key=lambda run: run["name"]) == sorted(before, key=lambda run: run["name"])
    assert len(after) == 2


def test_second_sync_changes_no_row_and_no_file(store, tmp_path):
    results = tmp_path / "results"
    for seed in (1, 2):
        finished_run(results, seed=seed)

    def rows_and_files():
        with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
            rows = list(database.iterdump())
        return rows, {path: path.stat().st_mtime_ns for path in (tmp_path / "mlruns").rglob("*")}

    ids = sync(results, store=store)
    before = rows_and_files()
    assert sync(results, store=store) == ids
    assert rows_and_files() == before
    assert len(before[1]) > 14


def test_run_made_twice_because_an_answer_was_lost_is_one_again(store, tmp_path):
    folder = finished_run(tmp_path)
    run_id = mirror(folder, store=store)
    client = client_of(store)
    run = client.get_run(run_id)
    client.create_run(run.info.experiment_id, tags={"run_key": run.data.tags["run_key"]})
    assert mirror(folder, store=store) == run_id
    assert [run.info.run_id for run in runs_in(store)] == [run_id]


def test_sync_takes_the_runs_that_were_named(store, tmp_path):
    results = tmp_path / "results"
    folders = [finished_run(results, variant, seed) for variant in ("convlstm", "predrnn") for seed in (1, 2)]
    assert sync(results, "quick", "predrnn", 2, store=store).keys() == {folders[3]}
    assert sync(results, variant="convlstm", store=store).keys() == set(folders[:2])
    assert len(runs_in(store)) == 3
    with pytest.raises(UserError, match=r"no run matches .*/quick/runs/predrnnpp/"):
        sync(results, "quick", "predrnnpp", store=store)


def test_store_that_another_process_writes_to_is_waited_for(store, tmp_path):
    folder = finished_run(tmp_path)
    writer = sqlite3.connect(tmp_path / "mlflow.db", check_same_thread=False, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(1.5, writer.execute, ["ROLLBACK"])
    release.start()
    run_id = mirror(folder, store=store)
    assert release.finished.is_set()
    assert len(points(store, run_id)["train/loss"]) == len(STEPS)


def test_experiment_made_by_an_earlier_version_gets_the_view_and_keeps_its_note(store, tmp_path):
    client = client_of(store)
    experiment = client.create_experiment("quick", tags={"mlflow.note.content": "mine"})
    mirror(begin_run(tmp_path), store=store)
    tags = client.get_experiment(experiment).tags
    assert tags["mlflow.note.content"] == "mine"
    assert json.loads(tags[VIEW])["name"] == "Best variant"


def test_probe_of_an_early_run_has_no_steps_and_is_sent(store, tmp_path):
    folder = finished_run(tmp_path)
    probed = read_json(folder / "probe.json")
    for stage in ("init", "trained"):
        del probed[stage]["step"]
    (folder / "probe.json").unlink()
    write_json(folder / "probe.json", {stage: probed[stage] for stage in ("init", "trained")})
    found = points(store, mirror(folder, store=store))
    assert found["probe/reach_trained"] == [(0, 0.125)]
    assert "probe/reach" not in found


def test_creating_a_store_twice_keeps_what_it_has(store, tmp_path):
    run_id = mirror(begin_run(tmp_path), store=store)
    create_store("quick", store=store)
    assert [run.info.run_id for run in runs_in(store)] == [run_id]


def test_dead_server_is_a_named_error_within_seconds(tmp_path):
    folder = begin_run(tmp_path)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(TrackingUnavailable, match="Connection refused") as caught:
        mirror(folder, store=f"http://someone:secret@127.0.0.1:{port}")
    assert time.monotonic() - started < 10
    assert f"http://127.0.0.1:{port} " in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_silent_server_is_a_named_error_within_seconds(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    folder = begin_run(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(TrackingUnavailable, match="timed out"):
            mirror(folder, store=f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - started < 10


def test_file_that_is_no_database_is_a_named_error(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(TrackingUnavailable, match="file is not a database"):
        mirror(begin_run(tmp_path), store=f"sqlite:///{tmp_path}/mlflow.db")
    assert (tmp_path / "mlflow.db").read_bytes() == b"no database" * 1000


def test_training_modules_do_not_import_mlflow():
    code = (
        "import sys; from benchmark.reporting.tracking import mirror\nassert not {'mlflow', 'pandas'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_relative_store_is_that_of_the_current_folder(empty_database, tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(empty_database, tmp_path / name / "mlflow.db")
        monkeypatch.chdir(tmp_path / name)
        mirror(begin_run(tmp_path / name / "results", variant=name), store="sqlite:///mlflow.db")
    for name in ("a", "b"):
        (run,) = runs_in(f"sqlite:///{tmp_path}/{name}/mlflow.db")
        assert run.data.tags["variant"] == name

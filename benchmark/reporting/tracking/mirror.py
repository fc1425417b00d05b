"""MLflow as a mirror, for people, of the files in run folders; `sync` rebuilds it from them at any time.

A run folder is one MLflow run, found again by its tag `run_key`. No local file says what was sent: every
mirror compares folder and store and sends the difference, so that it may be cut off and repeated at will.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.reporting.tracking.address import OFF, tracking_uri
from benchmark.reporting.tracking.run_snapshot import Curves, Snapshot, read_snapshot
from benchmark.reporting.tracking.store import connected, experiment_of
from benchmark.system.errors import UserError
from benchmark.system.locks import wait_and_hold

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

STATUS = {
    "running": "RUNNING",
    "interrupted": "KILLED",
    "finished": "FINISHED",
    "diverged": "FINISHED",
    "failed": "FAILED",
}
"""State of a run folder -> status of its MLflow run."""

METRICS_A_CALL, PARAMS_A_CALL = 1000, 100


def mirror(run_folder: Path, *, store: str | None = None) -> str:
    """Bring the MLflow run of `run_folder` up to date with whatever the folder holds now, and return its id, or `OFF`.

    Args:
        run_folder: holds at least `run.yaml`, `provenance.json` and `status.json`.
        store: tracking URI; `tracking_uri()` if not given.

    Raises:
        TrackingUnavailable: the store cannot be used.

    Note:
        MLflow can neither change a parameter nor take a point back. A run in the store that contradicts the
        folder (trained or evaluated anew) is deleted, restorable in the MLflow page, and a new one made.
    """
    uri = store or tracking_uri()
    if uri == OFF:
        return OFF
    with wait_and_hold(run_folder / ".mirror.lock"):
        snapshot = read_snapshot(run_folder)
        with connected(uri) as client:
            return _send(client, experiment_of(client, uri, snapshot.protocol), snapshot)


def sync(
    results_dir: Path,
    protocol: str | None = None,
    variant: str | None = None,
    seed: int | None = None,
    *,
    store: str | None = None,
) -> dict[Path, str]:
    """Mirror the run folders below `results_dir`, or those of one protocol, variant or seed.

    Returns:
        Run folder -> id of its MLflow run.

    Raises:
        UserError: there is no such run folder.
        TrackingUnavailable: the store cannot be used.
    """
    pattern = f"{protocol or '*'}/runs/{variant or '*'}/seed={'*' if seed is None else seed}"
    folders = sorted(path.parent for path in results_dir.glob(f"{pattern}/status.json"))
    if not folders:
        raise UserError(f"no run matches {results_dir / pattern}; train first, or check --results and names")
    return {folder: mirror(folder, store=store) for folder in folders}


def _send(client: "MlflowClient", experiment: str, snapshot: Snapshot) -> str:
    run, sent = _find(client, experiment, snapshot), {}
    if run is not None:
        sent = _sent_curves(client, run, snapshot.curves)
        if _contradicts(run, sent, snapshot):
            client.delete_run(run.info.run_id)
            run, sent = None, {}
    if run is None:
        run = client.create_run(experiment, snapshot.started_ms, snapshot.tags, snapshot.name)
    _send_values(client, run, sent, snapshot)
    _send_data(client, run, snapshot)
    _send_files(client, run, snapshot.files)
    status = STATUS[snapshot.state]
    if status != run.info.status:
        if status == "RUNNING":
            client.update_run(run.info.run_id, status)
        else:
            client.set_terminated(run.info.run_id, status, run.info.start_time + snapshot.elapsed_ms())
    return run.info.run_id


def _find(client: "MlflowClient", experiment: str, snapshot: Snapshot) -> "Run | None":
    """The run of the snapshot; one made twice, because the answer of a dying server was lost, is deleted again."""
    found = client.search_runs([experiment], f"tags.run_key = '{snapshot.tags['run_key']}'")
    found.sort(key=lambda run: (-len(run.data.metrics), run.info.run_id))
    for twin in found[1:]:
        client.delete_run(twin.info.run_id)
    return found[0] if found else None


def _sent_curves(client: "MlflowClient", run: "Run", curves: Curves) -> Curves:
    """The points of `curves` that the store already has."""
    known = [key for key in curves if key in run.data.metrics]
    return {
        key: {point.step: point.value for point in client.get_metric_history(run.info.run_id, key)} for key in known
    }


def _contradicts(run: "Run", sent: Curves, snapshot: Snapshot) -> bool:
    """Whether the store has other parameters or values than the folder; resuming may change `system/`."""
    if any(snapshot.params.get(key) != value for key, value in run.data.params.items()):
        return True
    return any(
        math.isfinite(value) and sent[key].get(step, value) != value
        for key in sent
        if not key.startswith("system/")
        for step, value in snapshot.curves[key].items()
    )


def _send_values(client: "MlflowClient", run: "Run", sent: Curves, snapshot: Snapshot) -> None:
    from mlflow.entities import Metric, Param, RunTag

    metrics = [
        Metric(key, value, run.info.start_time + snapshot.elapsed_ms(step), step)
        for key, points in snapshot.curves.items()
        for step, value in points.items()
        if step not in sent.get(key, {})
    ]
    params = [Param(key, value) for key, value in snapshot.params.items() if key not in run.data.params]
    tags = [RunTag(key, value) for key, value in snapshot.tags.items() if run.data.tags.get(key) != value]
    for batch in _batches(params, PARAMS_A_CALL):
        client.log_batch(run.info.run_id, params=batch)
    for batch in _batches(metrics, METRICS_A_CALL):
        client.log_batch(run.info.run_id, metrics=batch)
    if tags:
        client.log_batch(run.info.run_id, tags=tags)


def _batches(values: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _send_data(client: "MlflowClient", run: "Run", snapshot: Snapshot) -> None:
    """Log the training and the test clips as inputs; their source is the code that makes or reads them."""
    if run.inputs is not None and run.inputs.dataset_inputs:
        return
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    digits, videos, recall = (snapshot.data.get(kind) for kind in ("digits", "videos", "recall"))
    clips = f"moving-{digits}" if digits else f"recall-{recall}" if recall else f"{videos}".replace("/", "-")
    source = {"tags": {key: snapshot.tags[key] for key in ("mlflow.source.name", "mlflow.source.git.commit")}}
    inputs = [
        DatasetInput(
            Dataset(
                name=f"{clips}-{context}",
                digest=snapshot.tags["data_hash"][:36],
                source_type="code",
                source=json.dumps(source),
                profile=json.dumps(snapshot.data),
            ),
            [InputTag("mlflow.data.context", context)],
        )
        for context in ("training", "test")
    ]
    try:
        client.log_inputs(run.info.run_id, inputs)
    except MlflowException as error:
        if "unique" not in str(error).lower():
            raise
        client.log_inputs(run.info.run_id, inputs)  # between MLflow's look and write another run made them known


def _send_files(client: "MlflowClient", run: "Run", files: list[Path]) -> None:
    """Send all `files` unless the store lists them and its tag `files_hash` is that of their contents."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    listed = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    if run.data.tags.get("files_hash") == digest.hexdigest() and listed >= {path.name for path in files}:
        return
    for path in files:
        client.log_artifact(run.info.run_id, str(path))
    client.set_tag(run.info.run_id, "files_hash", digest.hexdigest())

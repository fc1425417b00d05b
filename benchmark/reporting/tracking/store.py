"""The MLflow store: where it is, a client of it, and the experiment of a protocol; no other module opens one."""

import contextlib
import fcntl
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.reporting.tracking.saved_view import experiment_tags
from benchmark.system.errors import UserError
from benchmark.system.files import atomic_path

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DEFAULT_STORE = "sqlite:///mlflow.db"
"""What a plain `mlflow ui` opens in the same folder."""
OFF = "off"
"""As tracking address: nothing is sent anywhere."""

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # failures come as exceptions; our logs need no second traceback
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "30",
}
"""Set before MLflow is imported, unless the user has: no telemetry, no chatter, no minutes of waiting.

A server that takes 10 s to answer still gets everything; no training waits for it (`mirroring`).
"""


class TrackingUnavailable(UserError):
    """The MLflow store cannot be used now; the run folder is unharmed and can be mirrored later."""


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or the SQLite file that a plain `mlflow ui` opens in the current folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE


def load(uri: str) -> None:
    """Import what MLflow needs for the store `uri`, which takes seconds the first time."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow.tracking

    if not uri.startswith("http"):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def create_store(protocol: str, *, store: str | None = None) -> None:
    """Create the store and the experiment of `protocol` if missing; safe from several processes at once.

    Raises:
        TrackingUnavailable: the store cannot be used.
    """
    uri = store or tracking_uri()
    if uri == OFF:
        return
    with connected(uri) as client:
        experiment_of(client, uri, protocol)


def look_at_store() -> str:
    """What the store is, found without creating it.

    Raises:
        TrackingUnavailable: it cannot be used.
    """
    uri = tracking_uri()
    if uri == OFF:
        return "switched off by MLFLOW_TRACKING_URI=off"
    database = _database(uri)
    if database is not None and not database.exists():
        return f"{uri}: made by the first run"
    with connected(uri) as client:
        names = sorted(one.name for one in client.search_experiments() if one.name != "Default")
    return f"{without_password(uri)}: {len(names)} protocols {' '.join(names)}".rstrip()


@contextlib.contextmanager
def connected(uri: str) -> Iterator["MlflowClient"]:
    """A client of `uri`; what MLflow and its store raise becomes one line, without the password of a URI."""
    load(uri)
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    try:
        yield _client(_absolute(uri))
    except (MlflowException, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
        line = str(error).partition("\n")[0]
        if "Caused by" in line:
            line = line.rpartition(": ")[2].removesuffix("))").rstrip("\"'")
        raise TrackingUnavailable(
            without_password(f"MLflow store {uri} cannot be used: {line}; check MLFLOW_TRACKING_URI")
        ) from error


def without_password(text: str) -> str:
    """`text` with the user and password of every URI left out, wherever the URI has them."""
    return re.sub(r"([?&](?:password|token|user)=)[^&\s]*", r"\1...", re.sub(r"://[^\s/]\S*@", "://", text))


@functools.cache
def _client(uri: str) -> "MlflowClient":
    """A client of `uri`, whose SQLite file, if missing, is created by one process, whole or not at all."""
    from mlflow.tracking import MlflowClient

    if (database := _database(uri)) is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
        with locked(database.with_name(f"{database.name}.lock")):
            if not database.exists():
                with atomic_path(database) as temporary:
                    MlflowClient(f"sqlite:///{temporary}")
    return MlflowClient(uri)


def _database(uri: str) -> Path | None:
    """The SQLite file of `uri`; None for other stores."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def _absolute(uri: str) -> str:
    """`uri` as it is meant in the current folder, so that clients of two folders are not mixed up."""
    if (database := _database(uri)) is None:
        return uri
    return f"sqlite:///{database.absolute()}{''.join(uri.partition('?')[1:])}"


def experiment_of(client: "MlflowClient", uri: str, protocol: str) -> str:
    """The id of the experiment of `protocol`; artifacts of a SQLite store lie in `mlruns` beside it.

    A note or view that it has is left as it is, since people change them in the page.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(protocol)
    if found is None:
        database = _database(uri)
        location = None if database is None else str(database.absolute().parent / "mlruns" / protocol)
        try:
            return client.create_experiment(protocol, location, experiment_tags())
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(protocol)
    assert found is not None, f"experiment {protocol} exists and is not found"
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    for key, value in experiment_tags().items():
        if key not in found.tags:  # made by an earlier version, or deleted in the page
            client.set_experiment_tag(found.experiment_id, key, value)
    return found.experiment_id


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for and hold the lock file `path`; the kernel releases it when the process dies."""
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

"""The MLflow store: where it is, a client of it, and the experiment of a protocol; no other module opens one."""

import contextlib
import functools
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from benchmark.reporting.tracking.address import (
    KINDS,
    OFF,
    TrackingUnavailable,
    check_address,
    database_of,
    tracking_uri,
    uri_of,
)
from benchmark.reporting.tracking.saved_view import experiment_tags
from benchmark.system.errors import hide_secrets
from benchmark.system.files import atomic_path
from benchmark.system.installation import remedy
from benchmark.system.locks import wait_and_hold

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

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


DRIVERS = {"MySQLdb": "mysqlclient", "psycopg2": "psycopg2-binary"}
"""Module of a database driver -> the package that has it, where that has another name."""
TIMEOUTS = {"postgresql": "connect_timeout", "mysql": "connect_timeout", "mssql": "timeout"}
"""Kind of database -> what its usual driver calls the seconds that it waits for an answer."""
TIMEOUT_S = 5


def load(uri: str) -> None:
    """Import what MLflow needs for the store `uri`, which takes seconds the first time.

    Raises:
        TrackingUnavailable: MLflow cannot be imported.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow.tracking

        if not uri.startswith("http"):
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    except ImportError as error:
        raise TrackingUnavailable(
            f"MLflow cannot be imported ({error}); {remedy('mlflow')}, or set MLFLOW_TRACKING_URI=off"
        ) from error


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
    check_address(uri)
    database = database_of(_absolute(uri))
    if database is not None and not database.exists():
        return f"{hide_secrets(uri)}: made by the first run"
    with connected(uri) as client:
        names = sorted(one.name for one in client.search_experiments() if one.name != "Default")
    return f"{hide_secrets(uri)}: {len(names)} protocols {' '.join(names)}".rstrip()


@contextlib.contextmanager
def connected(uri: str) -> Iterator["MlflowClient"]:
    """A client of `uri`; what MLflow and its store raise becomes one line, without the secrets of a URI."""
    check_address(uri)
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
            hide_secrets(
                f"MLflow store {uri} cannot be used: {textwrap.shorten(line, 300, placeholder=' ...')}; check"
                " MLFLOW_TRACKING_URI"
            )
        ) from error


@functools.cache
def _client(uri: str) -> "MlflowClient":
    """A client of `uri`, whose SQLite file, if missing, is created by one process, whole or not at all."""
    from mlflow.tracking import MlflowClient

    if (database := database_of(uri)) is not None:
        _check_owner(database)
        database.parent.mkdir(parents=True, exist_ok=True)
        with wait_and_hold(database.with_name(f"{database.name}.lock")):
            if not database.exists():
                with atomic_path(database) as temporary:
                    MlflowClient(uri_of(temporary))
    elif uri.partition(":")[0].partition("+")[0] in TIMEOUTS:
        _check_database(uri)
    return MlflowClient(uri)


def _check_owner(database: Path) -> None:
    """Refuse a link that another user has put in place of the store."""
    if database.is_symlink() and database.lstat().st_uid != os.geteuid():
        raise TrackingUnavailable(
            f"MLflow store {database} cannot be used: it is a symbolic link of another user; remove the link"
        )


def _check_database(uri: str) -> None:
    """Connect to a database once: MLflow by itself would try for minutes, and ends in a traceback without a driver.

    Raises:
        TrackingUnavailable: the driver is missing.
        SQLAlchemyError: what the database said.
    """
    import sqlalchemy

    timeout = {TIMEOUTS[uri.partition(":")[0].partition("+")[0]]: TIMEOUT_S}
    try:
        with sqlalchemy.create_engine(uri, connect_args=timeout, poolclass=sqlalchemy.NullPool).connect():
            pass
    except ImportError as error:
        package = DRIVERS.get(error.name or "", error.name)
        raise TrackingUnavailable(
            f"MLflow store {hide_secrets(uri)} cannot be used: there is no {error.name}, the driver of its database;"
            f" pip install {package}, or set MLFLOW_TRACKING_URI to {KINDS}"
        ) from error


def _absolute(uri: str) -> str:
    """`uri` as it is meant in the current folder, so that clients of two folders are not mixed up."""
    database = database_of(uri)
    return uri if database is None else uri_of(database, uri.partition("?")[2])


def experiment_of(client: "MlflowClient", uri: str, protocol: str) -> str:
    """The id of the experiment of `protocol`; artifacts of a SQLite store lie in `mlruns` beside it.

    A note or view that it has is left as it is, since people change them in the page.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(protocol)
    if found is None:
        database = database_of(uri)
        location = None if database is None else _location(database.absolute().parent / "mlruns" / protocol)
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


def _location(folder: Path) -> str:
    """`folder` as MLflow finds it again: it takes a plain path for quoted, and ends it at a `?`."""
    return str(folder) if quote(str(folder)) == str(folder) else folder.as_uri()

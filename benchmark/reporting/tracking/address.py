"""The address of the MLflow store, checked before MLflow sees it. Imports no mlflow."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from benchmark.system.console import command_line
from benchmark.system.errors import UserError, hide_secrets

DEFAULT_STORE = "sqlite:///mlflow.db"
"""What a plain `mlflow ui` opens in the same folder."""
OFF = "off"
"""As tracking address: nothing is sent anywhere."""
KINDS = "sqlite:///FILE, the address of a server or database, or off"
_WITHOUT_SCHEME = ("databricks", "databricks-uc", "uc")


class TrackingUnavailable(UserError):
    """The MLflow store cannot be used now; the run folder is unharmed and can be mirrored later."""


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or the SQLite file that a plain `mlflow ui` opens in the current folder."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or DEFAULT_STORE
    return OFF if uri.lower() == OFF else uri


def check_address(uri: str) -> None:
    """Refuse an address that cannot be one of a store.

    Raises:
        TrackingUnavailable: says why, and what may stand there.
    """
    try:
        parts = urlsplit(uri)
        wrong = None if parts.port is None or parts.hostname else "names no host"
    except ValueError as error:  # of brackets and ports
        wrong, parts = f"is no address ({error})", urlsplit("")
    if wrong is None and uri not in _WITHOUT_SCHEME and parts.scheme in ("", "file"):
        folders = os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() == "true"
        wrong = None if folders else "is a folder, which MLflow takes for a store no longer"
    path = uri.removeprefix("sqlite:").partition("?")[0].strip("/")
    if parts.scheme == "sqlite" and (path in ("", ":memory:") or path.startswith("file:")):
        wrong = "names no file"
    if wrong:
        raise TrackingUnavailable(f"MLflow store {hide_secrets(uri)} {wrong}; set MLFLOW_TRACKING_URI to {KINDS}")


def database_of(uri: str) -> Path | None:
    """The SQLite file of `uri`; None for other stores."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def uri_of(database: Path, query: str = "") -> str:
    """The URI of a SQLite file, in whatever folder it lies.

    Args:
        query: what follows the `?` of the URI.

    Raises:
        TrackingUnavailable: MLflow could not keep the path.
    """
    path = str(database.absolute())
    if "?" in path:
        wrong = "a URI cannot name its path, which has a `?`"
    elif not is_utf8(path):
        wrong = "MLflow keeps no path that is no UTF-8"
    else:
        return f"sqlite:///{path}{f'?{query}' if query else ''}"
    raise TrackingUnavailable(
        f"MLflow store {command_line(path)} cannot be used: {wrong}; work in another folder, or set MLFLOW_TRACKING_URI"
        f" to {KINDS}"
    )


def is_utf8(path: str) -> bool:
    """Whether the bytes of `path` are UTF-8, as the names of files need not be."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True

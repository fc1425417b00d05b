"""How a workflow ends: its main table, where everything lies and what to do next."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmark.config.protocol import Protocol
from benchmark.config.workflow import command_of
from benchmark.reporting.outputs import films_of, tables_of
from benchmark.reporting.tracking.store import OFF, tracking_uri
from benchmark.system.errors import hide_secrets

MOST_ROWS = 16
"""Of the table at the end."""


def closing(protocol: Protocol, folder: Path, given: Mapping[str, Any], log: str) -> Iterator[str]:
    """The lines at the end of a whole protocol: its main table, where everything lies and what to do next.

    Args:
        protocol: what was made.
        folder: holds its results.
        given: what the person said with `--config`.
        log: where Snakemake's words lie.
    """
    table = next(name for name in ("main", "reach_effects") if name in tables_of(protocol))
    yield from first_rows(folder / "tables" / f"{table}.md")
    films = ", films/ (GIF)" if films_of(protocol) else ""
    yield f"Results  {folder}: tables/ (CSV, Markdown, LaTeX, HTML), figures/ (PDF, PNG){films}"
    if address := tracking_address(tracking_uri(), protocol.name):
        yield f"MLflow   {address}"
    yield f"Log      {log}"
    if "MAKELEVEL" not in os.environ:  # `make all` makes it itself
        yield f"Report   {command_of(['--report', str(folder / 'report.html')], given)}"
    yield "Next     docs/reading.md says how to read these; docs/protocols.md which other questions there are"


def first_rows(path: Path) -> Iterator[str]:
    """The head and the first rows of a table in Markdown, without its rule."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return
    rows = [line.strip("| ") for line in lines if line.startswith("|") and not line.startswith("|:")]
    yield from rows[: MOST_ROWS + 1]
    if len(rows) > MOST_ROWS + 1:
        yield f"... {len(rows) - 1 - MOST_ROWS} more in {path}"


def tracking_address(uri: str, experiment: str) -> str:
    """How to look at the runs of `experiment` in MLflow; empty where nothing is sent to it. Imports no MLflow."""
    if uri.strip().lower() == OFF:
        return ""
    if uri.startswith("http"):
        return hide_secrets(uri)
    number = None
    if uri.startswith("sqlite:///"):
        with contextlib.suppress(sqlite3.Error):
            path = quote(os.path.abspath(uri.removeprefix("sqlite:///")))
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
                number = store.execute(
                    "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'active'", [experiment]
                ).fetchone()
    page = (
        f"/#/experiments/{number[0]}/runs?workflowType=machine_learning&viewStateShareKey=best-variant"
        if number
        else ""
    )
    return f"make ui, then http://127.0.0.1:5000{page}"

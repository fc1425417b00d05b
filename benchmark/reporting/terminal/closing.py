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
from benchmark.reporting.landing import main_table
from benchmark.reporting.outputs import films_of
from benchmark.reporting.tracking.store import OFF, tracking_uri
from benchmark.system.console import echo
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
    yield from first_rows(folder / "tables" / f"{main_table(protocol)}.md")
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
    page = pages_of(uri).get(experiment, "")
    return f"make ui, then http://127.0.0.1:5000{page}"


def pages_of(uri: str) -> dict[str, str]:
    """Experiment -> the address of its table of variants, below that of the server; of an SQLite store that is there.

    A browser that was never there opens MLflow's page for language models; with this address it opens the table.
    """
    if not uri.startswith("sqlite:///"):
        return {}
    path = quote(os.path.abspath(uri.removeprefix("sqlite:///")))
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
            rows = store.execute(
                "SELECT name, experiment_id FROM experiments WHERE lifecycle_stage = 'active' AND name != 'Default'"
            ).fetchall()
    except sqlite3.Error:
        return {}
    query = "workflowType=machine_learning&viewStateShareKey=best-variant"
    return {name: f"/#/experiments/{number}/runs?{query}" for name, number in sorted(rows)}


def print_pages(port: int) -> None:
    """Say where `make ui` shows the runs of each protocol."""
    for experiment, page in pages_of(tracking_uri()).items():
        echo(f"{experiment:20} http://127.0.0.1:{port}{page}")

"""The tables of a protocol, in CSV (full precision), Markdown, LaTeX and HTML, all from the files of its runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmark.config.protocol import Protocol
from benchmark.reporting.outputs import TABLE_FORMATS, caption_file, tables_of
from benchmark.reporting.protocol_results import ProtocolResults, read_results
from benchmark.reporting.registry import TABLES, load
from benchmark.reporting.tables.rendering import Table, to_csv, to_html, to_latex, to_markdown, without_empty
from benchmark.system.files import write_atomic

RENDERERS: dict[str, Callable[[Table], str]] = {
    "csv": to_csv,
    "md": to_markdown,
    "tex": to_latex,
    "html": to_html,
}
"""Ending of a file -> what writes its text."""


def write_tables(protocol: Protocol, results_dir: Path, *, reuse: bool = False) -> None:
    """Write `tables/<name>.{csv,md,tex,html}` of `protocol`, and their captions.

    Args: `reuse`: take runs from published records, see `read_runs`.

    Raises:
        UserError: a run is not finished.
    """
    load(TABLES)
    results = read_results(protocol, results_dir, reuse=reuse)
    for name in tables_of(protocol):
        table = without_empty(make_table(name, results))
        for ending in TABLE_FORMATS:
            write_atomic(results.folder / "tables" / f"{name}.{ending}", RENDERERS[ending](table))
        write_atomic(caption_file(results.folder, name), f"{TABLES[name].caption}\n")


def make_table(name: str, results: ProtocolResults) -> Table:
    """The table that the registry has under `name`."""
    entry = TABLES[name]
    return replace(entry.function(results, entry.title), caption=entry.caption)

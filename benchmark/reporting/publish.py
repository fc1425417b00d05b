"""Small results that are worth keeping: copied to `results/reference`, and compared with fresh ones."""

from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.config.protocol import Protocol
from benchmark.reporting import published_records as reference
from benchmark.reporting.finished_runs import FinishedRun, read_record, read_runs
from benchmark.reporting.outputs import TABLE_FORMATS, figures_of, tables_of
from benchmark.reporting.record import RECORD
from benchmark.reporting.registry import FIGURES, TABLES
from benchmark.system.errors import UserError
from benchmark.system.files import write_atomic, write_json
from benchmark.system.installation import PROGRAM


def publish(protocol: Protocol, results_dir: Path, *, reuse: bool = False) -> str:
    """Copy tables, figures (PNG) and one record a run of a finished protocol to `results/reference/<protocol>`.

    Args: `reuse`: leave the records there of runs that were not made again, see `read_runs`.

    Raises:
        UserError: a run, a table or a figure is missing.
    """
    fresh, folder = results_dir / protocol.name, reference.FOLDER / protocol.name
    runs = [run for run in read_runs(protocol, results_dir, reuse=reuse) if run.config]
    files = [f"tables/{name}.{ending}" for name in tables_of(protocol) for ending in TABLE_FORMATS]
    files += [f"figures/{name}.png" for name in figures_of(protocol)]
    missing = [name for name in files if not (fresh / name).exists()]
    if missing:
        raise UserError(f"{fresh / missing[0]}: is missing; run the workflow first")
    for name in files:
        write_atomic(folder / name, (fresh / name).read_bytes())
    count = publish_records(protocol, results_dir)
    write_atomic(folder / "README.md", readme(protocol, runs))
    return f"published {len(files)} files and {count} records of protocol {protocol.name}"


def publish_records(protocol: Protocol, results_dir: Path) -> int:
    """Copy the records of those runs of `protocol` that are finished to where they are published; returns how many."""
    made = {run: run.path(results_dir) / RECORD for run in protocol.runs()}
    finished = {run: path for run, path in made.items() if path.exists()}
    for run, path in finished.items():
        write_json(reference.record_path(protocol.name, run.variant, run.seed), read_record(path))
    return len(finished)


def readme(protocol: Protocol, runs: list[FinishedRun]) -> str:
    """The page of a published folder: what, where from, and the tables."""
    origin = runs[0].provenance
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    commits = ", ".join(sorted({f"{run.provenance['git_commit']}"[:12] for run in runs}))
    tables = "\n".join(
        (reference.FOLDER / protocol.name / "tables" / f"{name}.md").read_text() for name in tables_of(protocol)
    )
    figures = "\n\n".join(
        f"![{FIGURES[name].title}](figures/{name}.png)\n\n{FIGURES[name].caption}" for name in figures_of(protocol)
    )
    return (
        f"# {protocol.name}\n\n{protocol.about}\n\n"
        f"Made by `snakemake --cores all all --config protocol={protocol.name}` and `{PROGRAM} publish "
        f"--protocol {protocol.name}`; do not edit.\n\n"
        f"Commit {commits}; {origin['accelerator']} ({origin['device']}); {versions}.\n\n{tables}\n{figures}\n"
    )


def compare(protocol: Protocol, results_dir: Path) -> tuple[str, bool]:
    """Compare the fresh tables of `protocol` with the published ones, number by number.

    Returns:
        One line a table with the largest relative difference, and whether all are equal, measured times aside.

    Raises:
        UserError: there is nothing to compare.
    """
    lines, equal = [], True
    for name in tables_of(protocol):
        fresh, published = (base / protocol.name / "tables" / f"{name}.csv" for base in (results_dir, reference.FOLDER))
        for path, verb in ((published, "publish"), (fresh, "tables")):
            if not path.exists():
                raise UserError(f"{path}: nothing to compare; the command `{verb}` makes it")
        message = difference(pd.read_csv(published), pd.read_csv(fresh), TABLES[name].measured)
        equal &= message is None
        lines.append(f"{name}: {message or 'equal'}")
    return "\n".join(lines), equal


def difference(published: pd.DataFrame, fresh: pd.DataFrame, ignored: tuple[str, ...]) -> str | None:
    """Where two tables differ most, in words; None if they are equal."""
    published, fresh = (
        published.drop(columns=[*ignored], errors="ignore"),
        fresh.drop(columns=[*ignored], errors="ignore"),
    )
    if list(published.columns) != list(fresh.columns):
        return f"columns differ: {', '.join(sorted(set(published.columns) ^ set(fresh.columns)))}"
    named = published.columns[0]
    if not published[named].equals(fresh[named]):
        return "rows differ"
    if published.equals(fresh):
        return None
    numeric = published.select_dtypes("number").columns
    ratio = ((fresh[numeric] - published[numeric]) / published[numeric].abs()).abs().fillna(0)
    row, column = map(int, np.unravel_index(ratio.to_numpy().argmax(), ratio.shape))
    if not ratio.iloc[row, column]:
        return "differ in words or in missing values"
    place = f"{fresh[named].iloc[row]}, {numeric[column]}"
    old, new = published[numeric].iloc[row, column], fresh[numeric].iloc[row, column]
    return f"differ by up to {ratio.iloc[row, column]:.2g} ({place}: {old:.6g} published, {new:.6g} fresh)"

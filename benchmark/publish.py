"""Small results that are worth keeping: copied to `results/reference`, and held against fresh ones."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmark.config import Protocol
from benchmark.errors import UserError
from benchmark.files import write_atomic, write_json
from benchmark.metrics import summarise
from benchmark.outputs import TABLE_FORMATS, figures_of, tables_of
from benchmark.provenance import ROOT
from benchmark.runs import FinishedRun, read_runs

REFERENCE = ROOT / "results" / "reference"
MEASURED = {"compute": ("train_s", "clips_per_s", "peak_memory_mib")}
"""Columns of a table that differ from time to time: measured, not computed."""


def publish(protocol: Protocol, results_dir: Path) -> str:
    """Copy tables, figures (PNG) and one record a run of a finished protocol to `results/reference/<protocol>`.

    Raises:
        UserError: a run, a table or a figure is missing.
    """
    fresh, folder = results_dir / protocol.name, REFERENCE / protocol.name
    runs = [run for run in read_runs(protocol, results_dir) if run.config]
    files = [f"tables/{name}.{ending}" for name in tables_of(protocol) for ending in TABLE_FORMATS]
    files += [f"figures/{name}.png" for name in figures_of(protocol)]
    missing = [name for name in files if not (fresh / name).exists()]
    if missing:
        raise UserError(f"{fresh / missing[0]}: is missing; run the workflow first")
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(fresh / name, folder / name)
    for run in runs:
        write_json(folder / "records" / f"{run.variant}.seed={run.seed}.json", record(run))
    write_atomic(folder / "README.md", readme(protocol, runs))
    return f"published {len(files)} files and {len(runs)} records of protocol {protocol.name}"


def record(run: FinishedRun) -> dict[str, Any]:
    """What is kept of a run: its config, how it ended, means per clip and per frame, gradients, provenance."""
    assert run.config is not None
    metrics = [name for name in run.frames.columns if name not in ("variant", "seed", "clip", "frame")]
    finite = run.frames.replace([np.inf, -np.inf], np.nan)
    per_clip = finite.groupby("clip")[metrics].mean()
    per_frame = finite.groupby("frame")[metrics].mean()
    mean = summarise(run.frames).set_index("metric")["mean"]
    by_gap = {} if run.box_mse is None else {"box_mse": {gap: plain(value) for gap, value in run.box_mse.items()}}
    return by_gap | {
        "config": run.config.to_dict(),
        "status": run.status,
        "mean": {name: plain(mean[name]) for name in metrics},
        "per_frame": {name: [plain(value) for value in per_frame[name]] for name in metrics},
        "per_clip": {name: [plain(value) for value in per_clip[name]] for name in metrics[:1]},
        "probe": run.probe,
        "provenance": run.provenance,
    }


def plain(value: float) -> float | None:
    """A number for JSON, which knows neither NaN nor infinity; eight significant digits."""
    return float(f"{value:.8g}") if np.isfinite(value) else None


def readme(protocol: Protocol, runs: list[FinishedRun]) -> str:
    """The page of a published folder: what, where from, and the tables."""
    origin = runs[0].provenance
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    commits = ", ".join(sorted({f"{run.provenance['git_commit']}"[:12] for run in runs}))
    tables = "\n".join(
        (REFERENCE / protocol.name / "tables" / f"{name}.md").read_text() for name in tables_of(protocol)
    )
    figures = "\n\n".join(f"![{name}](figures/{name}.png)" for name in figures_of(protocol))
    return (
        f"# {protocol.name}\n\n{protocol.about}\n\n"
        f"Made by `snakemake --cores all all --config protocol={protocol.name}` and `python -m benchmark publish "
        f"--protocol {protocol.name}`; do not edit.\n\n"
        f"Commit {commits}; {origin['accelerator']} ({origin['device']}); {versions}.\n\n{tables}\n{figures}\n"
    )


def compare(protocol: Protocol, results_dir: Path) -> tuple[str, bool]:
    """Hold the fresh tables of `protocol` against the published ones, number by number.

    Returns:
        One line a table with the largest relative difference, and whether all are equal, measured times aside.

    Raises:
        UserError: there is nothing to compare.
    """
    lines, equal = [], True
    for name in tables_of(protocol):
        fresh, published = (base / protocol.name / "tables" / f"{name}.csv" for base in (results_dir, REFERENCE))
        for path, verb in ((published, "publish"), (fresh, "tables")):
            if not path.exists():
                raise UserError(f"{path}: nothing to compare; the verb `{verb}` makes it")
        message = difference(pd.read_csv(published), pd.read_csv(fresh), MEASURED.get(name, ()))
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
    if not published["variant"].equals(fresh["variant"]):
        return "rows differ"
    if published.equals(fresh):
        return None
    numeric = published.select_dtypes("number").columns
    ratio = ((fresh[numeric] - published[numeric]) / published[numeric].abs()).abs().fillna(0)
    row, column = np.unravel_index(ratio.to_numpy().argmax(), ratio.shape)
    if not ratio.iloc[row, column]:
        return "differ in words or in missing values"
    place = f"{fresh['variant'].iloc[row]}, {numeric[column]}"
    old, new = published[numeric].iloc[row, column], fresh[numeric].iloc[row, column]
    return f"differ by up to {ratio.iloc[row, column]:.2g} ({place}: {old:.6g} published, {new:.6g} fresh)"

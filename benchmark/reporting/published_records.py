"""The committed results, and the runs that need not be made again because of them. Imports no torch."""

from pathlib import Path

from benchmark.config.protocol import RunConfig
from benchmark.system.files import read_json
from benchmark.system.installation import PROJECT

FOLDER = PROJECT / "results" / "reference"
"""Where `publish` keeps what is worth keeping, a folder a protocol."""


def record_path(protocol: str, variant: str, seed: int) -> Path:
    """Where the record of a run is published."""
    return FOLDER / protocol / "records" / f"{variant}.seed={seed}.json"


def record_of(run: RunConfig) -> Path | None:
    """The published record of `run`; None if there is none of this very config."""
    path = record_path(run.protocol, run.variant, run.seed)
    if not path.exists():
        return None
    return path if read_json(path).get("identity") == run.identity("evaluation", "probe") else None

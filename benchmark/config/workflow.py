"""The configuration of the workflow: the keys of `snakemake --config`. Imports no torch."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from benchmark.config.sections import (
    Strict,
)


def fits_a_rule(path: str | Path) -> str | Path:
    """Raise ValueError for a path that Snakemake would read as a pattern, or that breaks a line of a log."""
    if not str(path).isprintable() or set(str(path)) & set("{}"):
        raise ValueError(f"{str(path)!r}: braces and control characters are not allowed, which name wildcards or lines")
    return path


class WorkflowConfig(Strict):
    """The keys that `snakemake --config` takes, from a command line, where all is text."""

    model_config = ConfigDict(strict=False)

    protocol: Annotated[str, AfterValidator(fits_a_rule)] = Field(
        "quick", description="Name in workflows/protocols, or a YAML file."
    )
    data_dir: Annotated[Path, AfterValidator(fits_a_rule)] = Field(
        Path("data"), description="Where published files lie or are downloaded to."
    )
    results_dir: Annotated[Path, AfterValidator(fits_a_rule)] = Field(
        Path("results"), description="Results of a protocol go to a folder of its name here."
    )
    download: bool = Field(False, description="Fetch published files that data_dir lacks.")
    reuse: bool = Field(False, description="Make no run again whose published record is of this very config.")
    device: Literal["auto", "cpu", "cuda"] | None = Field(
        None, description="In place of the protocol's training.device; on a cluster cpu or cuda."
    )

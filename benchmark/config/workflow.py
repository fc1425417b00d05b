"""The configuration of the workflow, and what its rules are made of: options, source files, identities. No torch.

What needs Snakemake itself stays in `workflows/rules/`.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError

from benchmark.config.code_sources import ROOT, sources
from benchmark.config.probe_stages import trains
from benchmark.config.protocol import Protocol, RunConfig
from benchmark.config.sections import Strict
from benchmark.config.variants import BASELINES, NO_SEED
from benchmark.system.checksums import files_at
from benchmark.system.console import command_line
from benchmark.system.errors import UserError, explain, shortened
from benchmark.system.storage import nearest_existing


def fits_a_rule(path: str | Path) -> str | Path:
    """Raise ValueError for a path that Snakemake would read as a pattern, or that breaks a line of a log."""
    if not str(path).isprintable() or set(str(path)) & set("{}"):
        raise ValueError(f"{str(path)!r}: braces and control characters are not allowed, which name wildcards or lines")
    return path


def as_name(value: object) -> object:
    """A name that Snakemake has read as a whole number is that name; what it has read as anything else is refused."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str | Path):
        return value
    read = "nothing" if value is None else shortened(value)
    raise ValueError(f"is read as {read}, not as a name; put ./ before it (./NAME)")


class WorkflowConfig(Strict):
    """The keys that `snakemake --config` takes, from a command line, where all is text."""

    model_config = ConfigDict(strict=False)

    protocol: Annotated[str, BeforeValidator(as_name), AfterValidator(fits_a_rule)] = Field(
        "quick", description="Name in workflows/protocols, or a YAML file."
    )
    data_dir: Annotated[Path, BeforeValidator(as_name), AfterValidator(fits_a_rule)] = Field(
        Path("data"), description="Where published files lie or are downloaded to."
    )
    results_dir: Annotated[Path, BeforeValidator(as_name), AfterValidator(fits_a_rule)] = Field(
        Path("results"), description="Results of a protocol go to a folder of its name here."
    )
    download: bool = Field(False, description="Fetch published files that data_dir lacks.")
    reuse: bool = Field(False, description="Make no run again whose published record is of this very config.")
    device: Literal["auto", "cpu", "cuda"] | None = Field(
        None, description="In place of the protocol's training.device; on a cluster cpu or cuda."
    )


def read_config(values: Mapping[str, Any], words: Sequence[str] = ()) -> WorkflowConfig:
    """The configuration that Snakemake has read.

    Args:
        values: key -> what Snakemake takes its text for.
        words: the command line, where `0777` still stands as it was written.

    Raises:
        UserError: a key or value is not one of ours, or the results would lie below a file.
    """
    for key, value in values.items():
        written = [word.partition("=")[2] for word in words if word.startswith(f"{key}=")]
        if isinstance(value, int) and not isinstance(value, bool) and written and str(value) not in written:
            raise UserError(f"--config: {key}: {written[-1]} is read as {value}; put ./ before it (./{written[-1]})")
    try:
        config = WorkflowConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(f"--config: {explain(error, WorkflowConfig)}") from None
    if not (place := nearest_existing(config.results_dir)).is_dir():
        raise UserError(f"--config: results_dir: {place} is a file; name a folder")
    return config


class Options(NamedTuple):
    """What the rules' commands are told, each value quoted for a shell, here and nowhere else."""

    protocol: str
    """Which protocol."""
    place: str
    """And where its results lie."""
    data: str
    """And where published files lie."""
    run: str
    """And on which device."""
    fetch: str
    """Where published files lie, and whether they may be downloaded."""
    reuse: str
    """Where the results lie, and whether published records count as results."""
    measure: str
    """As `run`, and whether published records count as results."""


def options_of(config: WorkflowConfig) -> Options:
    """The options of the rules' commands."""
    protocol = f"--protocol={command_line(config.protocol)}"
    place = f"{protocol} --results-dir={command_line(config.results_dir)}"
    data = f"{place} --data-dir={command_line(config.data_dir)}"
    run = f"{data} --device={config.device}" if config.device else data
    reuse = " --reuse" * config.reuse
    return Options(protocol, place, data, run, f"{data}{' --download' * config.download}", place + reuse, run + reuse)


def command_of(words: Iterable[str], values: Mapping[str, Any]) -> str:
    """A Snakemake command for a person to paste, with the configuration that was given."""
    config = [f"{key}={value}" for key, value in values.items()]
    return command_line("snakemake", *words, *(["--config", *config] if config else []))


def files_here(names: Iterable[str]) -> list[str]:
    """Source files of this checkout as the working directory sees them."""
    return [os.path.relpath(ROOT / name) for name in names]


def stage_sources(protocol: Protocol, stage: str, variants: Iterable[str] = ()) -> list[str]:
    """The source files that decide the result of `stage` for `variants`; for none, those that are of no network."""
    models = [protocol.first_run(variant).model for variant in variants] or [None]
    return files_here(sorted({name for model in models for name in sources(stage, model)}))


def plan_sources(protocol: Protocol) -> list[str]:
    """The source files that decide the counts of all variants."""
    return stage_sources(protocol, "plan", dict.fromkeys(run.variant for run in protocol.runs()))


def measure_sources(protocol: Protocol, variant: str) -> list[str]:
    """The source files that decide all that is made of a variant."""
    found = [stage_sources(protocol, stage, [variant]) for stage in ("train", "evaluate", "probe", "record")]
    return sorted({name for names in found for name in names})


def is_not_trained(protocol: Protocol, variant: str, seed: int) -> bool:
    """Whether these are the names of a row without a network: a baseline, or predictions of other code."""
    return not protocol.is_trained(variant) and seed == NO_SEED


def identity_not_trained(protocol: Protocol) -> list[Any]:
    """What decides the scores of a row that is not trained, apart from code and files."""
    return [protocol.data.model_dump(mode="json"), protocol.evaluation.model_dump(mode="json")]


def scored_by_run(protocol: Protocol) -> str:
    """Pattern of the names that are scored and recorded run by run; where nothing is trained, the other rows alone."""
    others = [*BASELINES, *(entry.id for entry in protocol.predictions)]
    return r"[a-z0-9]+(-[a-z0-9]+)*" if trains(protocol) else "|".join(others)


def predictions_files(protocol: Protocol, variant: str) -> list[str]:
    """The files of the predictions called `variant`; none for other rows.

    Raises:
        UserError: there is no such file or folder.
    """
    entry = protocol.predictions_of(variant)
    return [os.fspath(path) for path in files_at(Path(entry.predictions))] if entry else []


def seeds_to_make(runs: Iterable[RunConfig]) -> dict[str, list[int]]:
    """Variant -> the seeds of those of `runs` that are of it."""
    found: dict[str, list[int]] = {}
    for run in runs:
        found.setdefault(run.variant, []).append(run.seed)
    return found


def score_files(protocol: Protocol) -> list[str]:
    """Names of the files of a run that hold scores and forecasts."""
    return ["frames.parquet", "examples.npz", *longer_scores(protocol)]


def longer_scores(protocol: Protocol) -> list[str]:
    """Name of the file with the scores of the longer roll-out, where the protocol has one."""
    return ["beyond.parquet"] if protocol.evaluation.beyond else []


def run_files(protocol: Protocol) -> list[str]:
    """Names of all files of a run that the rules make."""
    films = ["film.png", "film.gif"]
    return ["model.safetensors", *score_files(protocol), *films, *probe_files(protocol), "probe.png", "record.json"]


def probe_files(protocol: Protocol) -> list[str]:
    """Names of the files of a run that hold what the probe found."""
    return ["probe.parquet", "probe.json", *(["memory.parquet"] if protocol.probe.memory else [])]


def rows_of(protocol: Protocol) -> list[Any]:
    """What the tables and figures show and compare, in their order."""
    return [(run.variant, run.seed, run.label) for run in protocol.runs()] + [
        *protocol.rows_not_trained().items(),
        *((entry.id, entry.reference) for entry in protocol.predictions),
        protocol.about,
        *protocol.references().items(),
        protocol.primary.model_dump(),
        protocol.learnt and protocol.learnt.model_dump(),
    ]

"""Protocols: one YAML file says data, training, evaluation, variants and seeds. Imports no torch."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator

from benchmark.config.data_sections import DataConfig
from benchmark.config.protocol_checks import (
    check_data,
    check_forecaster,
    check_interactions,
    check_longer,
    check_rules,
    check_training,
)
from benchmark.config.rates import RateChoice, RateGrid, read_choice, tried_at_each
from benchmark.config.sections import (
    MOST_SEEDS,
    NOT_IDENTITY,
    ONE_LINE,
    EvaluationConfig,
    Identifier,
    JobConfig,
    LearntConfig,
    ModelConfig,
    PrimaryConfig,
    ProbeConfig,
    Seeds,
    ShortOrLong,
    Strict,
    TrainingConfig,
    VariantEntry,
    no_repeats,
)
from benchmark.config.variants import BASELINES, OF_ANY_CLIPS, slot_number, unknown_variant
from benchmark.system import processes
from benchmark.system.errors import UserError, explain, unknown
from benchmark.system.installation import PROGRAM, PROJECT
from benchmark.system.strict_yaml import read_yaml
from models.forecasters.outside import find_classes_in
from models.forecasters.spec import ForecasterSpec, Spec, forecaster_spec
from models.spec import ModelSpec

BaselineName = Literal["last-frame", "context-mean", "black", "mean-digit"]
PROTOCOLS = PROJECT / "workflows" / "protocols"


class RunConfig(Strict):
    """One run, fully resolved: (protocol, variant, seed) and everything that decides its result."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    protocol: str
    variant: str
    label: str
    seed: int
    model: Spec
    data: DataConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    probe: ProbeConfig

    def path(self, results_dir: Path) -> Path:
        """The run's folder."""
        return run_path(results_dir, self.protocol, self.variant, self.seed)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, as `run.yaml` holds it."""
        return self.model_dump(mode="json", exclude={"model"}) | {"model": self.model.to_dict()}

    def identity(self, *parts: str) -> str:
        """Hash of what decides the weights, and of the sections named in `parts` (`evaluation`, `probe`)."""
        values = self.to_dict()
        training = {key: value for key, value in values["training"].items() if key not in NOT_IDENTITY}
        data = {key: value for key, value in values["data"].items() if key not in {"test_clips", "public_test"}}
        if parts:
            data = values["data"]
        decisive = {"model": values["model"], "data": data, "training": training, "seed": self.seed}
        if self.probe.steps:
            decisive["weights_kept_after"] = self.probe.steps
        decisive |= {part: values[part] for part in parts}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


class Protocol(Strict):
    """One YAML file of `workflows/protocols`; its name, if not given, is that of the file."""

    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("name"))  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]  # a list of names

    name: Identifier
    about: str = Field(
        pattern=ONE_LINE, max_length=1000, description="What it shows, in a sentence; stands above its tables."
    )
    data: DataConfig
    model: ModelConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    probe: ProbeConfig
    variants: tuple[ShortOrLong, ...] = Field(min_length=1, strict=False)
    baselines: Annotated[tuple[BaselineName, ...], AfterValidator(no_repeats)] = Field(
        tuple(OF_ANY_CLIPS), strict=False
    )  # pyright: ignore[reportAssignmentType]  # BaselineName lists them
    seeds: Seeds
    primary: PrimaryConfig = PrimaryConfig()  # pyright: ignore[reportCallIssue]  # pydantic takes defaults from Field
    learnt: LearntConfig | None = Field(None, description="When a run counts as one that has learnt; null = always.")
    rate_grid: RateGrid = Field((), description="Learning rates at each of which every variant is tried; [] = none.")
    rates: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Protocol with rate_grid, or file of `choose-rates`, that decides the learning rates; null = none.",
    )
    target_parameters: int | None = Field(None, ge=1, le=10**12, description="Matched within 7 %; null = not matched.")
    cohort: int = Field(
        1, ge=1, le=1000, description="Variants of a seed that one job trains side by side; changes no result."
    )
    stack: int = Field(
        1, ge=1, le=MOST_SEEDS, description="Seeds of a variant that one job trains as one network; changes no result."
    )
    job: JobConfig = JobConfig()  # pyright: ignore[reportCallIssue]  # pydantic takes defaults from Field

    @model_validator(mode="before")
    @classmethod
    def _tried_at_each(cls, values: Any) -> Any:
        return tried_at_each(values)

    @model_validator(mode="after")
    def _consistent(self) -> "Protocol":
        ids = [entry.id for entry in self.variants]
        if len(set(ids)) < len(ids):
            raise ValueError(f"variants: {ids} names one twice")
        if set(ids) & set(BASELINES):
            raise ValueError(f"variants: {sorted(set(ids) & set(BASELINES))} are names of baselines")
        for key, value in self.shown_clips().items():
            if self.data.test_clips is not None and value > self.data.test_clips:
                raise ValueError(f"{key}: {value} is more than data.test_clips {self.data.test_clips}")
        for variants in self.cohorts():
            check_one_stream([self.first_run(variant) for variant in variants])
        for variant, reference in self.references().items():
            for name in (variant, reference):
                if name not in ids:
                    where = "primary.pairs" if variant in self.primary.pairs else f"variants: {variant}: reference"
                    raise ValueError(f"{where}: {unknown_variant(name, ids, 'variant of this protocol')}")
            if variant == reference:
                raise ValueError(f"{variant} is compared with itself; name another variant as its reference")
        return self

    @model_validator(mode="after")
    def _sections_fit(self) -> "Protocol":
        check_rules(self.learnt, self.baselines, self.rates, self.rate_grid, self.variants)
        check_longer(self.evaluation, self.data)
        check_data(self.primary, self.baselines, self.data)
        check_interactions(self.primary.interactions, self.references(), [entry.id for entry in self.variants])
        return self

    @cached_property
    def choice(self) -> RateChoice | None:
        """What `rates` names; None where it names nothing, or nothing has been chosen yet (`check_chosen`)."""
        return read_choice(self.rates) if self.rates else None

    def shown_clips(self) -> dict[str, int]:
        """Key -> how many test clips there must be for it."""
        return {"evaluation.film_clips": max(self.evaluation.film_clips), "probe.clips": self.probe.clips}

    def seeds_of(self, variant: str) -> tuple[int, ...]:
        """The seeds of `variant`."""
        return next((entry.seeds for entry in self.variants if entry.id == variant and entry.seeds), self.seeds)

    def seed_counts(self) -> list[int]:
        """The numbers of seeds that its variants have, each once, largest first."""
        return sorted({len(self.seeds_of(entry.id)) for entry in self.variants}, reverse=True)

    def references(self) -> dict[str, str]:
        """What each variant is compared with, primary pairs first; variants without a reference are left out.

        A variant's reference is that of its primary pair, or its entry's, or its base where that stands in the
        protocol, or the registry's where that does.
        """
        ids = [entry.id for entry in self.variants]
        found = dict(self.primary.pairs)
        for entry in self.variants:
            usual = [name for name in (entry.base, entry.registered.reference) if name in ids and name != entry.id]
            reference = entry.reference or next(iter(usual), None)
            if reference:
                found.setdefault(entry.id, reference)
        return found

    def comparisons(self) -> list[tuple[str, str]]:
        """The pairs of `references`, each as what is compared and with what.

        Of two variants of one cell that with a highway is compared with that without, whichever names the other; one
        that is so turned round is compared with its base as well, where that stands here.
        """
        base, found = {entry.id: entry.base for entry in self.variants}, []
        for variant, reference in self.references().items():
            one, other = (self.first_run(name).model for name in (variant, reference))
            turned = one.cell == other.cell and other.highway_slot and not one.highway_slot
            if not turned or variant in self.primary.pairs:
                found.append((variant, reference))
                continue
            found.append((reference, variant))
            found += [(variant, name) for name in (base[variant],) if name in base and name != variant]
        return found

    def run(self, variant: str, seed: int) -> RunConfig:
        """The resolved run of `variant` and `seed`."""
        entries = {entry.id: entry for entry in self.variants}
        if variant not in entries:
            raise ValueError(unknown_variant(variant, entries))
        if seed not in self.seeds_of(variant):
            raise ValueError(f"seed {seed} is not one of {', '.join(map(str, self.seeds_of(variant)))}")
        entry = entries[variant]
        known = entry.registered
        try:
            model = self._forecaster(entry) if entry.model else self._spec(entry)
            training = TrainingConfig.model_validate(merge(self.training.model_dump(), entry.training))
            if self.choice:
                rate = self.choice.rate_of(entry.rate_of or entry.id, None if entry.rate_of else model)
                training = training.model_copy(update={"learning_rate": rate})
            check_training(training, self.data, self.probe)
            if isinstance(model, ForecasterSpec):
                check_forecaster(training)
        except ValueError as error:
            raise ValueError(f"variants: {variant}: {explain(error, TrainingConfig)}") from None
        return RunConfig(
            protocol=self.name,
            variant=variant,
            label=entry.label or known.label,
            seed=seed,
            model=model,
            data=self.data,
            training=training,
            evaluation=self.evaluation,
            probe=self.probe,
        )

    def first_run(self, variant: str) -> RunConfig:
        """The run of `variant` with its first seed, for what does not depend on the seed."""
        return self.run(variant, self.seeds_of(variant)[0])

    def runs(self) -> list[RunConfig]:
        """All runs, variant by variant."""
        return [self.run(entry.id, seed) for entry in self.variants for seed in self.seeds_of(entry.id)]

    def groups(self) -> list[tuple[list[str], tuple[int, ...]]]:
        """The variants and seeds that one job trains: up to `cohort` variants with up to `stack` seeds each."""
        found = []
        for variants in self.cohorts():
            seeds = self.seeds_of(variants[0])
            found += [(variants, seeds[first : first + self.stack]) for first in range(0, len(seeds), self.stack)]
        return found

    def cohorts(self) -> list[list[str]]:
        """The variants in groups of up to `cohort` with the same seeds, in their order."""
        alike: dict[tuple[int, ...], list[str]] = {}
        for entry in self.variants:
            alike.setdefault(self.seeds_of(entry.id), []).append(entry.id)
        n = self.cohort
        return [ids[first : first + n] for ids in alike.values() for first in range(0, len(ids), n)]

    def _forecaster(self, entry: VariantEntry) -> ForecasterSpec:
        data = self.data
        sizes = {"context": data.context, "horizon": data.horizon, "frame_size": data.frame_size}
        return forecaster_spec(entry.model or "", entry.args, **sizes)

    def _spec(self, entry: VariantEntry) -> ModelSpec:
        known = entry.registered
        fields = (
            self.model.given() | {"cell": known.cell, "highway_slot": known.slot or 0} | known.model | entry.given()
        )
        widths, layers = fields.pop("hidden_channels", None), fields.pop("layers", None)
        if widths is None or (isinstance(widths, int) and layers is None):
            raise ValueError("layers and hidden_channels are needed, from the protocol's model or the variant")
        if isinstance(widths, int):
            widths = (widths,) * layers
        elif layers is not None and len(widths) != layers:
            raise ValueError(f"hidden_channels: {list(widths)} has {len(widths)} entries for {layers} layers")
        fields["highway_slot"] = slot_number(fields["highway_slot"], len(widths))
        return ModelSpec(hidden_channels=tuple(widths), frame_size=self.data.frame_size, **fields)


def check_one_stream(runs: Sequence[RunConfig]) -> None:
    """Check that variants of one protocol and seed can be fed by one stream of batches and masks.

    Raises:
        ValueError: their batch size, sampling or cuts differ; names it.
    """
    for key in ("batch_size", "sampling", "detach_every"):
        first, *others = [(run.variant, getattr(run.training, key)) for run in runs]
        for variant, value in others:
            if value != first[1]:
                shown = f"{first[1]} for {first[0]} and {value} for {variant}"
                raise ValueError(f"training.{key}: is {shown}, which share each batch of a cohort")


def run_path(results_dir: Path, protocol: str, variant: str, seed: int) -> Path:
    """The folder of a run below `results_dir`."""
    return results_dir / protocol / "runs" / variant / f"seed={seed}"


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, section by section."""
    nested = {
        key: merge(base[key], value)
        for key, value in changes.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return base | changes | nested


def load_protocol(name_or_file: str) -> Protocol:
    """The protocol called `name_or_file`, or in that YAML file.

    Raises:
        UserError: no such protocol, or a mistake in it; names file, key, value and what is allowed.
    """
    known = {path.stem: path for path in sorted(PROTOCOLS.glob("*.yaml"))}
    path = known.get(name_or_file, Path(name_or_file))
    if path.suffix not in {".yaml", ".yml"}:
        raise UserError(unknown("protocol", name_or_file, known) + ", or the path of a YAML file")
    if not path.is_file():
        why = "not a file" if path.exists() else "No such file or directory"
        raise UserError(f"{path}: cannot be read ({why}); protocols here: {', '.join(known)}")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds {type(values).__name__}, not the keys of a protocol")
    if path.parent != PROTOCOLS:
        find_classes_in(path.parent)
    return checked_protocol({"name": path.stem} | values, path)


def checked_protocol(values: dict[str, Any], where: object) -> Protocol:
    """The protocol with these keys; `where` says in messages what they are of.

    Raises:
        UserError: a key is unknown, missing or has a value that is not allowed; names it.
    """
    try:
        return Protocol.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error, Protocol)}") from None


def check_shareable(runs: Sequence[RunConfig]) -> None:
    """Refuse what several processes cannot share in equal parts.

    Raises:
        UserError: several variants, or a batch that leaves a remainder.
    """
    if processes.count() == 1:
        return
    if len(runs) > 1:
        raise UserError(
            f"--variant: {processes.count()} processes share one run, not {len(runs)} side by side; name one variant,"
            f" or start `{PROGRAM}` without torchrun"
        )
    batch_size = runs[0].training.batch_size
    if batch_size % processes.count():
        raise UserError(
            f"protocol {runs[0].protocol}: training.batch_size: {batch_size} clips cannot be shared equally by"
            f" {processes.count()} processes; give torchrun a number that divides {batch_size}"
        )

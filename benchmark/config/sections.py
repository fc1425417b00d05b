"""The sections of a protocol, key by key with what each may be. Imports no torch."""

import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from benchmark.config.metrics import HEADLINE, RECALL
from benchmark.config.variants import VARIANTS, Variant, unknown_variant
from benchmark.system.errors import spelling
from models.forecasters.outside import NAME
from models.spec import CELLS, DEEPEST, EQUATIONS, INITS, MEMORY_ORDERS, NORMS

MOST_STEPS = 10**9
MOST_CLIPS = 10**7
MOST_FRAMES = 10**4
MOST_SEEDS = 1000
MOST_MEMORY_MB = 10**8
MOST_MINUTES = 10**6
"""More than anyone runs: what lies above is a slip of the keys, and would fill memory before it failed."""


def no_repeats(values: tuple) -> tuple:
    """Raise ValueError where a value stands twice."""
    if len(set(values)) < len(values):
        raise ValueError(f"{list(values)} names one twice")
    return values


LONGEST_ID = 60
IDENTIFIER = r"^[a-z0-9]+(-[a-z0-9]+)*$"
Identifier = Annotated[str, Field(pattern=IDENTIFIER, max_length=LONGEST_ID)]
Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0, lt=2**31)], ...],
    Field(min_length=1, max_length=MOST_SEEDS, strict=False),
    AfterValidator(no_repeats),
]
ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
LABEL = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029|]+$"
"""A line without | which parts the columns of a table in Markdown."""


def no_other_spelling(value: Any) -> Any:
    """Raise ValueError for what is no identifier but means a variant of the registry, as `PredRNN++` does."""
    if isinstance(value, str) and not re.match(IDENTIFIER, value) and spelling(value) in map(spelling, VARIANTS):
        raise ValueError(unknown_variant(value, VARIANTS))
    return value


VariantId = Annotated[Identifier, BeforeValidator(no_other_spelling)]


OutsideName = Annotated[str, Field(pattern=NAME, max_length=200)]
"""A class outside the benchmark, `package.module:Class`."""


class Strict(BaseModel):
    """Frozen; an unknown key, a value of another type (true or "1" for 1) and a number not finite are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class SamplingConfig(Strict):
    """When the network sees its own prediction in place of the true frame during training."""

    kind: Literal["none", "scheduled", "reverse"] = Field("none", description="none: true frames throughout.")
    stop: int = Field(1, ge=1, le=MOST_STEPS, description="Step at which the horizon shows no true frame any more.")
    reverse_start: int = Field(
        1, ge=1, le=MOST_STEPS, description="reverse: step up to which both rates stay at one half."
    )
    reverse_decay: float = Field(
        1.0, gt=0, le=MOST_STEPS, description="reverse: steps in which the context's rate nears 1 by 1/e."
    )

    @model_validator(mode="after")
    def _ordered(self) -> "SamplingConfig":
        if self.kind == "reverse" and self.reverse_start >= self.stop:
            raise ValueError(f"reverse_start {self.reverse_start} must lie below stop {self.stop}")
        return self


class TrainingConfig(Strict):
    """One training; what does not change its result is listed in `NOT_IDENTITY`."""

    steps: int = Field(ge=0, le=MOST_STEPS, description="Iterations, one batch each.")
    batch_size: int = Field(ge=1, le=MOST_CLIPS, description="Clips in a batch.")
    learning_rate: float = Field(gt=0, le=1, description="Adam's; the peak under one-cycle.")
    schedule: Literal["constant", "one-cycle"] = Field("constant", description="Of the learning rate.")
    loss: Literal["l2", "l1+l2"] = Field("l2", description="Squared error, or its sum with the absolute error.")
    loss_reduction: Literal["mean", "half-sum"] = Field("mean", description="Over all pixels of a batch.")
    loss_frames: int | None = Field(
        None,
        ge=1,
        le=MOST_FRAMES,
        exclude_if=lambda frames: frames is None,
        description="Last frames of a clip that the loss is of; null = all that are predicted.",
    )
    detach_every: int | None = Field(
        None,
        ge=1,
        le=MOST_FRAMES,
        exclude_if=lambda every: every is None,
        description="Time steps after which gradient does not flow further back, from a random first one; null = none.",
    )
    sampling: SamplingConfig = SamplingConfig()  # pyright: ignore[reportCallIssue]  # pydantic takes defaults from Field
    reversed_second_step: bool = Field(False, description="A second optimiser step on the batch reversed in time.")
    clip_norm: float | None = Field(None, gt=0, description="Largest gradient norm; null = no clipping.")
    on_divergence: Literal["stop", "skip_step", "lower_lr"] = Field(
        "stop",
        exclude_if=lambda policy: policy == "stop",
        description="A loss or gradient that is not finite never reaches the weights; then: end the run, or go on (at"
        " half the learning rate), unless it was the tenth in a row.",
    )
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        "fp32",
        description="tf32: a GPU multiplies numbers of 10 binary digits and adds in fp32, a CPU computes in fp32. bf16:"
        " what convolutions read and give is rounded to it; weights and states stay fp32.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto = CUDA where there is one.")
    threads: int = Field(1, ge=1, le=1024, description="CPU threads of a run, whatever --cores is.")
    recompute: bool = Field(False, description="Compute activations twice instead of keeping them: memory for time.")
    log_every: int = Field(10, ge=1, le=MOST_STEPS, description="Steps between points of the training curves.")
    validate_every: int = Field(100, ge=1, le=MOST_STEPS, description="Steps between scores on the validation clips.")
    checkpoint_every: int = Field(100, ge=1, le=MOST_STEPS, description="Steps between checkpoints.")

    def rate_factor(self, updates_left_out: Any, exp2: Callable[[Any], Any] = math.exp2) -> Any:
        """What the learning rate is multiplied by after so many updates were left out: halved at each if `lower_lr`.

        Args:
            updates_left_out: a number, or a tensor where `exp2` is that of tensors.
        """
        return exp2(-updates_left_out) if self.on_divergence == "lower_lr" else 1.0


NOT_IDENTITY = {"device", "threads", "recompute", "log_every", "validate_every", "checkpoint_every"}
"""Training keys that do not change the weights."""


class EvaluationConfig(Strict):
    """How test clips are scored and shown."""

    batch_size: int = Field(50, ge=1, le=MOST_CLIPS, description="Clips rolled out together.")
    lpips_backbone: Literal["alex", "vgg", "squeeze"] = Field("alex", description="Network under LPIPS.")
    film_clips: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 2), min_length=1, strict=False, description="Test clips shown."
    )
    beyond: int | None = Field(
        None,
        ge=2,
        le=MOST_FRAMES,
        exclude_if=lambda beyond: beyond is None,
        description="Frames predicted by the same weights beyond the horizon; null = none.",
    )
    floor: Annotated[
        tuple[Annotated[int, Field(ge=1, le=MOST_FRAMES)], ...], Field(strict=False), AfterValidator(no_repeats)
    ] = Field(
        (),
        exclude=True,
        description="Moving digits: for these numbers of last context frames, the error of the best predictor that sees"
        " no more; [] = none. Decides nothing of a run.",
    )


class ProbeConfig(Strict):
    """How gradients are measured."""

    clips: int = Field(ge=2, le=MOST_CLIPS, description="Test clips measured.")
    batch_size: int = Field(16, ge=1, le=MOST_CLIPS, description="Clips in one backward pass.")
    steps: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (),
        strict=False,
        exclude_if=lambda steps: not steps,
        description="Training steps after which the gradients are measured too, besides at first and at last.",
    )
    memory: bool = Field(
        False,
        exclude_if=lambda memory: not memory,
        description="Also eight random directions, time constants, forward influence and Lyapunov exponents.",
    )


class PrimaryConfig(Strict):
    """What is tested, named before anything is run; every other comparison is exploratory."""

    metric: Literal[*HEADLINE, *RECALL] = Field("mse", description="The metric that is tested.")  # pyright: ignore[reportInvalidTypeForm]  # one of the registry
    pairs: dict[VariantId, VariantId] = Field({}, description="Variant: its reference.")
    interactions: dict[VariantId, VariantId] = Field(
        {}, description="Variant: another one; tested is the first minus its reference, less the other minus its own."
    )
    margin: float | None = Field(
        None,
        gt=0,
        description="A difference of the metric below this counts as none, which is tested too; null = no such test.",
    )


class LearntConfig(Strict):
    """When a run has learnt: its validation MSE lies below that of the best baseline by more than a margin."""

    margin: float = Field(ge=0, lt=1, description="Share of the best baseline's validation MSE.")


class JobConfig(Strict):
    """What a training, an evaluation or a probe asks a cluster for; changes no result, and nothing on one machine."""

    memory_mb: int = Field(
        4000, ge=1, le=MOST_MEMORY_MB, description="Main memory, in MB; times the cohort's variants."
    )
    minutes: int = Field(60, ge=1, le=MOST_MINUTES, description="Time limit, for each of its variants.")


class ModelConfig(Strict):
    """Fields of `ModelSpec` that a protocol sets for all variants or a variant sets for itself."""

    layers: int | None = Field(None, ge=1, le=DEEPEST, description="Depth.")
    hidden_channels: int | Annotated[tuple[int, ...], Field(strict=False)] | None = Field(
        None, description="Width of all layers, or of each."
    )
    kernel_size: int | None = None
    patch_size: int | None = None
    norm: Literal[*NORMS] | None = None  # pyright: ignore[reportInvalidTypeForm]  # known when it is imported
    equations: Literal[*EQUATIONS] | None = None  # pyright: ignore[reportInvalidTypeForm]  # known when it is imported
    memory_order: Literal[*MEMORY_ORDERS] | None = None  # pyright: ignore[reportInvalidTypeForm]  # known when it is imported
    init: Literal[*INITS] | None = None  # pyright: ignore[reportInvalidTypeForm]  # known when it is imported
    first_gates_see_c: bool | None = None
    o_sees_h: bool | None = None
    g2_sees_m: bool | None = None
    w3_kernel: int | None = None
    forget_bias: float | None = None
    chrono_frames: int | None = None
    conv_bias: bool | None = None
    highway_channels: int | None = None
    highway_gate_bias: float | None = None

    def given(self) -> dict[str, Any]:
        """The fields that are set."""
        others = set(type(self).model_fields) - set(ModelConfig.model_fields) - {"highway_slot"}
        return self.model_dump(exclude_none=True, exclude=others)


class VariantEntry(ModelConfig):
    """One variant of a protocol: an id of the registry, or a new id with its base or cell and what it changes."""

    id: VariantId
    base: str | None = Field(None, description="Id in the registry; the id itself if not given.")
    cell: Literal[*CELLS] | OutsideName | None = Field(  # pyright: ignore[reportInvalidTypeForm]  # known when it is imported
        None,
        description="A cell in place of a base, without highway unless given; package.module:Class for one of yours.",
    )
    model: OutsideName | None = Field(
        None, description="A model of yours in place of a base, package.module:Class; see docs/adding_a_model.md."
    )
    args: dict[str, Any] = Field({}, description="What the constructor of `model` is given.")
    label: str | None = Field(None, pattern=LABEL, max_length=100, description="Name in tables and figures.")
    highway_slot: int | Literal["bottom", "middle", "top"] | None = Field(None, description="0 = none.")
    training: dict[str, Any] = Field({}, description="Training keys this variant sets for itself.")
    seeds: Seeds | None = Field(None, description="Its own seeds; null = those of the protocol.")
    reference: VariantId | None = Field(None, description="Variant it is compared with; null = the registry's.")
    rate_of: Identifier | None = Field(
        None, description="Network of `rates` whose learning rate it takes; null = the one of its id."
    )
    further_rates: tuple[float, ...] = Field(
        (), strict=False, description="Rates at which it is tried besides those of `rate_grid`."
    )

    @model_validator(mode="after")
    def _known(self) -> "VariantEntry":
        given = {key: value for key in ("base", "cell", "model") if (value := getattr(self, key))}
        if len(given) > 1 or (self.id in VARIANTS and not self.base and given):
            others = [f"{key} {value}" for key, value in [*given.items()][:-1]] or [f"{self.id} of the registry"]
            key, value = [*given.items()][-1]
            raise ValueError(f"{key}: {value} does not go with {others[0]}; a new id has one of base, cell and model")
        if not (self.cell or self.model) and (self.base or self.id) not in VARIANTS:
            how = "" if self.base else "; a new id needs a base, a cell or a model"
            raise ValueError(unknown_variant(self.base or self.id, VARIANTS) + how)
        if self.args and not self.model:
            raise ValueError("args: are those of a model, which the entry does not name")
        if self.model and (fields := [*self.given()]):
            raise ValueError(f"{fields[0]}: is a field of our networks; give it to model {self.model} by args")
        for key in ("device", "threads"):
            if key in self.training:
                raise ValueError(f"training.{key}: is the same for all variants; set it in the protocol's training")
        return self

    @property
    def registered(self) -> Variant:
        """What it builds on: a variant of the registry, or a cell or model by itself."""
        own = self.cell or self.model
        return Variant(label=self.id, cell=own) if own else VARIANTS[self.base or self.id]


ShortOrLong = Annotated[
    VariantEntry,
    BeforeValidator(
        lambda entry: {"id": entry} if isinstance(entry, str) else entry,
        json_schema_input_type=Literal[*VARIANTS] | VariantEntry,
    ),
]
"""A variant by its id alone, or with what it changes."""

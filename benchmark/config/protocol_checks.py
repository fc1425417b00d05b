"""Which sections of a protocol go together; a check raises ValueError with key, value and what is allowed. No torch."""

from collections.abc import Mapping, Sequence

from benchmark.config.data_sections import DataConfig
from benchmark.config.metrics import HEADLINE
from benchmark.config.sections import (
    EvaluationConfig,
    LearntConfig,
    PrimaryConfig,
    ProbeConfig,
    TrainingConfig,
    VariantEntry,
)
from benchmark.config.variants import OF_ANY_CLIPS, unknown_variant


def check_rules(
    learnt: LearntConfig | None,
    baselines: Sequence[str],
    rates: str | None,
    rate_grid: Sequence[float],
    variants: Sequence[VariantEntry],
) -> None:
    """Check that a rule for what has learnt has something to compare with, and that no rate is given twice."""
    if learnt and not baselines:
        raise ValueError("learnt: needs a prediction without training to be better than; name one in baselines")
    if rates and rate_grid:
        raise ValueError("rates: does not go with rate_grid, which tries rates; keep one")
    for entry in variants:
        if entry.further_rates:
            raise ValueError(f"variants: {entry.id}: further_rates: goes with rate_grid, which is not given")
        if entry.rate_of and not rates:
            raise ValueError(f"variants: {entry.id}: rate_of: goes with rates, which is not given")
        if rates and "learning_rate" in entry.training:
            by_rule = f"rates: {rates} sets it; name in rate_of whose rate it takes"
            raise ValueError(f"variants: {entry.id}: training.learning_rate: {by_rule}")


def check_longer(evaluation: EvaluationConfig, data: DataConfig) -> None:
    """Check that clips go on as far as they are predicted, and that a floor can be known."""
    beyond, seen = evaluation.beyond, evaluation.floor
    if beyond is not None and beyond <= data.horizon:
        raise ValueError(f"evaluation.beyond: {beyond} must lie above data.horizon {data.horizon}; null = none")
    if beyond is not None and (data.public_test or data.gaps):
        key, why = ("public_test", "end with their horizon") if data.public_test else ("gaps", "are not continued")
        raise ValueError(f"evaluation.beyond: {beyond} does not go with data.{key}, whose clips {why}")
    if seen and not data.known_motion:
        raise ValueError(f"evaluation.floor: does not go with data.{data.kind}: how they move is not known")
    if seen and max(seen) > data.context:
        raise ValueError(f"evaluation.floor: {max(seen)} is more than data.context {data.context}")
    if beyond and data.horizon == 1:
        raise ValueError("evaluation.beyond: clips of data.recall end with the frame to be predicted")


def check_data(primary: PrimaryConfig, baselines: Sequence[str], data: DataConfig) -> None:
    """Check that the clips have the metric that is tested and the baselines."""
    if primary.metric not in (*data.metrics, *HEADLINE):
        raise ValueError(f"primary.metric: {primary.metric} is none of data.{data.kind} as it is given here")
    for name in baselines:
        if name not in (*data.baselines, *OF_ANY_CLIPS):
            raise ValueError(f"baselines: {name} does not go with data.{data.kind}")


def check_interactions(interactions: Mapping[str, str], references: Mapping[str, str], ids: Sequence[str]) -> None:
    """Check that both sides of each interaction are differences between variants of the protocol."""
    for variant, other in interactions.items():
        for name in (variant, other):
            if name not in ids:
                raise ValueError(f"primary.interactions: {unknown_variant(name, ids, 'variant of this protocol')}")
            if name not in references:
                raise ValueError(f"primary.interactions: {name} has no reference here; name one as its reference")
        if variant == other:
            raise ValueError(f"primary.interactions: {variant} stands against itself; name another variant")


def check_training(training: TrainingConfig, data: DataConfig, probe: ProbeConfig) -> None:
    """Check that a training can be made of such clips, and is probed before its end."""
    if training.reversed_second_step and data.gaps:
        raise ValueError("training.reversed_second_step does not go with data.gaps, the context's last frames")
    if training.loss_frames and training.loss_frames > data.trained_horizon:
        raise ValueError(
            f"training.loss_frames: {training.loss_frames} is more than the {data.trained_horizon} that"
            " are predicted in training"
        )
    if training.reversed_second_step and training.loss_frames:
        raise ValueError("training.reversed_second_step does not go with training.loss_frames")
    if max(probe.steps, default=0) >= max(training.steps, 1):
        raise ValueError(f"probe.steps: {max(probe.steps)} must lie below training.steps {training.steps}")


def check_forecaster(training: TrainingConfig) -> None:
    """Check that a model outside the benchmark can be trained so."""
    for key in ("detach_every", "recompute"):
        if getattr(training, key):
            raise ValueError(f"training.{key}: {getattr(training, key)} is for networks of the benchmark; leave it out")

"""What a run will cost before it is made: MACs, hours, memory and disk, from sizes and measured speeds."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from benchmark.config.data_sections import DataConfig
from benchmark.config.metrics import HEADLINE, columns
from benchmark.config.protocol import RunConfig
from benchmark.cost.measured_speeds import Speed
from benchmark.evaluation.memory.measure import LYAPUNOV_CLIPS
from models import counts as cost
from models.forecasters.network import build_network
from models.forecasters.spec import ForecasterSpec, Spec
from models.predictor import Predictor, cell_class, free_running_mask
from models.spec import ModelSpec

PASSES = {"train": 3, "probe": 2}
"""Forward passes' worth of work for a clip: a training step goes back to states and weights, the probe to states."""
PROCESS_MIB = 900
"""Resident memory of a training process on a CPU before its first step: Python, PyTorch, MLflow (docs/speed.md)."""
PROBE_STAGES = 2
"""Before and after training."""
STAGE_PASSES, STEP_PASSES = 3 + 4, 1 + 2
"""Passes of the probe: three roll-outs with four backward passes in a stage, one with two at a step between."""
STAGE_MEASURES, STEP_MEASURES = 4, 2
MEMORY_PASSES, EXPONENT_PASSES = 8, 30
"""What `probe.memory` adds in a stage, besides a roll-out for each exchanged frame and one without: backward passes for
its directions, and passes' worth of work for the exponents of a clip (20 frames; measured)."""
BYTES = 4
"""Of a weight."""
ROW_BYTES = 8
"""Of a number in a table; the other columns repeat and are packed to next to nothing."""
PROBE_BYTES = 10
"""Of a row of probe.parquet, whose columns besides the norm take 2 bytes; measured."""
LINE_BYTES = 310
"""Of a point in metrics.jsonl and timing.jsonl together; measured."""

count_macs, count_parameters = cache(cost.count_macs), cache(cost.count_parameters)


@dataclass(frozen=True)
class Work:
    """Multiply-accumulates of the convolutions in one run."""

    training: int
    validation: int
    evaluation: int
    probe: int

    @classmethod
    def of(cls, run: RunConfig) -> "Work":
        """Counted without running anything."""
        data, training = run.data, run.training
        macs = count_macs(run.model, data.context, data.horizon)
        scored = test_clips(data) * max(1, len(data.gaps)) * macs
        if run.evaluation.beyond:
            scored += test_clips(data) * count_macs(run.model, data.context, run.evaluation.beyond)
        return cls(
            training=PASSES["train"] * clips_trained(run) * count_macs(run.model, data.context, data.trained_horizon),
            validation=math.ceil(training.steps / training.validate_every) * data.validation_clips * macs,
            evaluation=scored,
            probe=probe_passes(run) * macs,
        )

    @property
    def trained(self) -> int:
        """What a training does, with its scores on the validation clips."""
        return self.training + self.validation


@dataclass(frozen=True)
class Disk:
    """Bytes of a run folder, MLflow's copy left out."""

    kept: int
    """Once it is finished."""
    most: int
    """While it is trained, when checkpoints come on top."""

    @classmethod
    def of(cls, run: RunConfig, net: str | None) -> "Disk":
        """From the sizes of its arrays; `net`: the backbone under LPIPS, None where it is not measured."""
        weights = BYTES * count_parameters(run.model)
        checkpoints = 2 * 3 * weights  # this one and the one before: weights and Adam's two moments
        copies = 2 + len(run.probe.steps)  # model.safetensors, .trained.pt
        points = math.ceil(run.training.steps / run.training.log_every)
        kept = copies * weights + table_bytes(run, net) + probe_rows(run) * PROBE_BYTES + points * LINE_BYTES
        return cls(kept=kept, most=kept + checkpoints)


def test_clips(data: DataConfig) -> int:
    """Test clips of a protocol; 0 where they are all that the data have, which only these can tell."""
    return data.test_clips or 0


def clips_trained(run: RunConfig) -> int:
    """Clips that a training sees, repeated and reversed ones counted again."""
    return run.training.steps * run.training.batch_size * (2 if run.training.reversed_second_step else 1)


def table_bytes(run: RunConfig, net: str | None) -> int:
    """Bytes of frames.parquet and beyond.parquet."""
    data, names = run.data, columns(net, conventions=True, further=run.data.metrics)
    scores = max(1, len(data.gaps)) * data.horizon * (len(names) + bool(data.gaps))
    longer = (run.evaluation.beyond or 0) * len(HEADLINE)
    return test_clips(data) * (scores + longer) * ROW_BYTES


def probe_passes(run: RunConfig) -> int:
    """Passes of the probe over a clip, in all stages and for all its clips."""
    stage, exponents = STAGE_PASSES, 0
    if run.probe.memory:
        stage += MEMORY_PASSES + (run.data.context + 1) * run.data.exchangeable
        exponents = PROBE_STAGES * EXPONENT_PASSES * min(LYAPUNOV_CLIPS, run.probe.clips)
    return (PROBE_STAGES * stage + len(run.probe.steps) * STEP_PASSES) * run.probe.clips + exponents


def probe_rows(run: RunConfig) -> int:
    """Rows of probe.parquet: a norm of the context and of every state, by measure, clip and step."""
    spec, data = run.model, run.data
    states = 0  # what a model outside the benchmark names is known once it is probed
    if isinstance(spec, ModelSpec):
        states = len(cell_class(spec.cell).states) * spec.layers + bool(spec.highway_slot)
    steps = data.context + data.horizon - 1
    measures = PROBE_STAGES * (STAGE_MEASURES + run.probe.memory) + len(run.probe.steps) * STEP_MEASURES
    return measures * run.probe.clips * (data.context + states * steps)


def flops_per_s(speed: Speed) -> float:
    """FLOP/s that `speed` reached, a MAC counted as two; recomputation is not counted as work."""
    return 2 * PASSES[speed.what] * macs_per_clip(speed) * speed.clips_per_s


def macs_per_clip(speed: Speed) -> int:
    """MACs of a forward pass over a clip of its network."""
    return count_macs(speed.model, speed.context, speed.horizon)


def nearest_speed(speeds: list[Speed], run: RunConfig) -> Speed | None:
    """The one measured most like `run`: the fewest mismatches, then the nearest by `step_ratio`, then by name."""

    def distance(speed: Speed) -> tuple[int, float, str]:
        return len(speed.mismatches(run)), abs(math.log(step_ratio(speed, run))), speed.name

    return min(speeds, key=distance, default=None)


def step_ratio(speed: Speed, run: RunConfig) -> float:
    """MACs of one time step of a batch with `speed`, over those with `run`: what the rate of a device depends on."""
    batch = run.training.batch_size if speed.what == "train" else run.probe.batch_size
    return (
        speed.batch
        * macs_per_step(speed.model, 1, 1)
        / (batch * macs_per_step(run.model, run.data.context, run.data.horizon))
    )


def macs_per_step(spec: Spec, context: int, horizon: int) -> float:
    """MACs of one clip over its time steps; a model outside the benchmark may take no other sizes than its own."""
    given, predicted = (context, horizon) if isinstance(spec, ForecasterSpec) else (1, 1)
    return count_macs(spec, given, predicted) / (given + predicted - 1)


def hours(work: int, speed: Speed) -> float:
    """Hours for so many MACs at the rate of `speed`."""
    return 2 * work / flops_per_s(speed) / 3600


def memory_mib(run: RunConfig, speed: Speed) -> float | None:
    """Peak memory of a training: that of `speed`, scaled by what is kept for the backward pass; with weights and Adam.

    None where `speed` does not tell.
    """
    step = step_mib(run, speed)
    return None if step is None else step + held_mib(run) + process_mib(speed.device)


def step_mib(run: RunConfig, speed: Speed) -> float | None:
    """What a step takes on top of what is held between steps; None where `speed` does not tell."""
    if speed.peak_memory_mib is None:
        return None
    ours = run.training.batch_size * kept_numbers(run.model, run.data.context + run.data.horizon - 1)
    theirs = speed.batch * kept_numbers(speed.model, speed.context + speed.horizon - 1)
    return speed.peak_memory_mib * ours / theirs


def held_mib(run: RunConfig) -> float:
    """Weights and Adam's two moments."""
    return 3 * weights_mib(run)


def weights_mib(run: RunConfig) -> float:
    """Its weights."""
    return BYTES * count_parameters(run.model) / 2**20


def process_mib(device: str) -> float:
    """What a process takes besides its runs; on a GPU that is left out, as PyTorch leaves it out."""
    return PROCESS_MIB if device == "cpu" else 0


@cache
def kept_numbers(spec: Spec, steps: int) -> int:
    """Numbers that the reference path keeps of one clip for the backward pass, counted without running it.

    Every step after the second keeps the same, so that short roll-outs say what long ones keep. A model outside the
    benchmark is run once, on a black clip.
    """
    if isinstance(spec, ForecasterSpec):
        frames = torch.zeros(1, spec.context, spec.channels, spec.frame_size, spec.frame_size)
        model = build_network(spec, 0)
        return kept_by(lambda: model.predict(frames, spec.horizon), model)
    if steps <= 3:
        return _kept_numbers(spec, steps)
    two, three = _kept_numbers(spec, 2), _kept_numbers(spec, 3)
    return two + (steps - 2) * (three - two)


def _kept_numbers(spec: ModelSpec, steps: int) -> int:
    """As `kept_numbers`, of all these steps of a network of ours."""
    frames = torch.empty(1, steps + 1, spec.channels, spec.frame_size, spec.frame_size, device="meta")
    with torch.device("meta"):
        network = Predictor(spec)
    network.reference_path = True
    return kept_by(lambda: network(frames, free_running_mask(1, 1, steps, frames)), network)


def kept_by(forward: Callable[[], torch.Tensor], network: torch.nn.Module) -> int:
    """Numbers that autograd keeps of a forward pass, weights apart."""
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # held here, so that no other takes its place
        return tensor

    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        graph = forward()
    size = graph.element_size()
    del graph
    return sum(storage.nbytes() for key, storage in kept.items() if key not in weights) // size


@dataclass(frozen=True)
class VariantCost:
    """What the runs of a variant will cost; hours and memory are None where no measured speed tells."""

    run: RunConfig
    """The first of them."""
    runs: int
    work: Work
    disk: Disk
    speed: Speed | None
    probe_speed: Speed | None

    @property
    def train_h(self) -> float | None:
        """Hours of one training."""
        return hours(self.work.trained, self.speed) if self.speed else None

    @property
    def score_h(self) -> float | None:
        """Hours of the roll-outs that are scored, at the rate of training."""
        return hours(self.work.evaluation, self.speed) if self.speed else None

    @property
    def probe_h(self) -> float | None:
        """Hours of one run's probe."""
        return hours(self.work.probe, self.probe_speed) if self.probe_speed else None

    @property
    def whole_h(self) -> float | None:
        """Hours of one run from training to probe; the probe is left out where no measured speed tells."""
        known = (self.train_h, self.score_h)
        return None if None in known else sum(filter(None, (*known, self.probe_h)))

    @property
    def memory_mib(self) -> float | None:
        """Peak of one training."""
        return memory_mib(self.run, self.speed) if self.speed else None

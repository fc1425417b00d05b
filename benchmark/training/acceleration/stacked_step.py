"""The optimiser step of several runs at once: their networks side by side in one, each run with its own optimiser."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from benchmark.config.protocol import RunConfig
from benchmark.config.sections import TrainingConfig
from benchmark.training import step as training_step
from benchmark.training.acceleration.captured_step import CapturedStep, Step
from benchmark.training.divergence_guard import GuardedAdam
from benchmark.training.step import Batch, StepResult, backward, batch_loss, forward
from models.forecasters.network import Network
from models.forecasters.spec import ForecasterSpec, Spec
from models.precision import tensor_cores
from models.predictor import Predictor
from models.stack import VECTOR, Stack, common_form, whole_vectors

OWN_KEYS = {
    "learning_rate",
    "schedule",
    "clip_norm",
    "on_divergence",
    "steps",
    "log_every",
    "validate_every",
    "checkpoint_every",
}
"""Training keys in which runs of one stack may differ: each follows its own."""


def common_part(run: RunConfig, device: str, threads: int) -> Any:
    """What all runs have in common that are trained in one stack with `run`; None where it is trained by itself."""
    if isinstance(run.model, ForecasterSpec) or why_by_itself(run.model, run.training.batch_size, device, threads):
        return None
    return common_form(run.model), run.training.model_dump_json(exclude=OWN_KEYS)


def why_by_itself(model: Spec, batch_size: int, device: str, threads: int) -> str | None:
    """Why such a run is stacked with no other and takes turns with those of its job; None where it can be stacked.

    On a CPU a stack would not have the same bits everywhere, and several threads share a batch in another way.
    """
    if isinstance(model, ForecasterSpec):
        return "it is a model outside the benchmark"
    if device != "cpu":
        return None
    if threads > 1:
        return f"{threads} threads share its batches"
    if not whole_vectors(model, batch_size):
        return f"a batch of its states leaves numbers over in a vector of {VECTOR}"
    return None


class Member(NamedTuple):
    """A run of a stack: what its steps change, and how it is trained."""

    network: Predictor
    optimizer: GuardedAdam
    training: TrainingConfig


class StackedStep:
    """`train_one_step` of several runs at once, each to the weights that it has alone.

    One roll-out and one backward pass are of all runs; gradient norm, clipping, guard and optimiser are each run's own.
    On a CPU the bits are those of the run alone; on a GPU a convolution of all runs is one with groups, which may round
    otherwise.

    Args:
        members: runs of one `common_part`.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        self.stack = Stack([member.network for member in members])
        self.training = members[0].training
        training_step.set_computation(self.stack.joint, self.training)

    def __call__(self, batch: Batch) -> StepResult:
        """Take the step of every run; batch and result have a run axis."""
        joint = self.stack.joint
        self.stack.read_weights()
        own = [Batch(*parts) for parts in zip(*batch, strict=True)]
        with tensor_cores(self.training.precision, batch.frames.device.type):
            prediction = forward(joint, batch, self.training).unbind(0)
            losses = [
                batch_loss(one, part.frames[:, 1:], self.training) for one, part in zip(prediction, own, strict=True)
            ]
            gradients = backward(joint, torch.stack(losses).sum())
        del prediction  # and with it the graph, before other memory is taken
        found = []
        for run, (network, optimizer, training) in enumerate(self.members):
            of_run = [gradient[run] + 0 for gradient in gradients]  # its own memory, as that of a run alone
            loss = losses[run].detach()
            found.append(training_step.update(network, optimizer, loss, of_run, training))
        return StepResult(*(torch.stack(values) for values in zip(*found, strict=True)))


def member_of(network: Network, optimizer: GuardedAdam, training: TrainingConfig) -> Member:
    """A member of the stack that `common_part` put a run of ours into."""
    assert isinstance(network, Predictor), "a model outside the benchmark is trained by itself"
    return Member(network, optimizer, training)


def make_stacked_step(members: Sequence[Member]) -> Step:
    """`StackedStep`, on CUDA as one graph."""
    step = StackedStep(members)
    if next(members[0].network.parameters()).is_cuda:
        return CapturedStep(step, [(member.network, member.optimizer) for member in members])
    return step

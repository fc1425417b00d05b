"""The optimiser step of several runs at once: their networks side by side in one, each run with its own optimiser."""

from collections.abc import Sequence
from typing import Any

import torch

from benchmark.config.protocol import RunConfig
from benchmark.training import step as training_step
from benchmark.training.acceleration.captured_step import CapturedStep, Step
from benchmark.training.run_state import RunState
from benchmark.training.step import Batch, StepResult, backward, batch_loss, forward
from models.precision import tensor_cores
from models.stack import Stack, common_form, whole_vectors

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


def common_part(run: RunConfig, device: str) -> Any:
    """What all runs have in common that are trained in one stack with `run`; None where it is trained by itself.

    That is so on a CPU where several threads share its batches, or where a stack would not have the same bits.
    """
    if device == "cpu" and (torch.get_num_threads() > 1 or not whole_vectors(run.model, run.training.batch_size)):
        return None
    return common_form(run.model), run.training.model_dump_json(exclude=OWN_KEYS)


class StackedStep:
    """`train_one_step` of several runs at once, each to the weights that it has alone.

    One roll-out and one backward pass are of all runs; gradient norm, clipping, guard and optimiser are each run's own.
    On a CPU the bits are those of the run alone; on a GPU a convolution of all runs is one with groups, which may round
    otherwise.

    Args:
        states: runs of one `common_part`.
    """

    def __init__(self, states: Sequence[RunState]) -> None:
        self.states = states
        self.stack = Stack([state.network for state in states])
        self.training = states[0].run.training
        training_step.set_computation(self.stack.joint, self.training)

    def __call__(self, batch: Batch) -> StepResult:
        """Take the step of every run; batch and result have a run axis."""
        joint = self.stack.joint
        self.stack.read_weights()
        own = [Batch(*parts) for parts in zip(*batch, strict=True)]
        with tensor_cores(self.training.precision, batch.frames.device.type):
            prediction = forward(joint, batch, self.training).unbind(0)
            losses = [batch_loss(one, part, self.training) for one, part in zip(prediction, own, strict=True)]
            gradients = backward(joint, torch.stack(losses).sum())
        del prediction  # and with it the graph, before other memory is taken
        found = []
        for run, state in enumerate(self.states):
            of_run = [gradient[run] + 0 for gradient in gradients]  # its own memory, as that of a run alone
            loss = losses[run].detach()
            found.append(training_step.update(state.network, state.optimizer, loss, of_run, state.run.training))
        return StepResult(*(torch.stack(values) for values in zip(*found, strict=True)))


def make_stacked_step(states: Sequence[RunState]) -> Step:
    """`StackedStep`, on CUDA as one graph."""
    step = StackedStep(states)
    if next(states[0].network.parameters()).is_cuda:
        return CapturedStep(step, [(state.network, state.optimizer) for state in states])
    return step

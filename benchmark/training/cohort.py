"""Several runs side by side: the loop of `train.py` around all of them; those of one network as one program."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmark.config.protocol import RunConfig, check_one_stream
from benchmark.system.errors import UserError
from benchmark.system.signals import Interrupted
from benchmark.training.acceleration.cuda_streams import give_own_streams, on_own_stream
from benchmark.training.acceleration.stacked_step import common_part, make_stacked_step, member_of
from benchmark.training.job import Companion, TrainingJob, no_companion, open_job
from benchmark.training.run_state import RunState, pause, start_clock
from benchmark.training.step import Batch
from benchmark.training.train import after_step, take_steps, train_and_log


def train_cohort(
    runs: Sequence[RunConfig],
    results_dir: Path,
    device: str,
    *,
    beside: Companion = no_companion,
    resume_only: bool = False,
    skip_trained: bool = False,
) -> None:
    """Train runs of one protocol side by side, each to what it becomes alone.

    Variants of a seed are fed by one stream. Runs that differ in their seed alone, or in how they are optimised, are
    stacked: trained as one network (`acceleration/stacked_step.py`). Each goes on from its own checkpoint; one that
    diverges leaves the others unharmed, as does one without memory those of other networks. TERM and Ctrl-C end them
    after the step they are in, each with a checkpoint.

    Args and raises: as `train`, of each run; also
        UserError: the runs cannot share batches.
    """
    try:
        check_one_stream(runs)
    except ValueError as error:
        raise UserError(f"--variant: {error}; train them apart") from None
    with open_job(runs, results_dir, device, beside) as job:
        cohort: list[RunState] = []
        for run in runs:
            if state := job.begin(run, resume_only=resume_only, skip_trained=skip_trained):
                cohort.append(state)
        if device == "cuda":
            give_own_streams(cohort)
        _train(cohort, job)


def _train(cohort: list[RunState], job: TrainingJob) -> None:
    """Step by step, all runs that have not ended; one that has a later checkpoint joins there."""
    steps = [step for state in cohort for step in (state.first_step, state.run.training.steps)]
    stacks: list[Stacked] = []
    for step in range(min(steps, default=0), max(steps, default=0)):
        if signal := job.asked_to_stop():
            raise Interrupted(signal, _pause_all(cohort, step))
        training = [state for state in cohort if step >= state.first_step]
        with job.ending_without_memory(cohort, step):
            batches = {seed: job.batches[seed].batch(step) for seed in {state.run.seed: None for state in training}}
        stacks = restacked(stacks, training, job.device)
        for stack in stacks:
            for state in stack.states:
                state.runs_beside = sum(not other.ended for other in cohort) - 1
            batch = [tensor for state in stack.states for tensor in batches[state.run.seed]]
            with job.ending_without_memory(stack.states, step), on_own_stream(stack.states[0], batch):
                stack.train_and_log(step, batches, job)
        cohort[:] = [state for state in cohort if not state.ended]  # in place: one that has ended frees its memory
        if not cohort:
            break


class Stacked:
    """Runs that are trained as one network; one alone is trained as ever."""

    def __init__(self, states: Sequence[RunState]) -> None:
        self.states = list(states)
        self.take_step = self.states[0].take_step
        if len(self.states) > 1:
            self.take_step = make_stacked_step(
                [member_of(state.network, state.optimizer, state.run.training) for state in self.states]
            )
        for state in self.states:  # what one leaves on a GPU the others' checkpoints wait for
            state.cuda_stream = self.states[0].cuda_stream

    def train_and_log(self, step: int, batches: Mapping[int, Batch], job: TrainingJob) -> None:
        """Step `step` (from 0) of all its runs, and what is due after it."""
        validation = job.batches[self.states[0].run.seed].validation
        own = [batches[state.run.seed] for state in self.states]
        if len(self.states) == 1:
            train_and_log(self.states[0], step, own[0], validation)
            return
        for state in self.states:
            if step == state.first_step:
                start_clock(state)
        joined = Batch(*(torch.stack(parts) for parts in zip(*own, strict=True)))
        found = take_steps(self.take_step, joined, self.states[0].run.training).of_each()
        for state, result in zip(self.states, found, strict=True):
            after_step(state, step, result, validation)


def restacked(stacks: Sequence[Stacked], training: Sequence[RunState], device: str) -> list[Stacked]:
    """The stacks of the runs in training: those that are there, but where a run has joined or ended."""
    if {id(state) for stack in stacks for state in stack.states} == set(map(id, training)):
        return list(stacks)
    alike: dict[Any, list[RunState]] = {}
    for state in training:
        alike.setdefault(common_part(state.run, device, torch.get_num_threads()) or id(state), []).append(state)
    kept = {tuple(map(id, stack.states)): stack for stack in stacks}
    return [kept.get(tuple(map(id, states))) or Stacked(states) for states in alike.values()]


def _pause_all(cohort: Sequence[RunState], step: int) -> str:
    """Write a checkpoint of each run after `step` steps, and say where they are."""
    reached = []
    for state in cohort:
        with on_own_stream(state):
            reached.append(pause(state, step))
    return ", ".join(reached)

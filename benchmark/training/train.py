"""The training of one run: a straight line from the clip stream to the weights.

`step.py` has the optimiser step, `run_state.py` what a run writes, `job.py` locks, signals and memory, and
`cohort.py` the loop around several runs side by side.
"""

from pathlib import Path
from typing import NamedTuple

from benchmark.config.protocol import RunConfig
from benchmark.config.sections import TrainingConfig
from benchmark.data.clip_source import Clips
from benchmark.data.tensors import to_float
from benchmark.system.signals import Interrupted
from benchmark.training import distributed
from benchmark.training.acceleration.captured_step import Step
from benchmark.training.job import Companion, no_companion, open_job
from benchmark.training.run_state import (
    RunState,
    finish,
    keep_weights,
    log_curves,
    log_validation,
    pause,
    save,
    start_clock,
)
from benchmark.training.step import Batch, StepResult, roll_out
from models.forecasters.network import Network


def train(
    run: RunConfig,
    results_dir: Path,
    device: str,
    *,
    beside: Companion = no_companion,
    resume_only: bool = False,
    skip_trained: bool = False,
) -> None:
    """Train one run in its folder, from its checkpoint if there is one.

    TERM and Ctrl-C end it after the step it is in, with a checkpoint. Several processes (torchrun) share its batches,
    and the first of them writes.

    Args:
        run: what to train.
        results_dir: holds `<protocol>/data`, made by the command `data`, and the run's folder.
        device: `cpu` or `cuda`.
        beside: what goes on beside the training, as the mirror to MLflow does.
        resume_only: a missing or stale checkpoint is an error instead of a start at step 0.
        skip_trained: leave the run alone if this config and code have trained it to its end on these digits.

    Raises:
        Interrupted: at TERM or Ctrl-C, with how far it came.
        UserError: the folder is in use, the data are missing or damaged, or `resume_only` cannot be kept.
        ProcessError: it was out of memory.
    """
    with open_job([run], results_dir, device, beside) as job:
        state = job.begin(run, resume_only=resume_only, skip_trained=skip_trained)
        if state is None:
            return
        for step in range(state.first_step, run.training.steps):
            if signal := job.asked_to_stop():
                raise Interrupted(signal, pause(state, step))
            with job.ending_without_memory([state], step):
                train_and_log(state, step, job.batches[run.seed].batch(step), job.batches[run.seed].validation)
            if state.ended:
                return


def train_and_log(state: RunState, step: int, batch: Batch, validation: Clips) -> None:
    """Step `step` (from 0) of a run, and what is due after it."""
    if step == state.first_step:
        start_clock(state)
    after_step(state, step, take_steps(state.take_step, batch, state.run.training), validation)


def after_step(state: RunState, step: int, result: StepResult, validation: Clips) -> None:
    """What is due after step `step` (from 0): learning rate, curves, validation, weights, checkpoint, the end."""
    run, device, done = state.run, result.loss.device.type, step + 1
    learning_rate = state.optimizer.param_groups[0]["lr"]
    state.schedule.step()

    due = Due.after(done, run)
    if device == "cuda" and not any(due):
        return  # the divergence guard needs nobody to read what it found; that waits for the GPU
    guard = state.guard_state()
    if guard.diverged:
        finish(state, done, guard)
        return
    if due.logs:
        log_curves(state, done, result, learning_rate, guard)
    with state.stopwatch.paused():  # clips/s is the speed of training alone
        if due.validates:
            log_validation(state, done, validate(state.network, validation, run, device))
        with state.stopwatch.saving():
            if due.keeps_weights:
                keep_weights(state, done)
            if due.saves:
                save(state, done)
            if due.last:
                finish(state, done, guard)


def take_steps(take_step: Step, batch: Batch, training: TrainingConfig) -> StepResult:
    """The optimiser steps on a batch: their mean loss, and the gradient norm of the first."""
    result = take_step(batch)
    if training.reversed_second_step:
        reversed_frames = batch.frames.flip(-4)
        second = take_step(Batch(reversed_frames, reversed_frames, batch.feed_mask, batch.flows))
        result = StepResult((result.loss + second.loss) / 2, result.gradient_norm)
    return result


class Due(NamedTuple):
    """What is to be done after a step."""

    logs: bool
    validates: bool
    keeps_weights: bool
    saves: bool
    last: bool

    @classmethod
    def after(cls, done: int, run: RunConfig) -> "Due":
        """Of `run`, after `done` steps."""
        keys, last = run.training, done == run.training.steps
        logs, validates = done % keys.log_every == 0 or last, done % keys.validate_every == 0 or last
        return cls(logs, validates, done in run.probe.steps, done % keys.checkpoint_every == 0 and not last, last)


def validate(network: Network, clips: Clips, run: RunConfig, device: str) -> float:
    """Mean squared error per frame, summed over pixels, of the free-running network on the validation clips."""
    total = 0.0
    for first in distributed.share(range(0, len(clips), run.evaluation.batch_size)):
        frames = to_float(clips[first : first + run.evaluation.batch_size].to(device))
        prediction = roll_out(network, frames[:, : run.data.context], run).clamp(0, 1)
        total += (prediction - frames[:, run.data.context :]).square().sum().item()
    return distributed.total(total) / (len(clips) * run.data.horizon)

"""The training of one run, or of several side by side: a straight line from the clip stream to the weights."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmark.config.code_sources import code_hash
from benchmark.config.protocol import RunConfig, check_one_stream
from benchmark.data.clips import Clips
from benchmark.data.tensors import to_float
from benchmark.system import processes
from benchmark.system.console import Progress, Stopwatch, echo
from benchmark.system.devices import prepare_device
from benchmark.system.errors import ProcessError, UserError, is_out_of_memory
from benchmark.system.gpu_lock import reserve_gpu
from benchmark.system.locks import hold
from benchmark.system.memory import out_of_memory_message, within_memory
from benchmark.system.signals import Interrupted, PendingSignal, catch_signals
from benchmark.training import distributed
from benchmark.training import step as engine
from benchmark.training.batches import Batches, load_batches
from benchmark.training.provenance import provenance
from benchmark.training.run_folder import no_run_left_running
from benchmark.training.run_state import (
    RunState,
    begin,
    finish,
    give_up,
    is_trained,
    keep,
    log,
    log_validation,
    pause,
    save,
    title,
)
from models.predictor import Predictor

Companion = Callable[[Sequence[Path], Stopwatch], contextlib.AbstractContextManager[Any]]
"""What goes on beside a training: given the run folders and the watch of the training, a context that lasts as long."""


def no_companion(folders: Sequence[Path], watch: Stopwatch) -> contextlib.AbstractContextManager[Any]:
    """Nothing beside a training."""
    return contextlib.nullcontext()


def train(
    run: RunConfig, results_dir: Path, device: str, *, beside: Companion = no_companion, resume_only: bool = False
) -> None:
    """Train one run in its folder, from its checkpoint if there is one: `train_cohort` of one."""
    train_cohort([run], results_dir, device, beside=beside, resume_only=resume_only)


def train_cohort(
    runs: Sequence[RunConfig],
    results_dir: Path,
    device: str,
    *,
    beside: Companion = no_companion,
    resume_only: bool = False,
    skip_trained: bool = False,
) -> None:
    """Train variants of one protocol and seed side by side, fed by one stream, each to what it becomes alone.

    Each goes on from its own checkpoint; one that diverges or runs out of memory leaves the others unharmed. TERM and
    Ctrl-C end them after the step they are in, each with a checkpoint. Several processes share the batches of one run,
    and the first of them writes.

    Args:
        runs: what to train.
        results_dir: holds `<protocol>/data`, made by the command `data`, and the runs' folders.
        device: `cpu` or `cuda`.
        beside: what goes on beside the training, as the mirror to MLflow does.
        resume_only: a missing or stale checkpoint is an error instead of a start at step 0.
        skip_trained: leave a run alone that this config and code have trained to its end on these digits.

    Raises:
        Interrupted: at TERM or Ctrl-C, with how far each run came.
        UserError: a folder is in use, the data are missing or damaged, the runs cannot share batches, `resume_only`
            cannot be kept, or, said once the others are through, a run was out of memory.
    """
    try:
        check_one_stream(runs)
    except ValueError as error:
        raise UserError(f"--variant: {error}; train them apart") from None
    folders = [run.path(results_dir) for run in runs] if processes.is_first() else []
    with contextlib.ExitStack() as held:
        for folder in folders:
            held.enter_context(hold(folder))
        held.enter_context(reserve_gpu(device))
        prepare_device(device, runs[0].training.threads)
        with within_memory(f"{runs[0].variant} seed={runs[0].seed}: validation clips", {}):
            feed = load_batches(runs[0], results_dir, device)
        held.enter_context(distributed.joined(device))
        notice, watch = held.enter_context(catch_signals()), Stopwatch()
        with beside(folders, watch), no_run_left_running(folders):
            cohort, failures = begin_all(runs, results_dir, feed, resume_only, skip_trained)
            _train(cohort, feed, watch, notice, failures)
    if failures:
        raise ProcessError(f"{'; '.join(failures)}; {less_memory(runs)}; the same command goes on from its checkpoint")


def _train(cohort: list[RunState], feed: Batches, watch: Stopwatch, notice: PendingSignal, failures: list[str]) -> None:
    """The training loop; a run leaves `cohort` at its end, or with a line in `failures` where it finds no memory."""
    steps = [step for one in cohort for step in (one.first, one.run.training.steps)]
    for step in range(min(steps, default=0), max(steps, default=0)):
        if number := distributed.agreed(notice.number):
            raise Interrupted(number, pause_all(cohort, step))
        with leaving(cohort, cohort, step, feed.device, failures):
            batch = feed.batch(step)
        for one in [one for one in cohort if step >= one.first]:
            done, due = step + 1, Due.after(step + 1, one.run)
            with leaving(cohort, [one], step, feed.device, failures), on_own_stream(one, *batch):
                if step == one.first:
                    one.progress = Progress(title(one.run), one.run.training.steps, step)
                    one.since_s, one.since_step = watch.elapsed_s(), step
                rate = one.optimizer.param_groups[0]["lr"]
                loss, norm = update(one, *batch)
                one.schedule.step()

                if feed.device == "cuda" and not any(due):
                    continue  # the guard needs nobody to read what it found; that waits for the GPU
                verdict = one.verdict()
                if verdict.diverged:
                    finish(one, done, verdict)
                    cohort.remove(one)
                    continue
                if due.logs:
                    log(one, done, loss, norm, rate, verdict, watch.elapsed_s(), feed.device, len(cohort) - 1)
                with watch.paused():  # clips/s is the speed of training alone
                    if due.validates:
                        log_validation(one, done, validate(one.network, feed.validation, one.run, feed.device))
                    with watch.saving():
                        if due.keeps:
                            keep(one, done)
                        if due.saves:
                            save(one, done)
                        if due.last:
                            finish(one, done, verdict)
                if due.last:
                    cohort.remove(one)
        if not cohort:
            break


class Due(NamedTuple):
    """What is to be done after a step."""

    logs: bool
    validates: bool
    keeps: bool
    saves: bool
    last: bool

    @classmethod
    def after(cls, done: int, run: RunConfig) -> "Due":
        """Of `run`, after `done` steps."""
        keys, last = run.training, done == run.training.steps
        logs, validates = done % keys.log_every == 0 or last, done % keys.validate_every == 0 or last
        return cls(logs, validates, done in run.probe.steps, done % keys.checkpoint_every == 0 and not last, last)


def begin_all(
    runs: Sequence[RunConfig], results_dir: Path, feed: Batches, resume_only: bool, skip_trained: bool
) -> tuple[list[RunState], list[str]]:
    """The runs to be trained, each as its checkpoint has it; and what is said of those that found no memory."""
    cohort: list[RunState] = []
    failures: list[str] = []
    for run in runs:
        folder = run.path(results_dir)
        identity = {"config": run.identity(), "code": code_hash("train", run.model), "digits": feed.digits}
        if skip_trained and distributed.from_first(lambda run=run, at=folder, by=identity: is_trained(run, at, by)):
            continue
        origin = provenance(run, results_dir / run.protocol / "data", feed.device)
        own_stream = torch.cuda.Stream() if feed.device == "cuda" and len(runs) > 1 else None
        try:
            cohort.append(begin(run, folder, identity, origin, feed.device, own_stream, resume_only))
        except (RuntimeError, MemoryError) as error:
            failures.append(without_memory(error, run, 0, feed.device))
    for one in [one for one in cohort if one.first == one.run.training.steps]:
        finish(one, one.first, one.verdict())
        cohort.remove(one)
    return cohort, failures


@contextlib.contextmanager
def leaving(
    cohort: list[RunState], some: Sequence[RunState], step: int, device: str, failures: list[str]
) -> Iterator[None]:
    """Let `some` leave the cohort if the body finds no memory, with a line each in `failures`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        for one in list(some):
            failures.append(without_memory(error, one.run, step, device))
            give_up(one, step)
            cohort.remove(one)


def pause_all(cohort: Sequence[RunState], step: int) -> str:
    """Write a checkpoint of each run after `step` steps, and say where they are."""
    reached = []
    for one in cohort:
        with on_own_stream(one):
            reached.append(pause(one, step))
    distributed.barrier()
    return ", ".join(reached)


def update(one: RunState, frames: Tensor, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The optimiser steps on one batch; returns their mean loss and the first's gradient norm."""
    loss, norm = one.step(frames, mask, inputs)
    if one.run.training.reversed_second_step:
        reversed_loss, _ = one.step(frames.flip(1), mask, frames.flip(1))
        loss = (loss + reversed_loss) / 2
    return loss, norm


@contextlib.contextmanager
def on_own_stream(one: RunState, *batch: Tensor) -> Iterator[None]:
    """Let a GPU work for `one` beside the others, once `batch` is there; that is kept until `one` has used it.

    The host runs ahead of the GPU, and so do batches made for it, at most to the next loss that is read back.
    """
    if one.cuda_stream is None:
        yield
        return
    one.cuda_stream.wait_stream(torch.cuda.current_stream())
    for tensor in batch:
        tensor.record_stream(one.cuda_stream)
    with torch.cuda.stream(one.cuda_stream):
        yield


def validate(network: Predictor, clips: Clips, run: RunConfig, device: str) -> float:
    """Mean squared error per frame, summed over pixels, of the free-running network on the validation clips."""
    total = 0.0
    for first in distributed.share(range(0, len(clips), run.evaluation.batch_size)):
        frames = to_float(clips[first : first + run.evaluation.batch_size].to(device))
        prediction = engine.roll_out(network, frames[:, : run.data.context], run).clamp(0, 1)
        total += (prediction - frames[:, run.data.context :]).square().sum().item()
    return distributed.total(total) / (len(clips) * run.data.horizon)


def without_memory(error: Exception, run: RunConfig, step: int, device: str) -> str:
    """Say that there was no memory for a run; any other `error` is raised again."""
    if not is_out_of_memory(error):
        raise error
    message = out_of_memory_message(f"{title(run)}, step {step + 1}", run.training.batch_size, device)
    echo(f"{message} ({str(error).partition(chr(10))[0]})")
    return message


def less_memory(runs: Sequence[RunConfig]) -> str:
    """What would need less memory, key by key."""
    ways = ["training.recompute: true (slower)"] * any(not run.training.recompute for run in runs)
    ways += ["fewer variants side by side (cohort)"] * (len(runs) > 1)
    ways += ["a smaller evaluation.batch_size (validation)", "a smaller training.batch_size (another result)"]
    return f"give it more memory, or set {', '.join(ways)}"

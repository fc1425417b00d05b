"""The training of one run, or of several side by side: a straight line from the clip stream to the weights."""

import contextlib
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmark import engine
from benchmark.config import RunConfig, check_one_stream
from benchmark.curriculum import feed_mask
from benchmark.data.clips import fixed_stream, load_clips
from benchmark.data.occlusion import inputs_of
from benchmark.data.prepared import load_digits
from benchmark.data.stream import ClipStream, to_float
from benchmark.errors import UserError, is_out_of_memory
from benchmark.lock import hold
from benchmark.mirroring import Mirroring
from benchmark.progress import Progress, Stopwatch
from benchmark.provenance import code_hash, provenance
from benchmark.run_folder import write_metrics, write_status
from benchmark.trainee import Trainee, begin, finish, is_trained, log, save, title
from models.predictor import Predictor


def train(run: RunConfig, results_dir: Path, device: str, *, resume_only: bool = False) -> None:
    """Train one run in its folder, from its checkpoint if there is one: `train_cohort` of one."""
    train_cohort([run], results_dir, device, resume_only=resume_only)


def train_cohort(
    runs: Sequence[RunConfig],
    results_dir: Path,
    device: str,
    *,
    resume_only: bool = False,
    skip_trained: bool = False,
) -> None:
    """Train variants of one protocol and seed side by side, fed by one stream, each to what it becomes alone.

    Each goes on from its own checkpoint; one that diverges or runs out of memory leaves the others unharmed.

    Args:
        runs: what to train.
        results_dir: holds `<protocol>/data`, made by the verb `data`, and the runs' folders.
        device: `cpu` or `cuda`.
        resume_only: a missing or stale checkpoint is an error instead of a start at step 0.
        skip_trained: leave a run alone that this config and code have trained to its end on these digits.

    Raises:
        UserError: a folder is in use, the data are missing or damaged, the runs cannot share batches, `resume_only`
            cannot be kept, or, said once the others are through, a run was out of memory.
    """
    try:
        check_one_stream(runs)
    except ValueError as error:
        raise UserError(f"--variant: {error}; train them apart") from None
    with contextlib.ExitStack() as locks:
        for run in runs:
            locks.enter_context(hold(run.path(results_dir)))
        watch = Stopwatch()
        with Mirroring([run.path(results_dir) for run in runs]) as mirroring:
            failures = _train(runs, results_dir, device, resume_only, skip_trained, watch)
        say_overhead(watch, mirroring)
    if failures:
        raise UserError(f"{'; '.join(failures)}; give it more memory, the same command goes on from its checkpoint")


def _train(
    runs: Sequence[RunConfig],
    results_dir: Path,
    device: str,
    resume_only: bool,
    skip_trained: bool,
    watch: Stopwatch,
) -> list[str]:
    # What is read of these is the same for all runs.
    seed, data, training = runs[0].seed, runs[0].data, runs[0].training
    data_folder = results_dir / runs[0].protocol / "data"
    engine.prepare_device(device, training.threads)
    bank = load_digits(data_folder)
    stream = ClipStream(
        bank.train,
        seed=seed,
        frame_size=data.frame_size,
        num_digits=data.num_digits,
        frames=data.context + data.horizon,
        pool=data.train_clips,
        device=device,
    )
    validation = load_clips(data_folder, data, "validation")
    # A bar lies over context frames only: what the predictions are held against stays as it is.
    validation = inputs_of(validation, torch.arange(len(validation)), fixed_stream(bank, data, "validation"), data)

    cohort: list[Trainee] = []
    failures: list[str] = []
    for run in runs:
        folder = run.path(results_dir)
        identity = {"config": run.identity(), "code": code_hash("train", run.model), "digits": bank.sha256}
        if skip_trained and is_trained(run, folder, identity):
            continue
        origin = provenance(run, data_folder, device)
        own_stream = torch.cuda.Stream() if device == "cuda" and len(runs) > 1 else None
        try:
            cohort.append(begin(run, folder, identity, origin, device, own_stream, resume_only))
        except (RuntimeError, MemoryError) as error:
            failures.append(without_memory(error, run, 0))
    for one in [one for one in cohort if one.first == one.run.training.steps]:
        finish(one, one.first)
        cohort.remove(one)

    steps = [step for one in cohort for step in (one.first, one.run.training.steps)]
    for step in range(min(steps, default=0), max(steps, default=0)):
        frames = stream.batch(step, training.batch_size)  # (B, T, C, H, W)
        inputs = inputs_of(frames, stream.clip_numbers(step, training.batch_size), stream, data)
        mask = feed_mask(
            training.sampling,
            seed=seed,
            step=step,
            batch_size=training.batch_size,
            context=data.context,
            horizon=data.horizon,
            device=device,
        )
        for one in [one for one in cohort if step >= one.first]:
            keys = one.run.training
            done, last = step + 1, step + 1 == keys.steps
            try:
                with on_own_stream(one, frames, inputs, mask):
                    if step == one.first:
                        one.progress = Progress(title(one.run), keys.steps, step)
                        one.since_s, one.since_step = watch.elapsed_s(), step
                    rate = one.optimizer.param_groups[0]["lr"]
                    loss, norm = update(one, frames, inputs, mask)
                    one.schedule.step()

                    logs, saves = done % keys.log_every == 0 or last, done % keys.checkpoint_every == 0 and not last
                    if (logs or saves) and not (math.isfinite(loss) and math.isfinite(norm)):
                        finish(one, done, diverged=True)  # before a checkpoint, so that the last one is finite
                        cohort.remove(one)
                        continue
                    if logs:
                        log(one, done, loss, norm, rate, watch.elapsed_s(), device, beside=len(cohort) - 1)
                    with watch.paused():  # clips/s is the speed of training alone
                        if done % keys.validate_every == 0 or last:
                            score = validate(one.network, validation, one.run, device)
                            write_metrics(one.folder, done, {"validation/mse": score})
                        with watch.saving():
                            if saves:
                                save(one, done)
                            if last:
                                finish(one, done)
                        if last:
                            cohort.remove(one)
            except (RuntimeError, MemoryError) as error:
                failures.append(without_memory(error, one.run, step))
                if one.cuda_stream is not None:  # what it still writes to must not be given to others
                    one.cuda_stream.synchronize()
                write_status(one.folder, "failed", step, keys.steps)
                cohort.remove(one)
        if not cohort:
            break
    return failures


def update(one: Trainee, frames: Tensor, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The optimiser steps on one batch; returns their mean loss and the first's gradient norm."""
    loss, norm = one.step(frames, mask, inputs)
    if one.run.training.reversed_second_step:
        reversed_loss, _ = one.step(frames.flip(1), mask, frames.flip(1))
        loss = (loss + reversed_loss) / 2
    return loss, norm


@contextlib.contextmanager
def on_own_stream(one: Trainee, *batch: Tensor) -> Iterator[None]:
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


def validate(network: Predictor, clips: Tensor, run: RunConfig, device: str) -> float:
    """Mean squared error per frame, summed over pixels, of the free-running network on the validation clips."""
    total = 0.0
    for batch in clips.split(run.evaluation.batch_size):
        frames = to_float(batch.to(device))
        prediction = engine.roll_out(network, frames[:, : run.data.context], run).clamp(0, 1)
        total += (prediction - frames[:, run.data.context :]).square().sum().item()
    return total / (len(clips) * run.data.horizon)


def say_overhead(watch: Stopwatch, mirroring: Mirroring) -> None:
    """Say what checkpoints and MLflow cost this process, the import of MLflow left out."""
    seconds = [watch.saving_s, mirroring.cpu_s, mirroring.waited_s]
    print(
        "{:.2f} s for checkpoints, {:.2f} s of processor time for MLflow, {:.2f} s of waiting for it at the end: "
        "{:.2%} of {:.1f} s".format(*seconds, sum(seconds) / watch.total_s(), watch.total_s()),
        file=sys.stderr,
        flush=True,
    )


def without_memory(error: Exception, run: RunConfig, step: int) -> str:
    """Say that there was no memory for a run; any other `error` is raised again."""
    if not is_out_of_memory(error):
        raise error
    message = f"{title(run)}: out of memory in step {step + 1}"
    print(f"{message} ({str(error).partition(chr(10))[0]})", flush=True)
    return message

"""The training of one run, or of several side by side: a straight line from the clip stream to the weights."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmark import engine
from benchmark.config import RunConfig, check_one_stream
from benchmark.curriculum import feed_mask
from benchmark.data.clips import Clips, fixed_stream, load_bank, load_clips, train_stream
from benchmark.data.occlusion import inputs_of
from benchmark.data.stream import to_float
from benchmark.errors import UserError, is_out_of_memory
from benchmark.interrupt import Interrupted, Notice, noted
from benchmark.lock import hold
from benchmark.memory import shortage
from benchmark.mirroring import Mirroring
from benchmark.progress import Progress, Stopwatch, say
from benchmark.provenance import code_hash, provenance
from benchmark.run_folder import write_metrics
from benchmark.trainee import Trainee, begin, finish, give_up, is_trained, keep, log, pause, save, title
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

    Each goes on from its own checkpoint; one that diverges or runs out of memory leaves the others unharmed. TERM and
    Ctrl-C end them after the step they are in, each with a checkpoint.

    Args:
        runs: what to train.
        results_dir: holds `<protocol>/data`, made by the verb `data`, and the runs' folders.
        device: `cpu` or `cuda`.
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
    with noted() as notice, contextlib.ExitStack() as locks:
        for run in runs:
            locks.enter_context(hold(run.path(results_dir)))
        watch = Stopwatch()
        with Mirroring([run.path(results_dir) for run in runs]) as mirroring:
            failures = _train(runs, results_dir, device, resume_only, skip_trained, watch, notice)
        if watch.saving_s:
            say_overhead(watch, mirroring)
    if failures:
        raise UserError(f"{'; '.join(failures)}; {less_memory(runs)}; the same command goes on from its checkpoint")


def _train(
    runs: Sequence[RunConfig],
    results_dir: Path,
    device: str,
    resume_only: bool,
    skip_trained: bool,
    watch: Stopwatch,
    notice: Notice,
) -> list[str]:
    # What is read of these is the same for all runs.
    seed, data, training = runs[0].seed, runs[0].data, runs[0].training
    data_folder = results_dir / runs[0].protocol / "data"
    engine.prepare_device(device, training.threads)
    bank = load_bank(data_folder, data, training=True)
    stream = train_stream(bank, data, seed, device)
    validation = load_clips(data_folder, data, "validation")
    if data.gaps:  # a bar lies over context frames only: what the predictions are held against stays as it is
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
            failures.append(without_memory(error, run, 0, device))
    for one in [one for one in cohort if one.first == one.run.training.steps]:
        finish(one, one.first, one.verdict())
        cohort.remove(one)

    steps = [step for one in cohort for step in (one.first, one.run.training.steps)]
    for step in range(min(steps, default=0), max(steps, default=0)):
        if notice.number is not None:
            raise Interrupted(notice.number, pause_all(cohort, step))
        try:
            frames = stream.batch(step, training.batch_size)  # (B, T, C, H, W)
            inputs = inputs_of(frames, stream.clip_numbers(step, training.batch_size), stream, data)
            mask = feed_mask(
                training.sampling,
                seed=seed,
                step=step,
                batch_size=training.batch_size,
                context=data.context,
                horizon=data.trained_horizon,
                device=device,
            )
        except (RuntimeError, MemoryError) as error:
            failures += [without_memory(error, one.run, step, device) for one in cohort]
            for one in cohort:
                give_up(one, step)
            break
        for one in [one for one in cohort if step >= one.first]:
            keys = one.run.training
            done, last = step + 1, step + 1 == keys.steps
            logs, saves = done % keys.log_every == 0 or last, done % keys.checkpoint_every == 0 and not last
            validates, keeps = done % keys.validate_every == 0 or last, done in one.run.probe.steps
            try:
                with on_own_stream(one, frames, inputs, mask):
                    if step == one.first:
                        one.progress = Progress(title(one.run), keys.steps, step)
                        one.since_s, one.since_step = watch.elapsed_s(), step
                    rate = one.optimizer.param_groups[0]["lr"]
                    loss, norm = update(one, frames, inputs, mask)
                    one.schedule.step()

                    if device == "cuda" and not (logs or saves or validates or keeps):
                        continue  # the guard needs nobody to read what it found; that waits for the GPU
                    verdict = one.verdict()
                    if verdict.diverged:
                        finish(one, done, verdict)
                        cohort.remove(one)
                        continue
                    if logs:
                        beside = len(cohort) - 1
                        log(one, done, loss, norm, rate, verdict, watch.elapsed_s(), device, beside)
                    with watch.paused():  # clips/s is the speed of training alone
                        if validates:
                            score = validate(one.network, validation, one.run, device)
                            write_metrics(one.folder, done, {"validation/mse": score})
                        with watch.saving():
                            if keeps:
                                keep(one, done)
                            if saves:
                                save(one, done)
                            if last:
                                finish(one, done, verdict)
                        if last:
                            cohort.remove(one)
            except (RuntimeError, MemoryError) as error:
                failures.append(without_memory(error, one.run, step, device))
                give_up(one, step)
                cohort.remove(one)
        if not cohort:
            break
    return failures


def pause_all(cohort: Sequence[Trainee], step: int) -> str:
    """Write a checkpoint of each run after `step` steps, and say where they are."""
    reached = []
    for one in cohort:
        with on_own_stream(one):
            reached.append(pause(one, step))
    return ", ".join(reached)


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


def validate(network: Predictor, clips: Clips, run: RunConfig, device: str) -> float:
    """Mean squared error per frame, summed over pixels, of the free-running network on the validation clips."""
    total = 0.0
    for first in range(0, len(clips), run.evaluation.batch_size):
        frames = to_float(clips[first : first + run.evaluation.batch_size].to(device))
        prediction = engine.roll_out(network, frames[:, : run.data.context], run).clamp(0, 1)
        total += (prediction - frames[:, run.data.context :]).square().sum().item()
    return total / (len(clips) * run.data.horizon)


def say_overhead(watch: Stopwatch, mirroring: Mirroring) -> None:
    """Say what checkpoints and MLflow cost this process, the import of MLflow left out."""
    seconds = [watch.saving_s, mirroring.cpu_s, mirroring.waited_s]
    say(
        "{:.2f} s for checkpoints, {:.2f} s of processor time for MLflow, {:.2f} s of waiting for it at the end: "
        "{:.2%} of {:.1f} s".format(*seconds, sum(seconds) / watch.total_s(), watch.total_s()),
        sys.stderr,
    )


def without_memory(error: Exception, run: RunConfig, step: int, device: str) -> str:
    """Say that there was no memory for a run; any other `error` is raised again."""
    if not is_out_of_memory(error):
        raise error
    message = shortage(f"{title(run)}, step {step + 1}", run.training.batch_size, device)
    say(f"{message} ({str(error).partition(chr(10))[0]})")
    return message


def less_memory(runs: Sequence[RunConfig]) -> str:
    """What would need less memory, key by key."""
    ways = ["training.recompute: true (slower)"] * any(not run.training.recompute for run in runs)
    ways += ["fewer variants side by side (cohort)"] * (len(runs) > 1)
    ways += ["a smaller evaluation.batch_size (validation)", "a smaller training.batch_size (another result)"]
    return f"give it more memory, or set {', '.join(ways)}"

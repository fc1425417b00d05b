"""One run in training: how it begins, what it writes while it goes on, and how it ends.

Of several processes of a run only the first writes and speaks.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from benchmark.config.code_sources import code_hash
from benchmark.config.protocol import RunConfig
from benchmark.system import processes
from benchmark.system.console import Progress, Stopwatch, echo
from benchmark.system.errors import UserError
from benchmark.system.files import flush_to_disk
from benchmark.system.processes import first_alone
from benchmark.training import distributed
from benchmark.training.acceleration.captured_step import Step, make_step
from benchmark.training.acceleration.seeded_step import SeededStep
from benchmark.training.batches import Batches
from benchmark.training.checkpoint import (
    load_checkpoint,
    load_trained,
    remove_checkpoints,
    save_checkpoint,
    save_trained,
)
from benchmark.training.divergence_guard import GuardedAdam, GuardState
from benchmark.training.masks import feed_rates
from benchmark.training.provenance import provenance
from benchmark.training.run_folder import write_beginning, write_metrics, write_status, write_timing
from benchmark.training.step import StepResult, make_optimizer, make_schedule
from benchmark.training.weight_files import WEIGHTS, save_weights, weights_after
from models.forecasters.network import Network, build_network
from models.predictor import Predictor

CHECKPOINT = "checkpoint.pt"
TRAINED = ".trained.pt"
"""A run's own copy of its final weights, with the hashes of what made them; no output that Snakemake could remove."""


@dataclass(eq=False)
class RunState:
    """One run in training."""

    run: RunConfig
    folder: Path
    identity: dict[str, str]
    """Hashes of its config, its code and the digits."""
    network: Network
    optimizer: GuardedAdam
    schedule: LRScheduler
    first_step: int
    """The step it goes on from, from 0."""
    take_step: Step
    """`train_one_step` of its network."""
    process_counts: dict[int, int]
    """Step -> number of processes that shared the run from there on."""
    stopwatch: Stopwatch
    """Of the training of this process."""
    progress: Progress | None = None
    logged_s: float = 0.0
    """Time of the stopwatch at the last point of the curves, which was after `logged_step` steps."""
    logged_step: int = 0
    ended: bool = False
    """Whether it is finished, has diverged or found no memory."""
    validation_mse: float = math.nan
    """The error on the validation clips when it was last measured."""
    runs_beside: int = 0
    """Other runs of its cohort that are in training."""
    cuda_stream: torch.cuda.Stream | None = None
    """Its own on a GPU that it shares with its cohort."""

    def checkpointed_parts(self) -> dict[str, Any]:
        """What a checkpoint holds the state of."""
        guard = self.optimizer.guard
        return {"network": self.network, "optimizer": self.optimizer, "schedule": self.schedule, "guard": guard}

    def guard_state(self) -> GuardState:
        """What its divergence guard found so far; waits for the device."""
        return self.optimizer.guard.read()


def title(run: RunConfig) -> str:
    """What a run is called in messages."""
    return f"{run.variant} seed={run.seed}"


def is_trained(run: RunConfig, folder: Path, identity: dict[str, str]) -> bool:
    """Whether the run needs no training; then its weights are written anew and it is reported.

    Snakemake removes the outputs of a job before it begins and when it failed, those of the runs that ended well too.
    """
    weights = load_trained(folder / TRAINED, identity)
    if weights is None:
        return False
    network = build_network(run.model, run.seed)
    network.load_state_dict(weights)
    save_weights(folder / WEIGHTS, network, identity["config"], run.data.context)
    remove_checkpoints(folder / CHECKPOINT)
    echo(f"{title(run)}: trained before by this config and code; left alone")
    return True


def begin(run: RunConfig, results_dir: Path, batches: Batches, stopwatch: Stopwatch, resume_only: bool) -> RunState:
    """The run as its checkpoint has it, or at step 0, with its first files written."""
    folder, identity = run.path(results_dir), identity_of(run, batches)
    origin = provenance(run, results_dir / run.protocol / "data", batches.device)
    network = build_network(run.model, run.seed).to(batches.device)
    optimizer = make_optimizer(network, run.training)
    schedule = make_schedule(optimizer, run.training)
    # One process reads it for all, since it may set a damaged one aside.
    checkpoint = distributed.from_first_process(
        lambda: load_checkpoint(folder / CHECKPOINT, identity, resume_only=resume_only)
    )
    first_step = checkpoint["step"] if checkpoint else 0
    state = RunState(
        run=run,
        folder=folder,
        identity=identity,
        network=network,
        optimizer=optimizer,
        schedule=schedule,
        first_step=first_step,
        take_step=step_of(run, network, optimizer, first_step),
        process_counts=add_process_count((checkpoint or {}).get("shared", {0: 1}), first_step),
        stopwatch=stopwatch,
    )
    if checkpoint:
        for name, part in state.checkpointed_parts().items():
            part.load_state_dict(checkpoint[name])
    write_first_files(state, origin, anew=checkpoint is None)
    return state


def step_of(run: RunConfig, network: Network, optimizer: GuardedAdam, first_step: int) -> Step:
    """The optimiser step of a run that goes on from `first_step` (from 0).

    Raises:
        UserError: a model with a loss of its own is trained on clips with gaps, whose truth that would be shown.
    """
    if isinstance(network, Predictor):
        return make_step(network, optimizer, run.training)
    if network.has_own_loss and run.data.gaps:
        raise UserError(f"{title(run)}: {network.spec.model} has a loss of its own, which does not go with data.gaps")
    return SeededStep(run, network, optimizer, first_step)


def identity_of(run: RunConfig, batches: Batches) -> dict[str, str]:
    """Hashes of what decides the weights of a run: its config, its code and the digits."""
    return {"config": run.identity(), "code": code_hash("train", run.model), "digits": batches.digits}


def add_process_count(before: dict[int, int], first_step: int) -> dict[int, int]:
    """Step -> number of processes from there on, of a run that was shared as in `before` and goes on here."""
    kept = {step: count for step, count in before.items() if step < first_step}
    return kept if [*kept.values()][-1:] == [processes.count()] else kept | {first_step: processes.count()}


@first_alone
def write_first_files(state: RunState, origin: dict[str, Any], anew: bool) -> None:
    """Write the first files of a run; `anew` says that it goes on from nothing that was there."""
    (state.folder / TRAINED).unlink(missing_ok=True)  # what stands there is no longer what the other files tell of
    shared = {"processes": state.process_counts} if max(state.process_counts.values()) > 1 else {}
    write_beginning(state.run, state.folder, origin | shared, state.first_step)
    if not anew:
        echo(f"{title(state.run)}: going on from step {state.first_step} of {state.run.training.steps}")
    if state.first_step == 0:
        for file in state.folder.glob(weights_after("*")):  # of a training that was another
            file.unlink()
        save_checkpoint(state.folder / CHECKPOINT, state.identity, snapshot(state, 0))


def start_clock(state: RunState) -> None:
    """From now on time counts for the run, before the first step of this process."""
    state.progress = Progress(title(state.run), state.run.training.steps, state.first_step)
    state.logged_s, state.logged_step = state.stopwatch.elapsed_s(), state.first_step


@first_alone
def log_curves(state: RunState, done: int, result: StepResult, learning_rate: float, guard: GuardState) -> None:
    """Write a point of the curves after `done` steps and how long it took since the last one, and show it.

    Args:
        learning_rate: that the schedule gave to the step.
    """
    now_s, training = state.stopwatch.elapsed_s(), state.run.training
    context_rate, horizon_rate = feed_rates(training.sampling, done - 1)
    found = {"train/loss": result.loss.item(), "train/grad_norm": result.gradient_norm.item()}
    # Those of an update left out may not be finite, and have no place in the curves.
    point = {name: value for name, value in found.items() if math.isfinite(value)}
    point["train/learning_rate"] = learning_rate * training.rate_factor(guard.left_out)
    point |= {"train/feed_context": context_rate, "train/feed_horizon": horizon_rate}
    if training.on_divergence != "stop":
        point["train/skipped"] = guard.left_out
    write_metrics(state.folder, done, point)
    elapsed_s = now_s - state.logged_s
    clips_per_s = (done - state.logged_step) * training.batch_size / elapsed_s
    device = next(state.network.parameters()).device.type
    write_timing(state.folder, done, elapsed_s, clips_per_s, device, state.runs_beside)
    if state.progress is not None:
        state.progress.show(done, found["train/loss"], clips_per_s)
    state.logged_s, state.logged_step = now_s, done


@first_alone
def log_validation(state: RunState, done: int, score: float) -> None:
    """Write the error on the validation clips after `done` steps."""
    state.validation_mse = score
    write_metrics(state.folder, done, {"validation/mse": score})


def snapshot(state: RunState, step: int) -> dict[str, Any]:
    """The state of network, optimiser, schedule and guard after `step` steps, and who shared them."""
    shared = {"shared": state.process_counts} if max(state.process_counts.values()) > 1 else {}
    return {"step": step} | shared | {name: part.state_dict() for name, part in state.checkpointed_parts().items()}


@first_alone
def save(state: RunState, done: int, status: str = "running") -> None:
    """Write a checkpoint, behind the curves that belong to it, then the status, which sends them to MLflow."""
    flush_to_disk(state.folder / "metrics.jsonl")
    save_checkpoint(state.folder / CHECKPOINT, state.identity, snapshot(state, done))
    write_run_status(state, status, done, state.guard_state())


@first_alone
def keep_weights(state: RunState, done: int) -> None:
    """Write the weights after `done` steps, which the probe will measure."""
    save_weights(state.folder / weights_after(done), state.network, state.identity["config"], state.run.data.context)


def pause(state: RunState, step: int) -> str:
    """Write a checkpoint after `step` steps, where another process can go on, and say where that is.

    Several processes of the run go on once it is written.
    """
    guard, done, steps = state.guard_state(), max(step, state.first_step), state.run.training.steps
    if guard.diverged:
        finish(state, done, guard)
        reached = f"{title(state.run)} diverged at step {guard.step}"
    else:
        save(state, done, "interrupted")
        reached = f"{title(state.run)} at step {done} of {steps}"
    distributed.barrier()
    return reached


def write_run_status(state: RunState, status: str, done: int, guard: GuardState) -> None:
    """Write the status, with the updates that were left out where the run may leave out any."""
    training = state.run.training
    about = {} if training.on_divergence == "stop" else {"skipped": guard.left_out}
    if status == "diverged":
        about |= {"seed": state.run.seed} | guard.to_dict()
    write_status(state.folder, status, done, training.steps, **about)


def finish(state: RunState, done: int, guard: GuardState) -> None:
    """End the run after `done` steps, or where it diverged."""
    state.ended = True
    write_final_files(state, done, guard)


@first_alone
def write_final_files(state: RunState, done: int, guard: GuardState) -> None:
    """Write the final weights, those before the first bad update if the run diverged, and the status."""
    if guard.diverged:
        done = guard.step
        where = f"batch {guard.batch}{' reversed' * guard.reversed}"
        echo(
            f"{title(state.run)}: diverged at step {done}: {guard.what} not finite on {where}; kept the weights before"
        )
    save_weights(state.folder / WEIGHTS, state.network, state.identity["config"], state.run.data.context)
    write_run_status(state, "diverged" if guard.diverged else "finished", done, guard)
    save_trained(state.folder / TRAINED, state.identity, state.network)
    remove_checkpoints(state.folder / CHECKPOINT)
    if not guard.diverged and done:
        error = f"error on validation clips {state.validation_mse:.4g} (MSE per frame, summed over pixels)"
        echo(f"{title(state.run)}: trained, {done} steps; {error}")


def end_without_memory(state: RunState, step: int) -> None:
    """Leave a run that found no memory in its step `step` (from 0) as its last checkpoint has it."""
    state.ended = True
    if state.cuda_stream is not None:  # what it still writes to must not be given to others
        state.cuda_stream.synchronize()
    if processes.is_first():
        write_status(state.folder, "failed", step, state.run.training.steps)

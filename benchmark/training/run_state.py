"""One run in training: how it begins, what it writes while it goes on, and how it ends.

Of several processes of a run only the first writes and speaks.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from benchmark.config.protocol import RunConfig
from benchmark.system import processes
from benchmark.system.console import Progress, echo
from benchmark.system.files import flush_to_disk
from benchmark.system.processes import first_alone
from benchmark.training import distributed
from benchmark.training import step as engine
from benchmark.training.captured_step import Step, make_step
from benchmark.training.checkpoint import (
    load_checkpoint,
    load_trained,
    remove_checkpoints,
    save_checkpoint,
    save_trained,
)
from benchmark.training.divergence_guard import GuardedAdam, GuardState
from benchmark.training.run_folder import write_beginning, write_metrics, write_status, write_timing
from benchmark.training.scheduled_sampling import feed_rates
from benchmark.training.weight_files import WEIGHTS, save_weights, weights_after
from models.predictor import Predictor, build

CHECKPOINT = "checkpoint.pt"
TRAINED = ".trained.pt"
"""A run's own copy of its last weights, with the hashes of what made them; no output that Snakemake could remove."""


@dataclass(eq=False)
class RunState:
    """One run in training: what it does not share with those beside it."""

    run: RunConfig
    folder: Path
    identity: dict[str, str]
    """Hashes of its config, its code and the digits."""
    network: Predictor
    optimizer: GuardedAdam
    schedule: LRScheduler
    first: int
    """The step it goes on from."""
    cuda_stream: torch.cuda.Stream | None
    step: Step
    """Its optimiser step."""
    shared: dict[int, int]
    """Step -> number of processes that shared the run from there on."""
    progress: Progress | None = None
    since_s: float = 0.0
    """Training time of the process at the last point of the curves, which was after `since_step` steps."""
    since_step: int = 0

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds the state of."""
        guard = self.optimizer.guard
        return {"network": self.network, "optimizer": self.optimizer, "schedule": self.schedule, "guard": guard}

    def verdict(self) -> GuardState:
        """What its guard found so far; waits for the device."""
        return self.optimizer.guard.read()


def title(run: RunConfig) -> str:
    """What a run is called in messages."""
    return f"{run.variant} seed={run.seed}"


def is_trained(run: RunConfig, folder: Path, identity: dict[str, str]) -> bool:
    """Whether the run needs no training; then its weights are written anew and it is said.

    Snakemake removes the outputs of a job before it begins and when it failed, those of the runs that ended well too.
    """
    weights = load_trained(folder / TRAINED, identity)
    if weights is None:
        return False
    network = build(run.model, run.seed)
    network.load_state_dict(weights)
    save_weights(folder / WEIGHTS, network, identity["config"], run.data.context)
    remove_checkpoints(folder / CHECKPOINT)
    echo(f"{title(run)}: trained before by this config and code; left alone")
    return True


def begin(
    run: RunConfig,
    folder: Path,
    identity: dict[str, str],
    origin: dict[str, Any],
    device: str,
    cuda_stream: torch.cuda.Stream | None,
    resume_only: bool,
) -> RunState:
    """The run as its checkpoint has it, or at step 0, with its first files written."""
    checkpoint = folder / CHECKPOINT
    network = build(run.model, run.seed).to(device)
    optimizer = engine.make_optimizer(network, run.training)
    schedule = engine.make_schedule(optimizer, run.training)
    # One process reads it for all, since it may set a damaged one aside.
    state = distributed.from_first(lambda: load_checkpoint(checkpoint, identity, resume_only=resume_only))
    first = state["step"] if state else 0
    step = make_step(network, optimizer, run.training)
    shared = shares((state or {}).get("shared", {0: 1}), first)
    one = RunState(run, folder, identity, network, optimizer, schedule, first, cuda_stream, step, shared)
    if state:
        for name, part in one.parts().items():
            part.load_state_dict(state[name])
    write_start(one, origin, anew=state is None)
    return one


def shares(before: dict[int, int], first: int) -> dict[int, int]:
    """Step -> number of processes from there on, of a run that was shared as in `before` and goes on from `first`."""
    kept = {step: count for step, count in before.items() if step < first}
    return kept if [*kept.values()][-1:] == [processes.count()] else kept | {first: processes.count()}


@first_alone
def write_start(one: RunState, origin: dict[str, Any], anew: bool) -> None:
    """Write the first files of a run; `anew` says that it goes on from nothing that was there."""
    (one.folder / TRAINED).unlink(missing_ok=True)  # what stands there is no longer what the other files tell of
    shared = {"processes": one.shared} if max(one.shared.values()) > 1 else {}
    write_beginning(one.run, one.folder, origin | shared, one.first)
    if not anew:
        echo(f"{title(one.run)}: going on from step {one.first} of {one.run.training.steps}")
    if one.first == 0:
        for file in one.folder.glob(weights_after("*")):  # of a training that was another
            file.unlink()
        save_checkpoint(one.folder / CHECKPOINT, one.identity, snapshot(one, 0))


@first_alone
def log(
    one: RunState,
    done: int,
    loss: Tensor,
    norm: Tensor,
    rate: float,
    verdict: GuardState,
    now_s: float,
    device: str,
    beside: int,
) -> None:
    """Write a point of the curves and how long it took since the last one, and show it."""
    training = one.run.training
    context_rate, horizon_rate = feed_rates(training.sampling, done - 1)
    found = {"train/loss": loss.item(), "train/grad_norm": norm.item()}
    point = {
        name: value for name, value in found.items() if math.isfinite(value)
    }  # those of an update left out may not be
    rate *= 0.5**verdict.left_out if training.on_divergence == "lower_lr" else 1
    point |= {"train/learning_rate": rate, "train/feed_context": context_rate, "train/feed_horizon": horizon_rate}
    if training.on_divergence != "stop":
        point["train/skipped"] = verdict.left_out
    write_metrics(one.folder, done, point)
    elapsed_s = now_s - one.since_s
    clips_per_s = (done - one.since_step) * training.batch_size / elapsed_s
    write_timing(one.folder, done, elapsed_s, clips_per_s, device, beside)
    one.progress.show(done, found["train/loss"], clips_per_s)  # pyright: ignore[reportOptionalMemberAccess]  # there is one while it trains
    one.since_s, one.since_step = now_s, done


@first_alone
def log_validation(one: RunState, done: int, score: float) -> None:
    """Write the error on the validation clips after `done` steps."""
    write_metrics(one.folder, done, {"validation/mse": score})


def snapshot(one: RunState, step: int) -> dict[str, Any]:
    """The state of network, optimiser, schedule and guard after `step` steps, and who shared them."""
    shared = {"shared": one.shared} if max(one.shared.values()) > 1 else {}
    return {"step": step} | shared | {name: part.state_dict() for name, part in one.parts().items()}


@first_alone
def save(one: RunState, done: int, state: str = "running") -> None:
    """Write a checkpoint, behind the curves that belong to it, then the status, which sends them to MLflow."""
    flush_to_disk(one.folder / "metrics.jsonl")
    save_checkpoint(one.folder / CHECKPOINT, one.identity, snapshot(one, done))
    tell(one, state, done, one.verdict())


@first_alone
def keep(one: RunState, done: int) -> None:
    """Write the weights after `done` steps, which the probe will measure."""
    save_weights(one.folder / weights_after(done), one.network, one.identity["config"], one.run.data.context)


def pause(one: RunState, step: int) -> str:
    """Write a checkpoint after `step` steps, where another process can go on, and say where that is."""
    verdict, done, steps = one.verdict(), max(step, one.first), one.run.training.steps
    if verdict.diverged:
        finish(one, done, verdict)
        return f"{title(one.run)} diverged at step {verdict.step}"
    save(one, done, "interrupted")
    return f"{title(one.run)} at step {done} of {steps}"


def tell(one: RunState, state: str, done: int, verdict: GuardState) -> None:
    """Write the status, with the updates that were left out where the run may leave out any."""
    training = one.run.training
    about = {} if training.on_divergence == "stop" else {"skipped": verdict.left_out}
    if state == "diverged":
        about |= {"seed": one.run.seed} | verdict.about()
    write_status(one.folder, state, done, training.steps, **about)


@first_alone
def finish(one: RunState, done: int, verdict: GuardState) -> None:
    """Write the weights, those before the first bad update if the run diverged, and end the run."""
    if verdict.diverged:
        done = verdict.step
        where = f"batch {verdict.batch}{' reversed' * verdict.reversed}"
        echo(
            f"{title(one.run)}: diverged at step {done}: {verdict.what} not finite on {where}; kept the weights before"
        )
    save_weights(one.folder / WEIGHTS, one.network, one.identity["config"], one.run.data.context)
    tell(one, "diverged" if verdict.diverged else "finished", done, verdict)
    save_trained(one.folder / TRAINED, one.identity, one.network)
    remove_checkpoints(one.folder / CHECKPOINT)


def give_up(one: RunState, step: int) -> None:
    """Leave a run that found no memory in its step `step` (from 0) as its last checkpoint has it."""
    if one.cuda_stream is not None:  # what it still writes to must not be given to others
        one.cuda_stream.synchronize()
    if processes.is_first():
        write_status(one.folder, "failed", step, one.run.training.steps)

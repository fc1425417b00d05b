"""One run in training: how it begins, what it writes while it goes on, and how it ends."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from benchmark import engine
from benchmark.checkpoint import load_checkpoint, load_trained, save_checkpoint, save_trained, save_weights
from benchmark.config import RunConfig
from benchmark.curriculum import feed_rates
from benchmark.progress import Progress
from benchmark.run_folder import write_beginning, write_metrics, write_status, write_timing
from models.predictor import Predictor, build

TRAINED = ".trained.pt"
"""A run's own copy of its last weights, with the hashes of what made them; no output that Snakemake could remove."""


@dataclass(eq=False)
class Trainee:
    """One run in training: what it does not share with those beside it."""

    run: RunConfig
    folder: Path
    identity: dict[str, str]
    """Hashes of its config, its code and the digits."""
    network: Predictor
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    first: int
    """The step it goes on from."""
    cuda_stream: torch.cuda.Stream | None
    step: engine.Step
    """Its optimiser step."""
    progress: Progress | None = None
    since_s: float = 0.0
    """Training time of the process at the last point of the curves, which was after `since_step` steps."""
    since_step: int = 0

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds the state of."""
        return {"network": self.network, "optimizer": self.optimizer, "schedule": self.schedule}


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
    save_weights(folder / "model.safetensors", network, identity["config"], run.data.context)
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    print(f"{title(run)}: trained before by this config and code; left alone", flush=True)
    return True


def begin(
    run: RunConfig,
    folder: Path,
    identity: dict[str, str],
    origin: dict[str, Any],
    device: str,
    cuda_stream: torch.cuda.Stream | None,
    resume_only: bool,
) -> Trainee:
    """The run as its checkpoint has it, or at step 0, with its first files written."""
    checkpoint = folder / "checkpoint.pt"
    network = build(run.model, run.seed).to(device)
    optimizer = engine.make_optimizer(network, run.training)
    schedule = engine.make_schedule(optimizer, run.training)
    state = load_checkpoint(checkpoint, identity, resume_only=resume_only)
    first = state.pop("step") if state else 0
    step = engine.make_step(network, optimizer, run.training)
    one = Trainee(run, folder, identity, network, optimizer, schedule, first, cuda_stream, step)
    for name, values in (state or {}).items():
        one.parts()[name].load_state_dict(values)
    (folder / TRAINED).unlink(missing_ok=True)  # what stands there is no longer what the other files tell of
    write_beginning(run, folder, origin, first)
    if first == 0:
        save_checkpoint(checkpoint, identity, snapshot(one, 0))
    return one


def log(
    one: Trainee, done: int, loss: Tensor, norm: Tensor, rate: float, now_s: float, device: str, beside: int
) -> None:
    """Write a point of the curves and how long it took since the last one, and show it."""
    context_rate, horizon_rate = feed_rates(one.run.training.sampling, done - 1)
    point = {"train/loss": loss.item(), "train/grad_norm": norm.item()}
    rates = {"train/learning_rate": rate, "train/feed_context": context_rate, "train/feed_horizon": horizon_rate}
    write_metrics(one.folder, done, point | rates)
    elapsed_s = now_s - one.since_s
    clips_per_s = (done - one.since_step) * one.run.training.batch_size / elapsed_s
    write_timing(one.folder, done, elapsed_s, clips_per_s, device, beside)
    one.progress.show(done, point["train/loss"], clips_per_s)
    one.since_s, one.since_step = now_s, done


def snapshot(one: Trainee, step: int) -> dict[str, Any]:
    """The state of network, optimiser and schedule after `step` steps."""
    return {"step": step} | {name: part.state_dict() for name, part in one.parts().items()}


def save(one: Trainee, done: int) -> None:
    """Write a checkpoint, then the status, which sends MLflow what the curves have up to there."""
    save_checkpoint(one.folder / "checkpoint.pt", one.identity, snapshot(one, done))
    write_status(one.folder, "running", done, one.run.training.steps)


def finish(one: Trainee, done: int, *, diverged: bool = False) -> None:
    """Write the weights, of the last checkpoint if the run diverged, and end the run."""
    checkpoint = one.folder / "checkpoint.pt"
    if diverged:
        state = load_checkpoint(checkpoint, one.identity)
        one.network.load_state_dict(state["network"])
        print(f"{title(one.run)}: diverged by step {done}; kept the weights of step {state['step']}", flush=True)
    save_weights(one.folder / "model.safetensors", one.network, one.identity["config"], one.run.data.context)
    write_status(one.folder, "diverged" if diverged else "finished", done, one.run.training.steps)
    save_trained(one.folder / TRAINED, one.identity, one.network)
    checkpoint.unlink()

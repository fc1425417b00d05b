"""What a training has around it: locks, batches, other processes, signals, and an end for a run without memory."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.config.protocol import RunConfig
from benchmark.system import processes
from benchmark.system.console import Stopwatch, echo
from benchmark.system.devices import prepare_device
from benchmark.system.errors import ProcessError, is_out_of_memory
from benchmark.system.gpu_lock import reserve_gpu
from benchmark.system.locks import hold
from benchmark.system.memory import out_of_memory_message, within_memory
from benchmark.system.signals import PendingSignal, catch_signals
from benchmark.training import distributed
from benchmark.training.acceleration.captured_step import reset_graphs
from benchmark.training.batches import Batches, load_batches
from benchmark.training.run_folder import no_run_left_running
from benchmark.training.run_state import RunState, begin, end_without_memory, finish, identity_of, is_trained, title

Companion = Callable[[Sequence[Path], Stopwatch], contextlib.AbstractContextManager[Any]]
"""What goes on beside a training: given the run folders and the watch of the training, a context that lasts as long."""


def no_companion(folders: Sequence[Path], watch: Stopwatch) -> contextlib.AbstractContextManager[Any]:
    """Nothing beside a training."""
    return contextlib.nullcontext()


@dataclass(frozen=True)
class TrainingJob:
    """What this process does: it trains one run, or several side by side."""

    results_dir: Path
    device: str
    batches: Mapping[int, Batches]
    """By seed."""
    stopwatch: Stopwatch
    signals: PendingSignal
    out_of_memory: list[str] = field(default_factory=list)
    """A line for each run that found no memory."""

    def begin(self, run: RunConfig, *, resume_only: bool, skip_trained: bool) -> RunState | None:
        """The run as its checkpoint has it; None where nothing is left to train, or no memory was found.

        Raises:
            UserError: `resume_only` and there is no checkpoint to go on from.
        """
        batches, folder = self.batches[run.seed], run.path(self.results_dir)
        identity = identity_of(run, batches)
        if skip_trained and distributed.from_first_process(lambda: is_trained(run, folder, identity)):
            return None
        try:
            state = begin(run, self.results_dir, batches, self.stopwatch, resume_only)
        except (RuntimeError, MemoryError) as error:
            self.out_of_memory.append(without_memory(error, run, 0, self.device))
            return None
        if state.first_step == run.training.steps:
            finish(state, state.first_step, state.guard_state())
        return None if state.ended else state

    def asked_to_stop(self) -> int | None:
        """The signal that this process or another one of the run was sent, if any."""
        return distributed.agree_on_signal(self.signals.number)

    @contextlib.contextmanager
    def ending_without_memory(self, states: Sequence[RunState], step: int) -> Iterator[None]:
        """End `states` if the body finds no memory in step `step` (from 0)."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            for state in states:
                self.out_of_memory.append(without_memory(error, state.run, step, self.device))
                end_without_memory(state, step)


@contextlib.contextmanager
def open_job(
    runs: Sequence[RunConfig], results_dir: Path, device: str, beside: Companion = no_companion
) -> Iterator[TrainingJob]:
    """Lock the folders of the runs and the GPU for the body, and load what the runs are fed with.

    Raises:
        UserError: a folder is in use, or the data are missing or damaged.
        ProcessError: raised once the body is through: a run was out of memory.
    """
    folders = [run.path(results_dir) for run in runs] if processes.is_first() else []
    with contextlib.ExitStack() as held:
        for folder in folders:
            held.enter_context(hold(folder))
        held.enter_context(reserve_gpu(device))
        prepare_device(device, runs[0].training.threads)
        if device == "cpu" and runs[0].training.precision == "tf32" and processes.is_first():
            echo("training.precision: tf32 is that of a GPU; this CPU computes in fp32")
        with within_memory(f"{title(runs[0])}: validation clips", {}):
            first = load_batches(runs[0], results_dir, device)
        batches = {run.seed: first.of_seed(run) for run in runs if run.seed != runs[0].seed} | {runs[0].seed: first}
        held.enter_context(distributed.process_group(device))
        job = TrainingJob(results_dir, device, batches, Stopwatch(), held.enter_context(catch_signals()))
        with beside(folders, job.stopwatch), no_run_left_running(folders):
            yield job
        reset_graphs()  # before the group of processes is destroyed
    if job.out_of_memory:
        reasons = "; ".join(job.out_of_memory)
        raise ProcessError(f"{reasons}; {less_memory(runs)}; the same command goes on from its checkpoint")


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

"""Several runs side by side: the loop of `train.py` around all of them, each batch made once."""

from collections.abc import Sequence
from pathlib import Path

from benchmark.config.protocol import RunConfig, check_one_stream
from benchmark.system.errors import UserError
from benchmark.system.signals import Interrupted
from benchmark.training.acceleration.cuda_streams import give_own_streams, on_own_stream
from benchmark.training.job import Companion, TrainingJob, no_companion, open_job
from benchmark.training.run_state import RunState, pause
from benchmark.training.train import train_and_log


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
    Ctrl-C end them after the step they are in, each with a checkpoint.

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
    for step in range(min(steps, default=0), max(steps, default=0)):
        if signal := job.asked_to_stop():
            raise Interrupted(signal, _pause_all(cohort, step))
        with job.ending_without_memory(cohort, step):
            batch = job.batches.batch(step)
        for state in [state for state in cohort if not state.ended and step >= state.first_step]:
            state.runs_beside = sum(not other.ended for other in cohort) - 1
            with job.ending_without_memory([state], step), on_own_stream(state, batch):
                train_and_log(state, step, batch, job.batches.validation)
        cohort[:] = [state for state in cohort if not state.ended]  # in place: one that has ended frees its memory
        if not cohort:
            break


def _pause_all(cohort: Sequence[RunState], step: int) -> str:
    """Write a checkpoint of each run after `step` steps, and say where they are."""
    reached = []
    for state in cohort:
        with on_own_stream(state):
            reached.append(pause(state, step))
    return ", ".join(reached)

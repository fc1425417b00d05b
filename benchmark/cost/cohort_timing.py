"""What `speed --what cohort` measures: the training of several runs, in three ways."""

import argparse
import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from benchmark.cost.stopwatch import (
    make_stream,
    make_training_step,
    processor_time_s,
    synchronise,
    time_in_turn,
    training_of,
)
from benchmark.system.devices import prepare_device
from benchmark.system.errors import UserError
from benchmark.training.acceleration.stacked_step import Member, make_stacked_step, why_by_itself
from benchmark.training.step import EVERYWHERE, Batch, make_optimizer
from models.predictor import build, free_running_mask
from models.spec import ModelSpec


def cohort(options: argparse.Namespace, spec: ModelSpec, device: str) -> dict[str, Any]:
    """A step of each of `--runs` networks: side by side, one after the other, and in a process each.

    Side by side one batch feeds all, on CUDA streams of their own. With `--stack` the runs are one network instead, and
    each makes its batches, as in the two other ways; on CUDA those on streams are timed beside. In processes all take
    `--repeats` steps at the same time.

    Returns:
        The keys of `time_in_turn`, where `fast` is side by side or stacked and `plain` one after the other, without
        ratios; the number of runs, and `stack`, None where they are not stacked; clips/s of all runs together, in each
        way; of a stack and of processes how many runs, one after the other, cost as much.

    Raises:
        UserError: such runs are not stacked, but take turns.
    """
    runs = options.stack or options.runs
    paths, labels = ways_to_train(options, spec, device, runs)
    found = time_in_turn(paths, labels, device, options.repeats)
    elapsed_s, busy_s = time_in_processes(options, spec, device, runs)
    clips, apart_s = runs * options.batch_size, found["paths"]["plain"]["processor_s"]
    found |= {
        "runs": runs,
        "stack": options.stack,
        "clips_per_s": clips / found["step_s"],
        "clips_per_s_apart": clips / found["plain_step_s"],
        "clips_per_s_processes": clips * options.repeats / elapsed_s,
    }
    if streams := found["paths"].get("streams"):
        found["clips_per_s_streams"] = clips / streams["median_s"]
    if options.stack:
        found["stack_cost"] = runs / found["ratio"]
        if device == "cpu":  # on a GPU the processor waits
            found["stack_processor_cost"] = runs / found["processor_ratio"]
            found["processes_processor_cost"] = runs * busy_s / options.repeats / apart_s
    return found | {"ratio": None, "processor_ratio": None}  # several ways, told by their clips/s


def ways_to_train(
    options: argparse.Namespace, spec: ModelSpec, device: str, runs: int
) -> tuple[dict[str, Callable[[int], None]], dict[str, str]]:
    """The ways that one process has to train `runs` networks, as functions of the step, and what people are told."""
    stacked = make_stack(options, spec, device) if options.stack else None
    stream = make_stream(options, device)
    steps = [make_training_step(options, spec, device, plain=False) for _ in range(runs)]
    streams = [torch.cuda.Stream() if device == "cuda" else None for _ in steps]

    def together(step: int) -> None:
        frames = stream.batch(step, options.batch_size)
        for own, train in zip(streams, steps, strict=True):
            with on_stream(own):
                train(frames)
        for own in filter(None, streams):
            torch.cuda.current_stream().wait_stream(own)

    def apart(step: int) -> None:
        for train in steps:
            train(stream.batch(step, options.batch_size))
            synchronise(device)

    beside = {"plain": (apart, "one after the other"), "fast": (together, "side by side in one process")}
    if stacked is not None:

        def as_one(step: int) -> None:
            stacked(torch.stack([stream.batch(step, options.batch_size) for _ in steps]))

        if device == "cuda":
            beside["streams"] = beside["fast"]
        beside["fast"] = as_one, "stacked as one network"
    return {name: way for name, (way, _) in beside.items()}, {name: label for name, (_, label) in beside.items()}


def make_stack(options: argparse.Namespace, spec: ModelSpec, device: str) -> Callable[[Tensor], Any]:
    """A training step of `--stack` networks of their own as one, given clips (R, B, T, C, H, W)."""
    if why := why_by_itself(spec, options.batch_size, device, options.threads):
        raise UserError(f"--stack: {why}, so that such runs take turns; see docs/protocols.md, several runs in one job")
    training, members = training_of(options, plain=False), []
    for seed in range(1, options.stack + 1):
        network = build(spec, seed).to(device)
        members.append(Member(network, make_optimizer(network, training), training))
    step = make_stacked_step(members)

    def one(frames: Tensor) -> Any:
        mask = free_running_mask(options.batch_size, options.context, options.horizon, frames)
        return step(Batch(frames, frames, mask.expand(options.stack, *mask.shape), EVERYWHERE.expand(options.stack, 0)))

    return one


@contextlib.contextmanager
def on_stream(own: "torch.cuda.Stream | None") -> Iterator[None]:
    """The body's work on a stream of its own, after what was asked of the device before; a CPU has none."""
    if own is None:
        yield
        return
    own.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(own):
        yield


def time_in_processes(options: argparse.Namespace, spec: ModelSpec, device: str, runs: int) -> tuple[float, float]:
    """Seconds in which as many processes as runs take `--repeats` steps each, begun together when all are warm.

    Returns:
        Those by the clock, and the processor time of all processes.
    """
    context = multiprocessing.get_context("spawn")
    number = torch.cuda.current_device() if device == "cuda" else None
    pipes = [context.Pipe() for _ in range(runs)]
    processes = [
        context.Process(target=train_in_process, args=(options, spec, device, number, theirs)) for _, theirs in pipes
    ]
    for process in processes:
        process.start()
    for _, theirs in pipes:
        theirs.close()
    for ours, _ in pipes:
        ours.recv()
    for ours, _ in pipes:
        ours.send(None)
    start = time.perf_counter()
    busy = sum(ours.recv() for ours, _ in pipes)
    taken = time.perf_counter() - start
    for process in processes:
        process.join()
    return taken, busy


def train_in_process(
    options: argparse.Namespace, spec: ModelSpec, device: str, number: int | None, connection: Connection
) -> None:
    """A process with one run: says that it is warm, waits for the start, says what processor time it took.

    Args:
        number: of the GPU that the process that started it has reserved; None on a CPU.
    """
    if number is not None:
        torch.cuda.set_device(number)
    prepare_device(device, options.threads)
    stream, train = make_stream(options, device), make_training_step(options, spec, device, plain=False)

    def step(number: int) -> Tensor:
        return train(stream.batch(number, options.batch_size))

    step(0)
    step(1)
    synchronise(device)
    connection.send(None)
    connection.recv()
    start = processor_time_s()
    for number in range(options.repeats):
        step(number)
    synchronise(device)
    connection.send(processor_time_s() - start)

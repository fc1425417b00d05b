"""What `speed --what cohort` measures: the training of several runs, in three ways."""

import argparse
import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from benchmark.cost.stopwatch import make_stream, make_training_step, synchronise, time_in_turn
from benchmark.system.devices import prepare_device
from models.spec import ModelSpec


def cohort(options: argparse.Namespace, spec: ModelSpec, device: str) -> dict[str, Any]:
    """A step of each of `--runs` networks: side by side, one after the other, and in a process each.

    Side by side one batch feeds all, on CUDA streams of their own. In the two other ways each run makes its batches; in
    processes all take `--repeats` steps at the same time.

    Returns:
        The keys of `time_in_turn`, where `fast` is side by side and `plain` one after the other, without ratios; the
        number of runs; clips/s of all runs together, in each way.
    """
    stream = make_stream(options, device)
    steps = [make_training_step(options, spec, device, plain=False) for _ in range(options.runs)]
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

    labels = {"plain": "one after the other", "fast": "side by side in one process"}
    found = time_in_turn({"plain": apart, "fast": together}, labels, device, options.repeats)
    clips = options.runs * options.batch_size
    found |= {"ratio": None, "processor_ratio": None}  # three ways, told by their clips/s
    return found | {
        "runs": options.runs,
        "clips_per_s": clips / found["step_s"],
        "clips_per_s_apart": clips / found["plain_step_s"],
        "clips_per_s_processes": clips * options.repeats / time_in_processes(options, spec, device),
    }


@contextlib.contextmanager
def on_stream(own: "torch.cuda.Stream | None") -> Iterator[None]:
    """The body's work on a stream of its own, after what was asked of the device before; a CPU has none."""
    if own is None:
        yield
        return
    own.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(own):
        yield


def time_in_processes(options: argparse.Namespace, spec: ModelSpec, device: str) -> float:
    """Seconds in which as many processes as runs take `--repeats` steps each, begun together when all are warm."""
    context = multiprocessing.get_context("spawn")
    number = torch.cuda.current_device() if device == "cuda" else None
    pipes = [context.Pipe() for _ in range(options.runs)]
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
    for ours, _ in pipes:
        ours.recv()
    taken = time.perf_counter() - start
    for process in processes:
        process.join()
    return taken


def train_in_process(
    options: argparse.Namespace, spec: ModelSpec, device: str, number: int | None, connection: Connection
) -> None:
    """A process with one run: says that it is warm, waits for the start, says that it is done.

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
    for number in range(options.repeats):
        step(number)
    synchronise(device)
    connection.send(None)

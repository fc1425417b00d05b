"""What `speed --what cohort` measures: several runs trained at once, in three ways."""

import argparse
import contextlib
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from benchmark.cost.stopwatch import beside, step_of, stream_of, wait
from benchmark.system.devices import prepare_device
from models.spec import ModelSpec


def cohort(options: argparse.Namespace, spec: ModelSpec, device: str) -> dict[str, Any]:
    """`--runs` networks of this size: a step of each, fed by one batch, on streams of their own; or apart.

    In processes each run makes batches of its own, as runs apart do; they take `--repeats` steps at the same time.
    """
    stream = stream_of(options, device)
    steps = [step_of(options, spec, device, plain=False) for _ in range(options.runs)]
    streams = [torch.cuda.Stream() if device == "cuda" else None for _ in steps]

    def together(step: int) -> None:
        frames = stream.batch(step, options.batch_size)
        for own, train in zip(streams, steps, strict=True):
            with on(own):
                train(frames)
        for own in filter(None, streams):
            torch.cuda.current_stream().wait_stream(own)

    def apart(step: int) -> None:
        for train in steps:
            train(stream.batch(step, options.batch_size))
            wait(device)

    labels = {"plain": "one after the other", "fast": "side by side in one process"}
    found = beside({"plain": apart, "fast": together}, labels, device, options.repeats)
    clips = options.runs * options.batch_size
    found |= {"ratio": None, "processor_ratio": None}  # three ways, told by their clips/s
    return found | {
        "runs": options.runs,
        "clips_per_s": clips / found["step_s"],
        "clips_per_s_apart": clips / found["plain_step_s"],
        "clips_per_s_processes": clips * options.repeats / in_processes(options, spec, device),
    }


@contextlib.contextmanager
def on(own: "torch.cuda.Stream | None") -> Any:
    """The body's work on a stream of its own, after what was asked of the device before; a CPU has none."""
    if own is None:
        yield
        return
    own.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(own):
        yield


def in_processes(options: argparse.Namespace, spec: ModelSpec, device: str) -> float:
    """Seconds in which as many processes as runs take `--repeats` steps each, begun together when all are warm."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(options.runs)]
    processes = [context.Process(target=alone, args=(options, spec, device, theirs)) for _, theirs in pipes]
    for process in processes:
        process.start()
    for _, theirs in pipes:
        theirs.close()
    talk: list[Callable[[Connection], Any]] = [lambda ours: ours.recv(), lambda ours: ours.send(None)]
    for one in talk:
        for ours, _ in pipes:
            one(ours)
    start = time.perf_counter()
    for ours, _ in pipes:
        ours.recv()
    taken = time.perf_counter() - start
    for process in processes:
        process.join()
    return taken


def alone(options: argparse.Namespace, spec: ModelSpec, device: str, connection: Connection) -> None:
    """A process with one run: says that it is warm, waits for the start, says that it is done."""
    prepare_device(device, options.threads)
    stream, train = stream_of(options, device), step_of(options, spec, device, plain=False)

    def step(number: int) -> Tensor:
        return train(stream.batch(number, options.batch_size))

    step(0)
    step(1)
    wait(device)
    connection.send(None)
    connection.recv()
    for number in range(options.repeats):
        step(number)
    wait(device)
    connection.send(None)

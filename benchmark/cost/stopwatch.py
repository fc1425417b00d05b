"""How two paths are timed side by side, and what the device can do at best."""

import argparse
import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from operator import truediv
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from benchmark.config.sections import TrainingConfig
from benchmark.data.moving_digits.stream import ClipStream
from benchmark.system.memory import resident, worker_pids
from benchmark.training.acceleration.captured_step import make_step
from benchmark.training.step import Batch, make_optimizer, train_one_step
from models.predictor import Predictor, build, free_running_mask
from models.spec import ModelSpec

LONGEST_S = 5.0
"""A ceiling is measured no more often than this takes."""


def make_stream(options: argparse.Namespace, device: str) -> ClipStream:
    """Clips of made-up digits: what they show has no part in what they cost."""
    side = max(2, 28 * options.frame_size // 64)
    digits = np.random.default_rng(1).integers(0, 256, (1000, side, side), dtype=np.uint8)
    frames = options.context + options.horizon
    return ClipStream(digits, seed=1, frame_size=options.frame_size, num_digits=2, frames=frames, device=device)


def make_training_step(
    options: argparse.Namespace, spec: ModelSpec, device: str, plain: bool
) -> Callable[[Tensor], Any]:
    """A training step of its own network; the reference path (`plain`) is in single precision, and eager.

    With `--captured` the reference path is a CUDA graph as well.
    """
    eager = plain and not options.captured
    training = training_of(options, plain)
    network: Predictor = build(spec, 1).to(device)
    network.reference_path = plain
    optimizer = torch.optim.Adam(network.parameters(), 1e-3) if eager else make_optimizer(network, training)
    step = make_step(network, optimizer, training)

    def one(frames: Tensor) -> Any:
        mask = free_running_mask(options.batch_size, options.context, options.horizon, frames)
        batch = Batch(frames, frames, mask)
        return train_one_step(network, optimizer, batch, training) if eager else step(batch)

    return one


def training_of(options: argparse.Namespace, plain: bool) -> TrainingConfig:
    """How the networks are trained that are timed."""
    return TrainingConfig(  # pyright: ignore[reportCallIssue]  # pydantic takes defaults from Field
        steps=1,
        batch_size=options.batch_size,
        learning_rate=1e-3,
        clip_norm=1.0,
        precision="fp32" if plain else options.precision,
        recompute=options.recompute and not plain,
    )


def time_in_turn(
    paths: dict[str, Callable[[Any], Any]],
    labels: dict[str, str],
    device: str,
    repeats: int,
    given: Callable[[int], Any] = lambda repeat: repeat,
) -> dict[str, Any]:
    """Time two paths in turn, after two calls each that warm them up, so that both see the same machine.

    Args:
        paths: `plain`, the reference path, and `fast`, the optimised one, or any two ways that are compared.
        labels: what people are told of each.
        repeats: timed calls of each.
        given: makes the input of both paths from the number of the repeat.

    Returns:
        Of each path in `paths`: median, quartiles and sum of its times in s, median processor time in s, peak memory in
        MiB; of both: the median ratio of their times, plain over fast, by the clock and by processor time.
    """
    start_with = given(0)
    peaks = {}
    for name, path in paths.items():
        first, again = (peak_memory(lambda path=path: path(start_with), device) for _ in range(2))
        # On a GPU a step takes its memory when it is captured, in the first call; on a CPU that loads libraries, too.
        peaks[name] = first if device == "cuda" else again
    times: dict[str, list[float]] = {name: [] for name in paths}
    busy: dict[str, list[float]] = {name: [] for name in paths}
    for repeat in range(repeats):
        work_on = given(repeat)
        for name, path in paths.items():
            synchronise(device)
            start, start_busy = time.perf_counter(), processor_time_s()
            path(work_on)
            synchronise(device)
            times[name].append(time.perf_counter() - start)
            busy[name].append(processor_time_s() - start_busy)
    found = {}
    for name, taken in times.items():
        q1, median, q3 = np.quantile(taken, [0.25, 0.5, 0.75]).tolist()
        found[name] = {"label": labels[name], "median_s": median, "q1_s": q1, "q3_s": q3, "total_s": sum(taken)}
        found[name] |= {"processor_s": statistics.median(busy[name]), "peak_memory_mib": peaks[name]}
    return {
        "step_s": found["fast"]["median_s"],
        "plain_step_s": found["plain"]["median_s"],
        "ratio": statistics.median(map(truediv, times["plain"], times["fast"])),
        "processor_ratio": statistics.median(map(truediv, busy["plain"], busy["fast"])),
        "peak_memory_mib": peaks["fast"],
        "paths": found,
    }


def processor_time_s() -> float:
    """Processor time of this process and those that share its batches, in seconds."""
    _, *others = worker_pids()
    return time.process_time() + sum(sum(psutil.Process(one).cpu_times()[:2]) for one in others)


def synchronise(device: str) -> None:
    """Wait until the device has done all that was asked of it."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_memory(work: Callable[[], Any], device: str) -> float | None:
    """Largest memory that `work` adds to what is held before, in MiB; None where the kernel does not tell."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        synchronise(device)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # else what the path before has freed would be used again and not be counted
    resets = [Path(f"/proc/{one}/clear_refs") for one in worker_pids()]
    if not all(reset.exists() for reset in resets):
        work()
        return None
    for reset in resets:
        reset.write_text("5")  # sets VmHWM back to the memory in use
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def ceilings(device: str, dtype: torch.dtype) -> dict[str, float]:
    """What the device reaches in a large matrix product (FLOP/s) and in a large copy (bytes/s, read and written)."""
    side, length = (8192, 2**28) if device == "cuda" else (1024, 2**25)
    matrix = torch.randn(side, side, device=device).to(dtype)
    source = torch.zeros(length, device=device)
    target = torch.empty_like(source)
    product_s = shortest_s(lambda: matrix @ matrix, device)
    copy_s = shortest_s(lambda: target.copy_(source), device)
    return {"matrix_product_flops": 2 * side**3 / product_s, "copy_bytes": 8 * length / copy_s}


def shortest_s(work: Callable[[], Any], device: str, repeats: int = 5) -> float:
    """The shortest of a few times: a ceiling is what the device can do, not what it did on average."""
    times = []
    for _ in range(repeats + 1):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - start)
        if len(times) > 1 and sum(times) > LONGEST_S:
            break
    return min(times[1:])

"""What the verb `speed` measures: two paths in turn, their peak memory, and what the device can do at best."""

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

from benchmark import engine
from benchmark.cost import count_macs
from benchmark.data.stream import ClipStream, to_float
from benchmark.memory import memory_of, processes, resident
from benchmark.metrics import score
from benchmark.provenance import cpu_model
from benchmark.sections import TrainingConfig
from benchmark.steps import make_step
from models.predictor import Predictor, build, free_running_mask
from models.spec import ModelSpec

LONGEST_S = 5.0
"""A ceiling is measured no more often than this takes."""
CLIPS_AT_ONCE = 50
"""Clips scored together by `--what evaluate`: its memory does not grow with `--clips`."""


def measure(options: argparse.Namespace, spec: ModelSpec, device: str) -> dict[str, Any]:
    """All numbers of one call, as plain values; see `speed` for the options."""
    from benchmark.cohort_timing import cohort

    measures = {"train": train, "inference": inference, "data": data, "evaluate": evaluate, "probe": probe}
    measures["cohort"] = cohort
    engine.prepare_device(device, options.threads)
    torch.set_deterministic_debug_mode("default" if options.any_order else "error")
    torch.backends.cudnn.benchmark = options.any_order
    sizes = ("context", "horizon", "threads", "precision", "recompute", "fuse", "any_order", "repeats")
    result = {
        "what": options.what,
        "device": device,
        "accelerator": torch.cuda.get_device_name() if device == "cuda" else cpu_model(),
        "device_memory_mib": memory_of(device),
        "torch": torch.__version__,
        "tf32": "on" if torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32 else "off",
        "variant": options.variant,
        "model": spec.to_dict(),
    }
    if device == "cpu":
        result["tf32"] = "not on a CPU"
    result |= {"batch": options.batch_size} | {name: getattr(options, name) for name in sizes}
    return result | measures[options.what](options, spec, device)


def train(options: argparse.Namespace, spec: ModelSpec, device: str) -> dict[str, Any]:
    """The training step."""
    stream, fast, plain = stream_of(options, device), *(step_of(options, spec, device, p) for p in (False, True))
    with_batch = {
        "plain": lambda step: plain(stream.batch(step, options.batch_size)),
        "fast": lambda step: fast(stream.batch(step, options.batch_size)),
    }
    macs = count_macs(spec, options.context, options.horizon)
    labels = {"plain": "plain, fp32", "fast": f"fast, {options.precision}"}
    found = beside(with_batch, labels, device, options.repeats)
    found |= {"clips_per_s": options.batch_size / found["step_s"], "macs": macs}
    found["flops_per_s"] = 6 * macs * options.batch_size / found["step_s"]  # backward is twice forward; a MAC is two
    low = device == "cuda" and options.precision == "bf16"  # a CPU rounds to bf16 and computes in fp32
    found["ceilings"] = ceilings(device, torch.bfloat16 if low else torch.float32)
    found["fraction_of_matmul"] = found["flops_per_s"] / found["ceilings"]["matrix_product_flops"]
    return found


def inference(options: argparse.Namespace, spec: ModelSpec, device: str) -> dict[str, Any]:
    """The roll-out."""
    context = stream_of(options, device).batch(0, options.batch_size)[:, : options.context]
    networks = {}
    for name in ("plain", "fast"):
        networks[name] = build(spec, 1).to(device)
        networks[name].plain = name == "plain"
    precisions = {"plain": "fp32", "fast": options.precision}
    paths = {
        name: lambda _, name=name: engine.predict(networks[name], context, options.horizon, precisions[name])
        for name in networks
    }
    labels = {"plain": "plain, fp32", "fast": f"fast, {options.precision}"}
    found = beside(paths, labels, device, options.repeats)
    return found | {"clips_per_s": options.batch_size / found["step_s"]}


def data(options: argparse.Namespace, spec: ModelSpec, device: str) -> dict[str, Any]:
    """The stream, beside a training step of the fast path."""
    stream, step = stream_of(options, device), step_of(options, spec, device, plain=False)
    frames = stream.batch(0, options.batch_size)
    paths = {"plain": lambda _: step(frames), "fast": lambda number: stream.batch(number, options.batch_size)}
    found = beside(paths, {"plain": "training step", "fast": "its batch of clips"}, device, options.repeats)
    share = found["step_s"] / found["plain_step_s"]
    found |= {"ratio": None, "processor_ratio": None}  # they are no two ways to one thing
    return found | {"clips_per_s": options.batch_size / found["step_s"], "share_of_step": share}


def evaluate(options: argparse.Namespace, spec: ModelSpec, device: str) -> dict[str, Any]:
    """The metrics, on all clips once in each of two ways; a part of the clips takes the place of a repeat."""
    stream = stream_of(options, device)

    def pair(part: int) -> tuple[Tensor, Tensor]:
        count = min(CLIPS_AT_ONCE, options.clips - part * CLIPS_AT_ONCE)
        truth = stream.batch(part, CLIPS_AT_ONCE)[:count, options.context :]
        noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(part)).to(device)
        return truth + 0.1 * noise, truth

    paths = {"plain": lambda frames: by_frame(*frames), "fast": lambda frames: score(*frames)}
    labels = {"plain": "scikit-image, frame by frame", "fast": "benchmark.metrics.score"}
    found = beside(paths, labels, device, -(-options.clips // CLIPS_AT_ONCE), given=pair)
    totals = {name: path["total_s"] for name, path in found["paths"].items()}
    found["ratio"] = totals["plain"] / totals["fast"]
    return found | {"clips": options.clips, "clips_per_s": options.clips / totals["fast"]}


def probe(options: argparse.Namespace, spec: ModelSpec, device: str) -> dict[str, Any]:
    """All that the probe does for one measure, beside the gradient of the same scalar for the weights; batch by batch.

    Both are in float64 and on the plain path. A batch takes the place of a repeat, the last one may be smaller.
    """
    from benchmark.probe import measure, scalar_of

    stream, network = stream_of(options, device), build(spec, 1).double().to(device)
    network.plain = True

    def clips(part: int) -> Tensor:
        count = min(options.batch_size, options.clips - part * options.batch_size)
        return (255 * stream.batch(part, options.batch_size)[:count]).round().byte()

    def to_weights(batch: Tensor) -> None:
        frames = to_float(batch).double()
        last = network(frames, free_running_mask(len(frames), options.context, options.horizon, frames))[:, -1]
        torch.autograd.grad(scalar_of(last, frames[:, -1], "residual"), list(network.parameters()))

    def to_states(batch: Tensor) -> None:
        measure(network, batch, options.context, options.batch_size, device, ("residual",))

    labels = {"plain": "forward and backward to the weights", "fast": "the probe, one measure"}
    paths = {"plain": to_weights, "fast": to_states}
    found = beside(paths, labels, device, -(-options.clips // options.batch_size), given=clips)
    plain, ours = (found["paths"][name]["total_s"] for name in ("plain", "fast"))
    found |= {"cost": ours / plain, "processor_cost": 1 / found["processor_ratio"], "clips_per_s": options.clips / ours}
    found |= {"ratio": None, "processor_ratio": None}  # they are no two ways to one thing
    return found | {"clips": options.clips, "precision": "fp64", "recompute": False}


def by_frame(prediction: Tensor, truth: Tensor) -> dict[str, np.ndarray]:
    """The four main metrics as the well-known repositories compute them, one frame after the other on the CPU."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    rows = []
    for ours, true in zip(
        *(part.cpu().numpy().reshape(-1, *part.shape[-2:]) for part in (prediction, truth)), strict=True
    ):
        ours = np.clip(ours, 0, 1)
        bytes_of = np.uint8(255 * ours), np.uint8(255 * true)
        row = np.square(ours - true, dtype=np.float64).sum(), np.abs(ours - true, dtype=np.float64).sum()
        rows.append((*row, peak_signal_noise_ratio(*bytes_of[::-1]), structural_similarity(*bytes_of)))
    return dict(zip(("mse", "mae", "psnr", "ssim"), np.array(rows).T, strict=True))


def stream_of(options: argparse.Namespace, device: str) -> ClipStream:
    """Clips of made-up digits: what they show has no part in what they cost."""
    side = max(2, 28 * options.frame_size // 64)
    digits = np.random.default_rng(1).integers(0, 256, (1000, side, side), dtype=np.uint8)
    frames = options.context + options.horizon
    return ClipStream(digits, seed=1, frame_size=options.frame_size, num_digits=2, frames=frames, device=device)


def step_of(options: argparse.Namespace, spec: ModelSpec, device: str, plain: bool) -> Callable[[Tensor], Any]:
    """A training step of its own network; the plain one is eager and in single precision."""
    training = TrainingConfig(  # pyright: ignore[reportCallIssue]  # pydantic takes defaults from Field
        steps=1,
        batch_size=options.batch_size,
        learning_rate=1e-3,
        clip_norm=1.0,
        precision="fp32" if plain else options.precision,
        recompute=options.recompute and not plain,
        fuse=options.fuse and not plain,
    )
    network: Predictor = build(spec, 1).to(device)
    network.plain = plain
    optimizer = torch.optim.Adam(network.parameters(), 1e-3) if plain else engine.make_optimizer(network, training)
    step = make_step(network, optimizer, training)

    def one(frames: Tensor) -> Any:
        mask = free_running_mask(options.batch_size, options.context, options.horizon, frames)
        if plain:
            return engine.update(network, optimizer, frames, mask, training)
        return step(frames, mask)

    return one


def beside(
    paths: dict[str, Callable[[Any], Any]],
    labels: dict[str, str],
    device: str,
    repeats: int,
    given: Callable[[int], Any] = lambda repeat: repeat,
) -> dict[str, Any]:
    """Times of two paths, warmed up and then taken in turn on what `given` makes, so that both see the same machine."""
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
            wait(device)
            start, start_busy = time.perf_counter(), processor_s()
            path(work_on)
            wait(device)
            times[name].append(time.perf_counter() - start)
            busy[name].append(processor_s() - start_busy)
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


def processor_s() -> float:
    """Processor time of this process and those that take parts of its batches, in seconds."""
    _, *others = processes()
    return time.process_time() + sum(sum(psutil.Process(one).cpu_times()[:2]) for one in others)


def wait(device: str) -> None:
    """Until the device has done all that was asked of it."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_memory(work: Callable[[], Any], device: str) -> float | None:
    """Largest memory that `work` adds to what is held before, in MiB; None where the kernel does not tell."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        wait(device)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # else what the path before has freed would be used again and not be counted
    resets = [Path(f"/proc/{one}/clear_refs") for one in processes()]
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
    product_s = best(lambda: matrix @ matrix, device)
    copy_s = best(lambda: target.copy_(source), device)
    return {"matrix_product_flops": 2 * side**3 / product_s, "copy_bytes": 8 * length / copy_s}


def best(work: Callable[[], Any], device: str, repeats: int = 5) -> float:
    """The shortest of a few times: a ceiling is what the device can do, not what it did on average."""
    times = []
    for _ in range(repeats + 1):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - start)
        if len(times) > 1 and sum(times) > LONGEST_S:
            break
    return min(times[1:])

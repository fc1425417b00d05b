"""What the command `speed` measures: two paths in turn, their peak memory, and what the device can do at best."""

import argparse
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.cost.kernels import kernels
from benchmark.cost.stopwatch import ceilings, make_stream, make_training_step, time_in_turn
from benchmark.data.tensors import to_float
from benchmark.evaluation.metric_functions import score
from benchmark.system.devices import cpu_model, prepare_device
from benchmark.system.memory import memory_of
from benchmark.training.batches import AHEAD
from models.counts import count_macs
from models.fast_path.fused_roll_out import why_not_fused
from models.precision import tensor_cores
from models.predictor import Predictor, build, free_running_mask, predict
from models.spec import ModelSpec

TRAINED = ("train", "data", "cohort")
"""What is measured with training steps."""
CLIPS_AT_ONCE = 50
"""Clips scored together by `--what evaluate`: its memory does not grow with `--clips`."""


def measure(options: argparse.Namespace, spec: ModelSpec, device: str) -> dict[str, Any]:
    """All numbers of one call, as plain values; see `speed` for the options."""
    from benchmark.cost.cohort_timing import cohort

    measures = {"train": train, "inference": inference, "data": data, "evaluate": evaluate, "probe": probe}
    measures["cohort"] = cohort
    prepare_device(device, options.threads)
    torch.set_deterministic_debug_mode("default" if options.any_order else "error")
    torch.backends.cudnn.benchmark = options.any_order
    sizes = ("context", "horizon", "threads", "precision", "recompute", "any_order", "repeats")
    result = {
        "what": options.what,
        "device": device,
        "accelerator": torch.cuda.get_device_name() if device == "cuda" else cpu_model(),
        "device_memory_mib": memory_of(device),
        "torch": torch.__version__,
        "tf32": "not on a CPU" if device == "cpu" else "on" if options.precision == "tf32" else "off",
        "variant": options.variant,
        "model": spec.to_dict(),
    }
    if options.what in TRAINED or options.what == "inference":
        result["stages"] = stages(spec, device, recompute=options.recompute and options.what in TRAINED)
    result |= {"batch": options.batch_size} | {name: getattr(options, name) for name in sizes}
    return result | measures[options.what](options, spec, device)


def stages(spec: ModelSpec, device: str, recompute: bool) -> str:
    """Whether a network is computed in fused stages on a device, and if not why."""
    with torch.device("meta"):
        network = Predictor(spec)
    network.recompute = recompute
    reason = why_not_fused(network, device)
    return "in fused stages" if reason is None else f"not in fused stages: {reason}"


def train(options: argparse.Namespace, spec: ModelSpec, device: str) -> dict[str, Any]:
    """The training step."""
    stream, fast, plain = (
        make_stream(options, device),
        *(make_training_step(options, spec, device, p) for p in (False, True)),
    )
    with_batch = {
        "plain": lambda step: plain(stream.batch(step, options.batch_size)),
        "fast": lambda step: fast(stream.batch(step, options.batch_size)),
    }
    macs = count_macs(spec, options.context, options.horizon)
    labels = {"plain": "reference path, fp32", "fast": f"optimised path, {options.precision}"}
    found = time_in_turn(with_batch, labels, device, options.repeats)
    if options.trace:
        frames = stream.batch(0, options.batch_size)
        found |= kernels(lambda: fast(frames), device, options.trace)
    found |= {"captured": options.captured, "clips_per_s": options.batch_size / found["step_s"], "macs": macs}
    found["flops_per_s"] = 6 * macs * options.batch_size / found["step_s"]  # backward is twice forward; a MAC is two
    low = device == "cuda" and options.precision == "bf16"  # a CPU rounds to bf16 and computes in fp32
    with tensor_cores(options.precision, device):
        found["ceilings"] = ceilings(device, torch.bfloat16 if low else torch.float32)
    found["fraction_of_matmul"] = found["flops_per_s"] / found["ceilings"]["matrix_product_flops"]
    return found


def inference(options: argparse.Namespace, spec: ModelSpec, device: str) -> dict[str, Any]:
    """The roll-out."""
    context = make_stream(options, device).batch(0, options.batch_size)[:, : options.context]
    networks = {}
    for name in ("plain", "fast"):
        networks[name] = build(spec, 1).to(device)
        networks[name].reference_path = name == "plain"
    precisions = {"plain": "fp32", "fast": options.precision}
    paths = {
        name: lambda _, name=name: predict(networks[name], context, options.horizon, precisions[name])
        for name in networks
    }
    labels = {"plain": "reference path, fp32", "fast": f"optimised path, {options.precision}"}
    found = time_in_turn(paths, labels, device, options.repeats)
    return found | {"clips_per_s": options.batch_size / found["step_s"]}


def data(options: argparse.Namespace, spec: ModelSpec, device: str) -> dict[str, Any]:
    """The stream, beside a training step of the fast path; on a GPU as many batches at once as a training makes."""
    at_once = AHEAD if device == "cuda" else 1
    stream, step = make_stream(options, device), make_training_step(options, spec, device, plain=False)
    frames = stream.batch(0, options.batch_size)
    paths = {"plain": lambda _: step(frames), "fast": lambda number: stream.batch(number, at_once * options.batch_size)}
    labels = {"plain": "training step", "fast": f"{at_once} batches of clips" if at_once > 1 else "its batch of clips"}
    found = time_in_turn(paths, labels, device, options.repeats)
    batch_s = found["step_s"] / at_once
    found |= {"ratio": None, "processor_ratio": None}  # they are no two ways to one thing
    found |= {"batches_at_once": at_once, "clips_per_s": options.batch_size / batch_s}
    return found | {"share_of_step": batch_s / found["plain_step_s"]}


def evaluate(options: argparse.Namespace, spec: ModelSpec, device: str) -> dict[str, Any]:
    """The metrics, on all clips once in each of two ways; a part of the clips takes the place of a repeat."""
    stream = make_stream(options, device)

    def pair(part: int) -> tuple[Tensor, Tensor]:
        count = min(CLIPS_AT_ONCE, options.clips - part * CLIPS_AT_ONCE)
        truth = stream.batch(part, CLIPS_AT_ONCE)[:count, options.context :]
        noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(part)).to(device)
        return truth + 0.1 * noise, truth

    paths = {"plain": lambda frames: by_frame(*frames), "fast": lambda frames: score(*frames)}
    labels = {"plain": "scikit-image, frame by frame", "fast": "benchmark.evaluation.metric_functions.score"}
    found = time_in_turn(paths, labels, device, -(-options.clips // CLIPS_AT_ONCE), given=pair)
    totals = {name: path["total_s"] for name, path in found["paths"].items()}
    found["ratio"] = totals["plain"] / totals["fast"]
    return found | {"clips": options.clips, "clips_per_s": options.clips / totals["fast"]}


def probe(options: argparse.Namespace, spec: ModelSpec, device: str) -> dict[str, Any]:
    """All that the probe does for one measure, beside the gradient of the same scalar for the weights; batch by batch.

    Both are in float64 and on the reference path. A batch takes the place of a repeat, the last one may be smaller.
    """
    from benchmark.evaluation.gradient_probe import measure, scalar_of

    stream, network = make_stream(options, device), build(spec, 1).double().to(device)
    network.reference_path = True

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
    found = time_in_turn(paths, labels, device, -(-options.clips // options.batch_size), given=clips)
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

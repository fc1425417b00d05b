"""The command `speed`: its options, and its result as a few lines and a JSON file. Imports no torch by itself."""

import argparse
from pathlib import Path
from typing import Any

from benchmark.config.variants import SLOTS, VARIANTS
from benchmark.system.devices import resolve_device
from benchmark.system.errors import UserError, unknown
from benchmark.system.files import write_json
from benchmark.system.gpu_lock import reserve_gpu
from models.spec import ModelSpec

WHAT = {
    "train": "a full training step: batch, forward, loss, backward, clip, Adam",
    "inference": "the free-running roll-out of a batch",
    "data": "the stream of clips, and its share of a training step",
    "evaluate": "MSE, MAE, PSNR and SSIM against scikit-image frame by frame",
    "cohort": "trainings of several runs together: side by side in one process, one after the other, in a process each",
    "probe": "one measure of the probe against a forward and backward pass to the weights, both in float64",
}


def whole(text: str) -> int:
    """A whole number above 0, as argparse takes it."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def widths(text: str) -> tuple[int, ...]:
    """Whole numbers separated by commas, as argparse takes them."""
    return tuple(whole(part) for part in text.split(","))


OPTIONS: dict[str, dict[str, Any]] = {
    "what": {
        "choices": tuple(WHAT),
        "default": "train",
        "help": f"{'; '.join(f'{k}: {v}' for k, v in WHAT.items())}; default: train",
    },
    "variant": {"metavar": "ID", "default": "predrnnpp", "help": f"one of {', '.join(VARIANTS)}; default: predrnnpp"},
    "hidden_channels": {
        "metavar": "N,N,...",
        "type": widths,
        "default": (16,) * 4,
        "help": "width of every layer, bottom first; default: 16,16,16,16",
    },
    "norm": {"choices": ("none", "channel", "element"), "default": "none", "help": "layer norm; default: none"},
    "frame_size": {"metavar": "N", "type": whole, "default": 64, "help": "side of a frame; default: 64"},
    "patch_size": {"metavar": "N", "type": whole, "default": 4, "help": "side of a patch; default: 4"},
    "kernel_size": {"metavar": "N", "type": whole, "default": 5, "help": "side of a kernel; default: 5"},
    "batch_size": {"metavar": "N", "type": whole, "default": 8, "help": "clips in a batch; default: 8"},
    "context": {"metavar": "N", "type": whole, "default": 10, "help": "frames given; default: 10"},
    "horizon": {"metavar": "N", "type": whole, "default": 10, "help": "frames predicted; default: 10"},
    "precision": {
        "choices": ("fp32", "bf16"),
        "default": "fp32",
        "help": "of the fast path; the plain one is always fp32, which is the default",
    },
    "recompute": {"action": "store_true", "help": "the fast path keeps the states only and computes the rest twice"},
    "fuse": {"action": "store_true", "help": "the fast path compiles the elementwise operations of each cell into one"},
    "any_order": {
        "action": "store_true",
        "help": "allow algorithms that may differ in the last bits from call to call, for what that saves",
    },
    "device": {"choices": ("auto", "cpu", "cuda"), "default": "auto", "help": "default: auto"},
    "threads": {"metavar": "N", "type": whole, "default": 2, "help": "CPU threads; default: 2"},
    "repeats": {"metavar": "N", "type": whole, "default": 5, "help": "timed repeats of each path, in turn; default: 5"},
    "runs": {"metavar": "N", "type": whole, "default": 4, "help": "cohort: runs trained together; default: 4"},
    "clips": {
        "metavar": "N",
        "type": whole,
        "default": 1000,
        "help": "evaluate, probe: clips in all; default: 1000",
    },
    "json": {"metavar": "FILE", "type": Path, "help": "write all numbers there"},
}
"""Option of the command -> its settings for argparse."""


def speed(options: argparse.Namespace) -> None:
    """Time the optimised path and the reference path in turn in one process, beside the device's own ceilings.

    Raises:
        UserError: no such variant, or sizes that do not fit together.
    """
    spec = spec_of(options)
    device = resolve_device(options.device, "--device")
    from benchmark.cost.timing import measure

    with reserve_gpu(device):
        result = measure(options, spec, device)
    print("\n".join(lines(result)))
    if options.json:
        write_json(options.json, result)


def spec_of(options: argparse.Namespace) -> ModelSpec:
    """The network that the options name."""
    if options.variant not in VARIANTS:
        raise UserError(f"--variant: {unknown('variant', options.variant, VARIANTS)}")
    known, layers = VARIANTS[options.variant], len(options.hidden_channels)
    fields = {
        "cell": known.cell,
        "hidden_channels": options.hidden_channels,
        "frame_size": options.frame_size,
        "patch_size": options.patch_size,
        "kernel_size": options.kernel_size,
        "norm": options.norm,
        "highway_slot": SLOTS[known.slot](layers) if known.slot else 0,
    }
    try:
        return ModelSpec(**fields | known.model)
    except ValueError as error:
        raise UserError(f"speed: {error}") from None


def lines(result: dict[str, Any]) -> list[str]:
    """The result in lines for people, times in ms."""
    where = f"{result['accelerator']}, {result['threads']} threads, torch {result['torch']}, TF32 {result['tf32']}"
    text = [f"{result['what']}: {WHAT[result['what']]}", where]
    for name in ("plain", "fast"):
        if name in result["paths"]:
            path = result["paths"][name]
            low, middle, high = (1000 * path[key] for key in ("q1_s", "median_s", "q3_s"))
            text.append(f"{path['label']:<34} {middle:10.1f} ms  (quartiles {low:.1f} to {high:.1f})")
            if path["peak_memory_mib"] is not None:
                text[-1] += f"  peak {path['peak_memory_mib']:.0f} MiB"
    for key, form in SHOWN.items():
        if result.get(key) is not None:
            text.append(form.format(result[key]))
    for key, value in (result.get("ceilings") or {}).items():
        text.append(f"ceiling, {key.replace('_', ' ')}: {value / 1e9:.1f} G/s")
    return text


SHOWN = {
    "ratio": "optimised path compared with the reference path: {:.2f} times",
    "processor_ratio": "by processor time, which other programs disturb less: {:.2f} times",
    "clips_per_s": "{:.1f} clips/s",
    "clips_per_s_apart": "{:.1f} clips/s one after the other",
    "clips_per_s_processes": "{:.1f} clips/s in a process each",
    "macs": "{:,} MACs a clip in one forward pass",
    "flops_per_s": "{:.3g} FLOP/s, counted as direct convolutions",
    "fraction_of_matmul": "{:.2f} of the rate of a large matrix product",
    "share_of_step": "{:.2%} of a training step",
    "cost": "the probe takes {:.2f} times as long as a backward pass to the weights",
    "processor_cost": "by processor time: {:.2f} times",
}
"""Key of the result -> how it is said."""

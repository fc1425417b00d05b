"""The command `speed`: its result as a few lines and a JSON file. Imports no torch by itself."""

import argparse
from typing import Any

from benchmark.config.variants import VARIANTS, slot_number, unknown_variant
from benchmark.system.devices import resolve_device
from benchmark.system.errors import UserError
from benchmark.system.files import write_json
from benchmark.system.gpu_lock import reserve_gpu
from benchmark.system.storage import check_output
from models.spec import ModelSpec

WHAT = {
    "train": "a full training step: batch, forward, loss, backward, clip, Adam",
    "inference": "the free-running roll-out of a batch",
    "data": "the stream of clips, and its share of a training step",
    "evaluate": "MSE, MAE, PSNR and SSIM against scikit-image frame by frame",
    "cohort": "trainings of several runs together: side by side in one process (--runs) or as one network (--stack), "
    "one after the other, in a process each",
    "probe": "one measure of the probe against a forward and backward pass to the weights, both in float64",
}


def time_paths(options: argparse.Namespace) -> None:
    """Time the optimised path and the reference path in turn in one process, beside the device's own ceilings.

    With `--predicted` print what was predicted for a GPU beside what the committed files have, and time nothing.

    Raises:
        UserError: no such variant, sizes that do not fit together, `--trace` of what is no training step, or a file
            cannot be written.
    """
    if options.predicted:
        from benchmark.cost.measured_speeds import SPEEDS
        from benchmark.cost.predictions import table

        print("\n".join(table(SPEEDS)))
        return
    if options.trace and options.what != "train":
        raise UserError(f"--trace: is of a training step, not of --what {options.what}; leave one of the two out")
    for file in filter(None, (options.json, options.trace)):
        check_output(file)
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
        raise UserError(f"--variant: {unknown_variant(options.variant, VARIANTS)}")
    known, layers = VARIANTS[options.variant], len(options.hidden_channels)
    try:
        return ModelSpec(
            **{
                "cell": known.cell,
                "hidden_channels": options.hidden_channels,
                "frame_size": options.frame_size,
                "patch_size": options.patch_size,
                "kernel_size": options.kernel_size,
                "norm": options.norm,
                "highway_slot": slot_number(known.slot, layers),
            }
            | known.model
        )
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
    for name, one in result.get("layout_kernels_by_name", {}).items():
        text.append(f"  {one['count']} x {name}")
    for key, value in (result.get("ceilings") or {}).items():
        text.append(f"ceiling, {key.replace('_', ' ')}: {value / 1e9:.1f} G/s")
    return text


SHOWN = {
    "stages": "the optimised path is computed {}",
    "ratio": "optimised path compared with the reference path: {:.2f} times",
    "processor_ratio": "by processor time, which other programs disturb less: {:.2f} times",
    "clips_per_s": "{:.1f} clips/s",
    "clips_per_s_streams": "{:.1f} clips/s side by side on streams of their own",
    "clips_per_s_apart": "{:.1f} clips/s one after the other",
    "clips_per_s_processes": "{:.1f} clips/s in a process each",
    "stack_cost": "the stack takes as long as {:.2f} of its runs",
    "stack_processor_cost": "by processor time: as {:.2f} of its runs",
    "processes_processor_cost": "processes by processor time: as {:.2f} of its runs",
    "macs": "{:,} MACs a clip in one forward pass",
    "flops_per_s": "{:.3g} FLOP/s, counted as direct convolutions",
    "fraction_of_matmul": "{:.2f} of the rate of a large matrix product",
    "kernels": "{} kernels (on a CPU operators) in one step",
    "kernels_s": "{:.4f} s together",
    "layout_kernels": "{} of them only lay out anew",
    "share_of_step": "{:.2%} of a training step",
    "cost": "the probe takes {:.2f} times as long as a backward pass to the weights",
    "processor_cost": "by processor time: {:.2f} times",
}
"""Key of the result -> how it is said."""

"""The options of the verbs, and what they name: a folder, runs, a device. Imports no torch."""

import argparse
import re
from pathlib import Path
from typing import Any

from benchmark.config.lpips_backbones import BACKBONES
from benchmark.config.protocol import Protocol, RunConfig, run_path
from benchmark.config.sections import IDENTIFIER, LONGEST_ID
from benchmark.config.variants import BASELINE_SEED, BASELINES
from benchmark.cost.speed import OPTIONS as SPEED
from benchmark.cost.speed import whole
from benchmark.system.devices import resolve_device
from benchmark.system.errors import UserError, shortened, unknown
from benchmark.system.files import check_writable

CODE_BASES = ("openstl", "predrnn-pytorch")
OWN_CLIPS = dict.fromkeys(("layout", "white", "context", "horizon", "lpips_backbone", "download")) | {
    "output": Path("scores.parquet"),
    "batch_size": 50,
}
"""Options of `evaluate` for clips of a person's own, where no protocol sets them -> default."""

OPTIONS: dict[str, dict[str, Any]] = {
    "protocol": {"metavar": "NAME|FILE", "help": "protocol: a name in workflows/protocols, or a YAML file"},
    "variant": {"metavar": "ID", "help": "variant of the protocol"},
    "train variant": {"metavar": "ID,...", "help": "variant of the protocol, or several to train side by side: a,b,c"},
    "evaluate variant": {"metavar": "ID", "help": f"variant of the protocol, or a baseline: {', '.join(BASELINES)}"},
    "record variant": {"metavar": "ID", "help": f"variant of the protocol, or a baseline: {', '.join(BASELINES)}"},
    "seed": {"metavar": "N", "type": int, "help": "seed of the run"},
    "evaluate seed": {"metavar": "N", "type": int, "help": f"seed of the run; {BASELINE_SEED} for a baseline"},
    "record seed": {"metavar": "N", "type": int, "help": f"seed of the run; {BASELINE_SEED} for a baseline"},
    "results_dir": {"metavar": "DIR", "type": Path, "default": Path("results"), "help": "default: results"},
    "data_dir": {
        "metavar": "DIR",
        "type": Path,
        "default": Path("data"),
        "help": "published files; default: data",
    },
    "device": {"choices": ("auto", "cpu", "cuda"), "help": "default: what the protocol says"},
    "download": {"action": "store_true", "help": "fetch published files that data_dir lacks"},
    "weights": {
        "metavar": "FILE",
        "type": Path,
        "help": "weights in place of a run: model.safetensors of a run's folder, or what `import-weights` wrote",
    },
    "RECORD": {"type": Path, "help": "record of a run, as results/reference/<protocol>/records/*.json"},
    "reproduce device": {"choices": ("auto", "cpu", "cuda"), "help": "default: what the record says"},
    "DIR": {"type": Path, "help": "cases, as in tests/golden"},
    "from": {"dest": "code_base", "choices": CODE_BASES, "help": "code base the weights are of"},
    "to": {"dest": "code_base", "choices": CODE_BASES, "help": "code base to write for"},
    "input": {"metavar": "FILE", "type": Path, "help": "weights to read"},
    "output": {"metavar": "FILE", "type": Path, "help": "weights to write"},
    "tensors_only": {
        "action": "store_true",
        "help": "read the tensors of a file that holds other things, too; these are passed over, never run",
    },
    "patch_size": {"metavar": "N", "type": whole, "help": "side of a patch; default: as for --channels 1"},
    "channels": {"metavar": "N", "type": whole, "help": "channels of a frame; default: what the patches leave"},
    "frame_size": {
        "metavar": "N",
        "type": whole,
        "help": "side of a frame; default: that of the norms, or 16 patches",
    },
    "context": {
        "metavar": "N",
        "type": whole,
        "help": "frames the weights were trained to see first, for the record",
    },
    "data": {"metavar": "PATH", "type": Path, "help": "your clips: a .npy, a .npz or a folder; see docs/weights.md"},
    "layout": {"metavar": "AXES", "help": "axes of the array, such as TNHW or NTCHW; default: where only one fits"},
    "white": {
        "choices": (1, 255),
        "type": int,
        "help": "value of a white pixel; default: 255 in uint8 and 1 in floats; needed for masks of 0 and 1",
    },
    "horizon": {"metavar": "N", "type": whole, "help": "frames predicted; default: what the shortest clip leaves"},
    "lpips_backbone": {"choices": tuple(BACKBONES), "help": "network under LPIPS; default: LPIPS is not measured"},
    "batch_size": {"metavar": "N", "type": whole, "help": "clips rolled out together; default: 50"},
    "evaluate context": {
        "metavar": "N",
        "type": whole,
        "help": "frames given; default: as the weights were trained",
    },
    "evaluate output": {
        "metavar": "FILE",
        "type": Path,
        "help": "scores of every clip and frame; default: scores.parquet",
    },
    "evaluate device": {
        "choices": ("auto", "cpu", "cuda"),
        "help": "default: what the protocol says; auto for your clips",
    },
    "predict weights": {
        "metavar": "FILE",
        "type": Path,
        "help": "weights: model.safetensors of a run's folder, or what `import-weights` wrote",
    },
    "predict input": {
        "metavar": "PATH",
        "type": Path,
        "help": "a clip: a .gif, a folder of PNG frames, or what --data of `evaluate` takes; see docs/weights.md",
    },
    "predict output": {
        "metavar": "FILE",
        "type": Path,
        "help": "what to write: .npy (values), .gif (animation), .mp4 (video) or .png (prediction strip)",
    },
    "predict context": {
        "metavar": "N",
        "type": whole,
        "help": "frames given; default: as the weights were trained",
    },
    "predict horizon": {
        "metavar": "N",
        "type": whole,
        "help": "frames predicted; default: as many as the input has after the context, or else as many as are given",
    },
    "predict device": {"choices": ("auto", "cpu", "cuda"), "help": "default: auto"},
    "fit": {
        "action": "store_true",
        "help": "make the frames fit the weights: cropped to their shape, scaled to their size, in grey or in colour",
    },
    "resume_only": {"action": "store_true", "help": "it is an error if there is no checkpoint to go on from"},
    "reuse": {"action": "store_true", "help": "take runs of this very config from their published records"},
    "records_only": {"action": "store_true", "help": "only the records, of those runs that are finished"},
    "speed": {
        "metavar": "NAME|FILE",
        "help": "measured speed: a name in results/reference/speed, or a file of `speed --json`; default: the nearest"
        " of the device at hand",
    },
    "counts_only": {"action": "store_true", "help": "parameters and MACs alone, as the workflow needs them"},
    "once": {"action": "store_true", "help": "print it once, also on a terminal"},
    "skip_trained": {"action": "store_true", "help": "leave alone what this config and code have trained to its end"},
} | {f"speed {name}": settings for name, settings in SPEED.items()}
"""Option -> its settings for argparse; `verb option` = what it means to one verb alone."""


def folder_of(options: argparse.Namespace) -> Path:
    """The protocol's folder."""
    return options.results_dir / options.protocol.name


def check_results_dir(options: argparse.Namespace) -> None:
    """Refuse folders that cannot be written to, before anything is computed.

    Raises:
        UserError: names the first of them.
    """
    told = vars(options)
    folders = []
    if told.get("weights"):  # what is made of a file of weights goes to no results folder
        folders = [options.output.parent] if options.output else []
    elif "results_dir" in told and not told.get("protocol"):
        folders = [options.results_dir]
    elif "results_dir" in told:
        folders = [folder_of(options)]
        names = (told.get("variant") or "").split(",") if told.get("seed") is not None else []
        folders += [run_path(options.results_dir, options.protocol.name, name, options.seed) for name in names]
    for folder in folders:
        check_writable(folder)


def check_id(variant: str | None) -> None:
    """Raise UserError if `variant` could not be the id of one, and so might name any folder."""
    if variant is not None and (len(variant) > LONGEST_ID or not re.fullmatch(IDENTIFIER, variant)):
        raise UserError(f"--variant: {shortened(variant)} is no id: lower-case letters and digits, parted by hyphens")


def run_of(options: argparse.Namespace) -> RunConfig:
    """The run that --variant and --seed name."""
    protocol: Protocol = options.protocol
    known = [entry.id for entry in protocol.variants]
    if options.variant not in known:
        raise UserError(f"--variant: protocol {protocol.name}: {unknown('variant', options.variant, known)}")
    seeds = protocol.seeds_of(options.variant)
    if options.seed not in seeds:
        raise UserError(f"--seed: protocol {protocol.name}: {unknown('seed', options.seed, seeds)}")
    return protocol.run(options.variant, options.seed)


def runs_of(options: argparse.Namespace) -> list[RunConfig]:
    """The runs that --variant, a list with commas, and --seed name."""
    variants = options.variant.split(",")
    for variant in variants:
        if variants.count(variant) > 1:
            raise UserError(f"--variant: {options.variant} names {variant!r} twice; name each once")
    return [run_of(argparse.Namespace(**vars(options) | {"variant": variant})) for variant in variants]


def device_of(options: argparse.Namespace) -> str:
    """`cpu` or `cuda`, from --device or the protocol."""
    if options.device:
        return resolve_device(options.device, "--device")
    return resolve_device(options.protocol.training.device, f"protocol {options.protocol.name}: training.device")

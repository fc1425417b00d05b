"""What the options of a command select: a folder, runs, a device. Imports no torch."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from benchmark.config.protocol import Protocol, RunConfig, run_path
from benchmark.config.sections import IDENTIFIER, LONGEST_ID
from benchmark.config.variants import NO_SEED, unknown_variant
from benchmark.system import processes
from benchmark.system.devices import resolve_device
from benchmark.system.errors import UserError, shortened, unknown
from benchmark.system.installation import PROGRAM
from benchmark.system.storage import check_writable


def protocol_folder(options: argparse.Namespace) -> Path:
    """The folder of the protocol's results."""
    return options.results_dir / options.protocol.name


def check_results_dir(options: argparse.Namespace) -> None:
    """Refuse folders that cannot be written to, before anything is computed.

    Raises:
        UserError: names the first of them.
    """
    given = vars(options)
    folders = []
    if given.get("weights"):  # what is made of a file of weights goes to no results folder
        folders = [options.output.parent] if options.output else []
    elif "results_dir" in given and not given.get("protocol"):
        folders = [options.results_dir]
    elif "results_dir" in given:
        folders = [protocol_folder(options)]
        seeds = () if given.get("seed") is None else seeds_in(options)
        names = (given.get("variant") or "").split(",")
        folders += [run_path(options.results_dir, options.protocol.name, name, one) for name in names for one in seeds]
    for folder in folders:
        check_writable(folder)


def check_id(variant: str | None) -> None:
    """Raise UserError if `variant` could not be the id of one, and so might name any folder."""
    if variant is not None and (len(variant) > LONGEST_ID or not re.fullmatch(IDENTIFIER, variant)):
        raise UserError(f"--variant: {shortened(variant)} is no id: lower-case letters and digits, parted by hyphens")


def check_variant(protocol: Protocol, variant: str) -> None:
    """Raise UserError if `protocol` has no `variant`."""
    known = [entry.id for entry in protocol.variants]
    if variant not in known:
        raise UserError(f"--variant: protocol {protocol.name}: {unknown_variant(variant, known)}")


def seeds_in(options: argparse.Namespace) -> tuple[int, ...]:
    """The seeds that --seed names; only `train` takes several.

    Raises:
        UserError: another command is given several.
    """
    if isinstance(options.seed, int):
        return (options.seed,)
    if "skip_trained" not in options:
        raise UserError(
            f"--seed: {','.join(map(str, options.seed))} are several; name one: `train` alone takes several"
        )
    return options.seed


def check_row(options: argparse.Namespace) -> None:
    """Raise UserError where --variant and --seed name neither a run nor a row of the protocol that is not trained."""
    if options.protocol.is_trained(options.variant):
        run_of(options)
    elif options.seed != NO_SEED:
        raise UserError(f"--seed: {unknown('seed', options.seed, [NO_SEED])}: {options.variant} is not trained")


def run_of(options: argparse.Namespace) -> RunConfig:
    """The run that --variant and --seed name."""
    protocol: Protocol = options.protocol
    check_variant(protocol, options.variant)
    seeds = protocol.seeds_of(options.variant)
    if options.seed not in seeds:
        raise UserError(f"--seed: protocol {protocol.name}: {unknown('seed', options.seed, seeds)}")
    return protocol.run(options.variant, options.seed)


def runs_of(options: argparse.Namespace) -> list[RunConfig]:
    """The runs that --variant and --seed, lists with commas, name."""
    variants = options.variant.split(",")
    for flag, values in {"--variant": variants, "--seed": seeds_in(options)}.items():
        for value in values:
            if values.count(value) > 1:
                raise UserError(f"{flag}: {','.join(map(str, values))} names {value!r} twice; name each once")
    return [
        run_of(argparse.Namespace(**vars(options) | {"variant": variant, "seed": seed}))
        for variant in variants
        for seed in seeds_in(options)
    ]


def check_shareable(runs: Sequence[RunConfig]) -> None:
    """Refuse what several processes cannot share in equal parts.

    Raises:
        UserError: several variants, or a batch that leaves a remainder.
    """
    if processes.count() == 1:
        return
    if len(runs) > 1:
        raise UserError(
            f"--variant: {processes.count()} processes share one run, not {len(runs)} side by side; name one variant,"
            f" or start `{PROGRAM}` without torchrun"
        )
    batch_size = runs[0].training.batch_size
    if batch_size % processes.count():
        raise UserError(
            f"protocol {runs[0].protocol}: training.batch_size: {batch_size} clips cannot be shared equally by"
            f" {processes.count()} processes; give torchrun a number that divides {batch_size}"
        )


def device_of(options: argparse.Namespace) -> str:
    """`cpu` or `cuda`, from --device or the protocol."""
    if options.device:
        return resolve_device(options.device, "--device")
    return resolve_device(options.protocol.training.device, f"protocol {options.protocol.name}: training.device")

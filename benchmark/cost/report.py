"""The report of the command `plan`: what a protocol will cost, estimated before anything runs, and how."""

import math
import os
from dataclasses import dataclass

import pandas as pd
import torch

from benchmark.config.probe_stages import trains
from benchmark.config.protocol import Protocol, RunConfig
from benchmark.config.variants import VARIANTS
from benchmark.cost.estimate import (
    Disk,
    VariantCost,
    Work,
    clips_trained,
    count_macs,
    flops_per_s,
    nearest_speed,
    probe_passes,
    step_ratio,
    test_clips,
)
from benchmark.cost.jobs import Job, job_lines, training_jobs
from benchmark.cost.measured_speeds import Speed, speeds_of
from benchmark.data.kinds import kind_of
from benchmark.reporting.tables.rendering import MISSING
from benchmark.system.console import command_line
from benchmark.system.devices import cpu_model, resolve_device
from benchmark.system.memory import memory_of
from models.spec import ModelSpec

GIB = 2**30


@dataclass(frozen=True)
class Device:
    """The device for which the cost is estimated."""

    kind: str
    """`cpu` or `cuda`."""
    name: str
    memory_mib: float | None
    """None where it is another machine's and its file does not tell."""
    cores: int | None

    @classmethod
    def here(cls, kind: str) -> "Device":
        """That of this machine."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        name = torch.cuda.get_device_name() if kind == "cuda" else cpu_model()
        return cls(kind, name, memory_of(kind), cores)

    @classmethod
    def of(cls, speed: Speed) -> "Device":
        """That on which `speed` was measured; this machine's if it has the same."""
        if speed.device == "cpu" or resolve_device("auto", "plan") == "cuda":
            here = cls.here(speed.device)
            if here.name == speed.accelerator:
                return here
        return cls(speed.device, speed.accelerator, speed.device_memory_mib, None)


def cost_report(protocol: Protocol, named: Speed | None = None) -> str:
    """The estimated cost of `protocol`: the answer in a line, a row a variant, sums over all runs, how each was got.

    Args:
        named: a measured speed, whose device is taken; None for this machine's device and its committed speeds.

    Returns:
        Lines of text; hours, memory in GiB, disk in MiB.

    Raises:
        UserError: a file of measured speeds is damaged.
    """
    usable = "cpu" if protocol.training.device == "cpu" else "auto"  # another machine may have what `cuda` asks for
    device = Device.of(named) if named else Device.here(resolve_device(usable, "plan"))
    speeds, probes = [named] if named else speeds_of(device.name, "train"), speeds_of(device.name, "probe")
    costs = []
    for entry in protocol.variants:
        run = protocol.first_run(entry.id)
        costs.append(
            VariantCost(
                run=run,
                runs=len(protocol.seeds_of(entry.id)),
                work=Work.of(run),
                disk=Disk.of(run, run.evaluation.lpips_backbone),
                speed=nearest_speed(speeds, run),
                probe_speed=nearest_speed(probes, run),
            )
        )
    jobs = training_jobs(protocol, costs, device.kind)
    lines = [
        heading(protocol),
        answer(costs, jobs, device),
        "",
        variant_table(costs).to_string(index=False),
        "",
        *summary(costs, jobs, device),
        *job_lines(protocol, jobs),
    ]
    lines += ["", "How each figure was got:", *(f"* {note}" for note in explanations(protocol, costs, device))]
    return "\n".join(lines)


def heading(protocol: Protocol) -> str:
    """How many runs there are."""
    runs, variants = len(protocol.runs()), len(protocol.variants)
    return f"{protocol.name}: {runs} runs ({variants} variants), {len(protocol.baselines)} baselines without training"


def answer(costs: list[VariantCost], jobs: list[Job], device: Device) -> str:
    """Hours, memory and disk of the whole protocol, in one line."""
    whole = sum_over_runs(costs, [one.whole_h for one in costs])
    memory = most_memory(jobs)
    said = [
        f"hours not known on {device.name}, see below how to measure"
        if whole is None
        else f"about {format_hours(whole)} on {device.name}, one run after the other",
        f"memory of a {unit(jobs)} not known" if memory is None else f"{memory / 2**10:,.1f} GiB for a {unit(jobs)}",
        f"{sum(one.runs * one.disk.kept for one in costs) / GIB:,.2f} GiB of disk",
    ]
    return "; ".join(said) + "."


def most_memory(jobs: list[Job]) -> float | None:
    """Peak of the largest job in MiB; None where it is not known of each."""
    memories = [job.memory_mib for job in jobs]
    return None if None in memories else max(filter(None, memories))


def unit(jobs: list[Job]) -> str:
    """What stands for itself on the device: a run, or a job of several."""
    return "job" if any(len(job.runs) > 1 for job in jobs) else "run"


def variant_table(costs: list[VariantCost]) -> pd.DataFrame:
    """A row a variant: work, hours, memory and disk of one of its runs."""
    rows = []
    for one in costs:
        run, work = one.run, one.work
        rows.append(
            {
                "variant": run.variant,
                "runs": one.runs,
                "MACs a clip": with_prefix(count_macs(run.model, run.data.context, run.data.horizon)),
                "training": with_prefix(work.training),
                "validation": with_prefix(work.validation),
                "evaluation": with_prefix(work.evaluation),
                "probe": with_prefix(work.probe),
                "train": format_hours(one.train_h),
                "evaluate": format_hours(one.score_h),
                "measure": format_hours(one.probe_h),
                "memory GiB": MISSING if one.memory_mib is None else f"{one.memory_mib / 2**10:,.1f}",
                "disk MiB": f"{one.disk.kept / 2**20:,.1f}",
                "at most": f"{one.disk.most / 2**20:,.1f}",
            }
        )
    return pd.DataFrame(rows)


def summary(costs: list[VariantCost], jobs: list[Job], device: Device) -> list[str]:
    """The sums over all runs, and what fits side by side."""
    macs = sum(one.runs * sum(vars(one.work).values()) for one in costs)
    trained = sum(one.runs * one.work.training for one in costs)
    kept = sum(one.runs * one.disk.kept for one in costs)
    lines = [
        f"All runs: {with_prefix(macs)} MACs, {with_prefix(trained)} of them training; {kept / GIB:,.2f} GiB of disk"
    ]
    train, score, probe, whole = (
        sum_over_runs(costs, [getattr(one, name) for one in costs])
        for name in ("train_h", "score_h", "probe_h", "whole_h")
    )
    lines[0] += f", and {max(one.disk.most - one.disk.kept for one in costs) / 2**20:,.0f} MiB for each that trains."
    if train is None or score is None or whole is None:
        return lines
    of_device = "GPU-hours" if device.kind == "cuda" else "hours"
    parts = [f"{format_hours(train)} training", f"{format_hours(score)} test clips"]
    parts.append("without the probe" if probe is None else f"{format_hours(probe)} the probe")
    lines.append(f"On {device.name}, one run after the other: {whole:,.2f} {of_device} ({', '.join(parts)}).")
    return [*lines, *side_by_side(costs, jobs, device)]


def sum_over_runs(costs: list[VariantCost], one_run: list[float | None]) -> float | None:
    """The sum over all runs of what one run of each variant takes; None where it is not known."""
    known = [value for value in one_run if value is not None]
    if len(known) < len(one_run):
        return None
    return sum(one.runs * value for one, value in zip(costs, known, strict=True))


def side_by_side(costs: list[VariantCost], jobs: list[Job], device: Device) -> list[str]:
    """How many of the largest jobs fit on the device at once."""
    memory = most_memory(jobs)
    if memory is None or device.memory_mib is None:
        return ["Side by side: not known, as nothing tells the memory of a run and of the device; measure there."]
    by_memory, threads = int(device.memory_mib / memory), costs[0].run.training.threads
    room = f"{device.memory_mib / 2**10:,.1f} GiB hold {by_memory} of the largest {unit(jobs)}"
    if device.kind == "cuda":
        more = "`cohort` and `stack` put more into a job"
        return [f"Side by side: {room}; the workflow gives a GPU to one job at a time ({more})."]
    if device.cores is None:
        return [f"Side by side: {room}; its cores are not known."]
    by_cores = device.cores // threads
    if not by_memory:
        fewer = " and fewer runs in a job" * (unit(jobs) == "job")
        return [f"Side by side: {room}: this device cannot train them; training.recompute{fewer} needs less."]
    fit = min(by_memory, by_cores)
    cores = f"{device.cores} core(s) carry {by_cores} of {threads} thread(s)"
    return [f"Side by side: {room}, {cores}: snakemake --cores {device.cores} makes {max(fit, 1)} at a time."]


def explanations(protocol: Protocol, costs: list[VariantCost], device: Device) -> list[str]:
    """How each figure was got, and what is left out."""
    found = [macs_note(costs[0].run), DISK]
    if any(one.speed is None for one in costs):
        return [*found, how_to_measure(device, costs)]
    unknown = f" The probe is left out: no file of `speed --what probe` is of {device.name}."
    process = ", and 0.9 GiB for a process with its libraries" if device.kind == "cpu" else ", as PyTorch counts it"
    data = protocol.data
    clips = test_clips(data) * (data.context + data.horizon) * data.frame_size**2 / 2**20
    scored = f"; to be scored, the test clips take {clips:,.0f} MiB of the machine's memory."
    if not kind_of(data).in_memory:
        scored = "; the test clips are read from disk."
    found += [f"{HOURS}{'' if costs[0].probe_speed else unknown}", *speed_notes(costs), f"{MEMORY}{process}{scored}"]
    if protocol.stack > 1 and trains(protocol):
        found.append(STACKED)
    if protocol.training.device == "cuda" and device.kind == "cpu":
        found.append(
            "The protocol asks for cuda, and no CUDA device is visible here: hours and memory are those of"
            f" {device.name}. Name a GPU's file with --speed, or measure on one: {speed_command(costs[0].run, 'cuda')}"
        )
    return found


DISK = (
    "Disk of a run: bytes of its arrays (weights twice and once more for each of probe.steps; scores and gradient norms"
    " in 8 bytes a number; curves), with LPIPS. At most: with two checkpoints of weights and Adam's moments, which go"
    " when the run ends. Left out: the data folder, animations and figures (a few MiB at most), MLflow's copy."
)
HOURS = (
    "Time: MACs x 2 over the FLOP/s that a measured training step reached; evaluation at the same rate. An estimate:"
    " the rate holds for one size of network and one state of the machine. Left out: metrics and LPIPS, checkpoints,"
    " starts of processes, tables and figures."
)
MEMORY = (
    "Memory of a run: the measured peak of that file, scaled by what the reference path keeps for the backward pass"
    " (counted), with weights and Adam's moments"
)

STACKED = (
    "Stacked runs: hours as one after the other, about what whole trainings took on a CPU"
    " (docs/speed_experiments.md); what a GPU saves, `speed --what cohort --stack N` measures there. Memory of a job:"
    " a stack has a step of all its runs at once, with the weights and gradients of its one network; on a CPU networks"
    " of a job take turns."
)


def macs_note(run: RunConfig) -> str:
    """How the MACs of a protocol were counted, with the numbers of `run`."""
    training, data = run.training, run.data
    tested = f"{data.test_clips:,} test clips" if data.test_clips else "left out, as only the data tell how many"
    twice = " x 2 (each batch again, reversed in time)" if training.reversed_second_step else ""
    return (
        "MACs: multiply-accumulates of the convolutions, counted by torch's FLOP counter without running them; a clip"
        f" is one forward pass over {data.context} + {data.horizon} frames. Training: {training.steps:,} steps x batch"
        f" {training.batch_size}{twice} = {clips_trained(run):,} clips x 3 passes (1 forward, 2 backward). Validation:"
        f" {data.validation_clips:,} clips at each validation. Evaluation: {tested}. Probe:"
        f" {run.probe.clips:,} clips, {probe_passes(run) / run.probe.clips:.0f} passes, roughly. ({run.variant}; others"
        " by their own keys.)"
    )


def speed_notes(costs: list[VariantCost]) -> list[str]:
    """Which measured speeds were taken, for what, and how they differ from it."""
    used: dict[tuple[Speed, tuple[str, ...]], list[VariantCost]] = {}
    for one in costs:
        if one.speed is not None:
            used.setdefault((one.speed, tuple(one.speed.mismatches(one.run))), []).append(one)
    lines = []
    for (speed, mismatches), those in used.items():
        low, *_, high = sorted([step_ratio(speed, one.run) for one in those] * 2)
        ratio = f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"
        other = f"; measured with {', '.join(mismatches)}" if mismatches else ""
        lines.append(
            f"{speed.name}: {flops_per_s(speed):.3g} FLOP/s, {speed.about()}, {ratio} times the MACs in a time step"
            f" of a batch{other}. For {', '.join(one.run.variant for one in those)}."
        )
    probes = {one.probe_speed.name: one.probe_speed for one in costs if one.probe_speed}
    return lines + [
        f"{name}: {flops_per_s(one):.3g} FLOP/s, {one.about()}. For the probe." for name, one in probes.items()
    ]


def how_to_measure(device: Device, costs: list[VariantCost]) -> str:
    """What to do where no speed of the device was measured."""
    return (
        f"Hours, memory and what fits side by side: not known, as no training step was measured on {device.name}"
        f" (results/reference/speed). Measure one, in minutes, and give its file with --speed:"
        f" {speed_command(next((one.run for one in costs if one.run.model.layers), None), device.kind)}"
    )


def speed_command(run: RunConfig | None, kind: str) -> str:
    """The command that measures the training step of `run`, a network of ours, or that of the usual one."""
    if run is None:
        return command_line("python", "-m", "benchmark", "speed", "--device", kind, "--json", "speed.json")
    model, training = run.model, run.training
    assert isinstance(model, ModelSpec)
    options = {
        "device": kind,
        "variant": similar_variant(run),
        "hidden-channels": ",".join(map(str, model.hidden_channels)),
        "norm": model.norm,
        "frame-size": model.frame_size,
        "patch-size": model.patch_size,
        "kernel-size": model.kernel_size,
        "batch-size": training.batch_size,
        "context": run.data.context,
        "horizon": run.data.horizon,
        "precision": training.precision,
        **({"threads": training.threads} if kind == "cpu" else {}),
        "json": "speed.json",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return command_line("python", "-m", "benchmark", "speed", *words)


def similar_variant(run: RunConfig) -> str:
    """A registered variant of the cell of `run`, with a highway if it has one; the first for a cell that has none."""
    wanted = run.model.cell, bool(run.model.highway_slot)
    return next((name for name, one in VARIANTS.items() if (one.cell, bool(one.slot)) == wanted), next(iter(VARIANTS)))


def with_prefix(value: int) -> str:
    """A large number in three digits and a letter."""
    power = min(max(math.floor(math.log10(value)) // 3, 0), 6) if value else 0
    return f"{value / 1000**power:.4g} {' kMGTPE'[power]}".strip()


def format_hours(hours: float | None) -> str:
    """Hours in the unit that suits them."""
    if hours is None:
        return MISSING
    if hours >= 2:
        return f"{hours:,.0f} h" if hours >= 100 else f"{hours:.3g} h"
    return f"{60 * hours:.3g} min" if 60 * hours >= 2 else f"{3600 * hours:.3g} s"

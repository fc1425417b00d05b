"""The jobs that train a protocol's runs: which runs share one, which are stacked, what memory and time that takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.config.probe_stages import trains
from benchmark.config.protocol import Protocol
from benchmark.cost.estimate import VariantCost, held_mib, process_mib, step_mib, weights_mib
from benchmark.training.acceleration.stacked_step import common_part, why_by_itself


@dataclass(frozen=True)
class Job:
    """The runs that one process trains."""

    device: str
    """`cpu` or `cuda`."""
    networks: tuple[tuple[VariantCost, ...], ...]
    """What is trained as one network: a stack with an entry for each run, or a run that takes turns with the others."""

    @property
    def runs(self) -> list[VariantCost]:
        """An entry for each run."""
        return [one for network in self.networks for one in network]

    @property
    def train_h(self) -> float | None:
        """Hours of its training, a stack counted as its runs one after the other; None where no speed tells."""
        known = [one.train_h for one in self.runs]
        return None if None in known else sum(filter(None, known))

    @property
    def memory_mib(self) -> float | None:
        """Peak of its training; None where no speed tells.

        A stack has a step of all its runs in memory, and the weights and gradients of its one network. On a CPU
        networks take turns; a captured graph keeps its memory on a GPU.
        """
        steps = []
        for network in self.networks:
            found = [one.speed and step_mib(one.run, one.speed) for one in network]
            if None in found:
                return None
            joint = sum(2 * weights_mib(one.run) for one in network) if len(network) > 1 else 0.0
            steps.append(sum(filter(None, found)) + joint)
        held = sum(held_mib(one.run) for one in self.runs)
        return (max(steps) if self.device == "cpu" else sum(steps)) + held + process_mib(self.device)


def training_jobs(protocol: Protocol, costs: Sequence[VariantCost], device: str) -> list[Job]:
    """The jobs of `protocol` on a device of this kind, in the order of the workflow."""
    by_variant, jobs = {one.run.variant: one for one in costs}, []
    for variants, seeds in protocol.groups():
        networks: dict[Any, list[VariantCost]] = {}
        for variant in variants:
            one = by_variant[variant]
            form = common_part(one.run, device, one.run.training.threads)
            for seed in seeds:
                networks.setdefault(form or (variant, seed), []).append(one)
        jobs.append(Job(device, tuple(map(tuple, networks.values()))))
    return jobs


def job_lines(protocol: Protocol, jobs: Sequence[Job]) -> list[str]:
    """How many jobs there are, and which runs take turns in theirs; nothing where each run has a job of its own."""
    largest = max(len(job.runs) for job in jobs)
    if largest == 1 or not trains(protocol):
        return []
    stacked = max(len(network) for job in jobs for network in job.networks)
    as_one = f", up to {stacked} of them as one network" if stacked > 1 else ""
    sizes = f"cohort {protocol.cohort}, stack {protocol.stack}"
    lines = [f"Training: {len(jobs)} jobs of up to {largest} runs{as_one} ({sizes})."]
    reasons: dict[str, list[str]] = {}
    for job in jobs:
        for one in job.runs:
            training = one.run.training
            why = why_by_itself(one.run.model, training.batch_size, job.device, training.threads)
            if protocol.stack > 1 and why:
                reasons.setdefault(why, []).append(one.run.variant)
    lines += [
        f"Not stacked, but one after the other in their job: {', '.join(dict.fromkeys(variants))} ({why})."
        for why, variants in reasons.items()
    ]
    return lines

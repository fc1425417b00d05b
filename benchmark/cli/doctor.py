"""What this machine has for the benchmark, what it lacks, and what to do about that."""

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from benchmark.config.code_sources import ROOT
from benchmark.config.protocol import Protocol
from benchmark.data.kinds import kind_of
from benchmark.evaluation.lpips_backbone import look_for
from benchmark.reporting.tracking.store import look_at_store
from benchmark.system.devices import cpu_model, cuda_count
from benchmark.system.errors import UserError
from benchmark.system.memory import memory_of
from benchmark.training import provenance

LOCK = ROOT / "requirements.lock"
GIB = 2**30
ROOM_GIB = 5
"""Free disk below which a protocol may not find room: `quick` leaves less than one GiB, the set-up six."""


class Finding(NamedTuple):
    """One line of the doctor."""

    state: str
    """`ok`, `note` (works, with less) or `problem`."""
    about: str
    told: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.state:8}{self.about:10}{self.told}" + (f"\n{'':18}-> {self.cure}" if self.cure else "")


def examine(protocol: Protocol, data_dir: Path, results_dir: Path) -> Iterator[Finding]:
    """All findings, each as soon as it is known."""
    yield Finding("ok", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield packages()
    yield processor()
    yield gpus()
    yield disk(results_dir)
    yield of_user("data", lambda: kind_of(protocol.data).look(protocol, data_dir))
    yield backbone(protocol, data_dir)
    yield of_user("mlflow", look_at_store)
    yield git()


def packages() -> Finding:
    """Whether the packages are those of the lock."""
    pins = [Requirement(line) for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
    wanted = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    missing, other = [], []
    for pin in wanted:
        try:
            version = importlib.metadata.version(pin.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(pin.name)
            continue
        if not pin.specifier.contains(version, prereleases=True):
            other.append(f"{pin.name} {version} ({pin.specifier})")
    cure = "pip install -r requirements.lock"
    if missing:
        return Finding(
            "problem", "packages", f"{len(missing)} of {len(wanted)} are missing: {', '.join(missing)}", cure
        )
    if other:
        told = f"{len(other)} of {len(wanted)} have other versions than the lock: {', '.join(other)}"
        return Finding("note", "packages", told, f"{cure}, if numbers are to be compared with published ones")
    return Finding("ok", "packages", f"all {len(wanted)} as in requirements.lock")


def processor() -> Finding:
    """The CPU, its cores open to this process, and memory."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = memory_of("cpu") / 2**10
    capability = torch.backends.cpu.get_cpu_capability()
    return Finding("ok", "cpu", f"{cpu_model()}, {cores} cores, {capability}, {memory:.0f} GiB of memory")


def gpus() -> Finding:
    """The GPUs, or that there is none."""
    if not cuda_count():
        return Finding("note", "gpu", "none is visible; everything runs on the CPU, protocols `gpu` and `paper` slowly")
    import torch

    if not torch.cuda.is_available():
        told = f"the driver shows {cuda_count()}, but torch {torch.__version__} cannot use them"
        return Finding("problem", "gpu", told, "install a torch that is built for this driver's CUDA")
    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return Finding("ok", "gpu", "; ".join(f"{one.name}, {one.total_memory / GIB:.0f} GiB" for one in found))


def disk(results_dir: Path) -> Finding:
    """Room for results, and whether they may be written."""
    there = next(folder for folder in (results_dir.absolute(), *results_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free / GIB
    if not os.access(there, os.W_OK):
        return Finding("problem", "results", f"{there} cannot be written to", "name another folder with --results-dir")
    if free < ROOM_GIB:
        return Finding("problem", "results", f"{there}: {free:.1f} GiB are free", f"make room for {ROOM_GIB} GiB")
    return Finding("ok", "results", f"{results_dir}: {free:.0f} GiB are free")


def backbone(protocol: Protocol, data_dir: Path) -> Finding:
    """The network under LPIPS; without it everything else is measured."""
    net = protocol.evaluation.lpips_backbone
    try:
        record = look_for(net, data_dir, download=False)
    except UserError as error:
        return Finding("problem", "lpips", *halves(error))
    if "how" in record:
        return Finding("note", "lpips", f"{net}: {record['status']}", record["how"])
    return Finding("ok", "lpips", f"{net}: {record['file']}")


def git() -> Finding:
    """The commit that results will name."""
    commit, changes = provenance.git("rev-parse", "--short=12", "HEAD"), provenance.git("status", "--porcelain")
    if commit is None:
        return Finding("note", "git", "not a git checkout, so that results name no commit", "work in a clone")
    return Finding("ok", "git", f"{commit}{', with changes that results will mention' if changes else ''}")


def of_user(about: str, look: Callable[[], str]) -> Finding:
    """What `look` tells, or the problem that it names."""
    try:
        return Finding("ok", about, look())
    except UserError as error:
        return Finding("problem", about, *halves(error))


def halves(error: UserError) -> tuple[str, str]:
    """What is wrong and what to do, as messages have them on both sides of a semicolon."""
    told, _, cure = str(error).partition("; ")
    return told, cure


def report(protocol: Protocol, data_dir: Path, results_dir: Path) -> bool:
    """Print all findings; whether there is no problem."""
    states = []
    for finding in examine(protocol, data_dir, results_dir):
        print(finding, flush=True)
        states.append(finding.state)
    print(f"problems: {states.count('problem')}, notes: {states.count('note')}")
    return "problem" not in states

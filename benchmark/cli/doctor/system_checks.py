"""Checks of this machine: Python, packages, processors, memory, compiler, folders, git."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmark.cli.doctor.finding import Finding, Question
from benchmark.config.protocol import Protocol, RunConfig
from benchmark.system.console import command_line
from benchmark.system.devices import cpu_model, cuda_count, why_torch_cannot_use_gpus
from benchmark.system.installation import EXTRAS, INSTALLED, ROOT, remedy
from benchmark.system.memory import memory_of
from benchmark.system.storage import nearest_existing

LOCK = ROOT / "requirements.lock"
GIB, MIB = 2**30, 2**20
ROOM_GIB = 5
"""Free disk below which a protocol may not find room: `quick` leaves less than one GiB, the set-up six."""
SHARED_MEMORY = Path("/dev/shm")
"""Where Linux keeps memory that processes share."""


def python_version(question: Question) -> Finding:
    """The interpreter."""
    return Finding("ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def packages(question: Question) -> Finding:
    """Whether the packages are those of the lock, or where pip installed this one, whether its extras are there."""
    if INSTALLED:
        return extras()
    from packaging.requirements import Requirement

    lines = [line.rstrip("\\ ") for line in LOCK.read_text().splitlines()]
    pins = [Requirement(line) for line in lines if line and line[0] not in "# "]  # below stand the checksums
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
    how = "pip install -r requirements.lock"
    if missing:
        return Finding("problem", f"{len(missing)} of {len(wanted)} are missing: {', '.join(missing)}", how)
    if other:
        what = f"{len(other)} of {len(wanted)} have other versions than the lock: {', '.join(other)}"
        return Finding("note", what, f"{how}, if numbers are to be compared with published ones")
    return Finding("ok", f"all {len(wanted)} as in requirements.lock")


def extras() -> Finding:
    """Which extras of the installed package lack something, a command each."""
    lacking = {
        extra: missing
        for extra, modules in EXTRAS.items()
        if (missing := [name for name in modules if importlib.util.find_spec(name) is None])
    }
    if not lacking:
        return Finding("ok", "all extras are installed")
    what = "; ".join(f"{extra} lacks {', '.join(missing)}" for extra, missing in lacking.items())
    return Finding("note", what, "; ".join(f"{remedy(missing[0])}" for missing in lacking.values()))


def processor(question: Question) -> Finding:
    """The CPU, its cores open to this process, and memory."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = memory_of("cpu") / 2**10
    capability = torch.backends.cpu.get_cpu_capability()
    return Finding("ok", f"{cpu_model()}, {cores} cores, {capability}, {memory:.0f} GiB of memory")


def gpus(question: Question) -> Finding:
    """The GPUs, or that there is none."""
    if not cuda_count():
        return Finding("note", "none is visible; everything runs on the CPU, protocols `gpu` and `paper` slowly")
    if why := why_torch_cannot_use_gpus():
        what = f"the driver shows {cuda_count()}, but {why}"
        return Finding("problem", what, "install a torch that is built for this driver's CUDA")
    import torch

    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return Finding("ok", "; ".join(f"{gpu.name}, {gpu.total_memory / GIB:.0f} GiB" for gpu in found))


def compiler(question: Question) -> Finding | None:
    """What Triton needs to start its kernels, where a protocol runs on a GPU."""
    if runs_on_cpu(question.protocol):
        return None
    from models.fast_path.fused_roll_out import why_no_kernels

    if why := why_no_kernels():
        remedy = "install it (Debian: apt-get install gcc python3-dev), or do without: each cell then runs unfused"
        return Finding("problem", why, remedy)
    return Finding("ok", "Triton, a C compiler and the headers of Python, for the fused stages")


def shared_memory(question: Question) -> Finding | None:
    """Room in /dev/shm for the parts of a batch, where a protocol has several threads on a CPU."""
    protocol = question.protocol
    threads = protocol.training.threads
    if threads == 1 or not runs_on_cpu(protocol) or not SHARED_MEMORY.is_dir():
        return None
    needed = protocol.cohort * protocol.stack * max(shared_bytes(run) for run in first_runs(protocol)) / MIB
    free = shutil.disk_usage(SHARED_MEMORY).free / MIB
    what = f"{SHARED_MEMORY}: {free:.0f} MiB are free, training.threads {threads} needs {needed:.0f} a job"
    if free < needed:
        more = f"make it larger (docker run --shm-size={needed * 1.5:.0f}m)"
        return Finding("problem", what, f"{more}, or set training.threads: 1")
    return Finding("ok", what)


def shared_bytes(run: RunConfig) -> int:
    """What the processes of `DataParallelCpu` share: weights, gradients and frames, seen and shown, of each part."""
    from models.counts import count_parameters

    others = min(run.training.threads, run.training.batch_size) - 1
    frames = run.data.context + run.data.trained_horizon
    clip = 2 * frames * run.model.channels * run.model.frame_size**2 + frames
    part = -(-run.training.batch_size // (others + 1))
    return 4 * others * (2 * count_parameters(run.model) + 1 + part * clip)


def results_folder(question: Question) -> Finding:
    """Room for results, and whether they may be written."""
    there = nearest_existing(question.results_dir.absolute())
    free = shutil.disk_usage(there).free / GIB
    if not takes_files(there):
        return Finding("problem", f"{there} cannot be written to", "name another folder with --results-dir")
    if free < ROOM_GIB:
        return Finding("problem", f"{there}: {free:.1f} GiB are free", f"make room for {ROOM_GIB} GiB")
    return Finding("ok", f"{question.results_dir}: {free:.0f} GiB are free")


def cache_folder(question: Question) -> Finding:
    """Whether Snakemake can write its cache, which it needs before its first rule."""
    set_by = "XDG_CACHE_HOME" if os.environ.get("XDG_CACHE_HOME") else "HOME"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if takes_files(nearest_existing(folder)):
        return Finding("ok", f"{folder}")
    return Finding(
        "problem",
        f"{folder} of {set_by} cannot be written to, and Snakemake keeps its sources there",
        "let XDG_CACHE_HOME name a folder of yours, as in `export XDG_CACHE_HOME=$PWD/.cache`",
    )


def git_commit(question: Question) -> Finding:
    """The commit that results will name, or the reason why they name none."""
    if INSTALLED:
        return Finding(
            "note", "installed by pip, so that results name the hash of the code and no commit", "work in a clone"
        )
    if shutil.which("git") is None:
        return Finding("note", "git is not found, so that results name no commit", "install git")
    done = run_git("rev-parse", "--short=12", "HEAD")
    if done.returncode and "dubious ownership" in done.stderr:
        what = f"{ROOT} belongs to another user, so that git does not read it and results name no commit"
        return Finding("note", what, command_line("git", "config", "--global", "--add", "safe.directory", str(ROOT)))
    if done.returncode and "not a git repository" in done.stderr:
        return Finding("note", "not a git checkout, so that results name no commit", "work in a clone")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[0]
        return Finding("note", f"git names no commit, nor will results: {reason}", "mend what git says")
    changed = run_git("status", "--porcelain").stdout
    return Finding("ok", f"{done.stdout.strip()}{', with changes that results will mention' if changed else ''}")


def run_git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git at the top level, in English."""
    environment = os.environ | {"LC_ALL": "C"}
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace"
    )


def takes_files(folder: Path) -> bool:
    """Whether a file can be made in `folder`: permissions alone do not say so for root or a read-only disk."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def first_runs(protocol: Protocol) -> list[RunConfig]:
    """One run of each variant."""
    return [protocol.first_run(entry.id) for entry in protocol.variants]


def runs_on_cpu(protocol: Protocol) -> bool:
    """Whether the protocol's device is the CPU on this machine."""
    device = protocol.training.device
    return device == "cpu" or (device == "auto" and not cuda_count())

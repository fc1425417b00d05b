"""What is said where memory runs out, how much a process took, and how much there is."""

import contextlib
import multiprocessing
import os
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmark.system.errors import ProcessError, UserError, is_out_of_memory

SHARED_MEMORY = Path("/dev/shm")
"""Where the memory that processes share is taken from; a container has 64 MiB there unless it is told otherwise."""
_CGROUP = Path("/sys/fs/cgroup")


def peak_mib(device: str) -> float:
    """Peak memory of this process and those it works with, or what PyTorch allocated on its GPU, in MiB."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    return resident("VmHWM")


def worker_pids() -> list[int]:
    """This process, and those that take parts of its batches."""
    return [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]


def resident(field: str) -> float:
    """A field of the kernel's status, such as VmRSS, summed over `worker_pids`, in MiB."""
    lines = [line for one in worker_pids() for line in Path(f"/proc/{one}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 2**10


def memory_of(device: str) -> float:
    """Memory of this machine, or of the GPU that this process has, in MiB."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / 2**20
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20


def available_bytes() -> int:
    """Memory that this process can still get: of the machine, its swap, its container and its own limit."""
    system = _numbers("/proc/meminfo")
    found = [1024 * (system.get("MemAvailable", 2**50) + system.get("SwapFree", 0))]
    most, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if most.exists() and most.read_text().strip().isdigit():
        cached = _numbers(_CGROUP / "memory.stat").get("inactive_file", 0)
        found.append(int(most.read_text()) - int(used.read_text()) + cached)
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        found.append(limit - 1024 * _numbers("/proc/self/status").get("VmSize", 0))
    return max(min(found), 0)


def _numbers(path: str | Path) -> dict[str, int]:
    """Name -> first number, of a file of the kernel with one of each a line."""
    lines = [line.replace(":", " ").split() for line in Path(path).read_text().splitlines()]
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}


def lack_of_memory(title: str, needs: Mapping[str, int]) -> str | None:
    """What is said where this machine has too little memory for what will be computed; None where it has enough.

    Args:
        title: what will be computed.
        needs: key with its value, such as `data.test_clips: 200` -> bytes.
    """
    free = available_bytes()
    if sum(needs.values()) <= free:
        return None
    largest = max(needs, key=lambda key: needs[key])
    return (
        f"{title}: {largest} takes {needs[largest] / 2**30:,.1f} GiB of memory, and {free / 2**30:,.1f} GiB are"
        " available here; make it smaller, or use a machine with more memory"
    )


@contextlib.contextmanager
def within_memory(title: str, needs: Mapping[str, int]) -> Iterator[None]:
    """Compute the body only if there is the memory for it; where it lacks after all, that is one message as well.

    Raises:
        UserError: there is too little, with the key that takes most; see `lack_of_memory`.
    """
    if message := lack_of_memory(title, needs):
        raise UserError(message)
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        largest = max(needs, key=lambda key: needs[key], default=None)
        cure = f"make {largest} smaller, or give it more memory" if largest else "give it more memory"
        raise UserError(f"{title}: out of memory (peak {peak_mib('cpu'):,.0f} MiB); {cure}") from None


def check_shared_memory(needed: int, key: str) -> None:
    """Refuse what needs more memory shared between processes than there is, which would end in a bus error.

    Args:
        needed: bytes.
        key: the key that asks for several processes, and the value that asks for one.

    Raises:
        UserError: says how much is needed and free.
    """
    system = os.statvfs(SHARED_MEMORY)
    free = system.f_bavail * system.f_frsize
    if needed > free:
        raise UserError(
            f"{SHARED_MEMORY}: {needed / 2**20:,.1f} MiB of shared memory needed, {free / 2**20:,.1f} MiB are free;"
            f" give the container more (docker run --shm-size={-(-needed // 2**30) + 1}g), or set {key}"
        )


def out_of_memory_message(title: str, batch_size: int, device: str) -> str:
    """Says that `title` was out of memory, with what it took."""
    return f"{title}: out of memory with batches of {batch_size} clips (peak {peak_mib(device):,.0f} MiB)"


@contextlib.contextmanager
def report_out_of_memory(title: str, batch_size: int, device: str, key: str) -> Iterator[None]:
    """Turn a lack of memory in the body into one message.

    Args:
        title: what ran out of memory.
        batch_size: clips that were in memory at once.
        device: `cpu` or `cuda`.
        key: key or option that sets `batch_size`.

    Raises:
        ProcessError: in place of the error that said so; any other goes through.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        message = f"{out_of_memory_message(title, batch_size, device)}; make {key} smaller or give it more memory"
        raise ProcessError(f"{message}, then run the same command again") from None

"""What is said where memory runs out, how much a process took, and how much there is."""

import contextlib
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

from benchmark.system.errors import ProcessError, is_out_of_memory


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
    """Memory of this machine, or of its GPU, in MiB."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_properties(0).total_memory / 2**20
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20


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
        OwnError: in place of the error that said so; any other goes through.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        message = f"{out_of_memory_message(title, batch_size, device)}; make {key} smaller or give it more memory"
        raise ProcessError(f"{message}, then run the same command again") from None

"""What is said where memory runs out, and how much a process took."""

import contextlib
import resource
from collections.abc import Iterator

from benchmark.errors import OwnError, is_out_of_memory


def peak_mib(device: str) -> float:
    """Peak memory of this process, or what PyTorch allocated on its GPU, in MiB."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def shortage(title: str, batch_size: int, device: str) -> str:
    """Says that `title` was out of memory, with what it took."""
    return f"{title}: out of memory with batches of {batch_size} clips (peak {peak_mib(device):,.0f} MiB)"


@contextlib.contextmanager
def told(title: str, batch_size: int, device: str, key: str) -> Iterator[None]:
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
        message = f"{shortage(title, batch_size, device)}; make {key} smaller or give it more memory"
        raise OwnError(f"{message}, then run the same command again") from None

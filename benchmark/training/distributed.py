"""What the processes of one run exchange. Where there is one alone, every function gives back what it got.

Not PyTorch's `DistributedDataParallel`: that hooks into `backward()`, while our step takes gradients by
`autograd.grad`, on parts of a batch, and on a GPU is one graph. One sum of all gradients before they are clipped does
the same.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from benchmark.system import processes
from benchmark.system.errors import UserError, is_out_of_memory

T = TypeVar("T")
_NONE = object()


@contextlib.contextmanager
def process_group(device: str) -> Iterator[None]:
    """For the body, the processes of this run can exchange tensors; begins once all are here."""
    if processes.count() == 1:
        yield
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    yield
    dist.destroy_process_group()  # not after an error: it might wait for a process that is gone


@contextlib.contextmanager
def _loss_of_a_process_named() -> Iterator[None]:
    """Turn the loss of another process into one line."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]
        raise UserError(f"another process of this run has ended ({reason}); the same command goes on") from error


def add_up(loss: Float[Tensor, ""], gradients: Sequence[Tensor]) -> Float[Tensor, ""]:
    """Add up, in place, the gradients that each process has of its share of a batch; returns the sum of their losses.

    One tensor travels, not one a parameter. All processes get the same bits, and so judge and step alike.
    """
    if processes.count() == 1:
        return loss
    flat = torch.cat([loss.reshape(1), *(gradient.reshape(-1) for gradient in gradients)])
    with _loss_of_a_process_named():
        dist.all_reduce(flat)
    total, *sums = flat.split([1, *(gradient.numel() for gradient in gradients)])
    for gradient, found in zip(gradients, sums, strict=True):
        gradient.copy_(found.view_as(gradient))
    return total[0]


def total(value: float) -> float:
    """The sum of every process's `value`."""
    if processes.count() == 1:
        return value
    found = torch.tensor(value, dtype=torch.float64)
    with _loss_of_a_process_named():
        dist.all_reduce(found)
    return found.item()


def agree_on_signal(signal: int | None) -> int | None:
    """The signal that any process was sent, lest one stops at a step that others wait for it in."""
    if processes.count() == 1:
        return signal
    found = torch.tensor(signal or 0)
    with _loss_of_a_process_named():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found.item()) or None


def barrier() -> None:
    """Wait until all processes are here: torchrun ends those that are left as soon as one has ended with an error."""
    total(0.0)


def from_first_process(make: Callable[[], T]) -> T:
    """What `make` gives in the first process, for all.

    Raises:
        UserError: it was raised there; in the others, too, so that none waits for ever.
    """
    if processes.count() == 1:
        return make()
    outcome: list[Any] = [None, None]
    if processes.is_first():
        try:
            outcome = [make(), None]
        except UserError as error:
            dist.broadcast_object_list([None, str(error)])
            raise
    with _loss_of_a_process_named():
        dist.broadcast_object_list(outcome)
    made, mistake = outcome
    if mistake is not None:
        raise UserError(mistake)
    return made


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of `items`: each is in one part, and no part is longer than another by more than one."""
    return items[processes.rank() :: processes.count()]


def gathered(parts: list[T]) -> list[T]:
    """What the processes made of their `share`, in the order of all items; every process gets it."""
    if processes.count() == 1:
        return parts
    found: list[Any] = [None] * processes.count()
    with _loss_of_a_process_named():
        dist.all_gather_object(found, parts)
    return [part for turn in zip_longest(*found, fillvalue=_NONE) for part in turn if part is not _NONE]

"""A batch in parts on a CPU, one process a part.

Threads that share every small operation wait for each other thousands of times a step, and threads that have a part
each wait for Python between their operations; processes wait for nothing but the last of them.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from benchmark.config.sections import TrainingConfig
from benchmark.system.devices import prepare_device
from benchmark.system.errors import UserError
from benchmark.system.memory import check_shared_memory
from benchmark.training import step as engine
from models.predictor import Predictor
from models.spec import ModelSpec


@dataclass
class Shared:
    """Memory that this process and one beside it both see."""

    weights: Tensor
    """All weights one after the other."""
    found: Tensor
    """All gradients of the part in the same order, and its loss."""
    batch: list[Tensor | None]
    """The part: frames, feed mask, inputs."""


class DataParallelCpu:
    """`engine.differentiate` by several processes: this one takes the first part of a batch, each other one more.

    Each computes on one thread. What they find is added in the order of the parts, so that the same batch gives the
    same bits again. The processes start at the first batch, whose shapes all others must have, and end with this
    object, or with this process, however it ends.

    Args:
        count: of parts, above 1.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._others: list[tuple[Shared, Connection]] = []

    def __call__(
        self, network: Predictor, training: TrainingConfig, *batch: Tensor | None
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The loss of the batch and its gradients by parameter.

        Raises:
            RuntimeError, MemoryError: there was no memory for a part.
            UserError: a process was ended from outside, or there is too little shared memory.
        """
        parts = list(zip(*(split(tensor, self.count) for tensor in batch), strict=True))
        weights = parameters_to_vector(network.parameters()).detach()
        if not self._others:
            self._start(network, training, weights, parts[1:])
        for (shared, connection), part in zip(self._others, parts[1:], strict=True):
            shared.weights.copy_(weights)
            for held, given in zip(shared.batch, part, strict=True):
                if held is not None:
                    held.copy_(given)
            ask(connection)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            loss, gradients = engine.differentiate(network, training, *parts[0])
        finally:
            torch.set_num_threads(threads)
            errors = [answer(connection) for _, connection in self._others]
        for error in errors:
            if error is not None:
                raise error
        found = torch.cat([*(gradient.flatten() for gradient in gradients), loss[None]])
        for shared, _ in self._others:
            found += shared.found
        sizes = [gradient.numel() for gradient in gradients]
        pieces = found[:-1].split(sizes)
        return found[-1], [piece.view_as(like) for piece, like in zip(pieces, gradients, strict=True)]

    def _start(self, network: Predictor, training: TrainingConfig, weights: Tensor, parts: Sequence[tuple]) -> None:
        """Start one process a part, each with memory that it shares with this one."""
        tensors = [tensor for part in parts for tensor in part if tensor is not None]
        shared_bytes = sum(tensor.nbytes for tensor in tensors) + len(parts) * (2 * len(weights) + 1) * weights.itemsize
        check_shared_memory(shared_bytes, f"training.threads: 1 in place of {self.count}")
        context, processes = multiprocessing.get_context("spawn"), []
        for part in parts:
            batch = [None if tensor is None else tensor.clone().share_memory_() for tensor in part]
            found = weights.new_empty(len(weights) + 1).share_memory_()
            shared = Shared(weights.clone().share_memory_(), found, batch)
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(network.spec, training, shared, theirs), daemon=True)
            process.start()
            theirs.close()
            self._others.append((shared, ours))
            processes.append(process)
        # With a priority it comes before multiprocessing's own end, which would send TERM and wait for an answer to it.
        Finalize(self, end, (processes, [connection for _, connection in self._others]), exitpriority=1)


def split(tensor: Tensor | None, count: int) -> Sequence[Tensor | None]:
    """`count` parts of the batch, the first ones larger by one clip where it does not divide."""
    return [None] * count if tensor is None else tensor.tensor_split(count)


def ask(connection: Connection) -> None:
    """Let a process begin; one that is gone says so by its `answer`."""
    with contextlib.suppress(BrokenPipeError):
        connection.send(None)


def answer(connection: Connection) -> Exception | None:
    """Wait for a part; what went wrong with it, if anything did."""
    try:
        return connection.recv()
    except (EOFError, ConnectionResetError):
        return UserError(
            "a process that had a part of the batch was ended from outside (training.threads: one each), perhaps for"
            " its memory; the same command goes on from the last checkpoint"
        )


def end(processes: Sequence[BaseProcess], connections: Sequence[Connection]) -> None:
    """Close the pipes, by which the processes end by themselves."""
    for connection in connections:
        connection.close()
    for process in processes:
        process.join()


def work(spec: ModelSpec, training: TrainingConfig, shared: Shared, connection: Connection) -> None:
    """What a process does: a part at each message, until the pipe is closed, be it by the death of the other side.

    TERM and Ctrl-C reach all processes of a group, and it is not for this one to answer: the step goes to its end.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    prepare_device("cpu", 1)
    network = Predictor(spec).to(shared.weights.dtype)
    engine.arrange(network, training)
    vector_to_parameters(shared.weights, network.parameters())  # which are parts of that memory from now on
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        try:
            loss, gradients = engine.differentiate(network, training, *shared.batch)  # pyright: ignore[reportArgumentType]  # only inputs may be None
            torch.cat([*(gradient.flatten() for gradient in gradients), loss[None]], out=shared.found)
            error = None
        except (RuntimeError, MemoryError) as raised:
            error = RuntimeError(f"{raised}") if isinstance(raised, RuntimeError) else MemoryError(f"{raised}")
        try:
            connection.send(error)
        except BrokenPipeError:
            return

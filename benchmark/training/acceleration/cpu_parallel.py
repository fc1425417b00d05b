"""A batch in parts on a CPU, one process a part.

Threads that share every small operation wait for each other thousands of times a step, and threads that have a part
each wait for Python between their operations; processes wait for nothing but the last of them.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Iterator, Sequence
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
from benchmark.training.step import Batch, NoWorkers, backward, loss_on, set_computation
from models.predictor import Predictor
from models.spec import ModelSpec


@dataclass
class SharedMemory:
    """Memory that this process and one worker both see."""

    weights: Tensor
    """All weights one after the other."""
    found: Tensor
    """All gradients of the part in the same order, and its loss."""
    batch: Batch
    """The part."""


class DataParallelCpu(NoWorkers):
    """Several processes share each batch: this one takes the first part, each worker one more.

    Each computes on one thread. What they find is added in the order of the parts, so that the same batch gives the
    same bits again. The workers start at the first batch, whose shapes all others must have, and end with this
    object, or with this process, however it ends.

    Args:
        count: of parts, above 1.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._workers: list[tuple[SharedMemory, Connection]] = []

    @contextlib.contextmanager
    def sharing(self, network: Predictor, batch: Batch, training: TrainingConfig) -> Iterator[Batch]:
        """This process's part; the workers take theirs while the body runs, which is on one thread.

        The first parts are larger by one clip where `count` does not divide the batch.

        Raises:
            RuntimeError, MemoryError: there was no memory for a part.
            UserError: a worker was ended from outside, or there is too little shared memory.
        """
        own, *others = (Batch(*part) for part in zip(*(t.tensor_split(self.count) for t in batch), strict=True))
        weights = parameters_to_vector(network.parameters()).detach()
        if not self._workers:
            self._start(network, training, weights, others)
        for (shared, connection), part in zip(self._workers, others, strict=True):
            shared.weights.copy_(weights)
            for held, given in zip(shared.batch, part, strict=True):
                held.copy_(given)
            start_part(connection)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield own
        finally:
            torch.set_num_threads(threads)
            errors = [wait_for_part(connection) for _, connection in self._workers]
        for error in errors:
            if error is not None:
                raise error

    def add_up(self, loss: Tensor, gradients: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """Loss and gradients of the whole batch."""
        found = torch.cat([*(gradient.flatten() for gradient in gradients), loss[None]])
        for shared, _ in self._workers:
            found += shared.found
        pieces = found[:-1].split([gradient.numel() for gradient in gradients])
        return found[-1], [piece.view_as(like) for piece, like in zip(pieces, gradients, strict=True)]

    def _start(self, network: Predictor, training: TrainingConfig, weights: Tensor, parts: Sequence[Batch]) -> None:
        """Start one worker a part, each with memory that it shares with this process."""
        tensors = [tensor for part in parts for tensor in part]
        shared_bytes = sum(tensor.nbytes for tensor in tensors) + len(parts) * (2 * len(weights) + 1) * weights.itemsize
        check_shared_memory(shared_bytes, f"training.threads: 1 in place of {self.count}")
        context, processes = multiprocessing.get_context("spawn"), []
        for part in parts:
            batch = Batch(*(tensor.clone().share_memory_() for tensor in part))
            found = weights.new_empty(len(weights) + 1).share_memory_()
            shared = SharedMemory(weights.clone().share_memory_(), found, batch)
            ours, theirs = context.Pipe()
            process = context.Process(target=compute_parts, args=(network.spec, training, shared, theirs), daemon=True)
            process.start()
            theirs.close()
            self._workers.append((shared, ours))
            processes.append(process)
        # With a priority it comes before multiprocessing's own end, which would send TERM and wait for an answer to it.
        connections = [connection for _, connection in self._workers]
        Finalize(self, stop_workers, (processes, connections), exitpriority=1)


def start_part(connection: Connection) -> None:
    """Let a worker begin; `wait_for_part` finds one that is gone."""
    with contextlib.suppress(BrokenPipeError):
        connection.send(None)


def wait_for_part(connection: Connection) -> Exception | None:
    """Wait until a worker is through; what went wrong with its part, if anything did."""
    try:
        return connection.recv()
    except (EOFError, ConnectionResetError):
        return UserError(
            "a process that had a part of the batch was ended from outside (training.threads: one each), perhaps for"
            " its memory; the same command goes on from the last checkpoint"
        )


def stop_workers(processes: Sequence[BaseProcess], connections: Sequence[Connection]) -> None:
    """Close the pipes, by which the workers end by themselves."""
    for connection in connections:
        connection.close()
    for process in processes:
        process.join()


def compute_parts(spec: ModelSpec, training: TrainingConfig, shared: SharedMemory, connection: Connection) -> None:
    """What a worker does: a part at each message, until the pipe is closed, be it by the death of the other side.

    TERM and Ctrl-C reach all processes of a group, and it is not for this one to answer: the step goes to its end.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    prepare_device("cpu", 1)
    network = Predictor(spec).to(shared.weights.dtype)
    set_computation(network, training)
    vector_to_parameters(shared.weights, network.parameters())  # which are parts of that memory from now on
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        try:
            loss = loss_on(network, shared.batch, training)
            gradients = backward(network, loss)
            torch.cat([*(gradient.flatten() for gradient in gradients), loss.detach()[None]], out=shared.found)
            del loss, gradients  # until the next part
            error = None
        except (RuntimeError, MemoryError) as raised:
            error = RuntimeError(f"{raised}") if isinstance(raised, RuntimeError) else MemoryError(f"{raised}")
        try:
            connection.send(error)
        except BrokenPipeError:
            return

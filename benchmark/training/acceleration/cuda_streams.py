"""CUDA streams of their own for runs that share a GPU, so that it works for all of them at once."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from benchmark.training.run_state import RunState


def give_own_streams(cohort: Sequence[RunState]) -> None:
    """Give each run of a cohort a CUDA stream, if there are several."""
    if len(cohort) > 1:
        for state in cohort:
            state.cuda_stream = torch.cuda.Stream()


@contextlib.contextmanager
def on_own_stream(state: RunState, batch: Sequence[Tensor] = ()) -> Iterator[None]:
    """Let a GPU work for `state` beside the others, once `batch` is there; that is kept until `state` has used it.

    The host runs ahead of the GPU, and so do batches made for it, at most to the next loss that is read back.
    """
    if state.cuda_stream is None:
        yield
        return
    state.cuda_stream.wait_stream(torch.cuda.current_stream())
    for tensor in batch:
        tensor.record_stream(state.cuda_stream)
    with torch.cuda.stream(state.cuda_stream):
        yield

"""In which precision convolutions and products of matrices are computed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def low_precision(precision: str, device: str) -> torch.autocast:
    """The body, a forward pass, with convolutions in bfloat16 where `precision` is `bf16`."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def tensor_cores(precision: str, device: str) -> Iterator[None]:
    """The body, forward and backward pass, with products in TF32 where `precision` is `tf32` and the device a GPU.

    TF32 keeps 10 of the 23 digits of what is multiplied, and adds in float32. A CPU has none: it multiplies in float32.

    Args:
        precision: `fp32`, `tf32` or `bf16`.
        device: type of the device.
    """
    if precision != "tf32" or device != "cuda":
        yield
        return
    backends: tuple[Any, ...] = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = True
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed

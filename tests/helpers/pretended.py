"""A GPU that is not there: tensors of PyTorch's `FakeTensorMode` have shapes, types and devices, and no numbers.

Whatever needs a number of them on the host, or brings a tensor from one device to another, would wait for a GPU and is
an error here. PyTorch goes no way back (`autograd`) without a driver; that is left to the tests marked `gpu`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmark.data.moving_digits import occlusion
from benchmark.data.tensors import _grey_levels

KERNELS_WITHOUT_SHAPES = ("aten::_fused_adam_",)
"""In-place kernels of a GPU for which PyTorch has no form without numbers."""


class Waited(Exception):
    """The host would have waited for the GPU."""


class NoWaiting(TorchDispatchMode):
    """Raises `Waited` at an operation that a GPU's host waits for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Look at every operation, the optimiser's too."""
        if func is torch.ops.aten._local_scalar_dense.default:
            raise Waited("a number is read on the host")
        given = (args, kwargs or {})
        if func.name().partition(".")[0] in KERNELS_WITHOUT_SHAPES:
            assert devices(given) == {"cuda"}
            return None
        result = func(*args, **kwargs or {})
        # Stricter than a GPU, for which a number of the host goes along with a kernel.
        if len(devices(given) | devices(result)) > 1:
            raise Waited(f"{func.name()} goes from {devices(given)} to {devices(result)}")
        return result


def devices(values: Any) -> set[str]:
    """The devices of all tensors in `values`."""
    return {value.device.type for value in tree_leaves(values) if isinstance(value, Tensor)}


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Let new tensors be pretended, on `cuda` if nothing else is said."""
    tables = (_grey_levels, occlusion._table)
    for table in tables:
        table.cache_clear()  # real tensors would be in them
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
            yield
    finally:
        for table in tables:
            table.cache_clear()

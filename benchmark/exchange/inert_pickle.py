"""A stand-in for `pickle` that builds tensors, numbers and texts, and makes nothing of all else: no code is run.

`torch.load(..., pickle_module=...)` takes it: its `load` for the head of an old file, its `Unpickler` for what the file
holds. Every class or function that a file names and that does not build a tensor becomes `Inert`, which takes any
arguments and any state and does nothing with them.
"""

import collections
import pickle
from collections.abc import Callable
from typing import IO, Any

import torch
import torch._utils

TYPES: dict[tuple[str, str], type] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): torch.Size,
}
"""(module, name) of the types that hold tensors and their shapes."""
BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", name): getattr(torch._utils, name)
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")
}
"""(module, name) of the functions that build tensors."""


class Inert:
    """What stands for an object of a class that is not let in."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> "Inert":
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """As a list is filled."""

    def extend(self, items: Any) -> None:
        """As a list is filled."""

    def add(self, item: Any) -> None:
        """As a set is filled."""

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)


class Unpickler(pickle.Unpickler):
    """Finds what builds tensors, and `Inert` in place of everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """The class or function of that name, if it is let in."""
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if (module, name) in BUILDERS:
            # A pickle may set attributes of a function that it names: it gets one that nobody else has.
            builder = BUILDERS[module, name]
            return lambda *arguments: builder(*arguments)
        return TYPES.get((module, name), Inert)


def load(file: IO[bytes], **options: Any) -> Any:
    """The next object in `file`, as `pickle.load` gives it, by `Unpickler`."""
    return Unpickler(file, **options).load()

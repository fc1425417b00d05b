"""Networks and clips small enough for thousands of them to be tested."""

import typing

import torch

from models.predictor import Predictor
from models.spec import ModelSpec


def tiny_spec(cell: str, **fields) -> ModelSpec:
    """Two layers of three channels on a 4 x 4 grid of patches."""
    sizes = {"hidden_channels": (3, 3), "frame_size": 8, "patch_size": 2, "kernel_size": 3}
    return ModelSpec(cell=cell, **sizes | fields)


def random_clips(spec: ModelSpec, batch: int, frames: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """(B, T, C, H, W) in [0, 1], the same at each call."""
    shape = (batch, frames, spec.channels, spec.frame_size, spec.frame_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def states_of(network: Predictor) -> set[str]:
    """Those of H, C and M that the network's cell has, as its `forward` is annotated: None = no such state."""
    returned = typing.get_args(typing.get_type_hints(type(network.cells[0]).forward)["return"])
    return {name for name, kind in zip("HCM", returned, strict=True) if kind not in (None, type(None))}

"""The layouts of arrays of clips: named, or recognised where no other fits."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from benchmark.system.errors import UserError

Frames = UInt8[np.ndarray, "N T C H W"] | Float[np.ndarray, "N T C H W"]
Part = UInt8[np.ndarray, "part C H W"] | Float[np.ndarray, "part C H W"]
"""Some frames of one clip."""


def layout_of(path: Path, shape: tuple[int, ...], needed: int, named: str | None, allowed: tuple[str, ...]) -> str:
    """The layout that was named, or the only one of `allowed` that fits.

    Raises:
        UserError: the named one does not fit, or without a name none or several do.
    """
    if named is not None:
        if named not in allowed:
            raise UserError(f"--layout {named}: allowed for {path} are {', '.join(allowed)}")
        if fault := misfit(named, shape, 1):
            raise UserError(f"--layout {named}: {path} of shape {shape} {fault}")
        return named
    faults = {layout: misfit(layout, shape, needed, square=True) for layout in allowed}
    fitting = [layout for layout, fault in faults.items() if not fault]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        readings = " or ".join(f"{layout} ({_counts(layout, shape)})" for layout in fitting)
        raise UserError(f"{path}: shape {shape} may be {readings}; say which with --layout")
    near = [f"as {layout} it {fault}" for layout, fault in faults.items() if len(layout) == len(shape)]
    why = "; ".join(near) or f"{len(shape)} axes, allowed are {', '.join(allowed)}"
    raise UserError(f"{path}: shape {shape} fits no layout: {why}")


def misfit(layout: str, shape: tuple[int, ...], needed: int, square: bool = False) -> str:
    """Why `shape` is not in `layout`; empty if it is."""
    if len(layout) != len(shape):
        return f"would have {len(layout)} axes"
    sizes = dict(zip(layout, shape, strict=True))
    if 0 in shape:
        return "is empty"
    if sizes.get("C", 1) not in (1, 3):
        return f"has {sizes['C']} channels, allowed are 1 and 3"
    if sizes["T"] < needed:
        return f"has clips of {sizes['T']} frames, needed are {needed}"
    if square and sizes["H"] != sizes["W"]:
        return f"has frames of {sizes['H']}x{sizes['W']} pixels, which only --layout allows"
    return ""


def _counts(layout: str, shape: tuple[int, ...]) -> str:
    sizes = dict(zip(layout, shape, strict=True))
    return f"{sizes.get('N', 1):,} clips of {sizes['T']:,} frames"


def to_ntchw(part: Shaped[np.ndarray, "..."], layout: str) -> Frames:
    """A copy of `part` with its axes, named by `layout` with N, in our order; bool becomes 0 and 1 in uint8."""
    part = part.view(np.uint8) if part.dtype == np.bool_ else part
    part = part.transpose([layout.index(axis) for axis in "NTCHW" if axis in layout])
    return np.array(part if "C" in layout else part[:, :, None], order="C")


def check_dtype(path: Path, dtype: np.dtype, white: int | None = None) -> None:
    """Raise UserError for values whose range is not known; that of bool is where `white` says what True is."""
    if dtype == np.uint8 or np.issubdtype(dtype, np.floating) or (dtype == np.bool_ and white is not None):
        return
    how = "; `predict` and `evaluate` read bool with --white 1" if dtype == np.bool_ else ""
    raise UserError(f"{path}: holds {dtype}; allowed are uint8 (0 to 255) and floats (0 to 1){how}")

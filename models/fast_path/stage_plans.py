"""What each cell and the highway do, as stages: a convolution of joined states, then one kernel."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import nn

from models.convolution import GateConv

Reads = tuple[tuple[GateConv, tuple[str, ...]], ...]
"""Gate convolutions, each with the states that it reads in the order of its input channels."""


@dataclass(frozen=True)
class Stage:
    """Gates from one convolution, and the state that they make; `stages.py` has the kernels.

    States are those of a cell's `forward`: x, h, c, m, for the highway z; new ones have a dash.
    """

    gates: str
    """Their names, in the order in which the kernel takes them."""
    reads: Reads
    makes: str
    """The new state that convolutions read on."""
    memory: str | None = None
    """The state in full precision that is updated."""
    constant: float = 0.0
    """Added to the gate f, or s."""
    mix: nn.Conv2d | None = None
    """W5, which reads the new c and m."""

    @property
    def slots(self) -> list[str]:
        """The states that it reads, each once; new ones last, so that the new c and m are neighbours."""
        names = {name: None for _, slots in self.reads for name in slots}
        return sorted(names, key=["x", "h", "c", "m", "z", "c'", "m'"].index)


def stages_of_convlstm(cell: Any) -> list[Stage]:
    """Eq. 1."""
    reads = (cell.conv_x, ("x",)), (cell.conv_h, ("h",))
    return [Stage("i f g o", reads, makes="h'", memory="c", constant=cell.forget_bias)]


def stages_of_st_lstm(cell: Any) -> list[Stage]:
    """Eq. 2."""
    x, h, m = (cell.conv_x, ("x",)), (cell.conv_h, ("h",)), (cell.conv_m, ("m",))
    return [
        Stage("i f g", (x, h), makes="c'", memory="c", constant=cell.forget_bias),
        Stage("i' f' g'", (x, m), makes="m'", memory="m", constant=cell.forget_bias),
        Stage("o", (x, h, (cell.conv_o, ("c'", "m'"))), makes="h'", mix=cell.conv_memories),
    ]


def stages_of_causal_lstm(cell: Any) -> list[Stage]:
    """Eq. 3, or Eq. 4 where M is updated first."""
    x, h, m = (cell.conv_x, ("x",)), (cell.conv_h, ("h",)), (cell.conv_m, ("m",))
    c = [(cell.conv_c, ("c",))] if cell.spec.first_gates_see_c else []
    w3 = [] if cell.w3_in_conv_m else [(cell.conv_w3, ("m",))]
    first, second = ("c'", "m'") if cell.temporal_first else ("m'", "c'")
    of_first, of_second = (cell.conv_first_memory, (first,)), (cell.conv_second_memory, (second,))
    bias = cell.spec.forget_bias
    update_c = Stage("i f g", (x, h, *c, *([] if cell.temporal_first else [of_first])), "c'", "c", bias)
    update_m = Stage("i' f' g' w3", (x, m, *w3, *([of_first] if cell.temporal_first else [])), "m'", None, bias)
    o = Stage("o", (x, *([h] if cell.spec.o_sees_h else []), of_first, of_second), makes="h'", mix=cell.conv_memories)
    return [*((update_c, update_m) if cell.temporal_first else (update_m, update_c)), o]


def stages_of_highway(unit: Any) -> list[Stage]:
    """Eq. 5."""
    reads = (unit.conv_x, ("x",)), (unit.conv_z, ("z",))
    return [Stage("p s", reads, makes="z'", memory="z", constant=unit.gate_bias)]


PLANS: Mapping[str, Callable[[Any], list[Stage]]] = MappingProxyType(
    {"convlstm": stages_of_convlstm, "st_lstm": stages_of_st_lstm, "causal_lstm": stages_of_causal_lstm}
)
"""Cell of `models.spec.CELLS` -> its stages; one that is not here is computed as its `forward` reads."""
SIGMOID_OUTPUT = ("st_lstm",)
"""Cells whose gate o goes through a sigmoid before the product of [C, M]; through a tanh in the others."""

"""What a network is, as plain data: `ModelSpec`, made of what is given of it, and its checks. Imports no torch."""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin

from models.forecasters.outside import is_outside

CELLS = {
    "convlstm": "models.convlstm:ConvLSTMCell",
    "st_lstm": "models.st_lstm:SpatioTemporalLSTMCell",
    "causal_lstm": "models.causal_lstm:CausalLSTMCell",
    "conv_gru": "models.conv_gru:ConvGRUCell",
    "linear_recurrence": "models.linear_recurrence:LinearRecurrenceCell",
}
"""The registry of cells: name -> `module:class`. A new cell is one file in `models/` and one line here."""

EQUATIONS = ("code", "paper")
NORMS = ("none", "channel", "element")
INITS = ("default", "uniform(0.001)")
MEMORY_ORDERS = ("temporal_to_spatial", "spatial_to_temporal")
DEEPEST = 256
LARGEST = {
    "hidden_channels": 2**14,
    "channels": 2**10,
    "patch_size": 2**12,
    "frame_size": 2**12,
    "kernel_size": 255,
    "w3_kernel": 255,
    "highway_channels": 2**14,
    "chrono_frames": 10**4,
}
"""More than anyone builds; a file that asks for more is wrong or hostile."""
LARGEST_BIAS = 1000.0

OF_ONE_CELL = {"causal_lstm": ("memory_order", "first_gates_see_c", "o_sees_h", "g2_sees_m", "w3_kernel")}
"""Cell -> the fields that no other cell reads."""
ONE_WIDTH = ("st_lstm",)
"""Cells that use M elementwise, so that all their layers need one width."""


@dataclass(frozen=True, kw_only=True)
class GivenSpec:
    """What is given of a network; `ModelSpec` fills in the fields that are `None`.

    Raises:
        ValueError: no network is like this; names the field, its value and what is allowed.
    """

    cell: str
    """Name in `CELLS`, or `package.module:Class` of one outside the benchmark."""
    hidden_channels: tuple[int, ...]
    """Hidden channels of each layer, bottom first; its length is the depth."""
    frame_size: int
    """Height and width of a frame in pixels."""
    channels: int = 1
    """Channels of a frame."""
    patch_size: int = 4
    """Side of the square patches that are folded into channels."""
    kernel_size: int = 5
    """Side of the convolution kernels, odd."""
    highway_slot: int = 0
    """The highway sits between layers k and k+1; 0 is no highway."""
    highway_channels: int | None = None
    """Channels of the highway's Z; the width of layer k if not given."""
    highway_gate_bias: float = 0.0
    """Constant added to the switch gate S before its sigmoid."""
    norm: Literal["none", "channel", "element"] = "none"
    """Layer norm of every gate convolution: statistics over C, H, W; affine per channel or per element."""
    equations: Literal["code", "paper"] = "code"
    """Whose reading of PredRNN++ sets the defaults of the fields below."""
    memory_order: Literal["temporal_to_spatial", "spatial_to_temporal"] = "temporal_to_spatial"
    """Which memory of the causal LSTM is updated first."""
    first_gates_see_c: bool = True
    """C enters the gates i, f, g of the causal LSTM that update it (paper and code: yes)."""
    o_sees_h: bool | None = None
    """H enters the output gate of the causal LSTM (code: yes, paper: no)."""
    g2_sees_m: bool | None = None
    """M enters the candidate g' of the causal LSTM (code: no; paper and spatial_to_temporal: yes)."""
    w3_kernel: int | None = None
    """Kernel of W3, which reads M under the tanh (code: kernel_size, paper: 1)."""
    forget_bias: float | None = None
    """Constant added to every forget gate before its sigmoid (code: 1, paper or with `chrono_frames`: 0)."""
    chrono_frames: int | None = None
    """T of the chrono initialisation (Eq. 14b) of the gates f and i of C, or f of H, in frames; `None` = none."""
    conv_bias: bool = True
    """Convolutions carry a bias (the PyTorch ports have none)."""
    init: Literal["default", "uniform(0.001)"] = "default"
    """Initial weights: PyTorch's default, or the authors' uniform in [-0.001, 0.001]."""

    def __post_init__(self) -> None:
        self._check_types()
        object.__setattr__(self, "hidden_channels", tuple(self.hidden_channels))
        self._check_choices()
        self._check_sizes()
        self._check_highway()
        self._check_cell()
        self._check_chrono()

    def defaults(self) -> dict[str, Any]:
        """What the fields take that `equations`, sizes or a cell decide, where they are not given."""
        code = self.equations == "code"
        return {
            "memory_order": MEMORY_ORDERS[0],
            "first_gates_see_c": True,
            "o_sees_h": code,
            "g2_sees_m": not code or self.memory_order == "spatial_to_temporal",
            "w3_kernel": self.kernel_size if code else 1,
            "forget_bias": 1.0 if code and self.chrono_frames is None else 0.0,
            "highway_channels": self.hidden_channels[self.highway_slot - 1] if self.highway_slot else None,
        }

    def _check_types(self) -> None:
        widths = self.hidden_channels
        if not isinstance(widths, tuple | list) or not all(type(width) is int for width in widths):
            raise ValueError(f"hidden_channels: {widths!r} is no list of whole numbers")
        for field in fields(self):
            if get_origin(field.type) in (tuple, Literal):
                continue
            value, allowed = getattr(self, field.name), get_args(field.type) or (field.type,)
            if type(value) not in allowed and not (type(value) is int and float in allowed):
                raise ValueError(f"{field.name}: {value!r} is no {allowed[0].__name__}")  # pyright: ignore[reportAttributeAccessIssue]  # a class, never a name of one
            if float in allowed and value is not None and not abs(value) <= LARGEST_BIAS:
                raise ValueError(f"{field.name}: {value} is not between -{LARGEST_BIAS:g} and {LARGEST_BIAS:g}")

    def _check_choices(self) -> None:
        choices = {
            "cell": tuple(CELLS),
            "norm": NORMS,
            "equations": EQUATIONS,
            "memory_order": MEMORY_ORDERS,
            "init": INITS,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed and not (name == "cell" and is_outside(self.cell)):
                raise ValueError(f"{name}: {getattr(self, name)!r} is not one of {', '.join(allowed)}")

    def _check_sizes(self) -> None:
        if len(self.hidden_channels) > DEEPEST:
            raise ValueError(f"hidden_channels: {len(self.hidden_channels)} layers are more than {DEEPEST}")
        for name, most in LARGEST.items():
            value = getattr(self, name)
            sizes = (value or (0,)) if isinstance(value, tuple) else () if value is None else (value,)
            if min(sizes, default=1) < 1:
                raise ValueError(f"{name}: {value} is below 1")
            if max(sizes, default=1) > most:
                raise ValueError(f"{name}: {value} is above {most}")
            if name in ("kernel_size", "w3_kernel") and value is not None and value % 2 == 0:  # pyright: ignore[reportOperatorIssue]  # kernels are numbers
                raise ValueError(f"{name}: {value} is even; an odd number is needed")
        if self.frame_size % self.patch_size:
            raise ValueError(f"patch_size: {self.patch_size} does not divide frame_size {self.frame_size}")

    def _check_highway(self) -> None:
        layers = len(self.hidden_channels)
        if not 0 <= self.highway_slot < max(layers, 1):
            allowed = f"1 to {layers - 1}, or 0 for none" if layers > 1 else "0 (a highway needs two layers)"
            raise ValueError(f"highway_slot: {self.highway_slot} with {layers} layers; allowed: {allowed}")
        for name, unset in {"highway_channels": None, "highway_gate_bias": 0.0}.items():
            if not self.highway_slot and getattr(self, name) != unset:
                raise ValueError(f"{name}: {getattr(self, name)} given without a highway_slot")

    def _check_chrono(self) -> None:
        if self.chrono_frames is None:
            return
        if self.chrono_frames < 3:
            raise ValueError(f"chrono_frames: {self.chrono_frames} is below 3, where all biases would be 0")
        for name, needed in {"conv_bias": True, "norm": "none"}.items():
            if getattr(self, name) != needed:
                raise ValueError(f"chrono_frames: sets biases, which {name}: {getattr(self, name)} takes away")

    def _check_cell(self) -> None:
        if self.cell in ONE_WIDTH and len(set(self.hidden_channels)) > 1:
            raise ValueError(
                f"hidden_channels: {list(self.hidden_channels)} are unequal; {self.cell} uses M elementwise, "
                "so all its layers need one width"
            )
        defaults = self.defaults()
        for cell, names in OF_ONE_CELL.items():
            for name in names:
                value = getattr(self, name)
                if self.cell != cell and value is not None and value != defaults[name]:
                    raise ValueError(f"{name}: {value} exists for {cell} only, not for {self.cell}")


class ModelSpec(GivenSpec):
    """One network, every field filled in. Numbers in comments of the cells refer to `docs/equations.md`.

    Args:
        given: fields of `GivenSpec`; those that are left out or `None` take their defaults.

    Raises:
        ValueError: as `GivenSpec`.
    """

    o_sees_h: bool
    g2_sees_m: bool
    w3_kernel: int
    forget_bias: float

    def __init__(self, **given: Any) -> None:
        spec = GivenSpec(**given)
        super().__init__(**spec.defaults() | {name: value for name, value in vars(spec).items() if value is not None})

    @property
    def layers(self) -> int:
        """The depth of the stack."""
        return len(self.hidden_channels)

    @property
    def patches(self) -> int:
        """Height and width of the grid of patches."""
        return self.frame_size // self.patch_size

    @property
    def patch_channels(self) -> int:
        """Channels of a frame once its patches are folded into channels."""
        return self.channels * self.patch_size**2

    @property
    def highway_width(self) -> int:
        """Channels of the highway's Z; 0 without a highway."""
        return self.highway_channels or 0

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values; `chrono_frames` only where it is given, since older files lack it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.chrono_frames is None:
            del values["chrono_frames"]
        return values | {"hidden_channels": list(self.hidden_channels)}

"""What a model outside the benchmark is, as plain data. Imports no torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from models.spec import LARGEST, ModelSpec

SIZES = ("context", "horizon", "channels", "frame_size")
"""What a class is given without being told in `args`, where its constructor takes it."""


@dataclass(frozen=True, kw_only=True)
class ForecasterSpec:
    """A model by its class, which `docs/adding_a_model.md` describes.

    It answers for the fields of `ModelSpec` by which variants are grouped: it has no cells, layers or highway.
    """

    model: str
    """`package.module:Class`."""
    args: str
    """What its constructor is given, as JSON, so that a spec can be hashed."""
    context: int
    """Given frames."""
    horizon: int
    """Predicted frames."""
    frame_size: int
    """Height and width of a frame in pixels."""
    channels: int = 1
    """Channels of a frame."""

    layers: ClassVar[int] = 0
    hidden_channels: ClassVar[tuple[int, ...]] = ()
    highway_slot: ClassVar[int] = 0
    highway_channels: ClassVar[int | None] = None
    norm: ClassVar[str] = "none"

    def __post_init__(self) -> None:
        for name in ("frame_size", "channels"):
            if not 1 <= getattr(self, name) <= LARGEST[name]:
                raise ValueError(f"{name}: {getattr(self, name)} is not from 1 to {LARGEST[name]}")

    @property
    def cell(self) -> str:
        """What stands for a cell where variants are grouped by it."""
        return self.model

    @property
    def arguments(self) -> dict[str, Any]:
        """What the constructor is given by the protocol's `args`."""
        return json.loads(self.args)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        sizes = {name: getattr(self, name) for name in SIZES}
        return {"model": self.model, "args": self.arguments} | sizes


Spec = ModelSpec | ForecasterSpec
"""What any trained row is."""


def forecaster_spec(model: str, args: Mapping[str, Any], **sizes: int) -> ForecasterSpec:
    """The spec of a class with these arguments and the sizes named in `SIZES`.

    Raises:
        ValueError: an argument is no plain value.
    """
    try:
        written = json.dumps(dict(args), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"args: {error}; numbers, texts, lists and mappings are allowed") from None
    return ForecasterSpec(model=model, args=written, **sizes)


def spec_from(values: Mapping[str, Any]) -> Spec:
    """The spec that `to_dict` made these values of.

    Raises:
        ValueError, TypeError, KeyError: they are of none.
    """
    if "model" in values:
        return forecaster_spec(**values)
    return ModelSpec(**dict(values) | {"hidden_channels": tuple(values["hidden_channels"])})

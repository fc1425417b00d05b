"""What a protocol has of the registry: names and files of its tables and figures, for those who plan them."""

from pathlib import Path

from benchmark.config.probe_stages import trains
from benchmark.config.protocol import Protocol
from benchmark.config.variant_groups import readable_variants
from benchmark.reporting.registry import FIGURES, TABLES

TABLE_FORMATS = ("csv", "md", "tex", "html")
FIGURE_FORMATS = ("pdf", "png")


def tables_of(protocol: Protocol) -> tuple[str, ...]:
    """The names of the tables of `protocol`, in the order of the registry."""
    return tuple(name for name, table in TABLES.items() if table.applies(protocol))


def figures_of(protocol: Protocol) -> tuple[str, ...]:
    """The names of the figures of `protocol`, in the order of the registry."""
    return tuple(name for name, figure in FIGURES.items() if figure.applies(protocol))


STATES = "XHCM"
"""States that cells have with a highway and without."""


def films_of(protocol: Protocol) -> tuple[str, ...]:
    """The variants of `protocol` that have an animation of the first clip that it names."""
    return readable_variants(protocol) if trains(protocol) else ()


def paired_films(protocol: Protocol) -> dict[str, tuple[str, str]]:
    """Those of `films_of` in pairs of one cell `without` and `with` a highway -> labels of both, and which it is."""
    shown, pairs = films_of(protocol), {}
    for variant, other in protocol.references().items():
        one, two = (protocol.first_run(name).model for name in (variant, other))
        alike = one.cell == two.cell and one.highway_slot and not two.highway_slot
        if alike and {variant, other} <= {*shown} and other not in pairs:
            names = " / ".join(protocol.first_run(name).label for name in (other, variant))
            pairs |= {other: (names, "without"), variant: (names, "with")}
    return pairs


def state_gradients_of(protocol: Protocol) -> tuple[tuple[str, str], ...]:
    """State and `with` or `without` highway of the figures of single states; none unless there are variants of both."""
    slots = {bool(protocol.first_run(variant).model.highway_slot) for variant in readable_variants(protocol)}
    return tuple((state, highway) for state in STATES for highway in ("with", "without")) if len(slots) > 1 else ()


def caption_file(folder: Path, name: str) -> Path:
    """Where the caption of the table, figure or set `name` lies in the `folder` of a protocol.

    A table and a figure of one name have one file each, since no two entries share a name.
    """
    return folder / "captions" / f"{name}.rst"

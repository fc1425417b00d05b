"""What a protocol has of the registry: names and files of its tables and figures, for those who plan them."""

from pathlib import Path

from benchmark.config.data_sections import DataConfig, VideosConfig
from benchmark.config.probe_stages import trains
from benchmark.config.protocol import Protocol
from benchmark.config.variant_groups import readable_variants
from benchmark.reporting.registry import FIGURES, TABLES

TABLE_FORMATS = ("csv", "md", "tex", "html")
FIGURE_FORMATS = ("pdf", "png")


def files_of_data(data: DataConfig) -> tuple[str, ...]:
    """The files of the data folder of a protocol."""
    return ("frames.npy", "windows.npz", "data.json") if isinstance(data, VideosConfig) else ("digits.npz", "data.json")


def files_in(path: Path) -> list[tuple[str, int]]:
    """Name and size of every file that a set of videos consists of; empty where there is none."""
    if path.is_file():
        return [(path.name, path.stat().st_size)]
    return sorted((str(file.relative_to(path)), file.stat().st_size) for file in path.rglob("*") if file.is_file())


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


def paired_films(protocol: Protocol) -> dict[str, str]:
    """Those of `films_of` that come in pairs -> that of the pair without a highway; the other is its cell with one."""
    shown, pairs = films_of(protocol), {}
    for variant, other in protocol.references().items():
        one, two = (protocol.first_run(name).model for name in (variant, other))
        alike = one.cell == two.cell and one.highway_slot and not two.highway_slot
        if alike and {variant, other} <= {*shown} and other not in pairs:
            pairs |= {variant: other, other: other}
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

"""Names of the tables and figures of a protocol, for those who plan them without making them."""

from benchmark.ablations import depth_series, slot_series
from benchmark.config import Protocol

TABLES = ("main", "comparison", "per_frame", "conventions", "compute", "probe", "paper")
TABLE_FORMATS = ("csv", "md", "tex", "html")
FIGURES = ("scores", "differences", "gradient_norm", "gradient_norm_layers", "mse_per_frame", "film", "openness")
FIGURE_FORMATS = ("pdf", "png")


def tables_of(protocol: Protocol) -> tuple[str, ...]:
    """The tables of `protocol`: those that all have, one by gap where a bar hides a digit, one past the horizon."""
    some = {"occlusion": protocol.data.gaps, "beyond": protocol.evaluation.beyond}
    return (*TABLES, *(name for name, needed in some.items() if needed))


def figures_of(protocol: Protocol) -> tuple[str, ...]:
    """The figures of `protocol`: those that all have, and ablations, errors by gap and past the horizon."""
    some = {
        "slots": slot_series(protocol),
        "depth": depth_series(protocol),
        "gap_against_error": protocol.data.gaps,
        "beyond_horizon": protocol.evaluation.beyond,
    }
    return (*FIGURES, *(name for name, needed in some.items() if needed))

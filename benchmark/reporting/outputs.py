"""Names of the tables and figures of a protocol, for those who plan them without making them."""

from benchmark.config.probe_stages import trains
from benchmark.config.protocol import Protocol
from benchmark.config.variant_groups import depth_series, rate_groups, readable_variants, slot_series

TABLES = ("main", "comparison", "per_frame", "conventions", "compute", "probe", "reach_effects", "reach_error", "paper")
"""Of every protocol that trains."""
OF_UNTRAINED = ("compute", "probe", "reach_effects")
"""Those of `TABLES` that say something of networks that nobody has trained."""
TABLE_FORMATS = ("csv", "md", "tex", "html")
DOTS = ("scores", "differences")
"""Figures of scores with a row a variant, however many."""
SCORES = ("mse_per_frame", "film", "reach_against_error")
"""Figures of scores that can be read with few variants only."""
GRADIENTS = ("gradient_norm", "gradient_norm_layers", "gradient_heatmap", "gradient_paths", "openness")
FIGURES = (*DOTS, *GRADIENTS, *SCORES)
"""Of every protocol that trains no more variants than can be read."""
FIGURE_FORMATS = ("pdf", "png")


def tables_of(protocol: Protocol) -> tuple[str, ...]:
    """The tables of `protocol`: those of all that train, or do not, and what its data and variants add."""
    if not trains(protocol):
        return OF_UNTRAINED
    some = {
        "occlusion": protocol.data.gaps,
        "beyond": protocol.evaluation.beyond,
        "learning_rates": rate_groups(protocol),
    }
    return (*TABLES, *(name for name, needed in some.items() if needed))


def figures_of(protocol: Protocol) -> tuple[str, ...]:
    """The figures of `protocol`: of scores where it trains, of single variants where they are few, and ablations."""
    trained, readable = trains(protocol), bool(readable_variants(protocol))
    some = dict.fromkeys(DOTS, trained) | dict.fromkeys(GRADIENTS, readable)
    some |= dict.fromkeys(SCORES, trained and readable)
    some |= {
        "reach_at_init": not trained,
        "reach_over_training": protocol.probe.steps and readable,
        "openness_over_training": protocol.probe.steps and readable,
        "slots": slot_series(protocol),
        "depth": depth_series(protocol),
        "gap_against_error": protocol.data.gaps and trained and readable,
        "beyond_horizon": protocol.evaluation.beyond and trained and readable,
    }
    return tuple(name for name, needed in some.items() if needed)


STATES = "XHCM"
"""States that cells have with a highway and without."""


def films_of(protocol: Protocol) -> tuple[str, ...]:
    """The variants of `protocol` that have a moving picture of the first clip that it names."""
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
    return tuple((state, half) for state in STATES for half in ("with", "without")) if len(slots) > 1 else ()

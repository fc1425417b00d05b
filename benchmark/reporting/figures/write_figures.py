"""The figures of a protocol, from the files of its runs."""

from collections.abc import Sequence
from pathlib import Path

from benchmark.config.protocol import Protocol
from benchmark.reporting.figures.figure_data import FigureData, figure_data
from benchmark.reporting.finished_runs import read_runs
from benchmark.reporting.outputs import FIGURE_FORMATS, caption_file, figures_of, films_of, state_gradients_of
from benchmark.reporting.protocol_results import read_floor
from benchmark.reporting.registry import ANIMATION, FIGURES, SETS, STATE_GRADIENT, load
from benchmark.system.files import write_atomic


def write_figures(protocol: Protocol, results_dir: Path, *, reuse: bool = False) -> None:
    """Write `figures/<name>.{pdf,png}` of `protocol`, animations, figures of single states, and the captions of all.

    Args: `reuse`: take runs from published records, see `read_runs`.

    Raises:
        UserError: a run is not finished.
    """
    load(FIGURES | SETS)
    runs = read_runs(protocol, results_dir, reuse=reuse)
    folder = results_dir / protocol.name
    data = figure_data(protocol, runs, read_floor(folder) if protocol.evaluation.floor else None)
    for name in figures_of(protocol):
        draw_figure(name, data, [folder / "figures" / f"{name}.{ending}" for ending in FIGURE_FORMATS])
        write_atomic(caption_file(folder, name), f"{FIGURES[name].caption}\n")
    for state, highway in state_gradients_of(protocol):
        path = folder / "states" / f"{state}-{highway}.png"
        STATE_GRADIENT.function(data, state, highway == "with", [path])
    first = {run.variant: run for run in reversed(runs)}
    for variant in films_of(protocol):
        ANIMATION.function(first[variant], folder / "films")
    needed = {"state_gradient": state_gradients_of(protocol), "variant_film": films_of(protocol)}
    for name in (name for name, any_of_it in needed.items() if any_of_it):
        write_atomic(caption_file(folder, name), f"{SETS[name].caption}\n")


def draw_figure(name: str, data: FigureData, paths: Sequence[Path]) -> None:
    """Draw the figure that the registry has under `name` into `paths`, whose endings are their formats."""
    figure = FIGURES[name]
    figure.function(data, figure.title, paths)

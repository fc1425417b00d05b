"""The figures of a protocol, from the files of its runs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from benchmark.config.probe_stages import ends
from benchmark.config.protocol import Protocol
from benchmark.config.variant_groups import questions, readable_variants
from benchmark.reporting.figures.ablations import depth, slots
from benchmark.reporting.figures.clips import film, write_film
from benchmark.reporting.figures.gradient_maps import gradient_heatmap, gradient_paths, norms_of
from benchmark.reporting.figures.gradient_norms import STATES, gradient_norm, gradient_norm_layers
from benchmark.reporting.figures.long_horizon import beyond_horizon
from benchmark.reporting.figures.occlusion import gap_against_error
from benchmark.reporting.figures.openness import openness, openness_over_training
from benchmark.reporting.figures.reach import reach_against_error, reach_over_training
from benchmark.reporting.figures.reach_at_init import reach_at_init
from benchmark.reporting.figures.scores import differences, mse_per_frame, scores
from benchmark.reporting.figures.style import Setting, empty_figure, left_out, looks
from benchmark.reporting.finished_runs import FinishedRun, read_runs
from benchmark.reporting.outputs import FIGURE_FORMATS, figures_of, films_of, state_gradients_of


def write_figures(protocol: Protocol, results_dir: Path, *, reuse: bool = False) -> None:
    """Write `figures/<name>.{pdf,png}` of `protocol`, and what its report has besides: films and single states.

    Args: `reuse`: take runs from published records, see `read_runs`.

    Raises:
        UserError: a run is not finished.
    """
    runs = read_runs(protocol, results_dir, reuse=reuse)
    folder = results_dir / protocol.name / "figures"
    draw = drawings(protocol, runs)
    for name in figures_of(protocol):
        draw[name]([folder / f"{name}.{ending}" for ending in FIGURE_FORMATS])
    for state, half in state_gradients_of(protocol):
        draw[f"{state}-{half}"]([folder.parent / "states" / f"{state}-{half}.png"])
    first = {run.variant: run for run in reversed(runs)}
    for variant in films_of(protocol):
        write_film(first[variant], folder.parent / "films")


def drawings(protocol: Protocol, runs: Sequence[FinishedRun]) -> dict[str, Callable[[Sequence[Path]], None]]:
    """Name of a figure -> what draws it into files; those of scores show all variants, the others what can be read."""
    kept = [run for run in runs if not run.diverged]
    trained = [run for run in kept if run.config]
    drawn = {run.variant for run in trained}
    every = Setting(
        looks=looks(protocol),
        context=protocol.data.context,
        frames=protocol.data.context + protocol.data.horizon,
        seeds=protocol.seed_counts(),
        left_out=left_out(runs),
        stages=ends(protocol),
    ).only(drawn)
    readable = readable_variants(protocol)
    few = replace(every, looks=looks(protocol, readable), left_out=f"{every.left_out} {chosen(protocol)}".strip())
    few = few.only(drawn)
    shown = [run for run in trained if run.variant in few.looks]
    norms = norms_of(shown, "residual")
    return {
        "scores": partial(scores, protocol, runs, every),
        "differences": partial(differences, protocol, runs, every),
        "gradient_norm": partial(gradient_norm, norms, few),
        "gradient_norm_layers": partial(gradient_norm_layers, norms, few),
        "gradient_heatmap": partial(gradient_heatmap, norms, few),
        "gradient_paths": partial(gradient_paths, shown, few),
        "openness": partial(openness, shown, few),
        "mse_per_frame": partial(mse_per_frame, kept, few),
        "film": partial(film, kept, few),
        "reach_against_error": partial(reach_against_error, kept, few),
        "reach_at_init": partial(reach_at_init, protocol, runs, every),
        "reach_over_training": partial(reach_over_training, protocol, shown, few),
        "openness_over_training": partial(openness_over_training, protocol, shown, few),
        "slots": partial(slots, protocol, runs, every),
        "depth": partial(depth, protocol, runs, every),
        "gap_against_error": partial(gap_against_error, shown, few),
        "beyond_horizon": partial(beyond_horizon, kept, few),
        **{
            f"{state}-{half}": partial(state_gradient, norms, few, state, half)
            for state, half in state_gradients_of(protocol)
        },
    }


def state_gradient(norms: pd.DataFrame, setting: Setting, state: str, half: str, paths: Sequence[Path]) -> None:
    """`gradient_norm` of one state, of the variants `with` or `without` a highway alone."""
    if len(norms):
        highways = set(norms.loc[norms["state"] == "Z", "variant"])
        norms = norms[(norms["state"] == state) & (norms["variant"].isin(highways) == (half == "with"))]
    if len(norms):
        gradient_norm(norms, setting.only(norms["variant"].unique()), paths)
    else:
        empty_figure(STATES[state], f"No variant shown here {half} highway has this state.", setting, paths)


def chosen(protocol: Protocol) -> str:
    """A sentence that says which variants are shown where not all can be read; empty where all are."""
    readable = readable_variants(protocol)
    if len(readable) == len(protocol.variants):
        return ""
    asked = questions(protocol)[0].title.lower()
    return f"Shown: the {len(readable)} of {len(protocol.variants)} variants that ask for {asked} alone."

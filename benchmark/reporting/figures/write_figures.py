"""The figures of a protocol, from the files of its runs."""

import base64
import html
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.ablation_figures import depth, slots
from benchmark.beyond_figure import beyond_horizon
from benchmark.config import Protocol
from benchmark.drawing import (
    BASELINE_LINES,
    GREY,
    Setting,
    draw_seeds,
    empty_figure,
    finish,
    handles,
    left_out,
    looks,
    page,
    time_axis,
)
from benchmark.files import write_atomic
from benchmark.films import FilmRow, film_animation, film_figure
from benchmark.gradient_figures import HORIZON_NOTE, STATES, gradient_norm, gradient_norm_layers
from benchmark.gradient_maps import gradient_heatmap, gradient_paths, norms_of
from benchmark.outputs import FIGURE_FORMATS, figures_of, films_of, state_gradients_of
from benchmark.questions import questions, readable_variants
from benchmark.reach_at_init import reach_at_init
from benchmark.reach_figures import openness_over_training, reach_against_error, reach_over_training
from benchmark.runs import FinishedRun, read_runs
from benchmark.score_figures import differences, scores
from benchmark.stages import ends


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


def write_film(run: FinishedRun, folder: Path) -> None:
    """Write `<variant>.gif`, the clip of the figure of all variants as `run` predicts it, and a page that shows it."""
    path = folder / f"{run.variant}.gif"
    names = ("clip", "context", "truth", "prediction")
    film_animation({name: np.asarray(run.film[name])[None] for name in names}, path)
    title = html.escape(f"{run.label}, seed {run.seed}{' (diverged)' * run.diverged}")
    picture = base64.b64encode(path.read_bytes()).decode()
    write_atomic(path.with_suffix(".html"), FILM_PAGE.format(title=title, picture=picture))


FILM_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2em; color: #1a1a1a; }}
img {{ width: 100%; max-width: 60em; image-rendering: pixelated; }}
</style>
</head>
<body>
<h1>{title}</h1>
<img src="data:image/gif;base64,{picture}" alt="{title}: truth, prediction and error over time">
</body>
</html>
"""
"""Snakemake's report offers a GIF as a download; it plays one in a page."""


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


def mse_per_frame(runs: Sequence[FinishedRun], setting: Setting, paths: Sequence[Path]) -> None:
    """MSE of each predicted frame: all with the baselines, and the variants alone on their own scale."""
    curves = pd.DataFrame({(run.variant, run.seed): run.per_frame["mse"] for run in runs})
    curves.index += setting.context
    with page(paths, height=2.6) as figure:
        every, alone = figure.subplots(1, 2)
        legend = handles(setting.looks)
        for run, line in zip((run for run in runs if not run.config), BASELINE_LINES, strict=False):
            legend += every.plot(curves[run.variant, run.seed], color=GREY, linestyle=line, label=run.label)
        for number, (variant, look) in enumerate(setting.looks.items()):
            for axes in (every, alone):
                draw_seeds(axes, curves[variant].T, look, number)  # pyright: ignore[reportArgumentType]  # a column of the first level is a table
        every.set_title("with the baselines")
        every.set_ylim(bottom=0)
        every.set_ylabel("MSE per frame ↓\n(squared error summed over pixels)")
        alone.set_title("variants alone, enlarged")
        for axes in (every, alone):
            axes.set_xlabel("frame t")
            time_axis(axes, setting.context + 1, setting.frames)
        notes = [
            f"t = {setting.context + 1} is the first predicted frame.",
            "Mean over the test clips, prediction clipped to [0, 1].",
            setting.seed_note("mean", interval="band"),
        ]
        finish(figure, "Error by predicted frame", notes, legend)


def openness(runs: Sequence[FinishedRun], setting: Setting, paths: Sequence[Path]) -> None:
    """Highway openness by step, before and after training, of the variants with a highway."""
    runs = [run for run in runs if run.config and run.config.model.highway_slot]
    shown = {variant: look for variant, look in setting.looks.items() if variant in {run.variant for run in runs}}
    title = "Openness of the highway"
    if not runs:
        empty_figure(title, "No variant shown here has a highway.", setting, paths)
        return
    with page(paths, height=2.2) as figure:
        grid = figure.subplots(1, len(setting.stages), sharey=True, squeeze=False)[0]
        for axes, (stage, words) in zip(grid, setting.stages.items(), strict=True):
            curves = pd.DataFrame({(run.variant, run.seed): run.probe[stage]["openness"] for run in runs})
            curves.index += 1
            for number, (variant, look) in enumerate(shown.items()):
                draw_seeds(axes, curves[variant].T, look, number)  # pyright: ignore[reportArgumentType]  # a column of the first level is a table
            axes.set_title(words)
            axes.set_xlabel("frame t")
            time_axis(axes, 1, setting.frames - 1, setting.context)
        grid[0].set_ylabel("openness: mean of 1 \N{MINUS SIGN} S")
        grid[0].set_ylim(0, 1)
        notes = [
            "S: switch gate of the highway, mean over units and clips.",
            "At openness 1 the highway keeps its past, at 0 it replaces it.",
            HORIZON_NOTE,
            setting.seed_note("mean", interval="band"),
        ]
        finish(figure, title, notes, handles(shown))


def gap_against_error(runs: Sequence[FinishedRun], setting: Setting, paths: Sequence[Path]) -> None:
    """Error in the box of the hidden digit by how long it was hidden, a line a variant."""
    title = "Error where a digit was hidden"
    if not runs:
        empty_figure(title, "Every run diverged.", setting, paths)
        return
    curves = pd.DataFrame({(run.variant, run.seed): run.box_mse for run in runs})  # one row a gap
    with page(paths, height=2.8) as figure:
        error, rise = figure.subplots(1, 2)
        for number, (variant, look) in enumerate(setting.looks.items()):
            draw_seeds(error, curves[variant].T, look, number)  # pyright: ignore[reportArgumentType]  # a column of the first level is a table
            draw_seeds(rise, (curves - curves.loc[min(curves.index)])[variant].T, look, number)  # pyright: ignore[reportArgumentType]  # a column of the first level is a table
        error.set_ylabel("MSE in the digit's box ↓\n(squared error summed over its pixels)")
        rise.set_ylabel(f"rise of that over gap {min(curves.index)} ↓")
        for axes in (error, rise):
            axes.set_xticks(curves.index)
            axes.set_xlabel("gap: last context frames\nin which a bar hides the digit")
        notes = [
            "Mean over the test clips and the predicted frames, none of which has a bar; prediction clipped to [0, 1].",
            "Each model was trained on all gaps. Rise: seed by seed; a flat line remembers, or never learnt to look.",
            setting.seed_note("mean", interval="band"),
        ]
        finish(figure, title, notes, handles(setting.looks))


def film(runs: Sequence[FinishedRun], setting: Setting, paths: Sequence[Path]) -> None:
    """The first of `evaluation.film_clips` as every variant (its first seed) and every baseline predicts it."""
    first = {run.variant: run for run in reversed(runs)}
    rows = []
    for run in (first[variant] for variant in dict.fromkeys(run.variant for run in runs)):
        clip, context, truth, prediction = (run.film[name] for name in ("clip", "context", "truth", "prediction"))
        mse = run.per_clip.at[clip, "mse"]
        rows.append(FilmRow(run.label, prediction, mse, baseline=run.config is None))  # pyright: ignore[reportArgumentType]  # a number
    notes = [
        "The first of the clips that the protocol names, so not chosen by its result.",
        "MSE: squared error summed over the pixels of a frame, mean over the predicted frames of this clip, prediction"
        " clipped to [0, 1].",
        setting.seed_note("of which the first is shown"),
    ]
    film_figure(context, [FilmRow("Truth", truth), *rows], f"Test clip {clip}", notes, paths)

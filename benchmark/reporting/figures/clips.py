"""One clip as every variant predicts it, and an animation of each."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from benchmark.evaluation.clip_images import LARGEST_CELL, as_rgb, film_animation
from benchmark.reporting.figures.style import (
    WIDTH,
    Setting,
    finish,
    page,
)
from benchmark.reporting.finished_runs import FinishedRun
from benchmark.system.files import write_atomic

FEWEST_COLUMNS, MOST_COLUMNS = 8, 10
"""Frames side by side for which the figure of all variants has room."""

PITCH = 1.06
"""From frame to frame in that figure, in sides of a frame."""


@dataclass(frozen=True)
class FilmRow:
    """One row of `film_figure`: what it is, its frames (T, H, W, C, uint8), its error, and whether it is a baseline."""

    label: str
    frames: np.ndarray
    mse: float | None = None
    baseline: bool = False


def film_figure(
    context: np.ndarray, rows: Sequence[FilmRow], title: str, notes: Sequence[str], paths: Sequence[Path]
) -> None:
    """Write one clip as all predict it: its context, then under each other the truth and the predictions.

    Args:
        context: given frames (K, H, W, C), uint8.
        rows: the truth and the predictions of the frames after them.
        title: stands on top.
        notes: stand below.
        paths: files to write.
    """
    given, predicted = columns_of(len(context)), columns_of(len(rows[0].frames))
    margin, head = 0.11 * max(len(row.label) for row in rows), 0.45
    span = margin + max(len(given), len(predicted), FEWEST_COLUMNS) * PITCH + 0.75
    depth = 2 * head + 0.25 + (1 + len(rows)) * PITCH + 0.2 * any(row.baseline for row in rows)
    with page(paths, height=WIDTH * depth / span) as figure:
        axes = figure.add_subplot()
        axes.set(xlim=(-margin, span - margin), ylim=(depth, 0), aspect="equal")
        axes.set_axis_off()
        draw_numbers(axes, given + 1, head)
        draw_row(axes, FilmRow("Context", context), head)
        y = 2 * head + PITCH + 0.25
        draw_numbers(axes, predicted + len(context) + 1, y)
        axes.text(len(predicted) * PITCH + 0.7, y - 0.12, "MSE ↓", ha="right", fontsize=7)
        for number, row in enumerate(rows):
            y += 0.2 * (row.baseline and not rows[number - 1].baseline)
            draw_row(axes, row, y)
            y += PITCH
        finish(figure, title, notes)


def columns_of(frames: int) -> np.ndarray:
    """Which of `frames` frames are shown, counted from 0: all, or `MOST_COLUMNS` evenly spaced with both ends."""
    return np.linspace(0, frames - 1, min(frames, MOST_COLUMNS)).round().astype(int)


def draw_numbers(axes: Axes, times: np.ndarray, y: float) -> None:
    """The frame numbers above a row that begins at `y`."""
    axes.text(-0.15, y - 0.12, "frame t", ha="right", fontsize=7)
    for column, t in enumerate(times):
        axes.text(column * PITCH + 0.5, y - 0.12, str(t), ha="center", fontsize=7)


def draw_row(axes: Axes, row: FilmRow, y: float) -> None:
    """The shown frames of `row` from `y` down, its label on the left and its error on the right."""
    style = {"va": "center", "ha": "right", "fontsize": 7, "color": "#606060" if row.baseline else "black"}
    axes.text(-0.15, y + 0.5, row.label, **style)
    columns = columns_of(len(row.frames))
    for column, place in enumerate(columns):
        picture = as_rgb(row.frames[place], LARGEST_CELL // row.frames.shape[2] or 1)  # many viewers blur few pixels
        axes.imshow(picture, extent=(column * PITCH, column * PITCH + 1, y + 1, y))
    if row.mse is not None:
        axes.text(len(columns) * PITCH + 0.7, y + 0.5, f"{row.mse:.1f}", **style)


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

"""One clip as every variant predicts it, and an animation of each."""

import base64
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from benchmark.evaluation.clip_images import LARGEST_CELL, as_rgb, film_animation
from benchmark.reporting.figures.figure_data import FigureData
from benchmark.reporting.figures.style import WIDTH, finish, page
from benchmark.reporting.finished_runs import FinishedRun
from benchmark.reporting.html_pages import render
from benchmark.system.files import write_atomic

ANIMATION_PAGE = Path(__file__).parent / "templates" / "animation.html"
FEWEST_COLUMNS, MOST_COLUMNS = 8, 10
"""Frames side by side for which the figure of all variants has room."""

ACROSS = 8
"""Pictures side by side where there is one predicted frame, and so one picture a row."""
ROOM = 0.52
"""Below each of them for its label, in sides of a frame."""
PITCH = 1.06
"""From frame to frame in that figure, in sides of a frame."""


@dataclass(frozen=True)
class ClipRow:
    """One row of `clip_figure`: what it is, its frames (T, H, W, C, uint8), its error, and whether it is a baseline."""

    label: str
    frames: np.ndarray
    mse: float | None = None
    baseline: bool = False


def clip_figure(
    context: np.ndarray, rows: Sequence[ClipRow], title: str, facts: Sequence[str], paths: Sequence[Path]
) -> None:
    """Write one clip as all predict it: its context, then under each other the truth and the predictions.

    Args:
        context: given frames (K, H, W, C), uint8.
        rows: the truth and the predictions of the frames after them.
        title: stands on top.
        facts: stand below.
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
        draw_row(axes, ClipRow("Context", context), head)
        y = 2 * head + PITCH + 0.25
        draw_numbers(axes, predicted + len(context) + 1, y)
        axes.text(len(predicted) * PITCH + 0.7, y - 0.12, "MSE ↓", ha="right", fontsize=7)
        for number, row in enumerate(rows):
            y += 0.2 * (row.baseline and not rows[number - 1].baseline)
            draw_row(axes, row, y)
            y += PITCH
        finish(figure, title, facts)


def single_frame_figure(
    context: np.ndarray, rows: Sequence[ClipRow], title: str, facts: Sequence[str], paths: Sequence[Path]
) -> None:
    """Write one clip of a single predicted frame: its context, then truth and predictions, `ACROSS` in a line.

    Args: as `clip_figure`.
    """
    margin, head, pitch = 1.0, 0.45, 1 + ROOM
    across = (MOST_COLUMNS * PITCH - 1) / (ACROSS - 1)  # from picture to picture, as wide as the context
    lines = -(-len(rows) // ACROSS)
    span, depth = margin + MOST_COLUMNS * PITCH, 2 * head + PITCH + 0.25 + lines * pitch
    with page(paths, height=WIDTH * depth / span) as figure:
        axes = figure.add_subplot()
        axes.set(xlim=(-margin, span - margin), ylim=(depth, 0), aspect="equal")
        axes.set_axis_off()
        draw_numbers(axes, columns_of(len(context)) + 1, head)
        draw_row(axes, ClipRow("Context", context), head, edge="#909090")
        top = 2 * head + PITCH + 0.25
        axes.text(-0.15, top - 0.12, f"frame t = {len(context) + 1}, MSE ↓", ha="left", fontsize=7)
        for number, row in enumerate(rows):
            x, y = number % ACROSS * across, top + number // ACROSS * pitch
            draw_picture(axes, row.frames[0], x, y, edge="#909090")
            words = [*textwrap.wrap(row.label, 14), *([] if row.mse is None else [f"{row.mse:.1f}"])]
            style = {"ha": "center", "va": "top", "fontsize": 6, "color": "#606060" if row.baseline else "black"}
            axes.text(x + 0.5, y + 1.04, "\n".join(words), linespacing=1.05, **style)
        finish(figure, title, facts)


def columns_of(frames: int) -> np.ndarray:
    """Which of `frames` frames are shown, counted from 0: all, or `MOST_COLUMNS` evenly spaced with both ends."""
    return np.linspace(0, frames - 1, min(frames, MOST_COLUMNS)).round().astype(int)


def draw_numbers(axes: Axes, times: np.ndarray, y: float) -> None:
    """The frame numbers above a row that begins at `y`."""
    axes.text(-0.15, y - 0.12, "frame t", ha="right", fontsize=7)
    for column, t in enumerate(times):
        axes.text(column * PITCH + 0.5, y - 0.12, str(t), ha="center", fontsize=7)


def draw_picture(axes: Axes, frame: np.ndarray, x: float, y: float, edge: str | None = None) -> None:
    """A frame (H, W, C) with its top left corner at x and y, with an outline in the colour `edge`."""
    picture = as_rgb(frame, LARGEST_CELL // frame.shape[1] or 1)  # many viewers blur few pixels
    axes.imshow(picture, extent=(x, x + 1, y + 1, y))
    if edge:
        axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=edge, linewidth=0.5))


def draw_row(axes: Axes, row: ClipRow, y: float, edge: str | None = None) -> None:
    """The shown frames of `row` from `y` down, its label on the left and its error on the right."""
    style = {"va": "center", "ha": "right", "fontsize": 7, "color": "#606060" if row.baseline else "black"}
    axes.text(-0.15, y + 0.5, row.label, **style)
    columns = columns_of(len(row.frames))
    for column, place in enumerate(columns):
        draw_picture(axes, row.frames[place], column * PITCH, y, edge)
    if row.mse is not None:
        axes.text(len(columns) * PITCH + 0.7, y + 0.5, f"{row.mse:.1f}", **style)


def write_animation(run: FinishedRun, folder: Path) -> None:
    """Write `<variant>.gif`, the clip of the figure of all variants as `run` predicts it, and a page that plays it.

    Snakemake's report offers a GIF as a download; it plays one in a page.
    """
    path = folder / f"{run.variant}.gif"
    names = ("clip", "context", "truth", "prediction")
    film_animation({name: np.asarray(run.shown_clip[name])[None] for name in names}, path)
    title = f"{run.label}, seed {run.seed}{' (diverged)' * run.diverged}"
    picture = base64.b64encode(path.read_bytes()).decode()
    write_atomic(path.with_suffix(".html"), render(ANIMATION_PAGE, title=title, picture=picture))


def clip_of_all(data: FigureData, title: str, paths: Sequence[Path]) -> None:
    """The first of `evaluation.film_clips` as every variant (its first seed) and every baseline predicts it."""
    first = {run.variant: run for run in reversed(data.kept)}
    rows = []
    for run in (first[variant] for variant in dict.fromkeys(run.variant for run in data.kept)):
        clip, context, truth, prediction = (run.shown_clip[name] for name in ("clip", "context", "truth", "prediction"))
        mse = run.per_clip.at[clip, "mse"]
        rows.append(ClipRow(run.label, prediction, mse, baseline=run.config is None))  # pyright: ignore[reportArgumentType]  # a number
    facts = [data.readable.seed_note("of which the first is shown")]
    draw = clip_figure if len(truth) > 1 else single_frame_figure
    draw(context, [ClipRow("Truth", truth), *rows], f"{title} (clip {clip})", facts, paths)

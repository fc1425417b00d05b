"""The figure of errors behind a bar."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmark.reporting.figures.figure_data import FigureData
from benchmark.reporting.figures.style import (
    draw_seeds,
    empty_figure,
    finish,
    handles,
    page,
)


def gap_against_error(data: FigureData, title: str, paths: Sequence[Path]) -> None:
    """Error in the box of the hidden digit by how long it was hidden, a line a variant."""
    runs, setting = data.shown, data.readable
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
        rise.set_ylabel(f"rise of that from length {min(curves.index)} ↓")
        for axes in (error, rise):
            axes.set_xticks(curves.index)
            axes.set_xlabel("occlusion length: last context frames\nin which a bar hides the digit")
        finish(figure, title, [setting.seed_note("mean", interval="band")], handles(setting.looks))

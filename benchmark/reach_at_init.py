"""A dot plot of reach at initialisation: one row a variant, by the question that it asks."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from benchmark.ablation_figures import REACH_NOTE
from benchmark.config import Protocol
from benchmark.drawing import Setting, finish, page
from benchmark.questions import questions
from benchmark.reach_figures import COTANGENT_NOTE, COTANGENTS, log_reach
from benchmark.runs import FinishedRun, VariantRuns, by_variant
from benchmark.score_figures import BASELINE, Row, body, dot_plot, draw_row, drawn
from benchmark.statistics import Summary, summarise


def reach_at_init(protocol: Protocol, runs: Sequence[FinishedRun], setting: Setting, paths: Sequence[Path]) -> None:
    """Reach at initialisation of every variant, each seed small, mean and interval; a panel a cotangent."""
    groups = {group.variant: group for group in by_variant([run for run in runs if run.config])}
    rows, partners = [], {}
    for asked in questions(protocol):
        rows.append(Row(asked.title))
        for variant in asked.variants:
            partners[len(rows)] = asked.usual.get(variant)
            rows.append(reach_row(groups[variant], setting))
    place_of = {row: place for place, row in enumerate(groups[entry.id].label for entry in protocol.variants)}
    assert len(place_of) == len(groups), "labels of variants differ"
    means = {row.label: row.found for row in rows}
    with page(paths, height=body(rows)) as figure:
        panels, places = dot_plot(figure, rows, len(COTANGENTS))
        for axes, (measure, words) in zip(panels, COTANGENTS.items(), strict=True):
            axes.set_xscale("log")
            axes.set_xlim(*log_span([value for row in rows for value in drawn(row, measure)]))
            axes.axvline(1, color="#666666", linewidth=0.7, zorder=1)
            axes.set_title(f"gradient {words}")
            axes.set_xlabel("reach at initialisation")
            for number, (y, row) in enumerate(zip(places, rows, strict=True)):
                if partners.get(number):
                    mark_usual(axes, y, row.height, means[groups[partners[number]].label][measure])
                draw_row(axes, y, row, measure)
        notes = [
            REACH_NOTE,
            "Grey bar: mean of the variant that is alike but usual in what the heading names. Line at 1: the first"
            " context frame matters as much as the last.",
            COTANGENT_NOTE,
            setting.seed_note("geometric mean and, small, each seed", interval="line"),
        ]
        finish(figure, "Reach before anything is learnt", notes)

"""What all figures share: one style file, one look a variant, and equal bytes for equal content."""

import contextlib
import math
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatterMathtext, LogLocator, NullFormatter, StrMethodFormatter

from benchmark.config.probe_stages import ENDS
from benchmark.config.protocol import Protocol
from benchmark.reporting.finished_runs import FinishedRun
from benchmark.reporting.statistics import SMALLEST_N, summarise_seeds
from benchmark.system.files import atomic_buffer
from models.forecasters.spec import Spec
from models.spec import CELLS

STYLE = Path(__file__).with_name("style.mplstyle")
WIDTH = 7.0
"""Width of a figure in inches, as printed."""
UNDATED = {".pdf": {"CreationDate": None}, ".png": {"Software": None}}
"""Metadata without which equal content gives equal bytes."""

PALETTE = ("#D55E00", "#009E73", "#0072B2", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, one a cell in the order of `CELLS`."""
MARKERS = "os^Dv*<>PpXd"
GREY = "#777777"
BASELINE_LINES = ((0, (6, 2)), (0, (1, 1.5)), (0, (3, 2, 1, 2)))
"""Baselines are grey lines, one style each."""
NOTE = "#404040"

PLAIN_DECADES = 3
"""A logarithmic axis of at most so many decades is written in plain numbers, a longer one in powers of ten."""

LineStyle = str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class Look:
    """How a variant is drawn: hue says the cell, line style where its highway sits, marker and shade which it is."""

    label: str
    color: str
    line: LineStyle
    marker: str
    filled: bool

    def style(self, points: int, offset: int = 0) -> dict[str, Any]:
        """Keywords for `Axes.plot`, with about four markers on `points` points, from the one at `offset` on."""
        every = max(1, points // 4)
        return {
            "color": self.color,
            "linestyle": self.line,
            "marker": self.marker,
            "markevery": (offset % every, every),
            "markerfacecolor": self.color if self.filled else "white",
        }


@dataclass(frozen=True)
class Setting:
    """What the figures of a protocol share."""

    looks: dict[str, Look]
    """Of the variants that are drawn."""
    context: int
    """Given frames."""
    frames: int
    """Given and predicted frames."""
    seeds: list[int]
    """The n that variants have, largest first, diverged runs included."""
    left_out: str
    """Names the runs that diverged, in a sentence; empty if none did."""
    stages: dict[str, str] = field(default_factory=lambda: ENDS)
    """First and last stage of the probe -> in words; one where nothing is trained."""

    @property
    def last_stage(self) -> tuple[str, str]:
        """The last of its stages, and that in words."""
        return list(self.stages.items())[-1]

    def only(self, variants: Collection[str]) -> "Setting":
        """The same with no other variants than `variants`."""
        return replace(self, looks={name: look for name, look in self.looks.items() if name in variants})

    def seed_note(self, shown: str, *, interval: str = "") -> str:
        """How many seeds there are, what is `shown` of them, what an interval is drawn as, and what may be said."""
        most, n = self.seeds[0], " or ".join(map(str, self.seeds))
        if most == 1:
            note = "n = 1: ranks nothing."
        elif most < SMALLEST_N:
            note = f"n = {n} seeds, {shown}: too few for an interval, ranks nothing."
        else:
            note = f"n = {n} seeds, {shown}{f'; {interval}: 95 % t interval over seeds' if interval else ''}."
        return f"{note} {self.left_out}".strip()


def looks(protocol: Protocol, variants: Collection[str] | None = None) -> dict[str, Look]:
    """The look of every variant of `protocol`, or of `variants`; markers tell them apart where it is printed grey."""
    shown = [entry.id for entry in protocol.variants if variants is None or entry.id in variants]
    runs = [protocol.first_run(variant) for variant in shown]
    return looks_of({run.variant: (run.label, run.model) for run in runs})


def looks_of(shown: Mapping[str, tuple[str, Spec]]) -> dict[str, Look]:
    """A look for each thing that has a label and a network, no two alike."""
    families: dict[str, list[str]] = {}
    for key, (_, spec) in shown.items():
        families.setdefault(spec.cell, []).append(key)
    found, others = {}, [cell for cell in families if cell not in CELLS]
    for number, (key, (label, spec)) in enumerate(shown.items()):
        family = families[spec.cell]
        color = shade(PALETTE[cell_number(spec.cell, others) % len(PALETTE)], family.index(key), len(family))
        filled = number // len(MARKERS) % 2 == 0
        found[key] = Look(label, color, highway_line(spec), MARKERS[number % len(MARKERS)], filled)
    return found


def cell_number(cell: str, others: Sequence[str] = ()) -> int:
    """The place of a cell in `CELLS`; those outside the benchmark come after it, in the order of `others`."""
    return [*CELLS, *others, cell].index(cell)


def shade(color: str, place: int, members: int) -> str:
    """The shade of `color` for one of `members`, from dark (place 0) to light; further apart the more there are."""
    tone = (2 * place - members + 1) / members  # in (-1, 1)
    return lighten(color, 0.55 * tone) if tone > 0 else to_hex([(1 + 0.5 * tone) * value for value in to_rgb(color)])  # pyright: ignore[reportArgumentType]  # red, green, blue


def highway_line(spec: Spec) -> LineStyle:
    """Line style: solid without a highway, dashed at the bottom, dash-dotted between, dotted at the top."""
    if not spec.highway_slot:
        return "-"
    if spec.highway_slot == 1:
        return (0, (5.0, 1.5))
    return (0, (1.0, 1.3)) if spec.highway_slot == spec.layers - 1 else (0, (4.0, 1.5, 1.0, 1.5))


def lighten(color: str, by: float) -> str:
    """`color` moved towards white; 0 leaves it, 1 is white."""
    return to_hex([value + (1 - value) * by for value in to_rgb(color)])  # pyright: ignore[reportArgumentType]  # red, green, blue


@contextlib.contextmanager
def page(paths: Sequence[Path], height: float, width: float = WIDTH) -> Iterator[Figure]:
    """Yield an empty figure (inches; `finish` adds to its height) in our style and, once drawn, write it to `paths`."""
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # all formats share the layout, which is most of the cost of drawing
        for axes in figure.axes:  # the solver's last bits differ from process to process, and so would a file's bytes
            left, bottom, wide, high = (round(bound, 9) for bound in axes.get_position(original=True).bounds)
            axes.set_position((left, bottom, wide, high), which="both")
        for path in paths:
            with atomic_buffer(path) as file:
                figure.savefig(file, format=path.suffix[1:], metadata=UNDATED[path.suffix])


def finish(figure: Figure, title: str, facts: Sequence[str], handles: Sequence[Artist] = ()) -> None:
    """Put a title above the axes, a legend of `handles` and facts below; the figure grows by what they need.

    Args: `facts`: sentences about the runs shown, such as n; how to read a figure is said by its caption.
    """
    width, body = figure.get_size_inches()
    text = " ".join(fact for fact in facts if fact)
    for words in (" = ", "95 % t", "(seed "):  # stay on one line
        text = text.replace(words, words.replace(" ", "\N{NO-BREAK SPACE}"))
    lines = textwrap.wrap(text, int(width * 19.5))
    above, legend_at = 0.26, 0.06 + 0.135 * len(lines)
    columns = int(width * 17 / (9 + max((len(handle.get_label()) for handle in handles), default=0))) or 1  # pyright: ignore[reportArgumentType]  # labels are text
    below = legend_at + 0.145 * math.ceil(len(handles) / columns) + 0.05 * bool(handles)
    height = body + above + below
    figure.set_size_inches(width, height)
    figure.text(0.008, 1 - 0.05 / height, title, va="top", fontsize=9, fontweight="bold")
    figure.text(0.008, 0.05 / height, "\n".join(lines), va="bottom", fontsize=7, color=NOTE, linespacing=1.25)
    figure.get_layout_engine().set(rect=(0, below / height, 1, body / height))  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]  # the style sets a constrained layout
    if handles:
        place = (0.5, legend_at / height)
        legend = figure.legend(handles=handles, loc="lower center", bbox_to_anchor=place, ncols=columns, borderpad=0.2)
        legend.set_in_layout(False)


def empty_figure(title: str, message: str, setting: Setting, paths: Sequence[Path]) -> None:
    """A figure that says why there is nothing to show."""
    with page(paths, height=0.6) as figure:
        figure.text(0.5, 0.5, message, ha="center", va="center", fontsize=8)
        finish(figure, title, [setting.seed_note("none shown")])


def nothing_to_draw(setting: Setting, what: str) -> str:
    """Why a figure of `what` is empty, given the setting of all that was probed."""
    return f"No run has a {what}." if setting.looks else "Every run diverged."


def time_axis(axes: Axes, first: int, last: int, context: int | None = None) -> None:
    """Number the frames `first` to `last`; those after `context` lie on grey, behind a line where the context ends."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100) if (last - first) / step <= (6 if step == 1 else 4))
    axes.set_xticks([first, *(t for t in range(step, last + 1, step) if t - first > step / 2)])
    axes.set_xlim(first - 0.5, last + 0.5)
    if context is not None and last > context:
        axes.axvspan(context + 0.5, last + 0.5, color="#F3F3F3", zorder=0)
        axes.axvline(context + 0.5, color="#666666", linewidth=0.7, zorder=1)


def log_ticks(axes: Axes, which: str) -> None:
    """Let the logarithmic axis `x` or `y` end on ticks, so that it has two at least, few enough to be read."""
    axis = getattr(axes, f"{which}axis")
    low, high = axis.get_view_interval()
    decades = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    plain = math.log10(high / low) <= PLAIN_DECADES
    steps = (1, 2, 5) if plain else (1,)
    values = np.outer(decades, steps)
    axes.set(**{f"{which}lim": (values[values <= low].max(), values[values >= high].min())})
    axis.set_major_locator(LogLocator(subs=steps, numticks=None if plain else 7))
    axis.set_major_formatter(StrMethodFormatter("{x:g}") if plain else LogFormatterMathtext())
    axis.set_minor_formatter(NullFormatter())


def panel_columns(panels: int) -> int:
    """In how many columns so many panels of one variant each stand."""
    return min(panels, 4 if panels > 9 else 3)


def panel_grid(figure: Figure, looks: Mapping[str, Look], xlabel: str) -> dict[str, Axes]:
    """One titled panel a variant, in rows of `panel_columns`, all on the same axes; the last of each column names x."""
    columns = panel_columns(len(looks))
    grid = figure.subplots(math.ceil(len(looks) / columns), columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(looks) :]:
        axes.set_axis_off()
    for axes, look in zip(grid.flat, looks.values(), strict=False):
        axes.set_title(look.label)
    for axes in grid.flat[max(0, len(looks) - columns) : len(looks)]:  # nothing is drawn below these
        axes.set_xlabel(xlabel)
        axes.tick_params(labelbottom=True)
    for axes in grid.flat[max(0, len(looks) - columns) : len(looks) - len(looks) % columns]:
        axes.xaxis.set_in_layout(len(looks) % columns == 0)  # or its words, which stand in an empty cell, part the rows
    return dict(zip(looks, grid.flat, strict=False))


def handles(looks: dict[str, Look]) -> list[Line2D]:
    """Entries of a legend."""
    return [Line2D([], [], label=look.label, **look.style(1)) for look in looks.values()]


def limit_to_lines(axes: Axes, means: Sequence[float]) -> bool:
    """Limit the y axis to what `means` span and some more, so that no wide band squashes the lines.

    That is by a third of their span, or on a logarithmic axis by three times its ends.

    Returns:
        Whether that cuts what was drawn.
    """
    log = axes.get_yscale() == "log"
    means = [value for value in means if np.isfinite(value) and (value > 0 or not log)]
    if not means:
        return False
    low, high = axes.get_ylim()
    margin = (max(means) - min(means)) / 3
    ends = (min(means) / 3, max(means) * 3) if log else (min(means) - margin, max(means) + margin)
    axes.set_ylim(max(low, ends[0]), min(high, ends[1]))
    return axes.get_ylim() != (low, high)


def cut_note(cut: bool, setting: Setting) -> str:
    """A sentence that says that bands go on past the axis; empty if none is `cut` or none is drawn."""
    return "Some bands are cut off by the axis." if cut and setting.seeds[0] >= SMALLEST_N else ""


def draw_seeds(axes: Axes, values: pd.DataFrame, look: Look, number: int, *, log: bool = False) -> list[float]:
    """Draw the mean over seeds and, where there are enough, its interval.

    Args:
        axes: where to draw.
        values: one row a seed, one column a time.
        look: the variant's.
        number: its place among the variants, which shifts its markers.
        log: the values are natural logs; what is drawn are their exponentials.

    Returns:
        The means, as drawn.
    """
    found = [summarise_seeds(list(values[t])) for t in values.columns]
    back = np.exp if log else np.asarray
    mean, low, high = (back([getattr(one, key) for one in found]) for key in ("mean", "low", "high"))
    axes.plot(values.columns, mean, **look.style(len(found), number))
    axes.fill_between(values.columns, low, high, color=look.color, alpha=0.15, linewidth=0)
    return mean.tolist()


def left_out(runs: Sequence[FinishedRun]) -> str:
    """A sentence that names the runs that diverged; empty if none did."""
    gone = ", ".join(f"{run.label} (seed {run.seed})" for run in runs if run.diverged)
    return f"Diverged and left out: {gone}." if gone else ""

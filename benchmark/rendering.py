"""How a table is written: numbers as cells, cells as CSV, Markdown and LaTeX."""

import math
from dataclasses import dataclass, field

import pandas as pd

MISSING = "\u2013"
"""An en dash, for a value that does not exist."""


@dataclass(frozen=True)
class Table:
    """One table: full-precision values for programs, formatted cells for people, and how each number was made."""

    title: str
    values: pd.DataFrame
    """The CSV."""
    cells: pd.DataFrame
    """Strings, under heads with units and arrows for better."""
    notes: list[str] = field(default_factory=list)


def digits(metric: str) -> int:
    """Decimals that a metric is shown with."""
    return {"mse": 1, "mae": 1, "psnr": 2}.get(metric.split("_")[0], 3)


def interval(mean: float, low: float, high: float, decimals: int) -> str:
    """`mean [low, high]`, or the mean alone where there is no interval."""
    if math.isnan(low):
        return number(mean, decimals)
    return f"{number(mean, decimals)} [{number(low, decimals)}, {number(high, decimals)}]"


def number(value: float, decimals: int, *, significant: bool = False) -> str:
    """A value with fixed decimals or significant digits; a missing one is a dash."""
    if math.isnan(value):
        return MISSING
    return f"{value:.{decimals}g}" if significant else f"{value:,.{decimals}f}"


def thousands(value: int) -> str:
    """A count with separators; 0 is a dash."""
    return f"{value:,}" if value else MISSING


def to_csv(table: Table) -> str:
    """All values in full precision."""
    return table.values.to_csv(index=False)


def to_markdown(table: Table) -> str:
    """Title, cells and notes."""
    aligned = ["left"] + ["right"] * (table.cells.shape[1] - 1)
    body = table.cells.to_markdown(index=False, colalign=aligned, disable_numparse=True)
    return f"### {table.title}\n\n{body}\n\n" + "".join(f"* {note}\n" for note in table.notes)


SPECIAL = {sign: f"\\{sign}" for sign in "&%_#${}"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
}
LATEX = {"↓": r"$\downarrow$", "↑": r"$\uparrow$", MISSING: "--", "R²": "$R^2$", "10⁶": "$10^6$", "->": r"$\to$"}


def to_latex(table: Table) -> str:
    """A booktabs table with its notes below."""

    def escape(text: str) -> str:
        text = text.translate(str.maketrans(SPECIAL))
        for sign, latex in LATEX.items():
            text = text.replace(sign, latex)
        return text.replace("`", "'")

    cells = table.cells.map(escape).rename(columns=escape)
    layout = "l" + "r" * (cells.shape[1] - 1)
    body = cells.to_latex(index=False, escape=False, column_format=layout)
    notes = "\n\n".join(escape(note) for note in table.notes)
    return (
        f"\\begin{{table}}\n\\centering\n\\caption{{{escape(table.title)}}}\n{body}\n\\par\\smallskip\n"
        f"\\footnotesize\\raggedright\n{notes}\n\\end{{table}}\n"
    )

"""How a table is written: numbers as cells, cells as CSV, Markdown, LaTeX and HTML."""

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from benchmark.reporting.html_pages import html_text, render

TEMPLATES = Path(__file__).parent / "templates"
MISSING = "\u2013"
"""An en dash, for a value that does not exist."""
MINUS = "\N{MINUS SIGN}"
DIGIT_WIDE, POINT_WIDE = "\N{FIGURE SPACE}", "\N{PUNCTUATION SPACE}"
"""Spaces as wide as a digit and as a comma, so that decimal points stand below each other."""
BOLD = "**"


@dataclass(frozen=True)
class Table:
    """One table: full-precision values for programs, formatted cells for people, and how each number was made."""

    title: str
    values: pd.DataFrame
    """The CSV."""
    cells: pd.DataFrame
    """Strings, under heads with units and arrows for better; between two `**` they are bold."""
    notes: list[str] = field(default_factory=list)
    caption: str = ""
    """How to read it, as the registry has it; on its page alone."""


def without_empty(table: Table) -> Table:
    """`table` without the columns that have a dash in every row; a note names them, and the CSV keeps them."""
    empty = [f"{head}" for head in table.cells if len(table.cells) and set(table.cells[head]) == {MISSING}]
    if not empty:
        return table
    note = f"Without a value in any row, and therefore not shown: {', '.join(empty)}."
    return replace(table, cells=table.cells.drop(columns=empty), notes=[*table.notes, note])


def interval(
    mean: float, low: float, high: float, decimals: int, *, significant: bool = False, signed: bool = False
) -> str:
    """`mean [low, high]`, or the mean alone where there is no interval; numbers as `number` writes them."""
    shown = [number(value, decimals, significant=significant, signed=signed) for value in (mean, low, high)]
    return shown[0] if math.isnan(low) else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def number(value: float, decimals: int, *, significant: bool = False, signed: bool = False) -> str:
    """A value with fixed decimals or significant digits, if asked for with its sign; a missing one is a dash."""
    if math.isnan(value):
        return MISSING
    sign = "+" if signed else "z"  # without a sign -0.0004 with three decimals is 0.000
    kind = f"{sign}{'' if significant else ','}.{decimals}{'g' if significant else 'f'}"
    return format(value, kind).replace("-", MINUS)


def thousands(value: int) -> str:
    """A count with separators; 0 is a dash."""
    return f"{value:,}" if value else MISSING


def bold(cell: str) -> str:
    """Mark a cell as one of the best."""
    return f"{BOLD}{cell}{BOLD}"


_NUMBER = rf"[+{MINUS}]?\d[\d,]*(?:\.\d+)?"
_ALIGNED = re.compile(rf"(\*\*)?({_NUMBER})(?: \[({_NUMBER}), ({_NUMBER})\])?(\*\*)?([*\u2020\u2021]?(?: \(.*\))?)")


def aligned(cells: Sequence[str]) -> list[str]:
    """Cells of one column, their numbers filled up with spaces so that decimal points stand below each other.

    That goes for cells that are a number, or one with its interval; others stay as they are.
    """
    found = [_ALIGNED.fullmatch(cell) for cell in cells]
    groups = [[match[place] or "" for match in found if match] for place in (2, 3, 4)]
    widest = [max((group.partition(".")[0] for group in column), key=len, default="") for column in groups]

    def fill(text: str, place: int) -> str:
        whole = text.partition(".")[0]
        missing = widest[place][: len(widest[place]) - len(whole)]
        return re.sub(",", POINT_WIDE, re.sub("[^,]", DIGIT_WIDE, missing))

    def rewrite(match: re.Match) -> str:
        opening, mean, low, high, closing, rest = (part or "" for part in match.groups())
        limits = f" [{fill(low, 1)}{low}, {fill(high, 2)}{high}]" if low else ""
        return f"{fill(mean, 0)}{opening}{mean}{limits}{closing}{rest}"

    return [rewrite(match) if match else cell for cell, match in zip(cells, found, strict=True)]


def aligned_cells(table: Table) -> pd.DataFrame:
    """The cells of `table`, column by column aligned."""
    return table.cells.apply(lambda column: pd.Series(aligned(column.to_list()), index=column.index))


def to_csv(table: Table) -> str:
    """All values in full precision."""
    return table.values.to_csv(index=False)


def to_markdown(table: Table) -> str:
    """Title, cells and notes."""
    left = ["left"] * table.cells.shape[1]
    body = aligned_cells(table).to_markdown(index=False, colalign=left, disable_numparse=True, preserve_whitespace=True)
    return f"### {table.title}\n\n{body}\n\n" + "".join(f"* {note}\n" for note in table.notes)


_SPECIAL = {sign: f"\\{sign}" for sign in "&%_#${}"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
_LATEX = {
    "-\\textgreater{}": r"$\to$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    MISSING: "--",
    MINUS: "$-$",
    DIGIT_WIDE: r"\phantom{0}",
    POINT_WIDE: r"\phantom{,}",
    "\u2020": r"\textsuperscript{\dag}",
    "\u2021": r"\textsuperscript{\ddag}",
    "Δ": r"$\Delta$",
    "×": r"$\times$",
    "τ": r"$\tau$",
    "±": r"$\pm$",
    "²": "$^2$",
    "⁶": "$^6$",
    "ⁿ": "$^n$",
    "`": "'",
}


def latex(text: str) -> str:
    """Text as LaTeX sets it, in ASCII."""
    text = text.translate(str.maketrans(_SPECIAL))
    for sign, written in _LATEX.items():
        text = text.replace(sign, written)
    return re.sub(r"\*\*(.+)\*\*", r"\\textbf{\1}", text)


STACK = r" \\ "
"""What parts the lines of a head in LaTeX."""
_HEAD_SIGNS, _UPRIGHT_SIGNS = 13, 75
"""Characters in a line of a head, and in the rows of a table that is not turned on its side."""


def to_latex(table: Table) -> str:
    """A booktabs table, turned on its side where it is wide and never wider than the line, with its notes below."""
    cells = aligned_cells(table)
    heads = {head: textwrap.wrap(head, _HEAD_SIGNS, break_long_words=False) for head in cells.columns}
    signs = sum(max(map(len, [*lines, *cells[head]])) for head, lines in heads.items())
    stacked = {head: rf"\shortstack[l]{{{STACK.join(map(latex, lines))}}}" for head, lines in heads.items()}
    cells = cells.map(latex).rename(columns=stacked)
    body = cells.to_latex(index=False, escape=False, column_format="l" * cells.shape[1])
    notes = "\n\n".join(map(latex, table.notes))
    place = "table" if signs <= _UPRIGHT_SIGNS else "sidewaystable"
    return (
        "% needs \\usepackage{booktabs,graphicx,rotating}\n"
        f"\\begin{{{place}}}\n\\centering\\small\n\\caption{{{latex(table.title)}}}\n"
        f"\\resizebox{{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}}{{!}}{{%\n{body}}}\n"
        f"\\par\\smallskip\n\\scriptsize\\raggedright\n{notes}\n\\end{{{place}}}\n"
    )


def to_html(table: Table) -> str:
    """A page of its own, which needs no other file; a click on a head sorts its rows."""
    cells = aligned_cells(table)
    return render(
        TEMPLATES / "table.html",
        title=html_text(table.title),
        heads=[html_text(head) for head in cells.columns],
        rows=[[html_text(cell) for cell in row] for row in cells.to_numpy().tolist()],
        notes=[html_text(note) for note in table.notes],
        caption=html_text(table.caption, marks=True),
    )

"""The first page of the report: the main table and one figure, in the reStructuredText that Snakemake reads."""

import base64
import re
from pathlib import Path

from benchmark.config.protocol import Protocol
from benchmark.reporting.html_pages import html_text
from benchmark.reporting.outputs import figures_of, tables_of
from benchmark.reporting.registry import FIGURES

MAIN_TABLES = ("main", "reach_effects")
MAIN_FIGURES = ("highway_effect", "scores", "reach_at_init", "gradient_norm")
"""The first of these that a protocol has answers its question best."""
STYLE = """
.h-screen:has(.prose.max-w-lg) { align-items: flex-start; }
div:has(> div > .prose.max-w-lg) { flex-direction: column; }
.prose.max-w-lg { max-width: 75rem; padding: 0 1.5rem; }
.prose table { font-size: 0.8rem; display: block; overflow-x: auto; margin-bottom: 0; }
.prose caption { display: none; }
.prose td { white-space: pre; }
.prose th, .prose td { padding: 0.2rem 1.2rem 0.2rem 0; text-align: left; vertical-align: bottom; }
.prose details, .prose figcaption { font-size: 0.8rem; max-width: 60rem; }
.prose summary { cursor: pointer; margin-top: 0.5rem; }
.prose figure img { width: 100%; max-width: 60rem; background: white; margin-bottom: 0; }
"""
"""Snakemake's page is a narrow column beside the graph of its rules; so the graph is below, and a table has room."""


def landing(protocol: Protocol, folder: Path) -> str:
    """The results of `protocol` as a block of reStructuredText; a sentence where there are none yet.

    Args: `folder` holds them.
    """
    table = folder / "tables" / f"{main_table(protocol)}.html"
    if not table.exists():
        return "There are no results yet."
    page = table.read_text()
    parts = [f"<style>{STYLE}</style>", *inside(page, "table")]
    read = "".join(inside(page, "aside")) + "".join(inside(page, "ul"))
    parts.append(f"<details><summary>How to read this table, and what its numbers are</summary>{read}</details>")
    name = next((name for name in MAIN_FIGURES if name in figures_of(protocol)), None)
    picture = folder / "figures" / f"{name}.png"
    if name and picture.exists():
        entry, lines = FIGURES[name], base64.encodebytes(picture.read_bytes()).decode()  # docutils limits their length
        image = f'<img alt="{entry.title}" src="data:image/png;base64,{lines}">'
        parts.append(f"<figure>{image}<figcaption>{html_text(entry.caption, marks=True)}</figcaption></figure>")
    return "\n".join([".. raw:: html", "", *(f"   {line}" for line in "\n".join(parts).splitlines())])


def inside(page: str, element: str) -> list[str]:
    """The elements of that name in one of our pages, whole."""
    return re.findall(rf"<{element}>.*?</{element}>", page, re.DOTALL)


def main_table(protocol: Protocol) -> str:
    """The name of the table that says most of `protocol`."""
    return next(name for name in MAIN_TABLES if name in tables_of(protocol))

"""The first page of the report: the main table and one figure, in the reStructuredText that Snakemake reads."""

import base64
import re
from pathlib import Path

from benchmark.config.protocol import Protocol
from benchmark.reporting.outputs import figures_of, tables_of
from benchmark.reporting.registry import FIGURES

MAIN_TABLES = ("main", "reach_effects")
MAIN_FIGURES = ("highway_effect", "scores", "reach_at_init", "gradient_norm")
"""The first of these that a protocol has answers its question best."""
STYLE = """
.prose.max-w-lg { max-width: 75rem; padding: 0 1.5rem; }
.prose table { font-size: 0.8rem; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
.prose caption { text-align: left; font-weight: 600; padding-bottom: 0.3rem; }
.prose td { white-space: pre; }
.prose th, .prose td { padding: 0.2rem 1.2rem 0.2rem 0; text-align: left; vertical-align: bottom; }
.prose figure img { width: 100%; max-width: 60rem; background: white; }
div:has(> .prose.max-w-lg) ~ * { display: none; }
"""
"""Room for a table: Snakemake's own page is a narrow column beside the graph of its rules, which *Workflow* shows."""


def landing(protocol: Protocol, folder: Path) -> str:
    """The results of `protocol` as a block of reStructuredText; a sentence where there are none yet.

    Args: `folder` holds them.
    """
    table = folder / "tables" / f"{main_table(protocol)}.html"
    name = next((name for name in MAIN_FIGURES if name in figures_of(protocol)), None)
    if not table.exists():
        return "There are no results yet."
    parts = [f"<style>{STYLE}</style>", *re.findall(r"<table>.*?</table>", table.read_text(), re.DOTALL)]
    picture = folder / "figures" / f"{name}.png"
    if name and picture.exists():
        data, title = base64.b64encode(picture.read_bytes()).decode(), FIGURES[name].title
        parts.append(f'<figure><img alt="{title}" src="data:image/png;base64,{data}"></figure>')
    lines = "\n".join(parts).splitlines()
    return "\n".join([".. raw:: html", "", *(f"   {line}" for line in lines)])


def main_table(protocol: Protocol) -> str:
    """The name of the table that says most of `protocol`."""
    return next(name for name in MAIN_TABLES if name in tables_of(protocol))

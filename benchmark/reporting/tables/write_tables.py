"""The tables of a protocol, in CSV (full precision), Markdown, LaTeX and HTML, all from the files of its runs."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from benchmark.config.protocol import Protocol
from benchmark.data.kinds import kind_of
from benchmark.reporting.finished_runs import read_runs
from benchmark.reporting.outputs import TABLE_FORMATS, tables_of
from benchmark.reporting.tables.cost import compute_table
from benchmark.reporting.tables.differences import comparison_table
from benchmark.reporting.tables.gradients import probe_table
from benchmark.reporting.tables.learning_rates import rate_table
from benchmark.reporting.tables.long_horizon import beyond_table
from benchmark.reporting.tables.occlusion import occlusion_table
from benchmark.reporting.tables.published import paper_table
from benchmark.reporting.tables.reach_effects import reach_effects_table, reach_error_table
from benchmark.reporting.tables.rendering import Table, to_csv, to_html, to_latex, to_markdown
from benchmark.reporting.tables.scores import conventions_table, main_table, per_frame_table
from benchmark.system.files import read_json, write_atomic


def write_tables(protocol: Protocol, results_dir: Path, *, reuse: bool = False) -> None:
    """Write `tables/<name>.{csv,md,tex,html}` of `protocol`.

    Args: `reuse`: take runs from published records, see `read_runs`.

    Raises:
        UserError: a run is not finished.
    """
    folder = results_dir / protocol.name
    runs = read_runs(protocol, results_dir, reuse=reuse)
    costs = pd.read_csv(folder / "plan.csv").set_index("variant")
    lpips = read_json(folder / "lpips_backbone.json")
    test_set = kind_of(protocol.data).test_set(folder / "data")
    make: dict[str, Callable[[], Table]] = {
        "main": lambda: main_table(protocol, runs, costs, lpips),
        "comparison": lambda: comparison_table(protocol, runs, lpips),
        "per_frame": lambda: per_frame_table(protocol, runs),
        "conventions": lambda: conventions_table(protocol, runs, lpips),
        "compute": lambda: compute_table(protocol, runs, costs),
        "probe": lambda: probe_table(protocol, runs),
        "reach_effects": lambda: reach_effects_table(protocol, runs),
        "reach_error": lambda: reach_error_table(protocol, runs),
        "paper": lambda: paper_table(protocol, runs, costs, lpips, test_set),
        "occlusion": lambda: occlusion_table(protocol, runs),
        "beyond": lambda: beyond_table(protocol, runs),
        "learning_rates": lambda: rate_table(protocol, runs),
    }
    render: dict[str, Callable[[Table], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex, "html": to_html}
    for name in tables_of(protocol):
        table = make[name]()
        for ending in TABLE_FORMATS:
            write_atomic(folder / "tables" / f"{name}.{ending}", render[ending](table))

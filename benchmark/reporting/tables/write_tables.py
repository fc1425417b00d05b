"""The tables of a protocol, in CSV (full precision), Markdown, LaTeX and HTML, all from the files of its runs."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from benchmark.beyond_table import beyond_table
from benchmark.comparison_table import comparison_table
from benchmark.config import Protocol
from benchmark.cost_table import compute_table
from benchmark.data_sections import HELD_OUT, VideosConfig
from benchmark.files import read_json, write_atomic
from benchmark.outputs import TABLE_FORMATS, tables_of
from benchmark.paper_table import paper_table
from benchmark.probe_tables import occlusion_table, probe_table
from benchmark.rate_table import rate_table
from benchmark.reach_tables import reach_effects_table, reach_error_table
from benchmark.rendering import Table, to_csv, to_html, to_latex, to_markdown
from benchmark.runs import read_runs
from benchmark.score_tables import conventions_table, main_table, per_frame_table


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
    test_set = HELD_OUT if isinstance(protocol.data, VideosConfig) else "generated"
    if protocol.data.public_test:
        test_set = read_json(folder / "data" / "data.json")["test_set"]
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

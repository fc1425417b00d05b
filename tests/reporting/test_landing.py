"""The first page of the report shows results: the main table with its explanation, and one figure."""

import base64

from docutils.core import publish_parts

from benchmark.config.protocol import load_protocol
from benchmark.reporting.landing import landing, main_table
from benchmark.reporting.registry import FIGURES, TABLES


def test_table_and_figure_stand_on_the_first_page_as_snakemake_reads_it(tmp_path):
    protocol = load_protocol("quick")
    (tmp_path / "tables").mkdir()
    (tmp_path / "figures").mkdir()
    page = (
        "<main><div><table>\n<tr><td>ConvLSTM</td></tr>\n</table></div><aside>read</aside></main><ul><li>note</li></ul>"
    )
    (tmp_path / "tables" / "main.html").write_text(page)
    picture = bytes(range(256)) * 100
    (tmp_path / "figures" / "highway_effect.png").write_bytes(picture)
    text = f"Title\n=====\n\n{landing(protocol, tmp_path)}\n\nafter\n"
    body = publish_parts(text, writer="html", settings_overrides={"halt_level": 2})["html_body"]
    assert "<tr><td>ConvLSTM</td></tr>" in body
    assert "<aside>read</aside><ul><li>note</li></ul></details>" in body
    assert base64.b64decode(body.partition("base64,")[2].partition('"')[0]) == picture
    assert FIGURES["highway_effect"].caption[:40] in body
    assert "<p>after</p>" in body


def test_without_results_it_says_so(tmp_path):
    assert landing(load_protocol("quick"), tmp_path) == "There are no results yet."


def test_a_protocol_without_training_begins_with_what_it_has():
    assert main_table(load_protocol("quick")) == "main"
    assert main_table(load_protocol("study-init")) == "reach_effects"
    assert {"main", "reach_effects"} <= TABLES.keys()

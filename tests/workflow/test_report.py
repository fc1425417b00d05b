"""The texts of the report: one for each table and figure, and a table that sorts as people read numbers."""

import re
from pathlib import Path

import pandas as pd
import pytest
from docutils.core import publish_parts

from benchmark.config.protocol import load_protocol
from benchmark.reporting.outputs import figures_of, films_of, paired_films, state_gradients_of, tables_of
from benchmark.reporting.tables.rendering import BOLD, MINUS, MISSING, Table, to_html
from tests.helpers.browser import browser, shown

ROOT = Path(__file__).parents[2]
CAPTIONS = ROOT / "workflows" / "report"
PROTOCOLS = sorted(path.stem for path in (ROOT / "workflows" / "protocols").glob("*.yaml"))


def test_every_table_and_figure_has_a_caption_and_every_caption_is_used():
    protocols = [load_protocol(name) for name in PROTOCOLS]
    used = {name for protocol in protocols for name in (*tables_of(protocol), *figures_of(protocol))}
    assert {path.stem for path in CAPTIONS.glob("*.rst")} == used | {"variant_film", "state_gradient", "workflow"}


@pytest.mark.parametrize("path", sorted(CAPTIONS.glob("*.rst")), ids=lambda path: path.stem)
def test_caption_names_its_question_and_is_sound_text(path):
    text = path.read_text()
    if path.stem != "workflow":
        assert re.match(r"\.\. [1-5] [A-Z].+\n\n", text)
        assert 2 <= len(re.findall(r"[a-z)\]*`0-9][.:?](?=\s|$)", text.partition("\n\n")[2])) <= 8
    publish_parts(text, writer="html", settings_overrides={"halt_level": 1, "report_level": 1})


def test_films_in_pairs_differ_in_their_highway_and_come_half_and_half():
    protocol = load_protocol("study-main")
    pairs = paired_films(protocol)
    assert set(pairs) == {"convlstm", "convlstm-ghu", "predrnn", "predrnn-ghu", "causal-lstm", "predrnnpp"}
    assert set(films_of(protocol)) > set(pairs)
    assert len(state_gradients_of(protocol)) == 8
    assert films_of(load_protocol("study-init")) == ()


def test_click_on_a_head_sorts_numbers_by_size_and_leaves_missing_ones_last(tmp_path):
    cells = ["9.5 [8.0, 11.0]", f"{MINUS}2.0", MISSING, f"{BOLD}1,234.5{BOLD}", "100.0", "no decay"]
    frame = pd.DataFrame({"Model": list("abcdef"), "MSE": cells})
    (tmp_path / "table.html").write_text(to_html(Table("Scores", frame, frame)))
    rows = "return [...document.querySelectorAll('tbody tr')].map(row => row.cells[0].textContent).join('')"
    with browser() as page:
        page.get((tmp_path / "table.html").as_uri())
        head = shown(page, "//th[2]")
        for order in ("baedfc", "deabfc"):
            head.click()
            assert page.execute_script(rows) == order

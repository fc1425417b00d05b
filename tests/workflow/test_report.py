"""What the report shows: animations and states in pairs, and a table that sorts as people read numbers."""

import pandas as pd

from benchmark.config.protocol import load_protocol
from benchmark.reporting.outputs import films_of, paired_films, state_gradients_of
from benchmark.reporting.tables.rendering import BOLD, MINUS, MISSING, Table, to_html
from tests.helpers.browser import browser, shown


def test_films_in_pairs_differ_in_their_highway_and_come_half_and_half():
    protocol = load_protocol("study-main")
    pairs = paired_films(protocol)
    assert set(pairs) == {"convlstm", "convlstm-ghu", "predrnn", "predrnn-ghu", "causal-lstm", "predrnnpp"}
    assert set(films_of(protocol)) > set(pairs)
    assert pairs["causal-lstm"] == ("Causal LSTM / PredRNN++", "without")
    assert pairs["predrnnpp"] == ("Causal LSTM / PredRNN++", "with")
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

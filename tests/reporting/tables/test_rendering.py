"""Cells as they are written: decimal points below each other, signs of each format, pages and sheets that open."""

from html.parser import HTMLParser

import pandas as pd

from benchmark.reporting.tables.rendering import (
    DIGIT_WIDE,
    MINUS,
    MISSING,
    POINT_WIDE,
    Table,
    aligned,
    bold,
    interval,
    latex,
    number,
    to_csv,
    to_html,
    to_latex,
    to_markdown,
    without_empty,
)

LABEL = r"A_b 50% #1 & {x} $y$ \z ^ ~ <i>"
TABLE = Table(
    "Scores -> of 2 < 3",
    pd.DataFrame({"variant": ["a", "b"], "mse_mean": [0.1, 1 / 3]}),
    pd.DataFrame({"Model": [LABEL, "PredRNN++"], "MSE ↓": [bold("9.5 [8.0, 11.0]"), f"1,234.5 [{MINUS}2.0, 2,471.0]"]}),
    ["Δ, n², 10⁶, 2ⁿ, ×, \N{DAGGER} and `code`.", "A second note."],
)


def test_decimal_points_stand_below_each_other():
    cells = ["9.5 [8.0, 11.0]", "123.4 [99.0, 150.0]", "1,000.0", MISSING, "no decay", bold("12.0")]
    d, p = DIGIT_WIDE, POINT_WIDE
    assert aligned(cells) == [
        f"{d}{p}{d}{d}9.5 [8.0, {d}11.0]".replace("[8", f"[{d}8"),
        f"{d}{p}123.4 [99.0, 150.0]",
        "1,000.0",
        MISSING,
        "no decay",
        f"{d}{p}{d}**12.0**",
    ]


def test_a_word_that_begins_with_a_digit_is_no_number():
    assert aligned(["32x32", "100.0"]) == ["32x32", "100.0"]


def test_numbers_have_true_signs_and_missing_ones_a_dash():
    assert number(-1234.56, 1) == f"{MINUS}1,234.6"
    assert number(0.5, 2, signed=True) == "+0.50"
    assert number(float("nan"), 2) == MISSING
    assert interval(-1.0, -2.0, 0.5, 1, signed=True) == f"{MINUS}1.0 [{MINUS}2.0, +0.5]"
    assert interval(1.0, float("nan"), float("nan"), 1) == "1.0"


def test_csv_has_full_precision():
    assert float(to_csv(TABLE).splitlines()[2].split(",")[1]) == 1 / 3


def test_markdown_keeps_the_spaces_that_stand_for_digits():
    assert DIGIT_WIDE in to_markdown(TABLE)


def test_latex_is_ascii_and_bold_where_markdown_is():
    text = to_latex(TABLE)
    assert text.isascii()
    assert r"\textbf{9.5 [" in text
    assert latex("PredRNN++ -> 2ⁿ") == r"PredRNN++ $\to$ 2$^n$"


class Cells(HTMLParser):
    """Texts of the cells of a page, and the tags that were left open."""

    def __init__(self):
        super().__init__()
        self.open, self.cells = [], []

    def handle_starttag(self, tag, attributes):
        if tag != "meta":
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


def test_html_page_is_well_formed_needs_no_other_file_and_escapes_its_text():
    text = to_html(TABLE)
    page = Cells()
    page.feed(text)
    assert page.open == []
    assert page.cells[:3] == ["Model", "MSE ↓", LABEL]
    assert "<strong>9.5" in text
    assert "src=" not in text
    assert "href=" not in text


def test_a_column_without_a_value_becomes_one_note_and_stays_in_the_csv():
    values = pd.DataFrame({"variant": ["a", "b"], "lpips": [float("nan")] * 2})
    cells = pd.DataFrame({"Model": ["a", "b"], "LPIPS": [MISSING, MISSING], "SSIM": [MISSING, "0.5"]})
    table = without_empty(Table("Scores", values, cells, ["One."]))
    assert list(table.cells) == ["Model", "SSIM"]
    assert table.notes == ["One.", "Without a value in any row, and therefore not shown: LPIPS."]
    assert "lpips" in to_csv(table)


def test_the_page_of_a_table_has_its_explanation_beside_it():
    table = Table("Scores", pd.DataFrame({"n": [1]}), pd.DataFrame({"n": ["1"]}), caption="Bold is *best*, ``x`` < 2.")
    assert "<p>Bold is <em>best</em>, <code>x</code> &lt; 2.</p>\n</aside>\n</main>" in to_html(table)

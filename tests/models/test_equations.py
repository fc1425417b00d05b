"""docs/equations.md numbers what the code refers to."""

import re
from pathlib import Path

import pytest

from models.spec import CELLS, EQUATIONS, ModelSpec

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "equations.md").read_text()
TAGS = re.findall(r"\\tag\{(\w+)\}", PAGE)
SOURCES = sorted(path for package in ("models", "benchmark", "deep_in_time") for path in (ROOT / package).rglob("*.py"))
REFERENCE = re.compile(r"Eq\. (\d+)(?:([a-z])(?:-([a-z]))?)?(?: (to|and) (\d+))?")


def referred(text: str) -> set[str]:
    """All tags that a text refers to; a number without letter stands for all its letters."""
    found = set()
    for first, letter, last_letter, word, last in REFERENCE.findall(text):
        if letter:
            found |= {first + chr(code) for code in range(ord(letter), ord(last_letter or letter) + 1)}
        numbers = range(int(first), int(last) + 1) if word == "to" else [int(first), int(last or first)]
        for number in numbers if not letter else []:
            found |= {tag for tag in TAGS if re.fullmatch(rf"{number}[a-z]?", tag)} or {str(number)}
    return found


def test_tags_run_from_1_to_23_without_gap_or_repetition():
    letters = {1: "abcdef", 2: "abcdefghij", 3: "abcdefghij", 4: "abcdefgh", 5: "abc", 10: "abc", 14: "ab"}
    letters |= {16: "abcd", 17: "abc", 23: "abcd"}
    assert [f"{number}{letter}" for number in range(1, 24) for letter in letters.get(number, [""])] == TAGS


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_number_in_the_code_is_on_the_page(path):
    assert referred(path.read_text()) - set(TAGS) == set()


def test_every_equation_is_named_in_the_code():
    assert set(TAGS) - set().union(*(referred(path.read_text()) for path in SOURCES)) == set()


def test_every_line_of_a_cell_names_its_letter():
    modules = {path.partition(":")[0].replace(".", "/") for path in CELLS.values()}
    cells = "".join((ROOT / f"{name}.py").read_text() for name in modules)
    lettered = {match[0] for match in re.finditer(r"Eq\. \d+[a-z](-[a-z])?", cells)}
    assert {tag for tag in TAGS if re.fullmatch("([1-4]|1[67])[a-z]", tag)} <= referred("\n".join(lettered))


def row_of(field: str) -> list[str]:
    """The cells of the field's row in the tables 'Paper and code side by side'."""
    tables = PAGE.split("## Paper and code side by side")[1].splitlines()
    (row,) = [line for line in tables if line.startswith("|") and f"| `{field}`" in line]
    return [cell.strip().strip("`") for cell in row.strip("|").split("|")]


@pytest.mark.parametrize("field", ["o_sees_h", "g2_sees_m", "w3_kernel", "forget_bias"])
def test_the_table_shows_the_defaults_of_both_equations(field):
    values = {"true": True, "false": False, "kernel_size": 3}
    shown = [cell.split()[0].strip("`") for cell in row_of(field)[-2:]]
    for equations, text in zip(EQUATIONS, shown, strict=True):
        spec = ModelSpec(cell="causal_lstm", hidden_channels=(2,), frame_size=8, kernel_size=3, equations=equations)
        assert getattr(spec, field) == (values[text] if text in values else float(text))


@pytest.mark.parametrize(
    "field",
    ["first_gates_see_c", "memory_order", "conv_bias", "norm", "init", "highway_slot", "highway_gate_bias"],
)
def test_the_table_shows_the_default(field):
    values = {"true": True, "0": 0}
    shown = row_of(field)[-1].split(" ")[0].strip("`")
    assert ModelSpec.__dataclass_fields__[field].default == values.get(shown, shown)

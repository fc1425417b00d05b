"""The registry of tables and figures: what it names is there, made, and explained."""

import re
from pathlib import Path

import pytest
from docutils.core import publish_parts

from benchmark.config.metrics import METRICS
from benchmark.config.protocol import PROTOCOLS, load_protocol
from benchmark.reporting.outputs import figures_of, tables_of
from benchmark.reporting.registry import FIGURES, QUESTIONS, SETS, TABLES

ENTRIES = TABLES | FIGURES | SETS
ALL = [load_protocol(path.stem) for path in sorted(PROTOCOLS.glob("*.yaml"))]
REPORT = Path(__file__).parents[2] / "workflows" / "report" / "workflow.rst"


def test_no_two_entries_share_a_name_and_so_a_caption():
    assert len(ENTRIES) == len(TABLES) + len(FIGURES) + len(SETS)


@pytest.mark.parametrize("name", ENTRIES)
def test_entry_names_its_function_question_and_title(name):
    entry = ENTRIES[name]
    assert callable(entry.function)
    assert entry.question in QUESTIONS
    assert entry.title[0].isupper()
    assert not entry.title.endswith(".")


@pytest.mark.parametrize("name", ENTRIES)
def test_caption_is_sound_text_of_a_few_sentences(name):
    caption = ENTRIES[name].caption
    assert 2 <= len(re.findall(r"[a-z)\]*`0-9][.:?](?=\s|$)", caption)) <= 10
    publish_parts(caption, writer="html", settings_overrides={"halt_level": 1, "report_level": 1})


def test_the_text_of_the_report_is_sound():
    publish_parts(REPORT.read_text(), writer="html", settings_overrides={"halt_level": 1, "report_level": 1})


def test_every_entry_is_made_by_some_protocol():
    made = {name for protocol in ALL for name in (*tables_of(protocol), *figures_of(protocol))}
    assert made == TABLES.keys() | FIGURES.keys()


def test_columns_that_are_measured_are_those_of_the_table_of_cost():
    assert {name: table.measured for name, table in TABLES.items() if table.measured} == {
        "compute": ("train_s", "clips_per_s", "peak_memory_mib")
    }
    assert not set(TABLES["compute"].measured) & METRICS.keys()

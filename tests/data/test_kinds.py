"""Kinds of data: one registry line each, everything else behind one interface."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.config.data_sections import DATA_KINDS
from benchmark.data.kinds import KINDS, DataKind, kind_of
from benchmark.system.errors import UserError
from tests.helpers.made_films import moving_square

ROOT = Path(__file__).parents[2]
SECTIONS = {
    "digits": {"digits": "optdigits", "digit_size": 8, "test_clips": 2, "context": 2, "horizon": 3},
    "videos": {"videos": "own", "square": "crop", "test_clips": 2, "context": 2, "horizon": 3},
    "recall": {"recall": "optdigits", "digit_size": 8, "test_clips": 2, "gap": 1},
}


def section(kind):
    return DATA_KINDS[kind](frame_size=16, validation_clips=1, **SECTIONS[kind])


def test_the_interfaces_are_of_the_kinds_that_a_protocol_may_name():
    assert KINDS.keys() == DATA_KINDS.keys() == SECTIONS.keys()
    assert {kind: section.kind for kind, section in DATA_KINDS.items()} == {kind: kind for kind in DATA_KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_answers_for_its_own_section(kind):
    found = kind_of(section(kind))
    assert isinstance(found, DataKind)
    assert found.data == section(kind)
    assert found.files[-1] == "data.json"
    assert SECTIONS[kind][kind] in found.describe()
    assert SECTIONS[kind][kind] in found.same_kind()


def test_data_are_described_without_torch():
    code = """
import sys
from benchmark.data.kinds import kind_of
from tests.data.test_kinds import SECTIONS, section
for kind in SECTIONS:
    kind_of(section(kind)).describe()
print("torch" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout == "False\n"


def test_nobody_but_the_registries_asks_which_kind_data_are_of():
    names = (
        "VideosConfig",
        "DigitsConfig",
        "FrameBank",
        "DigitBank",
        "ClipStream",
        "RecallConfig",
        "RecallStream",
        "WindowStream",
        "WindowClips",
    )
    files = [*ROOT.glob("benchmark/**/*.py"), *ROOT.glob("workflows/rules/*.smk")]
    lines = [(path, line) for path in files for line in path.read_text().splitlines() if "isinstance(" in line]
    assert len(lines) > 10
    assert [found for found in lines if any(name in found[1] for name in names)] == []


def test_looking_at_videos_says_that_they_are_not_square_before_they_are_prepared(make_videos):
    protocol, data_dir = make_videos({f"{n}.npy": moving_square(14, 16, 20, n) for n in range(10)}, layout="THW")
    with pytest.raises(UserError, match=r"clip \d+: has frames of 20x16 pixels; say with data.square"):
        kind_of(protocol.data).look(protocol, data_dir)

"""A command that is printed reads back, in a shell, as the very words it was made of."""

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.exchange.input_clips import how_to_fit
from benchmark.system.console import command_line
from models.spec import ModelSpec

ROOT = Path(__file__).parents[2]
WORDS = st.binary(min_size=0, max_size=40).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"")))
HOSTILE = st.text("ab \"'$()`?%&;|<>*~#!\\\\\n\t\x1b{}[]=-\u00fc\u202e", max_size=20)


def read_by_bash(line):
    """The words that bash makes of a line."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    return done.stdout.split(b"\0")[:-1]


@settings(deadline=None, max_examples=150)
@given(st.lists(WORDS | HOSTILE, min_size=1, max_size=5))
def test_any_words_are_one_printable_line_that_bash_reads_back(words):
    line = command_line(*words)
    assert line.isprintable()
    line.encode()
    assert read_by_bash(line) == [os.fsencode(word) for word in words]


def test_plain_words_stay_plain():
    assert command_line("python", "-m", "benchmark", "sync", Path("/a/b")) == "python -m benchmark sync /a/b"
    assert command_line("/a b", "it's") == "'/a b' 'it'\"'\"'s'"


@pytest.mark.parametrize("name", ["$(touch planted).gif", "a b.gif", "it's.gif", "-y.gif", "a\nb.gif", "100%d.gif"])
def test_commands_that_make_a_clip_fit_run_nothing_of_its_name(tmp_path, monkeypatch, name):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ffmpeg").write_text('#!/bin/sh\nprintf "%s\\0" "$@" > "$SEEN"\n')
    (tmp_path / "bin" / "ffmpeg").chmod(0o755)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    said = how_to_fit(Path(name), ModelSpec(cell="convlstm", hidden_channels=(3,), kernel_size=3, frame_size=8))
    command = said.partition("do it yourself: ")[2]
    assert "\n" not in said
    environment = os.environ | {"SEEN": str(tmp_path / "seen"), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", command], env=environment, check=True)
    stem = name.removesuffix(".gif")
    assert [path.name for path in (tmp_path / "work").iterdir()] == [stem]
    words = (tmp_path / "seen").read_text().split("\0")
    assert words[:2] == ["-i", str(tmp_path / "work" / name)]
    assert words[4] == str(tmp_path / "work" / stem.replace("%", "%%") / "%04d.png")


PRINTED = re.compile(r"(python -m benchmark \S|snakemake -|ffmpeg -|mkdir |torchrun -|sync -|pip install )[^;`]*$")
UNHARMFUL = {
    "benchmark/reporting/publish.py": "the name of a protocol, which is one of an identifier",
    "benchmark/system/gpu_lock.py": "a number",
    "benchmark/cost/report.py": "a number of cores",
    "benchmark/reporting/tracking/store.py": "the name of a package",
    "benchmark/system/installation.py": "the name of an extra",
}


def commands_with_values(source):
    """Lines of the f-strings in `source` that put a value behind the words of a command."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            before = ""
            for part in node.values:
                if isinstance(part, ast.Constant):
                    before += str(part.value)
                elif PRINTED.search(before):
                    yield node.lineno


def test_scan_sees_a_value_in_a_command_and_none_beside_it():
    source = """f"run `python -m benchmark sync --results-dir {folder}`"
f"ffmpeg -i {source}"
f"`python -m benchmark sync` sends {folder}; {command}"
"""
    assert [*commands_with_values(source)] == [1, 2]


def test_no_message_puts_a_value_into_a_command_by_itself():
    """Only `command_line` may."""
    files = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "benchmark").rglob("*.py")}
    found = {name: [*commands_with_values(source)] for name, source in files.items() if name not in UNHARMFUL}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_one_function_alone_quotes_for_the_shell():
    users = [path for path in (ROOT / "benchmark").rglob("*.py") if "shlex" in path.read_text()]
    assert [path.name for path in users] == ["console.py"]

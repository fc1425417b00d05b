"""An exception that nobody foresaw ends as one line, and its trace lies in a file that nobody else can read."""

import dataclasses
import os
import re
import stat
import tempfile
from pathlib import Path

import pytest

from benchmark.__main__ import main
from benchmark.cli.all_commands import COMMANDS
from benchmark.cli.exit_status import FAULT, MISTAKE


@pytest.fixture
def failing(monkeypatch, capsys, tmp_path):
    """Let the command `plan` raise `error`; returns its exit status, what it said and the folder of temporary files."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    def run(error, *arguments):
        def fails(options):
            raise error

        monkeypatch.setitem(COMMANDS, "plan", dataclasses.replace(COMMANDS["plan"], run=fails))
        return main(["plan", "--protocol", "smoke", *arguments]), capsys.readouterr().err, temporary

    return run


def named_file(message):
    """The path that `message` names, whose file must be there."""
    (path,) = re.findall(r"please report it with (\S+), which has the full trace", message)
    return Path(path)


def test_the_line_says_what_happened_and_where_the_trace_is(failing, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    status, message, temporary = failing(KeyError("no\nsuch key"), "--results-dir", str(results))
    assert status == FAULT
    assert message.startswith("error: plan: unexpected KeyError: ")
    assert message.count("\n") == 1
    path = named_file(message)
    assert path.parent == results
    assert list(temporary.iterdir()) == []
    trace = path.read_text()
    assert trace.startswith(f"python -m benchmark plan --protocol smoke --results-dir {results}\n")
    assert "Traceback (most recent call last)" in trace
    assert "in fails" in trace


def test_the_file_is_of_this_user_alone_and_its_name_is_new_each_time(failing, tmp_path):
    umask = os.umask(0)
    try:
        names = [named_file(failing(ValueError("x"), "--results-dir", str(tmp_path))[1]) for _ in range(3)]
    finally:
        os.umask(umask)
    assert len(set(names)) == 3
    assert [stat.S_IMODE(path.stat().st_mode) for path in names] == [0o600] * 3


def test_without_a_results_folder_the_file_is_among_the_temporary_ones_of_the_user(failing, tmp_path):
    _, message, temporary = failing(RuntimeError("x"), "--results-dir", str(tmp_path / "none"))
    assert named_file(message).parent == temporary
    assert not (tmp_path / "none").exists()


def test_where_no_folder_takes_the_file_the_trace_is_printed(failing, tmp_path, monkeypatch):
    status, message, _ = failing(RuntimeError("x"), "--results-dir", "/proc")
    assert (status, "Traceback" in message) == (FAULT, False)
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    status, message, _ = failing(RuntimeError("x"), "--results-dir", str(tmp_path / "none"))
    assert status == FAULT
    assert "Traceback (most recent call last)" in message


def test_a_reader_of_the_output_who_has_left_is_no_fault(failing):
    status, message, temporary = failing(BrokenPipeError(32, "Broken pipe"))
    assert (status, message) == (MISTAKE, "error: output: Broken pipe\n")
    assert list(temporary.iterdir()) == []

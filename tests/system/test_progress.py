"""The progress line: one that is rewritten on a terminal, some that follow each other in a log file."""

import contextlib
import os
import pty
import re
import time
from types import SimpleNamespace

import pytest

from benchmark.system.console import Progress, Stopwatch

LINE = r"predrnnpp seed=1 \| step +\d+/100 \| loss 0\.\d+ \| 12\.3 clips/s \| \d+:\d\d:\d\d left"


@pytest.fixture
def log(tmp_path):
    """What a log file holds after `show`."""

    def read(steps, done=0):
        path = tmp_path / "train.log"
        with path.open("w") as file, contextlib.redirect_stderr(file):
            show(steps, done)
        return path.read_text()

    return read


@pytest.fixture
def terminal():
    """What a pseudo-terminal receives from `show`."""

    def read(steps):
        ours, theirs = pty.openpty()
        try:
            with open(theirs, "w") as screen, contextlib.redirect_stderr(screen):
                show(steps, done=0)
                shown = ""
                while not shown.endswith("\n"):
                    shown += os.read(ours, 1000).decode()
                return shown
        finally:
            os.close(ours)

    return read


def show(steps, done):
    progress = Progress("predrnnpp seed=1", 100, done)
    for step in steps:
        progress.show(step, 0.5 / step, 12.34)


def test_terminal_has_one_line_rewritten_at_every_point(terminal):
    shown = terminal([10, 20, 100])
    assert shown.count("\n") == 1
    assert shown.endswith("\r\n")
    assert [re.fullmatch(LINE, line.strip("\r\n")) is None for line in shown.split("\x1b[K\r")] == [False] * 3


def test_log_file_has_whole_lines_and_no_control_characters(log, monkeypatch):
    monkeypatch.setattr(Progress, "LOG_EVERY_S", 0)
    lines = log([5, 50, 100]).splitlines()
    assert len(lines) == 3
    assert all(re.fullmatch(LINE, line) for line in lines)
    assert "step   5/100" in lines[0]


def test_log_file_is_not_flooded_but_has_the_end(log):
    assert re.findall(r"step +(\d+)/", log(range(1, 101))) == ["100"]


def test_time_left_counts_the_steps_of_this_process_only(log, monkeypatch):
    clock = iter([0.0, 20.0, 20.0])
    monkeypatch.setattr("benchmark.system.console.time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert log([60], done=40).endswith("| 0:00:40 left\n")  # 20 steps in 20 s, 40 to go


def test_stopwatch_sums_what_saving_took_and_knows_the_whole_time(monkeypatch):
    now = iter([100.0, 103.0, 104.0, 105.0, 107.0, 120.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    watch = Stopwatch()
    for _ in range(2):  # 103 to 104 and 105 to 107
        with watch.saving():
            pass
    assert watch.saving_s == 3
    assert watch.total_s() == 20


def test_stopwatch_leaves_pauses_out(monkeypatch):
    now = iter([100.0, 103.0, 104.0, 109.0, 111.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    watch = Stopwatch()
    assert watch.elapsed_s() == 3
    with watch.paused():  # from 104 to 109
        pass
    assert watch.elapsed_s() == 6

"""One living writer a folder; the lock dies with its holder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.errors import UserError
from benchmark.lock import hold

ROOT = Path(__file__).parents[2]
HOLDER = """
import pathlib, sys, time
from benchmark.lock import hold
with hold(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_second_writer_is_told_the_folder_and_the_pid(tmp_path, holder):
    with pytest.raises(UserError) as raised, hold(tmp_path):
        pass
    assert str(raised.value) == f"{tmp_path}: in use by pid {holder.pid} (python); wait for it or end it"


def test_lock_is_free_once_its_holder_was_killed(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with hold(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"pid {os.getpid()} (")


def test_lock_is_free_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), hold(tmp_path):
        raise RuntimeError
    with hold(tmp_path):
        pass


def test_program_started_by_the_holder_does_not_inherit_the_lock(tmp_path):
    with hold(tmp_path):
        child = subprocess.Popen(["sleep", "60"])
    try:
        with hold(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()


def test_folders_are_locked_one_by_one(tmp_path):
    with hold(tmp_path / "a"), hold(tmp_path / "b"):
        assert (tmp_path / "a").is_dir()


def test_folder_that_cannot_be_made_is_said_in_one_line(tmp_path):
    (tmp_path / "results").write_text("a file")
    said = r"results/quick: cannot be written to .*choose another folder"
    with pytest.raises(UserError, match=said), hold(tmp_path / "results" / "quick"):
        pass

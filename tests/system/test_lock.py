"""One living writer a folder; the lock dies with its holder."""

import errno
import fcntl
import os
import platform
import pwd
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.system.errors import UserError
from benchmark.system.locks import hold, is_held, wait_and_hold

ROOT = Path(__file__).parents[2]
HOLDER = """
import pathlib, sys, time
from benchmark.system.locks import hold
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


def said_elsewhere(folder):
    """Let the lock of `folder` say that a process of another machine took it."""
    lock = folder / ".lock"
    lock.write_text(lock.read_text().replace(f" on {platform.node()}", " on node7"))


def test_holder_on_another_machine_is_named_with_it(tmp_path, holder):
    said_elsewhere(tmp_path)
    with pytest.raises(UserError) as raised, hold(tmp_path):
        pass
    assert str(raised.value) == f"{tmp_path}: in use by pid {holder.pid} (python) on node7; wait for it or end it"


def test_lock_of_another_machine_is_held_until_its_holder_dies_though_linux_lists_it_nowhere(tmp_path, monkeypatch):
    """A network disk shares locks between kernels, each of which lists its own alone: here, none at all."""
    with hold(tmp_path):
        said_elsewhere(tmp_path)
        monkeypatch.setattr(Path, "read_text", lambda path, **_: "")  # of /proc/locks
        assert is_held(tmp_path)
    assert not is_held(tmp_path)


def test_disk_without_locks_is_said_with_what_to_do(tmp_path, monkeypatch):
    def refuse(handle, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)  # as Lustre does without `-o flock`, which no disk here is
    with pytest.raises(UserError, match=r"takes no locks \(No locks available\).*mount it with locks"), hold(tmp_path):
        pass


@pytest.mark.parametrize("kind", ["file", "nothing"])
def test_lock_that_is_a_link_is_refused_by_name_and_nothing_is_written(tmp_path, kind):
    victim, folder = tmp_path / "victim", tmp_path / "run"
    folder.mkdir()
    if kind == "file":
        victim.write_text("precious")
    (folder / ".lock").symlink_to(victim)
    for lock in (lambda: hold(folder), lambda: wait_and_hold(folder / ".lock")):
        with pytest.raises(UserError, match=r"run/\.lock: is a symbolic link, .*; remove the link$"), lock():
            pass
    assert not is_held(folder)
    assert (victim.read_text() if victim.exists() else None) == ("precious" if kind == "file" else None)


def test_lock_that_is_a_pipe_is_refused_by_name_and_waits_for_nobody(tmp_path):
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(UserError, match=r"\.lock: is no regular file; remove it$"), hold(tmp_path):
        pass
    assert not is_held(tmp_path)


@pytest.mark.parametrize(
    "planted", ["\x1b[2Jfree", "pid 1 (benchmark train)", "give me root", "pid {pid} (a\nb)", "pid x (y) on z"]
)
def test_text_that_another_put_into_a_lock_is_not_printed(tmp_path, holder, planted):
    (tmp_path / ".lock").write_text(planted.format(pid=holder.pid))
    with pytest.raises(UserError) as raised, hold(tmp_path):
        pass
    user = pwd.getpwuid(os.getuid()).pw_name
    assert str(raised.value) == f"{tmp_path}: in use by pid {holder.pid} of user {user}; wait for it or end it"


def test_text_of_a_lock_that_everybody_may_write_to_is_not_printed(tmp_path, holder):
    (tmp_path / ".lock").write_text(f"pid {holder.pid} (send your password to x)")
    (tmp_path / ".lock").chmod(0o666)
    with pytest.raises(UserError, match=f"in use by pid {holder.pid} of user "), hold(tmp_path):
        pass


def test_one_module_alone_locks_files():
    users = [path for path in (ROOT / "benchmark").rglob("*.py") if "fcntl" in path.read_text()]
    assert [path.name for path in users] == ["locks.py"]
    assert users[0].read_text().count("fcntl.flock(") == 1

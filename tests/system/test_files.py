"""Files appear whole or not at all; a log that was cut off in a line is read up to there."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.system.errors import UserError
from benchmark.system.files import append_json_line, atomic_path, read_json, read_json_lines, write_atomic, write_json
from benchmark.system.locks import hold

ROOT = Path(__file__).parents[2]


def test_failing_writer_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "scores.csv"
    write_atomic(path, "old")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half of the n")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["scores.csv"]


def test_nobody_sees_a_file_before_it_is_whole(tmp_path):
    path = tmp_path / "runs" / "weights.bin"
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"first half")
        assert not path.exists()
        temporary.write_bytes(b"first half, second half")
    assert path.read_bytes() == b"first half, second half"


def test_writer_killed_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "status.json"
    write_json(path, {"step": 1})
    program = (
        "import os, pathlib, signal\n"
        "from benchmark.system.files import atomic_path\n"
        f"with atomic_path(pathlib.Path({str(path)!r})) as temporary:\n"
        "    temporary.write_text('{\"step\":')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == -signal.SIGKILL
    assert read_json(path) == {"step": 1}


def test_temporary_file_lies_beside_its_target_and_keeps_the_ending(tmp_path):
    with atomic_path(tmp_path / "film.png") as temporary:
        temporary.write_bytes(b"")
        assert (temporary.parent, temporary.suffix, temporary.name[0]) == (tmp_path, ".png", ".")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_file_is_readable_by_whom_the_umask_says(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "a", b"\x00")
        with atomic_path(tmp_path / "b") as temporary:
            temporary.write_bytes(b"\x00")
        append_json_line(tmp_path / "c", {})
        with hold(tmp_path):
            pass
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == dict.fromkeys(
        ("a", "b", "c", ".lock"), mode
    )


def test_file_that_is_a_link_is_replaced_and_what_it_points_to_is_left_alone(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "status.json").symlink_to(tmp_path / "victim")
    write_json(tmp_path / "status.json", {"step": 1})
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "status.json").is_symlink()
    assert read_json(tmp_path / "status.json") == {"step": 1}


def test_log_that_is_a_link_is_refused_by_name_and_nothing_is_written(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match=r"metrics\.jsonl: is a symbolic link"):
        append_json_line(tmp_path / "metrics.jsonl", {"step": 1})
    assert (tmp_path / "victim").read_text() == "precious"


def test_link_put_in_place_of_a_temporary_file_is_noticed_and_does_not_become_the_file(tmp_path):
    (tmp_path / "victim").write_text("precious")

    def write():
        with atomic_path(tmp_path / "status") as temporary:
            temporary.unlink()
            temporary.symlink_to(tmp_path / "victim")

    with pytest.raises(UserError, match="status: not written: another program put a file in place of"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]


def test_pipe_among_what_killed_writers_left_is_waited_for_by_nobody(tmp_path):
    os.mkfifo(tmp_path / ".status-00000000.json")
    write_json(tmp_path / "status.json", {"step": 1})
    assert read_json(tmp_path / "status.json") == {"step": 1}


def test_json_has_one_order_of_keys(tmp_path):
    write_json(tmp_path / "a", {"b": 1, "a": [1.5, None]})
    write_json(tmp_path / "b", {"a": [1.5, None], "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_json(tmp_path / "a") == {"a": [1.5, None], "b": 1}


@pytest.mark.parametrize("torn", ["", "{", '{"step": 2, "loss": 0.', '{"step": 2, "loss": 0.25}'])
def test_torn_last_line_of_a_log_is_dropped(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    append_json_line(path, {"step": 1, "loss": 0.5})
    with path.open("a") as log:
        log.write(torn)
    assert read_json_lines(path) == [{"step": 1, "loss": 0.5}]


def test_log_that_is_not_there_has_no_lines(tmp_path):
    assert read_json_lines(tmp_path / "metrics.jsonl") == []


def test_numbers_survive_a_log_bit_for_bit(tmp_path):
    values = [0.1, 1 / 3, 1e-308, -0.0, float("inf")]
    append_json_line(tmp_path / "log", {"values": values})
    assert list(map(float.hex, read_json_lines(tmp_path / "log")[0]["values"])) == list(map(float.hex, values))

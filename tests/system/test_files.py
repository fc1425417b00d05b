"""Files appear whole or not at all; a log that was cut off in a line is read up to there."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.system.files import append_json_line, atomic_path, read_json, read_json_lines, write_atomic, write_json

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


def test_file_is_readable_by_others(tmp_path):
    write_atomic(tmp_path / "a", b"\x00")
    assert os.stat(tmp_path / "a").st_mode & 0o777 == 0o644


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

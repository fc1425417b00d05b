"""`status` tells what each run folder holds, while others write, and writes nothing."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmark.__main__ import main
from benchmark.reporting.terminal.status import SIGNS, overview, show, standing
from benchmark.system.files import append_json_line, read_json, write_json
from benchmark.system.locks import hold, is_held
from benchmark.training.train import train

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tiny(make_protocol):
    return make_protocol(variants=["convlstm"])


@pytest.fixture
def half_way(tiny, results):
    """A run folder as a process leaves it that was killed at step 4 of 8."""
    run = tiny.run("convlstm", 1)
    train(run, results, "cpu")
    folder = run.path(results)
    write_json(folder / "status.json", read_json(folder / "status.json") | {"state": "running", "step": 4})
    (folder / "timing.jsonl").unlink()
    append_json_line(folder / "timing.jsonl", {"step": 4, "clips_per_s": 0.5})
    return run, folder


def test_run_goes_from_missing_over_trained_to_done(tiny, results, tmp_path, capsys):
    run = tiny.run("convlstm", 1)
    words = ["--protocol", str(tmp_path / "tiny.yaml"), "--results-dir", str(results)]
    one = [*words, "--variant", "convlstm", "--seed", "1"]
    assert standing(run, results).state == "missing"
    assert main(["backbone", *words, "--data-dir", str(tmp_path)]) == 0
    assert main(["train", *one]) == 0
    assert standing(run, results).state == "trained"
    assert [main([verb, *one]) for verb in ("evaluate", "probe", "record")] == [0, 0, 0]
    assert standing(run, results).state == "done"
    capsys.readouterr()
    assert main(["status", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"tiny: 2 runs in {results}"
    assert lines[3].split() == ["convlstm", "#."]
    assert lines[-2:] == ["# 1 done", ". 1 missing"]


def test_held_lock_is_a_run_under_way_and_a_free_one_an_interrupted_run(half_way, results):
    run, folder = half_way
    assert not is_held(folder)
    assert standing(run, results) == ("interrupted", "50%")
    with hold(folder):
        assert standing(run, results) == ("running", "50%, 0:00:16 left")  # 4 steps of 2 clips at 0.5 clips/s
    assert standing(run, results).state == "interrupted"


@pytest.mark.parametrize("state", ["interrupted", "failed"])
def test_run_that_says_it_ended_before_its_end_is_no_trained_one(half_way, results, state):
    run, folder = half_way
    write_json(folder / "status.json", read_json(folder / "status.json") | {"state": state})
    assert standing(run, results) == ("interrupted", "50%")


def test_looking_takes_no_lock_from_one_who_wants_it(tmp_path):
    stop = threading.Event()

    def look():
        while not stop.is_set():
            is_held(tmp_path)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(200):
            with hold(tmp_path):
                pass
    finally:
        stop.set()
        looking.join()


def test_line_that_is_being_written_is_passed_over(half_way, results):
    run, folder = half_way
    with (folder / "timing.jsonl").open("a") as file:
        file.write('{"step": 7, "cli')
    assert standing(run, results).about == "50%"


def test_diverged_stale_and_damaged_runs_are_told_apart(half_way, results, make_protocol):
    run, folder = half_way
    status = read_json(folder / "status.json")
    write_json(folder / "status.json", status | {"state": "diverged"})
    assert standing(run, results) == ("diverged", "at step 4")
    other = make_protocol(variants=["convlstm"], training={"learning_rate": 0.5}).run("convlstm", 1)
    assert standing(other, results) == ("stale", "other config")
    (folder / "status.json").write_text("{")
    assert standing(run, results).state == "unreadable"


def test_published_run_that_was_not_made_here_is_kept(tmp_path):
    from benchmark.config.protocol import load_protocol

    text, over = overview(load_protocol("study-rates"), tmp_path)
    assert over
    assert f"{SIGNS['kept']} 27 kept" in text


def test_seeds_of_another_number_stand_below_each_other(make_protocol, results):
    protocol = make_protocol(seeds=[1, 2, 12], variants=["convlstm", {"id": "predrnnpp", "seeds": [12]}])
    lines = overview(protocol, results)[0].splitlines()
    assert lines[2:5] == ["variant    seeds 1 to 12", "convlstm   ...", "predrnnpp    ."]


def test_read_only_folder_is_left_as_it_was(half_way, tiny, results):
    before = sorted(results.rglob("*"))
    show(tiny, results)
    assert sorted(results.rglob("*")) == before


def test_terminal_is_drawn_again_until_ctrl_c(half_way, results, tmp_path):
    terminal, inner = pty.openpty()
    words = ["status", "--protocol", str(tmp_path / "tiny.yaml"), "--results-dir", str(results)]
    process = subprocess.Popen([sys.executable, "-m", "benchmark", *words], cwd=ROOT, stdout=inner, stderr=inner)
    os.close(inner)
    seen, ends = b"", time.monotonic() + 120
    while seen.count(b"\x1b[2J") < 2 and time.monotonic() < ends:
        seen += os.read(terminal, 65536)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert seen.count(b"2 runs in") >= 2
    os.close(terminal)


def test_seeds_that_one_job_trains_stand_in_one_note(make_protocol, results):
    protocol = make_protocol(variants=["convlstm"], seeds=[1, 2, 3, 4], stack=3)
    for seed in (1, 2, 4):
        run = protocol.run("convlstm", seed)
        train(run, results, "cpu")
        folder = run.path(results)
        write_json(folder / "status.json", read_json(folder / "status.json") | {"state": "interrupted", "step": 4})
        (folder / "timing.jsonl").unlink()
    lines = overview(protocol, results)[0].splitlines()
    assert lines[:2] == [
        f"tiny: 4 runs in {results}",
        "2 jobs train them (cohort 1, stack 3), of which 2 are not through",
    ]
    assert lines[4] == "convlstm  !!.!  seeds 1, 2: 50%; seed 4: 50%"
    train(protocol.run("convlstm", 4), results, "cpu")
    assert "of which 1 is not through" in overview(protocol, results)[0]

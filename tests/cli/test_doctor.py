"""`doctor` finds what is there, names what is wrong with its cure, and changes nothing."""

import pytest

from benchmark.__main__ import main
from benchmark.cli import doctor
from benchmark.config.lpips_backbones import BACKBONES


@pytest.fixture
def ask(write_protocol, tmp_path, monkeypatch, capsys):
    """Run the verb on the tiny protocol, changed by keywords; returns exit status and the lines it prints."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")

    def run(results_dir=tmp_path / "results", **changes):
        words = ["--protocol", str(write_protocol(**changes)), "--data-dir", str(tmp_path / "data")]
        try:
            code = main(["doctor", *words, "--results-dir", str(results_dir)])
        except SystemExit as end:
            code = end.code
        return code, capsys.readouterr().out.splitlines()

    return run


def line(lines, about):
    (number,) = (number for number, text in enumerate(lines) if text[8:18].strip() == about)
    return lines[number : number + 2]


def test_machine_that_has_what_is_needed_has_no_problem_and_is_left_as_it_was(ask, tmp_path):
    code, lines = ask()
    assert code == 0
    assert line(lines, "data")[0].startswith("ok      data      optdigits for protocol tiny: 1257 + 180 + 360 digits")
    assert line(lines, "mlflow")[0].endswith("made by the first run")
    assert line(lines, "lpips")[0].startswith("note")
    assert lines[-1].startswith("problems: 0, notes: ")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_missing_digits_are_a_problem_with_the_place_to_put_them(ask, tmp_path):
    code, lines = ask(data={"digits": "mnist-t10k"})
    assert code == 1
    told, cure = line(lines, "data")
    assert told.startswith("problem")
    assert "t10k-images-idx3-ubyte.gz not found" in told
    assert cure.strip().startswith(f"-> put the published file in {tmp_path}/data/mnist")


def test_damaged_backbone_is_a_problem_and_a_missing_one_a_note(ask, tmp_path):
    assert line(ask()[1], "lpips")[0].startswith("note")
    path = tmp_path / "data" / "lpips" / BACKBONES["squeeze"].torchvision_file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no weights")
    code, lines = ask()
    assert (code, line(lines, "lpips")[0][:7]) == (1, "problem")


def test_store_that_is_away_is_a_problem_told_without_its_password(ask, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:s3cr3t@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, lines = ask()
    assert (code, line(lines, "mlflow")[0][:7]) == (1, "problem")
    assert "s3cr3t" not in "".join(lines)


def test_packages_are_held_against_the_lock(tmp_path, monkeypatch):
    lock = tmp_path / "requirements.lock"
    monkeypatch.setattr(doctor, "LOCK", lock)
    lock.write_text("# made\nnumpy>=1\n")
    assert doctor.packages().state == "ok"
    lock.write_text("numpy==0.1\nabsent==1 ; python_version < '3'\n")
    assert doctor.packages().state == "note"
    lock.write_text("numpy==0.1\nabsent==1\n")
    found = doctor.packages()
    assert (found.state, "absent" in found.told) == ("problem", True)


def test_disk_without_room_is_a_problem(monkeypatch, tmp_path):
    assert doctor.disk(tmp_path / "not" / "yet").state == "ok"
    monkeypatch.setattr(doctor, "ROOM_GIB", 10**9)
    assert doctor.disk(tmp_path).state == "problem"


def test_folder_outside_git_is_a_note(monkeypatch, tmp_path):
    monkeypatch.setattr("benchmark.config.code_sources.ROOT", tmp_path)
    assert doctor.git().state == "note"

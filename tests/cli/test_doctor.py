"""`doctor` finds what is there, names what is wrong with its cure, and changes nothing."""

import subprocess
from pathlib import Path

import pytest
import torch

from benchmark.__main__ import main
from benchmark.cli.doctor import report, system_checks
from benchmark.cli.doctor.finding import Question
from benchmark.config.lpips_backbones import BACKBONES
from benchmark.training.acceleration.cpu_parallel import DataParallelCpu
from benchmark.training.step import Batch, make_optimizer, train_one_step
from models.fast_path.fused_roll_out import why_no_kernels
from models.predictor import build
from tests.helpers.disks import small_disk
from tests.helpers.made_films import moving_square, write_video


@pytest.fixture
def ask(write_protocol, tmp_path, monkeypatch, capsys):
    """Run the command on the tiny protocol, changed by keywords; returns exit status and the lines it prints."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")

    def run(results_dir=tmp_path / "results", **changes):
        words = ["--protocol", str(write_protocol(**changes)), "--data-dir", str(tmp_path / "data")]
        code = main(["doctor", *words, "--results-dir", str(results_dir)])
        return code, capsys.readouterr().out.splitlines()

    return run


def told(lines, about):
    """The line about that, and the next, which has what to do."""
    (number,) = (number for number, text in enumerate(lines) if text[8:18].strip() == about)
    return lines[number : number + 2]


def test_machine_that_has_what_is_needed_has_no_problem_and_is_left_as_it_was(ask, tmp_path):
    code, lines = ask()
    assert code == 0
    assert told(lines, "data")[0].startswith("ok      data      optdigits for protocol tiny: 1257 + 180 + 360 digits")
    assert told(lines, "mlflow")[0].endswith("made by the first run")
    assert told(lines, "lpips")[0].startswith("note")
    assert lines[-1].startswith("problems: 0, notes: ")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_missing_digits_are_a_problem_with_the_place_to_put_them(ask, tmp_path):
    code, lines = ask(data={"digits": "mnist-t10k"})
    assert code == 1
    problem, remedy = told(lines, "data")
    assert problem.startswith("problem")
    assert "t10k-images-idx3-ubyte.gz not found" in problem
    assert remedy.strip().startswith(f"-> put the published file in {tmp_path}/data/mnist")


def test_damaged_backbone_is_a_problem_and_a_missing_one_a_note(ask, tmp_path):
    assert told(ask()[1], "lpips")[0].startswith("note")
    path = tmp_path / "data" / "lpips" / BACKBONES["squeeze"].torchvision_file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no weights")
    code, lines = ask()
    assert (code, told(lines, "lpips")[0][:7]) == (1, "problem")


def test_store_that_is_away_is_a_problem_told_without_its_password(ask, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:s3cr3t@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, lines = ask()
    assert (code, told(lines, "mlflow")[0][:7]) == (1, "problem")
    assert "s3cr3t" not in "".join(lines)


def asked(make_protocol, tmp_path, **changes):
    return Question(make_protocol(**changes), tmp_path / "data", tmp_path / "results")


def test_packages_are_compared_with_the_lock(make_protocol, tmp_path, monkeypatch):
    lock, question = tmp_path / "requirements.lock", asked(make_protocol, tmp_path)
    monkeypatch.setattr(system_checks, "LOCK", lock)
    lock.write_text("# made\nnumpy>=1\n")
    assert system_checks.packages(question).state == "ok"
    lock.write_text("numpy==0.1\nabsent==1 ; python_version < '3'\n")
    assert system_checks.packages(question).state == "note"
    lock.write_text("numpy==0.1\nabsent==1\n")
    found = system_checks.packages(question)
    assert (found.state, "absent" in found.what) == ("problem", True)


def test_disk_without_room_is_a_problem(make_protocol, monkeypatch, tmp_path):
    question = asked(make_protocol, tmp_path)
    assert system_checks.results_folder(question).state == "ok"
    monkeypatch.setattr(system_checks, "ROOM_GIB", 10**9)
    assert system_checks.results_folder(question).state == "problem"


def test_results_folder_that_takes_no_files_is_a_problem_also_for_root(make_protocol):
    found = system_checks.results_folder(Question(make_protocol(), Path("data"), Path("/proc/results")))
    assert found[:2] == ("problem", "/proc cannot be written to")


def git_says(make_protocol, tmp_path):
    found = system_checks.git_commit(asked(make_protocol, tmp_path))
    return found.state, found.what, found.remedy


def test_folder_outside_git_is_a_note(make_protocol, monkeypatch, tmp_path):
    monkeypatch.setattr(system_checks, "ROOT", tmp_path)
    state, what, remedy = git_says(make_protocol, tmp_path)
    assert (state, what) == ("note", "not a git checkout, so that results name no commit")
    assert remedy == "work in a clone"


def test_checkout_of_somebody_else_is_called_that_with_the_command_that_allows_it(make_protocol, monkeypatch, tmp_path):
    checkout = tmp_path / "some body's"
    subprocess.run(["git", "init", "--quiet", checkout], check=True)
    monkeypatch.setattr(system_checks, "ROOT", checkout)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # what git's own tests do
    state, what, remedy = git_says(make_protocol, tmp_path)
    assert (state, what) == (
        "note",
        f"{checkout} belongs to another user, so that git does not read it and results name no commit",
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    subprocess.run(remedy, shell=True, check=True)
    assert "does not read it" not in git_says(make_protocol, tmp_path)[1]


def test_checkout_without_a_commit_is_told_in_the_words_of_git(make_protocol, monkeypatch, tmp_path):
    subprocess.run(["git", "init", "--quiet", tmp_path / "new"], check=True)
    monkeypatch.setattr(system_checks, "ROOT", tmp_path / "new")
    state, what, _ = git_says(make_protocol, tmp_path)
    assert state == "note"
    assert what.startswith("git names no commit, nor will results: fatal: ")


def test_machine_without_git_is_a_note(make_protocol, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_says(make_protocol, tmp_path)[:2] == ("note", "git is not found, so that results name no commit")


@pytest.mark.parametrize(
    ("variables", "folder", "name"),
    [
        ({"HOME": "/proc/nobody", "XDG_CACHE_HOME": ""}, "/proc/nobody/.cache", "HOME"),
        ({"HOME": "/dev/null", "XDG_CACHE_HOME": ""}, "/dev/null/.cache", "HOME"),
        ({"XDG_CACHE_HOME": "/proc/cache"}, "/proc/cache", "XDG_CACHE_HOME"),
    ],
)
def test_cache_that_cannot_be_written_is_a_problem_of_the_variable_that_names_it(
    ask, monkeypatch, tmp_path, variables, folder, name
):
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    code, lines = ask()
    problem, remedy = told(lines, "cache")
    assert code == 1
    assert problem.startswith(f"problem cache     {folder} of {name} cannot be written to, and Snakemake")
    assert "XDG_CACHE_HOME" in remedy
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not" / "yet"))
    code, lines = ask()
    assert (code, told(lines, "cache")[0]) == (0, f"ok      cache     {tmp_path / 'not' / 'yet'}")
    assert not (tmp_path / "not").exists()


def test_missing_compiler_is_a_problem_where_a_protocol_runs_on_a_gpu(make_protocol, monkeypatch, tmp_path):
    on_gpu = asked(make_protocol, tmp_path, training={"device": "cuda"})
    assert system_checks.compiler(asked(make_protocol, tmp_path)) is None
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    why_no_kernels.cache_clear()
    assert system_checks.compiler(on_gpu).state == "ok"
    monkeypatch.setenv("PATH", str(tmp_path))
    why_no_kernels.cache_clear()
    found = system_checks.compiler(on_gpu)
    why_no_kernels.cache_clear()
    assert found.state == "problem"
    assert found.what == "Triton needs a C compiler, gcc, clang or what CC names, and none is found"
    assert "apt-get install gcc python3-dev" in found.remedy


def test_shared_memory_is_a_problem_where_the_parts_of_a_batch_do_not_fit(make_protocol, monkeypatch, tmp_path):
    threaded = asked(make_protocol, tmp_path, training={"threads": 2})
    assert system_checks.shared_memory(asked(make_protocol, tmp_path)) is None
    if not system_checks.SHARED_MEMORY.is_dir():
        pytest.skip("this system has no /dev/shm")
    assert system_checks.shared_memory(threaded).state == "ok"
    with small_disk(tmp_path / "shm") as disk:
        if not disk.mounted:
            pytest.skip("mounting is refused here")
        monkeypatch.setattr(system_checks, "SHARED_MEMORY", disk.folder)
        with disk.full():
            found = system_checks.shared_memory(threaded)
    assert found.state == "problem"
    assert "training.threads 2 needs" in found.what
    assert "--shm-size=" in found.remedy
    assert found.remedy.endswith("or set training.threads: 1")


def test_shared_memory_that_a_part_takes_is_what_its_process_shares(make_protocol):
    run = make_protocol(training={"threads": 3, "batch_size": 2}).first_run("predrnnpp")
    network = build(run.model, 1)
    parts = DataParallelCpu(2)
    frames, mask = torch.rand(2, 5, 1, 12, 12), torch.rand(2, 4)
    try:
        batch = Batch(frames, frames.clone(), mask)
        train_one_step(network, make_optimizer(network, run.training), batch, run.training, parts)
        ((shared, _),) = parts._workers
        tensors = [shared.weights, shared.found, *shared.batch]
        taken = sum(tensor.untyped_storage().nbytes() for tensor in tensors if tensor is not None)
    finally:
        del parts
    assert taken <= system_checks.shared_bytes(run) <= taken + 64


def test_videos_are_counted_and_one_of_them_is_opened(make_videos, tmp_path):
    protocol, data_dir = make_videos({f"{n}.npy": moving_square(14, 16, 16, n) for n in range(10)})
    question = Question(protocol, data_dir, tmp_path)
    found = report.outcome(report.CHECKS["data"], question)
    assert found.state == "ok"
    assert found.what.startswith("mine for protocol tiny: 8 + 1 + 1 videos to train, validate and test on; ")
    assert found.what.endswith(" opens, 16x16 pixels")


def test_videos_of_which_none_opens_are_a_problem_that_names_the_first(make_videos, tmp_path):
    protocol, data_dir = make_videos({f"{n}.npy": moving_square(14, 16, 16, n) for n in range(10)})
    for path in (data_dir / "mine").iterdir():
        content = path.read_bytes()
        path.write_bytes(content[:-400])
    found = report.outcome(report.CHECKS["data"], Question(protocol, data_dir, tmp_path))
    assert found.state == "problem"
    assert str(data_dir / "mine") in found.what


def test_video_files_that_are_no_videos_are_a_problem_that_names_one(make_videos, tmp_path):
    protocol, data_dir = make_videos({})
    for n in range(10):
        write_video(data_dir / "mine" / f"{n}.avi", moving_square(14, 16, 16, n))
    question = Question(protocol, data_dir, tmp_path)
    assert report.outcome(report.CHECKS["data"], question).state == "ok"
    for path in (data_dir / "mine").iterdir():
        content = path.read_bytes()
        path.write_bytes(content[:200] + bytes(len(content) - 200))
    found = report.outcome(report.CHECKS["data"], question)
    assert found.state == "problem"
    assert str(data_dir / "mine") in found.what

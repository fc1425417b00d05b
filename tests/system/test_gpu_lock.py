"""Two runs never share a GPU by accident: real processes, real locks, devices that are only names."""

import contextlib
import ctypes.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from benchmark.system import gpu_lock as lease
from benchmark.system.errors import UserError

ROOT = Path(__file__).parents[2]
HOLDER = """
import os, pathlib, sys, types

chosen = []
sys.modules["torch"] = types.SimpleNamespace(cuda=types.SimpleNamespace(set_device=chosen.append))
from benchmark.system import gpu_lock as lease
from benchmark.system.errors import UserError

user, place, names, *words = sys.argv[1:]
if user != "root":
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
lease.FOLDER, lease.visible_devices, lease.LOOK_EVERY_S = pathlib.Path(place), lambda: names.split(","), 0.01
sys.argv = ["benchmark/__main__.py", *words]
try:
    with lease.reserve_gpu("cuda"), lease.reserve_gpu("cuda"):
        print("number", *chosen, flush=True)
        sys.stdin.readline()
except UserError as error:
    print(f"error: {error}", flush=True)
print("left", flush=True)
sys.stdin.readline()
"""
FAKE_DRIVER = """
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int number) { *device = 10 + number; return 0; }
int cuDeviceGetUuid(unsigned char *name, int device) {
    for (int i = 0; i < 16; i++) name[i] = 16 * (device - 10) + i;
    return 0;
}
"""


@pytest.fixture
def start(tmp_path):
    """Start a process that sees GPUs of these names, takes one and keeps it until it reads a line."""
    with contextlib.ExitStack() as ends:

        def begin(names, *words, folder=tmp_path / "locks", user="root", **environment):
            command = [sys.executable, "-c", HOLDER, user, str(folder), names, *words]
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            ends.enter_context(process)
            ends.callback(process.kill)
            return process

        yield begin


def said(process):
    return process.stdout.readline().strip()


def let_go(process):
    process.stdin.write("\n")
    process.stdin.flush()
    assert said(process) == "left"


def rank(number, count=2):
    names = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    return {name: str(value) for name, value in names.items()} | {"TORCHELASTIC_RUN_ID": "none"}


def test_each_process_takes_another_gpu_whatever_number_it_has_there(start):
    assert said(start("GPU-a,GPU-b")) == "number 0"
    assert said(start("GPU-b,GPU-a")) == "number 0"  # GPU-b, which is number 0 in its CUDA_VISIBLE_DEVICES
    assert said(start("GPU-b,GPU-a,GPU-c")) == "number 2"


@pytest.mark.parametrize("end", ["kill -9", "its end"])
def test_process_without_a_gpu_is_told_who_has_them_and_goes_on_when_one_is_left(start, end):
    first = start("GPU-a,GPU-b", "train", "--variant", "predrnn", "--seed", "1")
    assert said(first) == "number 0"
    second = start("GPU-b", "evaluate", "--seed", "2")
    assert said(second) == "number 0"
    third = start("GPU-a,GPU-b", "train")
    assert third.stderr.readline() == (
        f"no GPU is free of 2 visible here: GPU-a by pid {first.pid} (benchmark train --variant predrnn --seed 1);"
        f" GPU-b by pid {second.pid} (benchmark evaluate --seed 2); waiting for one (Ctrl-C ends this)\n"
    )
    if end == "kill -9":
        second.send_signal(signal.SIGKILL)
    else:
        let_go(second)  # its verb is through, its process lives on
    assert said(third) == "number 1"
    assert third.stderr.readline() == "took GPU-b\n"


def test_process_that_waits_ends_at_a_signal_and_takes_nothing(start):
    holder = start("GPU-a")
    assert said(holder) == "number 0"
    waiting = start("GPU-a")
    assert waiting.stderr.readline().startswith("no GPU is free of 1 visible here: ")
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait() == -signal.SIGTERM
    let_go(holder)
    assert said(start("GPU-a")) == "number 0"


def test_processes_of_one_run_take_their_own_each_and_do_not_wait_for_others(start):
    assert said(start("GPU-a,GPU-b", **rank(1))) == "number 1"
    assert said(start("GPU-a,GPU-b", **rank(0))) == "number 0"
    told = said(start("GPU-a,GPU-b", **rank(0)))
    assert told.startswith("error: no GPU is free of 2 visible here: GPU-a by pid ")
    assert told.endswith("; wait for one, or start fewer processes")
    told = said(start("GPU-c", **rank(1)))
    assert told == (
        "error: GPUs visible here: 1, for 2 processes, which need one each; use torchrun --nproc-per-node 1"
    )


def test_run_on_a_cpu_takes_no_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(lease, "FOLDER", tmp_path / "locks")
    with lease.reserve_gpu("cpu"):
        assert not lease.FOLDER.exists()


def test_place_that_cannot_be_written_to_is_said(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(lease, "FOLDER", tmp_path / "file" / "locks")
    monkeypatch.setattr(lease, "visible_devices", lambda: ["GPU-a"])
    with pytest.raises(UserError, match="locks: cannot be written to"), lease.reserve_gpu("cuda"):
        pass


def test_locks_are_open_to_every_user_and_no_link_is_followed(start, monkeypatch, tmp_path):
    assert said(start("GPU-a")) == "number 0"
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "locks", *(tmp_path / "locks").iterdir())}
    assert modes == {"locks": 0o1777, "GPU-a.lock": 0o644}
    (tmp_path / "locks" / "GPU-b.lock").symlink_to(tmp_path / "mine")
    monkeypatch.setattr(lease, "FOLDER", tmp_path / "locks")
    monkeypatch.setattr(lease, "visible_devices", lambda: ["GPU-b"])
    with pytest.raises(UserError, match=r"GPU-b\.lock: is a symbolic link"), lease.reserve_gpu("cuda"):
        pass
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("planted", ["pid 1 (\x1b]0;owned\x07)", "call 555-1234", "pid 7 (benchmark train)"])
def test_text_that_another_user_put_into_a_lock_is_not_printed(start, tmp_path, planted):
    first = start("GPU-a")
    assert said(first) == "number 0"
    (tmp_path / "locks" / "GPU-a.lock").write_text(planted)
    waiting = start("GPU-a")
    user = pwd.getpwuid(os.getuid()).pw_name
    assert f": GPU-a by pid {first.pid} of user {user}; waiting for one" in waiting.stderr.readline()


def test_folder_of_locks_that_is_a_link_is_refused_and_what_it_points_to_is_left_alone(monkeypatch, tmp_path):
    (tmp_path / "private").mkdir(mode=0o700)
    (tmp_path / "locks").symlink_to(tmp_path / "private")
    monkeypatch.setattr(lease, "FOLDER", tmp_path / "locks")
    monkeypatch.setattr(lease, "visible_devices", lambda: ["GPU-a"])
    with pytest.raises(UserError, match="locks: is a symbolic link"), lease.reserve_gpu("cuda"):
        pass
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "private").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_users_share_gpus_and_are_told_of_each_other(start):
    with tempfile.TemporaryDirectory() as public:  # pytest's own folders belong to one user
        Path(public).chmod(0o755)
        folder = Path(public) / "locks"
        folder.mkdir()
        folder.chmod(0o1777)
        mine = start("GPU-a", "train", "--seed", "1", folder=folder)
        assert said(mine) == "number 0"
        other = start("GPU-a", "train", folder=folder, user="65534")
        assert f"GPU-a by pid {mine.pid} (benchmark train --seed 1); waiting" in other.stderr.readline()
        let_go(mine)
        assert said(other) == "number 0"
        third = start("GPU-a", folder=folder)
        assert f"GPU-a by pid {other.pid} of user nobody; waiting for one" in third.stderr.readline()
        let_go(other)
        assert said(third) == "number 0"


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.skipif(ctypes.util.find_library("cuda") is not None, reason="there is a real driver")
def test_gpus_are_named_by_the_uuid_that_the_driver_gives(tmp_path):
    (tmp_path / "driver.c").write_text(FAKE_DRIVER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "libcuda.so.1", "driver.c"], cwd=tmp_path, check=True)
    program = (
        "from benchmark.system.devices import *; print(*visible_devices(),"
        " resolve_device('auto', '', by_driver_alone=True), resolve_device('auto', '--device'),"
        " resolve_device('auto', '--device'))"
    )
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    first, second = "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f", "GPU-10111213-1415-1617-1819-1a1b1c1d1e1f"
    assert done.stdout.split() == [first, second, "cuda", "cpu", "cpu"], done.stderr
    (line,) = done.stderr.splitlines()  # what shows two GPUs is no driver that PyTorch could use
    assert line.startswith(f"--device: auto uses the CPU, since torch {torch.__version__} ")

"""Which GPU of this machine a process computes on: one that no other has taken, whoever started it."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmark.system import processes
from benchmark.system.console import command_line, echo
from benchmark.system.devices import visible_devices
from benchmark.system.errors import ProcessError
from benchmark.system.locks import LONGEST_DESCRIPTION, claim, program
from benchmark.system.storage import StorageError, open_no_link, report_storage_errors

FOLDER = Path("/tmp/deep-in-time-gpus")
"""Where the locks lie: one place for all users, whatever TMPDIR their shells and jobs have."""
LOOK_EVERY_S = 0.5
_mine: list[str] = []
"""The device that this process has taken, if it has."""


@contextlib.contextmanager
def reserve_gpu(device: str) -> Iterator[None]:
    """For the body, this process has a GPU to itself, which is the current one of PyTorch; nothing is done for a CPU.

    While all are taken it waits, and says who has them; one of several processes of a run does not wait, since others
    may wait for it. A GPU is known by its UUID, not by its place among those visible here, and its lock is the
    kernel's: gone with the process, however that ends. Where this process has one already, nothing is done.

    Raises:
        ProcessError: one of several processes of a run finds no GPU.
    """
    if device != "cuda" or _mine:
        yield
        return
    with contextlib.ExitStack() as held:
        number, name = _wait_for_one(held)
        import torch  # not before, so that a message about GPUs comes at once

        torch.cuda.set_device(number)
        _mine.append(name)
        held.callback(_mine.clear)
        yield


def _wait_for_one(held: contextlib.ExitStack) -> tuple[int, str]:
    """Number and name of a device that is now taken, until `held` ends."""
    names, first, waited = visible_devices(), processes.local_rank(), False
    if len(names) < processes.local_count():
        raise ProcessError(
            f"GPUs visible here: {len(names)}, for {processes.local_count()} processes, which need one each; use"
            f" torchrun --nproc-per-node {len(names)}"
        )
    while True:
        holders = {}
        for number in [*range(first, len(names)), *range(first)]:  # its own first: processes of a run do not race then
            holder = _take(names[number], held)
            if holder is None:
                if waited:
                    echo(f"took {names[number]}", sys.stderr)
                return number, names[number]
            holders[names[number]] = holder
        taken = "; ".join(f"{name} by {holder}" for name, holder in holders.items())
        taken = f"no GPU is free of {len(names)} visible here: {taken}"
        if processes.count() > 1:
            raise ProcessError(f"{taken}; wait for one, or start fewer processes")
        if not waited:
            echo(f"{taken}; waiting for one (Ctrl-C ends this)", sys.stderr)
        waited = True
        time.sleep(LOOK_EVERY_S)


def _take(name: str, held: contextlib.ExitStack) -> str | None:
    """Take the device `name` until `held` ends; or say who has it."""
    path = FOLDER / f"{name}.lock"
    with report_storage_errors(FOLDER, f"{LONGEST_DESCRIPTION} bytes are"):
        handle, writes = _open(path)
    description = f"pid {os.getpid()} ({command_line(program(), *sys.argv[1:])})"
    holder = claim(path, handle, description, writes=writes)
    if holder is None:
        held.callback(os.close, handle)
        return None
    os.close(handle)
    return holder


def _open(path: Path) -> tuple[int, bool]:
    """The file of a lock, which every user may open, and whether this one may write to it: it is of who made it."""
    folder = _open_folder(path.parent)
    try:
        while True:
            with contextlib.suppress(FileNotFoundError):
                try:
                    handle = open_no_link(path, os.O_RDWR, folder=folder)
                    break
                except PermissionError:
                    return open_no_link(path, os.O_RDONLY, folder=folder), False
            with contextlib.suppress(FileExistsError):  # another process made it this moment
                handle = open_no_link(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644, folder=folder)
                break
        if os.fstat(handle).st_uid == os.geteuid():
            os.fchmod(handle, 0o644)  # whatever the umask is: others read who has it, and nobody else writes
        return handle, True
    finally:
        os.close(folder)


def _open_folder(path: Path) -> int:
    """The folder of the locks, made if needed, in which every user may put files and remove their own."""
    path.mkdir(exist_ok=True)
    if path.is_symlink():
        raise StorageError(f"{path}: is a symbolic link, and what it points to is not written to; remove the link")
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if os.fstat(handle).st_uid == os.geteuid():
        os.fchmod(handle, 0o1777)
    return handle

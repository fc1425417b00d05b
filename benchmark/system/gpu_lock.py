"""Which GPU of this machine a process computes on: one that no other has taken, whoever started it."""

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmark.system import processes
from benchmark.system.console import echo
from benchmark.system.devices import visible_devices
from benchmark.system.errors import ProcessError
from benchmark.system.files import storing
from benchmark.system.locks import LONGEST, program, take

PLACE = Path("/tmp/deep-in-time-gpus")
"""Where the locks lie: one place for all users, whatever TMPDIR their shells and jobs have."""
LOOK_EVERY_S = 0.5
_mine: list[str] = []
"""The device that this process has taken, if it has."""


@contextlib.contextmanager
def reserve_gpu(device: str) -> Iterator[None]:
    """For the body, this process has a GPU to itself, which is the current one of PyTorch; nothing is done for a CPU.

    While all are taken it waits, and says who has them; one of several processes of a run does not wait, since others
    may wait for it. A GPU is known by its UUID, not by its place among those visible here, and its lock is the
    kernel's: gone with the process, however that ends. Within another lease of this process nothing is done.

    Raises:
        OwnError: one of several processes of a run finds no GPU.
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
        told = "; ".join(f"{name} by {holder}" for name, holder in holders.items())
        told = f"no GPU is free of {len(names)} visible here: {told}"
        if processes.count() > 1:
            raise ProcessError(f"{told}; wait for one, or start fewer processes")
        if not waited:
            echo(f"{told}; waiting for one (Ctrl-C ends this)", sys.stderr)
        waited = True
        time.sleep(LOOK_EVERY_S)


def _take(name: str, held: contextlib.ExitStack) -> str | None:
    """Take the device `name` until `held` ends; or say who has it."""
    with storing(PLACE, f"{LONGEST} bytes are"):
        handle = _open(PLACE / f"{name}.lock")
    holder = take(handle, f"pid {os.getpid()} ({shlex.join([program(), *sys.argv[1:]])})")
    if holder is None:
        held.callback(os.close, handle)
        return None
    os.close(handle)
    return "".join(letter if letter.isprintable() else "?" for letter in holder)  # any user may have written it


def _open(path: Path) -> int:
    """The file of a lock, which every user may open."""
    path.parent.mkdir(exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CREAT, 0o666)
    for what, mode in ((path.parent, 0o1777), (handle, 0o666)):
        with contextlib.suppress(PermissionError):  # it is another user's, who did it
            os.chmod(what, mode)
    return handle

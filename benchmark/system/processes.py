"""The processes of one run: `torchrun` starts several and tells each which it is. Imports no torch."""

import functools
import os
from collections.abc import Callable
from typing import ParamSpec

from benchmark.system.installation import MODULE, PROGRAM

P = ParamSpec("P")


def count() -> int:
    """How many processes share this run, on all machines; 1 without `torchrun`."""
    return _from_torchrun("WORLD_SIZE", 1)


def rank() -> int:
    """Which of them this is, from 0."""
    return _from_torchrun("RANK", 0)


def local_count() -> int:
    """How many of them are on this machine."""
    return _from_torchrun("LOCAL_WORLD_SIZE", 1)


def local_rank() -> int:
    """Which of those on this machine this is, from 0."""
    return _from_torchrun("LOCAL_RANK", 0)


def is_first() -> bool:
    """Whether this is the process that writes and speaks for all."""
    return rank() == 0


def _from_torchrun(name: str, alone: int) -> int:
    # Schedulers set some of these names too: only together with torchrun's own do they mean processes of one run.
    return int(os.environ[name]) if "TORCHELASTIC_RUN_ID" in os.environ else alone


def first_alone(work: Callable[P, None]) -> Callable[P, None]:
    """`work` that of several processes only the first does."""

    @functools.wraps(work)
    def done(*arguments: P.args, **keywords: P.kwargs) -> None:
        if is_first():
            work(*arguments, **keywords)

    return done


def launcher() -> list[str]:
    """The words that start this program as it was started, before its verb."""
    if count() == 1:
        return PROGRAM.split()
    nodes = count() // local_count()
    machines = [] if nodes == 1 else ["--nnodes", str(nodes)]
    return ["torchrun", *machines, "--nproc-per-node", str(local_count()), "-m", MODULE]

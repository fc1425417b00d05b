"""What a check of the doctor is asked and what it answers."""

from pathlib import Path
from typing import Literal, NamedTuple

from benchmark.config.protocol import Protocol


class Question(NamedTuple):
    """For what the machine is examined."""

    protocol: Protocol
    data_dir: Path
    results_dir: Path


class Finding(NamedTuple):
    """The answer of one check."""

    state: Literal["ok", "note", "problem"]
    """`note`: works, with less."""
    what: str
    remedy: str = ""
    """What to do."""

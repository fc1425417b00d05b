"""The registry of commands: each is one function, with its options, its examples and its group right above it.

    @command(RESULTS, options=[PROTOCOL, RESULTS_DIR], examples=["--protocol quick"])
    def tables(options: argparse.Namespace) -> None:
        \"""Make the tables of a protocol from its finished runs.\"""

The command is called as its function, with hyphens; the first line of the docstring is its help. The parser, the help,
the completion and the tests follow. A function imports what is slow when it runs, so that help needs no torch.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Run = Callable[[argparse.Namespace], int | None]
"""A command's function; what it returns is the exit status, None = done."""


@dataclass(frozen=True)
class Option:
    """An option, or an argument without a flag, declared once and used by every command that takes it.

    Args:
        flag: `--results-dir`; capitals without hyphens, as `RECORD`, are an argument by place.
        help: what it means, and its default.
        required: whether a command refuses to start without it.
        complete: what a shell offers for its value, as argcomplete takes it; None where argparse knows the choices.
        settings: whatever else `add_argument` takes: type, choices, default, metavar, action, dest.
    """

    flag: str
    help: str
    required: bool = False
    complete: Callable[..., list[str]] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def dest(self) -> str:
        """Its name in the options of a command."""
        return self.settings.get("dest", self.flag.removeprefix("--").replace("-", "_"))

    def but(self, help: str) -> "Option":
        """The same option where `help` says better what it means to one command."""
        return dataclasses.replace(self, help=help)

    def needed(self) -> "Option":
        """The same option where a command does not start without it."""
        return dataclasses.replace(self, required=True)

    def optional(self) -> "Option":
        """The same option where a command starts without it."""
        return dataclasses.replace(self, required=False)

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Let `parser` take it."""
        needed = {"required": self.required} if self.flag.startswith("-") else {}
        parser.add_argument(self.flag, help=self.help, **needed, **self.settings)


@dataclass(frozen=True)
class Command:
    """One command of the command line."""

    run: Run
    options: tuple[Option, ...]
    examples: tuple[str, ...]
    """What may follow `python -m benchmark COMMAND`, as people use it."""
    shared: bool
    """Whether several processes (`torchrun`) may share its work."""
    writes_results: bool
    """Whether it writes to the results folder, if it takes one."""

    @property
    def about(self) -> str:
        """What it does, in a sentence."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]


RUNS = "Runs, step by step as the workflow does them"
RESULTS = "Results"
YOUR_OWN = "Your own clips and weights"
MACHINE = "This machine"
GROUPS: dict[str, dict[str, Command]] = {group: {} for group in (RUNS, RESULTS, YOUR_OWN, MACHINE)}
"""The commands below their headings, in the order of help; the decorator fills it."""


def command(
    group: str,
    *,
    options: Sequence[Option],
    examples: Sequence[str],
    shared: bool = False,
    writes_results: bool = True,
) -> Callable[[Run], Run]:
    """Make a command of a function; see `Command` for what is said of it."""

    def register(run: Run) -> Run:
        each = Command(run, tuple(options), tuple(examples), shared, writes_results)
        GROUPS[group][run.__name__.replace("_", "-")] = each
        return run

    return register

"""The parser of the command line, and its help, from the registry of commands. Imports no torch."""

import argparse
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

from benchmark.cli.all_commands import COMMANDS
from benchmark.cli.exit_status import EXIT_STATUS
from benchmark.cli.registry import GROUPS
from benchmark.system.errors import unknown
from benchmark.system.installation import PROGRAM

COMPLETION = 'eval "$(activate-global-python-argcomplete --dest=-)"'
"""What turns it on in bash and zsh."""


class Parser(argparse.ArgumentParser):
    """argparse's, but for a name that it does not know: it says the nearest one first."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            kind = "command" if isinstance(action, argparse._SubParsersAction) else "value"
            raise argparse.ArgumentError(action, unknown(kind, value, action.choices))

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """As argparse does it; a flag that is none is said before what is missing."""
        flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
        for word in (args or ()) if self._subparsers is None else ():
            flag = word.partition("=")[0]
            if flag.startswith("--") and not any(known.startswith(flag) for known in flags):
                self.error(unknown("option", flag, flags))
        return super().parse_known_args(args, namespace)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    left = max(map(len, COMMANDS)) + 4
    raw = argparse.RawDescriptionHelpFormatter
    abouts = {title: {name: each.about for name, each in group.items()} for title, group in GROUPS.items()}
    statuses = _rows({str(number): meaning for number, meaning in EXIT_STATUS.items()}, 7)
    listed = "\n\n".join(f"{title}:\n{_rows(group, left)}" for title, group in abouts.items())
    top = Parser(
        prog=PROGRAM,
        description=f"Train, evaluate and probe recurrent video prediction; see README.md.\n\n{listed}",
        epilog=f"exit status:\n{statuses}\n\ncompletion in bash and zsh, of all that has a name here:\n  {COMPLETION}",
        formatter_class=raw,
    )
    commands = top.add_subparsers(
        dest="command", required=True, metavar="COMMAND", help="one of these; COMMAND --help says more"
    )
    for name, each in COMMANDS.items():
        examples = "\n".join(f"  {PROGRAM} {name} {words}".rstrip() for words in each.examples)
        added = commands.add_parser(
            name,
            description=textwrap.fill(each.about, _width()),
            epilog=f"examples:\n{examples}\n\nexit status: {PROGRAM} --help",
            formatter_class=raw,
        )
        for option in each.options:
            option.add_to(added)
    return top


def _width() -> int:
    """Of a line of help, as argparse has it."""
    return shutil.get_terminal_size().columns - 2


def _rows(rows: dict[str, str], left: int) -> str:
    """Names, and what they are from column `left` on."""
    return "\n".join(
        textwrap.fill(text, _width(), initial_indent=f"  {name}".ljust(left), subsequent_indent=" " * left)
        for name, text in rows.items()
    )

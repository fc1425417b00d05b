"""The command line: its verbs, their options and their help. Imports no torch."""

import argparse
import shutil
import textwrap

from benchmark.cli.commands import GROUPS, VERBS
from benchmark.cli.options import OPTIONS

PROGRAM = "python -m benchmark"
COMPLETION = 'eval "$(activate-global-python-argcomplete --dest=-)"'
"""What turns it on in bash and zsh."""
EXIT_STATUS = {
    0: "done; a training that diverged counts as done, and its status.json says so",
    1: "compare, reproduce or verify found a difference, doctor a problem; after a traceback: a fault of this program",
    2: "what was given is wrong, or cannot be read or written: the message says what to do",
    130: "stopped by Ctrl-C; the same command goes on",
    143: "stopped by TERM; the same command goes on",
}
"""Exit status -> what it says."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    left = max(map(len, VERBS)) + 4
    raw = argparse.RawDescriptionHelpFormatter
    abouts = {title: {name: verb.about for name, verb in group.items()} for title, group in GROUPS.items()}
    statuses = _rows({str(number): said for number, said in EXIT_STATUS.items()}, 7)
    listed = "\n\n".join(f"{title}:\n{_rows(group, left)}" for title, group in abouts.items())
    top = argparse.ArgumentParser(
        prog=PROGRAM,
        description=f"Train, evaluate and probe recurrent video prediction; see README.md.\n\n{listed}",
        epilog=f"exit status:\n{statuses}\n\ncompletion in bash and zsh, of all that has a name here:\n  {COMPLETION}",
        formatter_class=raw,
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB", help="one of these; VERB --help says more")
    for name, verb in VERBS.items():
        examples = "\n".join(f"  {PROGRAM} {name} {words}".rstrip() for words in verb.examples)
        added = verbs.add_parser(
            name,
            description=textwrap.fill(verb.about, _width()),
            epilog=f"examples:\n{examples}\n\nexit status: {PROGRAM} --help",
            formatter_class=raw,
        )
        for option in verb.options:
            key = option.rstrip("?")
            settings = OPTIONS.get(f"{name} {key}") or OPTIONS[key]
            if key.isupper():
                added.add_argument(key, **settings)
                continue
            needed = not option.endswith("?") and not {"default", "action"} & set(settings)
            added.add_argument(f"--{key.replace('_', '-')}", required=needed, **settings)
    return top


def _width() -> int:
    """Of a line of help, as argparse has it."""
    return shutil.get_terminal_size().columns - 2


def _rows(rows: dict[str, str], left: int) -> str:
    """Names, and what they are from column `left` on."""
    return "\n".join(
        textwrap.fill(said, _width(), initial_indent=f"  {name}".ljust(left), subsequent_indent=" " * left)
        for name, said in rows.items()
    )

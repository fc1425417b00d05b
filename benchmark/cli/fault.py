"""An exception that nobody foresaw: one line for the person, the whole trace in a file for who mends it."""

import argparse
import contextlib
import os
import platform
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from benchmark.system.errors import shortened


def fault_message(error: Exception, command: str, options: argparse.Namespace) -> str:
    """Write the trace of `error` to a file of this user alone and return the line that says where.

    Args:
        command: as it was typed.
        options: of the command; their results folder, where there is one, gets the file.
    """
    text = f"{command}\nPython {platform.python_version()}, {platform.platform()}\n\n"
    text += "".join(traceback.format_exception(error))
    what = f"{options.command}: unexpected {type(error).__name__}: {shortened(str(error))}"
    for folder in folders(options):
        with contextlib.suppress(OSError):
            path = write_private(folder, f"fault-{options.command}-", text)
            return f"{what}; this is a fault of the program: please report it with {path}, which has the full trace"
    return f"{what}; this is a fault of the program: please report it with this trace, which no folder took:\n{text}"


def folders(options: argparse.Namespace) -> Iterator[Path]:
    """Where the file may go: the results folder if it is there, else that for temporary files."""
    results_dir = getattr(options, "results_dir", None)
    if results_dir is not None and results_dir.is_dir():
        yield results_dir
    with contextlib.suppress(FileNotFoundError):  # none that could be written to
        yield Path(tempfile.gettempdir())


def write_private(folder: Path, prefix: str, text: str) -> Path:
    """Write `text` to a new file of mode 600 whose name nobody can guess, and return its path."""
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=".txt", dir=folder)
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return Path(name)

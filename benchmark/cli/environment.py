"""What a shell, a notebook or a scheduler hands to a command, made fit before anything is imported that reads it."""

import io
import locale
import os
import sys


def prepare_environment() -> None:
    """Let nothing in the environment of this process end a command.

    Figures go to files, so that matplotlib's backend is `agg` whatever a notebook has set, here and in processes that
    are started from here; it must be called before matplotlib is imported. What an output cannot encode becomes a
    replacement sign.
    """
    os.environ["MPLBACKEND"] = "agg"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def restart_in_utf8() -> None:
    """Start this process anew where files would not be read as UTF-8 (`LC_ALL=C` with UTF-8 mode off, Latin-1).

    Python decides that when it starts. The terminal keeps its encoding.
    """
    if sys.flags.utf8_mode or is_utf8(locale.getencoding()) or os.environ.get(_RESTARTED) == str(os.getpid()):
        return
    os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding if sys.stdout else 'utf-8'}:replace")
    os.environ |= {"PYTHONUTF8": "1", _RESTARTED: str(os.getpid())}
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


_RESTARTED = "DEEP_IN_TIME_RESTARTED"
"""The process that was started anew: once, even where `python -E` keeps it from seeing PYTHONUTF8."""


def is_utf8(encoding: str) -> bool:
    """Whether `encoding` is one of the names of UTF-8."""
    return encoding.lower().replace("-", "").replace("_", "") == "utf8"

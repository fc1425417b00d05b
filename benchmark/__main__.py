# PYTHON_ARGCOMPLETE_OK
"""`python -m benchmark <command>`: every rule of the workflow is one of `benchmark.cli.all_commands`."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from benchmark.cli.all_commands import COMMANDS
from benchmark.cli.environment import prepare_environment, restart_in_utf8
from benchmark.cli.exit_status import DONE, FAULT, INTERRUPTED, MISTAKE
from benchmark.cli.fault import fault_message
from benchmark.cli.parser import parser
from benchmark.cli.selection import check_results_dir, seeds_in
from benchmark.config.protocol import load_protocol
from benchmark.system import processes
from benchmark.system.console import command_line, echo, printable
from benchmark.system.errors import ProcessError, UserError
from benchmark.system.installation import PROGRAM, extras_named
from benchmark.system.signals import STATUS, Interrupted
from benchmark.system.storage import is_storage_error
from models.forecasters.outside import ForecasterError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what follows `python -m benchmark`; None = as this process was started.

    Returns:
        The exit status, a key of `benchmark.cli.exit_status.EXIT_STATUS`.
    """
    if arguments is None:
        restart_in_utf8()
    prepare_environment()
    top = parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what could follow
        from benchmark.cli.completion import complete

        complete(top, COMMANDS)
    options = top.parse_args(arguments)
    typed = command_line(*processes.launcher(), *(sys.argv[1:] if arguments is None else arguments))
    try:
        with extras_named():
            return run(options) or DONE
    except (UserError, ForecasterError) as error:
        if processes.is_first():
            echo(printable(f"error: {error}"), sys.stderr)
        elif isinstance(error, ProcessError):
            echo(printable(f"error: process {processes.rank()}: {error}"), sys.stderr)
        return MISTAKE
    except Interrupted as stop:
        if processes.is_first():
            echo(f"{signal.Signals(stop.number).name}: {stop}, checkpoint written; go on with: {typed}", sys.stderr)
        return STATUS[stop.number]
    except KeyboardInterrupt:
        if processes.is_first():
            echo("interrupted; the same command goes on, from the last checkpoint where there is one", sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError) and (is_storage_error(error) or isinstance(error, BrokenPipeError)):
            echo(f"error: {error.filename or 'output'}: {error.strerror}", sys.stderr)
            return MISTAKE
        echo(f"error: {fault_message(error, typed, options)}", sys.stderr)
        return FAULT


def run(options: argparse.Namespace) -> int | None:
    """Check what holds for every command, then run the one that `options` name."""
    command = COMMANDS[options.command]
    if getattr(options, "protocol", None) is not None:
        options.protocol = load_protocol(options.protocol)
    if processes.count() > 1 and not command.shared:
        raise UserError(f"{options.command}: is for one process; start `{PROGRAM}` without torchrun")
    if getattr(options, "seed", None) is not None:
        seeds_in(options)
    if command.writes_results and processes.is_first():
        check_results_dir(options)
    return command.run(options)


if __name__ == "__main__":
    sys.exit(main())

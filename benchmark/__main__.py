# PYTHON_ARGCOMPLETE_OK
"""`python -m benchmark <verb>`: every rule of the workflow is one of `benchmark.cli.commands`."""

import os
import signal
import sys
from collections.abc import Sequence

from benchmark.cli.commands import VERBS
from benchmark.cli.options import check_results_dir
from benchmark.cli.parser import parser
from benchmark.config.protocol import load_protocol
from benchmark.system import processes
from benchmark.system.console import command_line, echo
from benchmark.system.errors import ProcessError, UserError
from benchmark.system.signals import STATUS, Interrupted
from benchmark.system.storage import is_storage_error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        The exit status, a key of `benchmark.cli.parser.EXIT_STATUS`.
    """
    top = parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what could follow
        from benchmark.cli.completion import complete

        complete(top)
    options = top.parse_args(arguments)
    verb = VERBS[options.verb]
    try:
        if getattr(options, "protocol", None) is not None:
            options.protocol = load_protocol(options.protocol)
        if processes.count() > 1 and not verb.shared:
            raise UserError(f"{options.verb}: is for one process; start `python -m benchmark` without torchrun")
        if verb.writes_results and processes.is_first():
            check_results_dir(options)
        verb.run(options)
    except UserError as error:
        if processes.is_first():
            print(f"error: {error}", file=sys.stderr)
        elif isinstance(error, ProcessError):
            print(f"error: process {processes.rank()}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if not is_storage_error(error):
            raise
        print(f"error: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        command = command_line(*processes.launcher(), *(sys.argv[1:] if arguments is None else arguments))
        if processes.is_first():
            echo(f"{signal.Signals(stop.number).name}: {stop}, checkpoint written; go on with: {command}", sys.stderr)
        return STATUS[stop.number]
    except KeyboardInterrupt:
        if processes.is_first():
            print("interrupted; the same command goes on, from the last checkpoint where there is one", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

# PYTHON_ARGCOMPLETE_OK
"""`python -m deep_in_time <command>` and `deep-in-time <command>`: the command line, wherever pip put it."""

import sys

from benchmark.__main__ import main

if __name__ == "__main__":
    sys.exit(main())

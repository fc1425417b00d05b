"""How a command ends: the one place for its exit statuses."""

from benchmark.system.signals import STATUS as SIGNAL_STATUS

DONE = 0
FOUND = 1
"""What a command looks for was found: a difference, a failed case, a problem of this machine."""
FAULT = 1
"""A fault of this program."""
MISTAKE = 2
INTERRUPTED = SIGNAL_STATUS[2]

EXIT_STATUS = {
    DONE: "done; a training that diverged counts as done, and its status.json says so",
    FOUND: "compare, reproduce or verify found a difference, doctor a problem; or a fault of this program, which says"
    " in which file its trace lies",
    MISTAKE: "what was given is wrong, or cannot be read or written: the message says what to do",
    INTERRUPTED: "stopped by Ctrl-C; the same command goes on",
    SIGNAL_STATUS[15]: "stopped by TERM; the same command goes on",
}
"""Exit status -> what it says."""

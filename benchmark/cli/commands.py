"""The verbs by group. Each imports what it needs when it runs, so that the command line answers without torch."""

from benchmark.cli import machine_commands as machine
from benchmark.cli import result_commands as results
from benchmark.cli import run_commands as runs
from benchmark.cli import weight_commands as own
from benchmark.cli.command import Verb

GROUPS: dict[str, dict[str, Verb]] = {
    "Runs, step by step as the workflow does them": runs.VERBS,
    "Results": results.VERBS,
    "Your own clips and weights": own.VERBS,
    "This machine": machine.VERBS,
}
VERBS: dict[str, Verb] = {name: verb for group in GROUPS.values() for name, verb in group.items()}

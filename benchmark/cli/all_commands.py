"""All commands by name: what is imported here has put its commands into the registry."""

from benchmark.cli import machine_commands, result_commands, run_commands, weight_commands
from benchmark.cli.registry import GROUPS, Command

MODULES = (run_commands, result_commands, weight_commands, machine_commands)
"""Where the commands stand."""
COMMANDS: dict[str, Command] = {name: each for group in GROUPS.values() for name, each in group.items()}

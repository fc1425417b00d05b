"""The command line: commands, their options, help and completion."""

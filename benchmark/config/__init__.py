"""From a protocol (YAML) to its runs. Imports no torch."""

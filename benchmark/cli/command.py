"""What a verb is."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """One verb of the command line."""

    run: Callable[[argparse.Namespace], None]
    """What it does; the first line of its docstring is its help."""
    options: tuple[str, ...]
    """Names in `benchmark.cli.options.OPTIONS`; `?` = may be left out, capitals = an argument without a flag."""
    examples: tuple[str, ...]
    """What may follow `python -m benchmark VERB`, as people use it."""
    shared: bool = False
    """Whether several processes (`torchrun`) may share its work."""
    writes_results: bool = True
    """Whether it writes to the results folder, if it takes one."""

    @property
    def about(self) -> str:
        """What it does, in a sentence."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]

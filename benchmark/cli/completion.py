"""What a shell may offer after the words typed so far, through argcomplete; no torch is imported for it."""

import argparse
from collections.abc import Mapping

from benchmark.cli.registry import Command
from benchmark.config.protocol import PROTOCOLS, Protocol, load_protocol
from benchmark.config.variants import BASELINES, NO_SEED, VARIANTS
from benchmark.system.errors import UserError

SCORED = ("evaluate", "record")
"""Commands that take rows that are not trained, too."""


def complete(top: argparse.ArgumentParser, registered: Mapping[str, Command]) -> None:
    """Answer the shell that asks what may follow in the command line `top`, and end the process."""
    import argcomplete

    (commands,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    for name, parser in commands.choices.items():
        commands._choices_actions.append(
            commands._ChoicesPseudoAction(name, (), registered[name].about)
        )  # shown by zsh
        offers = {option.dest: option.complete for option in registered[name].options if option.complete}
        for action in parser._actions:
            if action.dest in offers:
                action.completer = offers[action.dest]
    argcomplete.autocomplete(top)


def protocols(**_: object) -> list[str]:
    """Names of the protocols here; where none begins as typed, shells offer files."""
    return sorted(path.stem for path in PROTOCOLS.glob("*.yaml"))


def speeds(**_: object) -> list[str]:
    """Names of the measured speeds of training here; where none begins as typed, shells offer files."""
    from benchmark.cost.measured_speeds import known_speeds

    return list(known_speeds())


def variants(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """Variants of --protocol, or all where none is given; of a list with commas, for its last part."""
    protocol = _protocol(parsed_args)
    names = [entry.id for entry in protocol.variants] if protocol else list(VARIANTS)
    if parsed_args.command in SCORED:
        names += protocol.rows_not_trained() if protocol else BASELINES
    head = prefix.rpartition(",")[0]
    taken = head.split(",")
    return [f"{head},{name}" if head else name for name in names if name not in taken]


def seeds(parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """Seeds that --protocol has for --variant."""
    protocol, variant = _protocol(parsed_args), (parsed_args.variant or "").partition(",")[0]
    if variant in BASELINES or (protocol is not None and not protocol.is_trained(variant)):
        return [str(NO_SEED)]
    if protocol is None or variant not in [entry.id for entry in protocol.variants]:
        return []
    return [str(seed) for seed in protocol.seeds_of(variant)]


def _protocol(options: argparse.Namespace) -> Protocol | None:
    try:
        return load_protocol(options.protocol) if getattr(options, "protocol", None) else None
    except UserError:
        return None

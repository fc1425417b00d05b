"""When gradients are measured: at initialisation, after set steps, after training. Imports no torch."""

from benchmark.config.protocol import Protocol

ENDS = {"init": "at initialisation", "trained": "after training"}
"""First and last stage, in words."""


def trains(protocol: Protocol) -> bool:
    """Whether any variant of `protocol` is trained at all; if none is, its scores mean nothing."""
    return any(protocol.first_run(entry.id).training.steps for entry in protocol.variants)


def ends(protocol: Protocol) -> dict[str, str]:
    """The first and the last stage of `protocol` in words; one where nothing is trained."""
    return ENDS if trains(protocol) else {"init": ENDS["init"]}


def stages(protocol: Protocol) -> list[str]:
    """All stages at which `protocol` measures, in the order of time."""
    between = [f"step-{step}" for step in protocol.probe.steps]
    return ["init", *between, "trained"] if trains(protocol) else ["init"]

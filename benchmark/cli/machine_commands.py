"""Verbs on this machine: what it has, how fast it is, whether it computes what others do."""

import argparse

from benchmark.cli.command import Verb
from benchmark.config.protocol import load_protocol
from benchmark.cost.speed import OPTIONS as SPEED_OPTIONS
from benchmark.cost.speed import speed


def doctor(options: argparse.Namespace) -> None:
    """Say what this machine has for a protocol and what to do about what it lacks; exit status 1 for a problem."""
    from benchmark.cli.doctor import report

    if not report(options.protocol or load_protocol("quick"), options.data_dir, options.results_dir):
        raise SystemExit(1)


def verify(options: argparse.Namespace) -> None:
    """Hold cells, networks, probe, clips and metrics against the cases in DIR; exit status 1 where one fails."""
    from benchmark.exchange.verify import verify as run_cases

    states = []
    for outcome in run_cases(options.DIR, options.data_dir):
        print(outcome, flush=True)
        states.append(outcome.state)
    print(", ".join(f"{states.count(state)} {state}" for state in ("pass", "fail", "skipped")))
    if "fail" in states:
        raise SystemExit(1)


VERBS = {
    "doctor": Verb(
        doctor,
        ("protocol?", "results_dir", "data_dir"),
        ("", "--protocol gpu --data-dir data"),
        writes_results=False,
    ),
    "verify": Verb(verify, ("DIR", "data_dir"), ("tests/golden --data-dir data",)),
    "speed": Verb(
        speed,
        tuple(f"{name}?" for name in SPEED_OPTIONS),
        ("", "--what inference --hidden-channels 64,64,64,64 --batch-size 8 --json speed.json"),
    ),
}

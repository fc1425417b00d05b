"""What this machine has for the benchmark, what it lacks, and what to do about that: one check after the other."""

from collections.abc import Callable
from pathlib import Path

from benchmark.cli.doctor import protocol_checks as of_protocol
from benchmark.cli.doctor import system_checks as of_system
from benchmark.cli.doctor.finding import Finding, Question
from benchmark.config.protocol import Protocol
from benchmark.system.errors import UserError

CHECKS: dict[str, Callable[[Question], Finding | None]] = {
    "python": of_system.python_version,
    "packages": of_system.packages,
    "cpu": of_system.processor,
    "gpu": of_system.gpus,
    "compiler": of_system.compiler,
    "shm": of_system.shared_memory,
    "results": of_system.results_folder,
    "cache": of_system.cache_folder,
    "data": of_protocol.clips,
    "lpips": of_protocol.lpips_backbone,
    "mlflow": of_protocol.mlflow_store,
    "git": of_system.git_commit,
}
"""What a line of the doctor is about -> the check; one that returns None has nothing to say of this protocol."""


def report(protocol: Protocol, data_dir: Path, results_dir: Path) -> bool:
    """Print each finding as soon as it is known; whether there is no problem."""
    question, states = Question(protocol, data_dir, results_dir), []
    for about, check in CHECKS.items():
        finding = outcome(check, question)
        if finding is not None:
            print(line(about, finding), flush=True)
            states.append(finding.state)
    print(f"problems: {states.count('problem')}, notes: {states.count('note')}")
    return "problem" not in states


def outcome(check: Callable[[Question], Finding | None], question: Question) -> Finding | None:
    """What `check` finds, or the problem that it raises: messages have what to do behind a semicolon."""
    try:
        return check(question)
    except UserError as error:
        what, _, remedy = str(error).partition("; ")
        return Finding("problem", what, remedy)


def line(about: str, finding: Finding) -> str:
    """A finding as the doctor prints it."""
    remedy = f"\n{'':18}-> {finding.remedy}" if finding.remedy else ""
    return f"{finding.state:8}{about:10}{finding.what}{remedy}"

"""Where a protocol stands: one sign a run, variants down and seeds across. Reads alone, also while others write."""

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from benchmark.config.code_sources import code_hash
from benchmark.config.probe_stages import trains
from benchmark.config.protocol import Protocol, RunConfig, run_path
from benchmark.config.sections import PredictionsEntry
from benchmark.config.variants import NO_SEED
from benchmark.reporting import published_records as reference
from benchmark.reporting.record import RECORD
from benchmark.reporting.tables.notes import NOT_TRAINED
from benchmark.system.checksums import sha256_of
from benchmark.system.errors import UserError
from benchmark.system.files import read_json
from benchmark.system.locks import is_held

SIGNS = {
    "done": "#",
    "kept": "=",
    "trained": "+",
    "running": ">",
    "interrupted": "!",
    "diverged": "x",
    "stale": "~",
    "unreadable": "?",
    "missing": ".",
}
"""State of a run -> its sign."""
MEANINGS = {
    "kept": "not made here, its record is in results/reference (reuse=true takes it)",
    "trained": "not yet scored, probed and recorded",
    "interrupted": "the same command goes on from its checkpoint",
    "diverged": "its numbers were not finite",
    "stale": "made by another configuration or code; the workflow makes it again",
    "unreadable": "a damaged file",
}
TO_TRAIN = {"running", "interrupted", "stale", "unreadable", "missing"}
"""States of a run that keep the job that trains it from being through."""
EVERY_S = 2.0
CLEAR = "\x1b[H\x1b[2J"


class Standing(NamedTuple):
    """What is known of a run."""

    state: str
    """A key of `SIGNS`."""
    about: str = ""
    """How far it is, of a run under way; what is another now, of one that is stale."""


def standing(run: RunConfig, results_dir: Path) -> Standing:
    """How `run` stands in `results_dir`."""
    folder = run.path(results_dir)
    try:
        if not (folder / "provenance.json").exists():
            return Standing("kept" if reference.record_of(run) else "missing")
        origin, status = read_json(folder / "provenance.json"), read_json(folder / "status.json")
        now = {"config": run.identity(), "code": code_hash("train", run.model)}
        if other := [name for name, found in now.items() if origin[f"{name}_hash"] != found]:
            return Standing("stale", f"other {' and '.join(other)}")
    except (UserError, OSError, KeyError):
        return Standing("unreadable")
    if status["state"] == "diverged":
        return Standing("diverged", f"at step {status['step']}")
    if status["state"] == "finished":
        return Standing("done" if (folder / RECORD).exists() else "trained")
    step, clips_per_s = latest(folder / "timing.jsonl")
    step = max(step, status["step"])
    about = f"{step / status['steps']:.0%}"
    if status["state"] != "running" or not is_held(folder):
        return Standing("interrupted", about)
    left = (status["steps"] - step) * run.training.batch_size
    return Standing(
        "running", f"{about}, {timedelta(seconds=round(left / clips_per_s))} left" if clips_per_s else about
    )


def standing_of_predictions(protocol: Protocol, entry: PredictionsEntry, results_dir: Path) -> Standing:
    """How the row of predictions that other code has made stands in `results_dir`."""
    path, record = Path(entry.predictions), run_path(results_dir, protocol.name, entry.id, NO_SEED) / RECORD
    try:
        if not record.exists():
            return Standing("missing", "" if path.exists() else f"{path} is not there")
        changed = path.exists() and sha256_of(path) != read_json(record)["predictions"]["sha256"]
    except (UserError, OSError, KeyError):
        return Standing("unreadable")
    return Standing("stale", f"{path} has changed") if changed else Standing("done")


def latest(path: Path) -> tuple[int, float]:
    """Step and clips/s of the last whole line of `timing.jsonl`; zeros if there is none yet."""
    for line in reversed(path.read_text(errors="replace").splitlines() if path.exists() else []):
        try:
            found = json.loads(line)
            return found["step"], found["clips_per_s"]
        except (ValueError, KeyError, TypeError):  # being written
            continue
    return 0, 0.0


def overview(protocol: Protocol, results_dir: Path) -> tuple[str, bool]:
    """The grid with its legend in plain text, and whether nothing is left to do."""
    found = {(run.variant, run.seed): standing(run, results_dir) for run in protocol.runs()}
    variants, seeds = list(dict.fromkeys(name for name, _ in found)), sorted({seed for _, seed in found})
    width = max(map(len, ["variant", *variants, *(entry.id for entry in protocol.predictions)]))
    lines = [f"{'variant':{width}}  seeds {seeds[0]} to {seeds[-1]}"] if seeds else []
    for variant in variants:
        signs = "".join(SIGNS[found[variant, seed].state] if (variant, seed) in found else " " for seed in seeds)
        told = {seed: how for (name, seed), how in found.items() if name == variant and how.about}
        jobs = [of for group, of in protocol.groups() if variant in group]
        lines.append(f"{variant:{width}}  {signs}  {notes(jobs, told)}".rstrip())
    others = {entry.id: standing_of_predictions(protocol, entry, results_dir) for entry in protocol.predictions}
    for name, how in others.items():
        lines.append(f"{name:{width}}  {SIGNS[how.state]}  {', '.join(filter(None, [NOT_TRAINED, how.about]))}")
    counts = Counter(one.state for one in [*found.values(), *others.values()])
    legend = [
        f"{SIGNS[state]} {counts[state]} {state}{f': {MEANINGS[state]}' if state in MEANINGS else ''}"
        for state in SIGNS
        if counts[state]
    ]
    head = f"{protocol.name}: {len(found)} runs in {results_dir}"
    if protocol.cohort * protocol.stack > 1 and trains(protocol):
        jobs = [{found[variant, seed].state for variant in group for seed in of} for group, of in protocol.groups()]
        due = sum(bool(states & TO_TRAIN) for states in jobs)
        sizes = f"cohort {protocol.cohort}, stack {protocol.stack}"
        head += f"\n{len(jobs)} jobs train them ({sizes}), of which {due} {'is' if due == 1 else 'are'} not through"
    return "\n".join([head, "", *lines, "", *legend]), counts.keys() <= {"done", "kept", "diverged"}


def notes(jobs: Sequence[Sequence[int]], told: Mapping[int, Standing]) -> str:
    """What there is to say of seeds of a variant: those that one job trains, and that are as far, in one note."""
    together: dict[tuple[int, str, str], list[int]] = {}
    for seed, how in told.items():
        job = next(number for number, seeds in enumerate(jobs) if seed in seeds)
        together.setdefault((job, how.state, how.about.partition(",")[0]), []).append(seed)
    return "; ".join(
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}: {told[seeds[-1]].about}"
        for seeds in together.values()
    )


def show(protocol: Protocol, results_dir: Path, *, once: bool = False) -> None:
    """Print the grid; on a terminal draw it again every two seconds, until nothing is left to do or Ctrl-C."""
    live = sys.stdout.isatty() and not once
    try:
        while True:
            text, over = overview(protocol, results_dir)
            print(f"{CLEAR}{text}" if live else text, flush=True)
            if over or not live:
                return
            time.sleep(EVERY_S)
    except KeyboardInterrupt:
        return

"""What a person sees of a workflow while it runs: a line a job, and errors in short.

Snakemake's own words, some hundred lines for ten runs, stay in its log file.
"""

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

DEFAULT_HANDLER = "DefaultStreamHandler"
"""Snakemake's name (9.27) for what writes to the terminal."""
KINDS = {
    **dict.fromkeys(("init_store", "plan", "data", "backbone", "baselines", "floor"), "set-up"),
    **dict.fromkeys(("tables", "figures"), "tables and figures"),
}
"""Rule -> the kind of job under which it is counted, where that is not the rule."""
LONG = ("train", "measure")
"""Kinds with a line a job, up to `MOST_LINES`; all others have one line for all their jobs."""
MOST_LINES = 12
QUIET_S = 300.0
"""Where there is no terminal, what runs is said after so many seconds without a line."""
TAIL = 20_000
"""Bytes of a log that are searched for its message."""
OUR_VIEW = "workflowType=machine_learning&viewStateShareKey=best-variant"
"""Opens the table of runs, where a fresh browser would land in a view for language models."""
LEFT_ALONE = "left alone"
"""End of the log of a training that was nothing to do."""
REPEATED = ("At least one job did not complete", "Exiting because a job execution failed", "CalledProcessError in file")
"""Words of what Snakemake says besides the error of a job."""


@dataclass
class Kind:
    """The jobs that are counted together."""

    total: int = 0
    done: int = 0
    failed: int = 0
    taken: int = 0
    """Of those done: trained before by this config, code and data, and left alone."""
    seconds: list[float] = field(default_factory=list)
    lines: int = 1


@dataclass
class Job:
    """A job that runs."""

    rule: str
    name: str
    """Rule and run, e.g. `train predrnn seed=1`."""
    began: float
    log: Path | None


class JobLines(logging.Handler):
    """Says in a line each what Snakemake does, from the moment on at which it begins to execute anything.

    Args:
        terminal: Snakemake's own handler, which has the word until then.
        title: name of the protocol.
    """

    def __init__(self, terminal: Any, title: str) -> None:
        super().__init__()
        self.terminal, self.title = terminal, title
        self.executing = self.complete = False
        self.kinds: dict[str, Kind] = {}
        self.jobs: dict[int, Job] = {}
        self.told: set[int] = set()
        self.began = self.said = time.monotonic()
        self.live = bool(getattr(terminal.stream, "isatty", lambda: False)())

    def emit(self, record: logging.LogRecord) -> None:
        """Tell what `record` says, if anything in it is for a person."""
        event = str(getattr(record, "event", None) or "")
        self.executing |= event == "workflow_started"
        if not self.executing:
            self.terminal.handle(record)
            return
        known = {
            "run_info": self.begin,
            "job_info": self.start,
            "job_finished": self.finish,
            "job_error": self.fail,
        }
        if event in known:
            known[event](vars(record))
        elif record.levelno >= logging.WARNING or str(record.msg).startswith("Nothing to be done"):
            text = str(record.msg).strip()
            if event != "group_error" and not any(words in text for words in REPEATED):
                self.tell(text)

    def begin(self, said: Mapping[str, Any]) -> None:
        """Count the jobs of each kind, and let somebody look after the quiet times."""
        for rule, count in said["stats"].items():
            if rule not in ("all", "total"):
                self.kinds.setdefault(kind_of(rule), Kind()).total += count
        self.complete = "all" in said["stats"]
        for name, kind in self.kinds.items():
            kind.lines = min(kind.total, MOST_LINES) if name in LONG else 1
        counts = ", ".join(f"{kind.total} {name}" for name, kind in self.kinds.items())
        self.tell(f"{self.title}: {counts_in_words(self.total, 'job')} ({counts})")
        threading.Thread(target=self.watch_over, daemon=True).start()

    def start(self, said: Mapping[str, Any]) -> None:
        """Remember a job that begins."""
        wildcards = said["wildcards"]
        run = f" {wildcards['variant']}" if "variant" in wildcards else ""
        run += f" seed={wildcards['seed']}" if "seed" in wildcards else ""
        log = Path(said["log"][0]) if said["log"] else None
        if kind_of(said["rule_name"]) != said["rule_name"] and kind_of(said["rule_name"]) in LONG:
            run = f" {log.stem.replace('.', ' ')}" if log else ""  # of several runs, which only its log names
        rule = said["rule_name"]
        shown = kind_of(rule) if kind_of(rule) in LONG else rule
        self.jobs[said["jobid"]] = Job(rule, f"{shown}{run}", time.monotonic(), log)
        self.show_live()

    def finish(self, said: Mapping[str, Any]) -> None:
        """Count a job, and say so where a line is due."""
        job = self.jobs.pop(said["job_id"], None)
        if job is None or job.rule == "all":
            return
        name = kind_of(job.rule)
        kind, took = self.kinds.setdefault(name, Kind(total=1)), time.monotonic() - job.began
        kind.done += 1
        kind.seconds.append(took)
        taken = name in LONG and job.log is not None and " ".join(last_words(job.log)).endswith(LEFT_ALONE)
        kind.taken += taken
        if kind.lines == kind.total:
            how = "  trained before, left alone" if taken else ""
            self.tell(f"{job.name:34} {clock(took)}{how}  | {self.standing()}")
        elif kind.done * kind.lines // kind.total > (kind.done - 1) * kind.lines // kind.total:
            self.tell_kind(name)
        self.show_live()

    def fail(self, said: Mapping[str, Any]) -> None:
        """Say of a job that failed which rule it was, the last words of its log, and where that lies."""
        if said["jobid"] in self.told:
            return
        self.told.add(said["jobid"])
        job = self.jobs.pop(said["jobid"], None)
        if kind := self.kinds.get(kind_of(said["rule_name"])):
            kind.failed += 1
        logs = [str(path) for path in said["log"]]
        words = [line for path in logs[:1] for line in last_words(Path(path))]
        words += [" ".join(str(said["rule_msg"]).split())] if said["rule_msg"] else []
        words += [f"log: {path}" for path in logs]
        name = job.name.removeprefix(said["rule_name"]).strip() if job else ""
        first = f"error in rule {said['rule_name']}{f', {name}' if name else ''}:"
        self.tell("\n".join([first, *(f"  {line}" for line in words)]))

    def end(self) -> None:
        """Say how far the kinds are whose lines were not due when everything ended."""
        with self.lock or contextlib.nullcontext():
            self.jobs.clear()
            for name, kind in self.kinds.items():
                if kind.done and kind.done < kind.total:
                    self.tell_kind(name)
            self.kinds.clear()

    def tell_kind(self, name: str) -> None:
        """Say how many jobs of a kind are done, and how long they took."""
        kind = self.kinds[name]
        of = "" if kind.done == kind.total else f" of {kind.total}"
        short, long = clock(min(kind.seconds)), clock(max(kind.seconds))
        each = short if short == long else f"{short} to {long} each"
        taken = f"  {kind.taken} trained before, left alone" if kind.taken else ""
        self.tell(f"{f'{name}: {kind.done}{of}':34} {each}{taken}  | {self.standing()}")

    @property
    def total(self) -> int:
        """How many jobs there are."""
        return sum(kind.total for kind in self.kinds.values())

    def standing(self) -> str:
        """How many jobs are done and, as far as can be known, what time is left."""
        done, failed = (sum(getattr(kind, name) for kind in self.kinds.values()) for name in ("done", "failed"))
        words = [f"{done} of {self.total} jobs"]
        words += [f"{failed} failed"] if failed else []
        words += [f"about {clock(left)} left"] if (left := self.left_s() or 0.0) >= 1 else []
        return ", ".join(words)

    def left_s(self) -> float | None:
        """Seconds until the end, at the pace of the jobs that are done; None while no kind of long ones is known."""
        seconds = [one for kind in self.kinds.values() for one in kind.seconds]
        if any(kind.total and not kind.seconds for name, kind in self.kinds.items() if name in LONG) or not seconds:
            return None
        usual = sum(seconds) / len(seconds)
        work = sum(
            (kind.total - kind.done - kind.failed) * (sum(kind.seconds) / len(kind.seconds) if kind.seconds else usual)
            for kind in self.kinds.values()
        )
        running = [time.monotonic() - job.began for job in self.jobs.values()]
        side_by_side = max(1.0, sum([*seconds, *running]) / max(time.monotonic() - self.began, 1e-9))
        return max(0.0, work - sum(running)) / side_by_side

    def running(self) -> str:
        """What runs now, the longest first."""
        jobs = [f"{job.name} {clock(time.monotonic() - job.began)}" for job in self.jobs.values() if job.rule != "all"]
        more = f" and {len(jobs) - 3} more" if len(jobs) > 3 else ""
        return f"{', '.join(jobs[:3])}{more} | {self.standing()}"

    def watch_over(self) -> None:
        """Rewrite the live line every second; without a terminal, say what runs where it was quiet for long."""
        while self.kinds:
            time.sleep(1.0)
            with self.lock or contextlib.nullcontext():
                self.show_live()
                if not self.live and self.jobs and time.monotonic() - self.said > QUIET_S:
                    self.tell(f"running: {self.running()}")

    def show_live(self) -> None:
        """Rewrite the one line that changes, on a terminal."""
        if self.live and self.jobs:
            width = terminal_width(self.terminal.stream)
            self.write(f"\r{self.running()[: width - 1]}\x1b[K")

    def tell(self, text: str) -> None:
        """Write lines that stay."""
        self.said = time.monotonic()
        self.write(f"\r\x1b[K{text}\n" if self.live else f"{text}\n")

    def write(self, text: str) -> None:
        """Write `text`, `?` for a letter that the terminal has not; one that is gone stops nothing."""
        stream = self.terminal.stream
        encoding = getattr(stream, "encoding", None) or "utf-8"
        with contextlib.suppress(OSError):
            stream.write(text.encode(encoding, errors="replace").decode(encoding))
            stream.flush()


def watch(logger: logging.Logger, settings: Any, title: str) -> JobLines | None:
    """Put lines of ours in place of Snakemake's on the terminal, unless the person asked for those.

    Args:
        logger: Snakemake's.
        settings: its `OutputSettings`.
        title: name of the protocol.
    """
    asked = settings.dryrun or settings.verbose or settings.printshellcmds or settings.quiet or settings.debug_dag
    own = [handler for handler in logger.handlers if handler.name == DEFAULT_HANDLER]
    if asked or not own:
        return None
    lines = JobLines(own[0], title)
    logger.removeHandler(own[0])
    logger.addHandler(lines)
    return lines


def kind_of(rule: str) -> str:
    """The kind of job under which a rule is counted."""
    return KINDS.get(rule) or re.sub(r"(_cohort)?_\d+$", "", rule)


def clock(seconds: float) -> str:
    """A duration as `1:23`, from an hour on as `1:02:03`."""
    return str(timedelta(seconds=round(seconds))).removeprefix("0:").removeprefix("0")


def counts_in_words(count: int, noun: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def terminal_width(stream: Any) -> int:
    """Columns of the terminal behind `stream`."""
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 80


def last_words(path: Path) -> list[str]:
    """The message at the end of a log: from its last `error: ` on, or else its last line."""
    try:
        lines = [line.rstrip() for line in path.read_bytes()[-TAIL:].decode(errors="replace").splitlines()]
    except OSError:
        return []
    lines = [line.rpartition("\r")[2] for line in lines if line.strip()]
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    return lines[errors[-1] :][:3] if errors else lines[-1:]

"""The lines that a person sees of a workflow, from records as Snakemake's own logger makes them."""

import io
import logging
import re
import shlex
import sqlite3
from types import SimpleNamespace

import pytest
from snakemake.logging import ColorizingTextHandler, DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent

from benchmark.config.protocol import load_protocol
from benchmark.reporting.terminal import job_lines
from benchmark.reporting.terminal.closing import closing, first_rows, pages_of, tracking_address
from benchmark.reporting.terminal.job_lines import DEFAULT_HANDLER, watch

QUIET = {"dryrun": False, "verbose": False, "printshellcmds": False, "quiet": None, "debug_dag": False}


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Told:
    """A logger with Snakemake's handler, and what it has written."""

    def __init__(self, stream=None, **settings):
        self.stream = stream or io.StringIO()
        self.logger = logging.Logger("snakemake.logging")
        handler = ColorizingTextHandler(stream=self.stream, nocolor=True, formatter=DefaultFormatter())
        handler.name = DEFAULT_HANDLER
        self.logger.addHandler(handler)
        self.watch = watch(self.logger, SimpleNamespace(**QUIET | settings), "smoke")

    def begin(self, **stats):
        self.event(LogEvent.WORKFLOW_STARTED)
        stats["total"] = sum(stats.values())
        self.event(LogEvent.RUN_INFO, stats=stats)

    def event(self, event, msg="Snakemake's words", level=logging.INFO, **extra):
        self.logger.log(level, msg, extra={"event": event, **extra})

    def job(self, number, rule, log="", **wildcards):
        words = {"local": False, "is_checkpoint": False, "input": [], "output": [], "benchmark": None, "rule_msg": None}
        words |= {"reason": "", "priority": 0, "threads": 1, "resources": {}}
        self.event(
            LogEvent.JOB_INFO, jobid=number, rule_name=rule, wildcards=wildcards, log=[str(log)] if log else [], **words
        )

    def finish(self, number):
        self.event(LogEvent.JOB_FINISHED, job_id=number)

    def fail(self, number, rule, log, rule_msg=None):
        self.event(
            LogEvent.JOB_ERROR,
            level=logging.ERROR,
            jobid=number,
            rule_name=rule,
            rule_msg=rule_msg,
            log=[str(log)] if log else [],
        )

    @property
    def lines(self):
        return self.stream.getvalue().splitlines()


@pytest.fixture
def told():
    made = Told()
    yield made
    made.watch.end()


def test_every_long_job_has_a_line_and_the_others_one_a_rule(told):
    told.begin(train=2, evaluate=3, record=2, all=1)
    for number, rule in enumerate(("train", "train", "evaluate", "evaluate", "evaluate", "record", "record", "all")):
        told.job(number, rule, variant="predrnn", seed=str(number))
        told.finish(number)
    assert told.lines[0] == "smoke: 7 jobs (2 train, 3 evaluate, 2 record)"
    assert [re.split(" {2,}", line)[0] for line in told.lines[1:]] == [
        "train predrnn seed=0",
        "train predrnn seed=1",
        "evaluate: 3",
        "record: 2",
    ]
    assert told.lines[1].endswith("0:00  | 1 of 7 jobs")
    assert "Snakemake's words" not in told.stream.getvalue()


@pytest.mark.parametrize("jobs", [640, 25, 13, 12, 1])
def test_hundreds_of_runs_have_at_most_twelve_lines_a_rule(told, jobs):
    told.begin(train=jobs)
    for number in range(jobs):
        told.job(number, "train", variant="predrnn", seed=str(number))
        told.finish(number)
    assert len(told.lines) == 1 + min(jobs, 12)
    assert f"{jobs} of {jobs} jobs" in told.lines[-1]


def test_jobs_of_several_runs_are_counted_together_and_named_by_their_log(told):
    told.begin(train_cohort_1=2, train_cohort_2=1)
    told.job(1, "train_cohort_2", log="logs/train/cohort-2.seed=1.log", seed="1")
    told.finish(1)
    assert told.lines[0] == "smoke: 3 jobs (3 train)"
    assert told.lines[1].startswith("train cohort-2 seed=1 ")


def test_time_left_is_the_work_left_at_the_pace_and_side_by_side_as_before(told, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(job_lines.time, "monotonic", lambda: now[0])
    told.watch.began = 0.0
    told.begin(train=6)
    for number in (1, 2):
        told.job(number, "train", variant="predrnn", seed=str(number))
    now[0] = 100.0
    told.finish(1)
    told.finish(2)
    # Four of 100 s each, two at once.
    assert told.lines[-1].endswith("1:40  | 2 of 6 jobs, about 3:20 left")


def test_error_is_the_rule_with_the_last_words_of_its_log_and_where_that_lies(told, tmp_path):
    log = tmp_path / "train.log"
    log.write_text("step 1\nerror: an older one\nstep 2\nerror: data: damaged\nremove it\n")
    told.begin(train=2)
    told.job(1, "train", log=log, variant="predrnn", seed="1")
    for _ in range(2):  # Snakemake repeats itself
        told.fail(1, "train", log)
    assert told.lines[1:] == [
        "error in rule train, predrnn seed=1:",
        "  error: data: damaged",
        "  remove it",
        f"  log: {log}",
    ]
    told.job(2, "train", log=log, variant="predrnn", seed="2")
    told.finish(2)
    assert told.lines[-1].endswith("| 1 of 2 jobs, 1 failed")


def test_error_without_a_log_is_what_the_executor_said(told, tmp_path):
    told.begin(train=1)
    told.fail(1, "train", tmp_path / "none.log", rule_msg="SLURM-job '7' failed,\nstatus is: 'CANCELLED'")
    assert told.lines[1:] == [
        "error in rule train:",
        "  SLURM-job '7' failed, status is: 'CANCELLED'",
        f"  log: {tmp_path / 'none.log'}",
    ]


def test_training_that_was_done_before_is_said_to_be_left_alone(told, tmp_path):
    log = tmp_path / "train.log"
    log.write_text("predrnn seed=1: trained before by this config and code; left alone\n")
    told.begin(train=1)
    told.job(1, "train", log=log, variant="predrnn", seed="1")
    told.finish(1)
    assert "0:00  trained before, left alone  | 1 of 1 jobs" in told.lines[1]


def test_what_failed_or_was_left_is_counted_at_the_end(told):
    told.begin(evaluate=3)
    told.job(1, "evaluate")
    told.finish(1)
    assert len(told.lines) == 1
    told.watch.end()
    assert told.lines[1].startswith("evaluate: 1 of 3 ")


def test_warnings_and_errors_of_snakemake_stay_and_nothing_to_do_is_its_one_line(told):
    told.event(LogEvent.WORKFLOW_STARTED)
    told.logger.info("Provided cores: 2")
    told.logger.info("Nothing to be done (all requested files are present and up to date).")
    told.logger.warning("Will exit after finishing currently running jobs (scheduler).")
    told.logger.error("WorkflowError:\nAt least one job did not complete successfully.")
    told.logger.error("RuleException:\nCalledProcessError in file data.smk, line 3:\nCommand 'x' returned 2.")
    told.logger.error("MissingInputException in rule train")
    assert told.lines == [
        "Nothing to be done (all requested files are present and up to date).",
        "Will exit after finishing currently running jobs (scheduler).",
        "MissingInputException in rule train",
    ]


def test_until_anything_is_executed_the_word_is_snakemakes(told):
    told.logger.info("Building DAG of jobs...")
    assert told.lines == ["Building DAG of jobs..."]


@pytest.mark.parametrize("asked", ["dryrun", "verbose", "printshellcmds", "quiet", "debug_dag"])
def test_whoever_asks_for_snakemakes_words_gets_them(asked):
    told = Told(**{asked: True})
    assert told.watch is None
    told.begin(train=1)
    assert "Snakemake's words" in told.stream.getvalue()


def test_on_a_terminal_one_line_is_rewritten_with_what_runs():
    told = Told(Terminal())
    told.begin(train=2)
    told.job(1, "train", variant="predrnn", seed="1")
    assert told.stream.getvalue().endswith("\rtrain predrnn seed=1 0:00 | 0 of 2 jobs\x1b[K")
    told.finish(1)
    told.watch.end()
    assert "\r\x1b[Ktrain predrnn seed=1 " in told.stream.getvalue()


def test_without_a_terminal_a_long_quiet_time_says_what_runs(monkeypatch):
    monkeypatch.setattr(job_lines, "QUIET_S", 0.2)
    told = Told()
    told.begin(train=1)
    told.job(1, "train", variant="predrnn", seed="1")
    for _ in range(50):
        if len(told.lines) > 1:
            break
        job_lines.time.sleep(0.1)
    told.watch.end()
    assert re.fullmatch(r"running: train predrnn seed=1 0:0\d \| 0 of 1 jobs", told.lines[1])


def test_closing_is_the_main_table_where_everything_lies_and_what_is_next(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MAKELEVEL", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "it's a $(place)"
    (folder / "tables").mkdir(parents=True)
    (folder / "tables" / "main.md").write_text("### Scores\n\n| Model | MSE |\n|:--|:--|\n| ConvLSTM | 51.2 |\n\n* n\n")
    lines = list(closing(load_protocol("quick"), folder, {"results_dir": "it's"}, "log"))
    assert lines[:2] == ["Model | MSE", "ConvLSTM | 51.2"]
    assert [line.split()[0] for line in lines[2:]] == ["Results", "MLflow", "Log", "Report", "Next"]
    command = lines[-2].removeprefix("Report").strip()
    assert shlex.split(command) == ["snakemake", "--report", f"{folder}/report.html", "--config", "results_dir=it's"]
    monkeypatch.setenv("MAKELEVEL", "1")
    assert not [line for line in closing(load_protocol("quick"), folder, {}, "log") if line.startswith("Report")]


def test_letters_that_a_terminal_has_not_are_replaced():
    buffer = io.BytesIO()
    told = Told(io.TextIOWrapper(buffer, encoding="ascii"))
    told.watch.tell("MSE ↓ 51.2")
    assert buffer.getvalue() == b"MSE ? 51.2\n"


def test_table_of_many_rows_is_cut_and_says_where_the_rest_is(tmp_path):
    path = tmp_path / "main.md"
    path.write_text("| Model |\n|:--|\n" + "".join(f"| {number} |\n" for number in range(40)))
    lines = list(first_rows(path))
    assert lines[:2] == ["Model", "0"]
    assert lines[-1] == f"... 24 more in {path}"
    assert len(lines) == 1 + 16 + 1


def test_address_of_mlflow_opens_the_experiment_where_its_number_can_be_read(tmp_path):
    path = tmp_path / "a ?b%20.db"
    with sqlite3.connect(path) as store:
        store.execute("CREATE TABLE experiments (experiment_id INTEGER, name TEXT, lifecycle_stage TEXT)")
        store.execute("INSERT INTO experiments VALUES (7, 'quick', 'active'), (3, 'smoke', 'deleted')")
    store.close()
    here = "make ui, then http://127.0.0.1:5000"
    view = "runs?workflowType=machine_learning&viewStateShareKey=best-variant"
    assert tracking_address(f"sqlite:///{path}", "quick") == f"{here}/#/experiments/7/{view}"
    assert tracking_address(f"sqlite:///{path}", "smoke") == here
    assert pages_of(f"sqlite:///{path}") == {"quick": f"/#/experiments/7/{view}"}  # what `make ui` prints
    assert pages_of(f"sqlite:///{tmp_path}/none.db") == pages_of("postgresql://host/x") == {}
    assert tracking_address(f"sqlite:///{tmp_path}/none.db", "quick") == here
    assert not (tmp_path / "none.db").exists()
    assert tracking_address("https://me:secret@host/x", "quick") == "https://host/x"
    assert tracking_address("off", "quick") == ""

"""What the rules share: the configuration, the lock, the shell, and the lines that a person sees."""

import os
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path

from snakemake.logging import logger
from snakemake.utils import min_version

from benchmark.config.code_sources import ROOT
from benchmark.config.probe_stages import trains
from benchmark.config.protocol import load_protocol
from benchmark.config.rates import check_chosen
from benchmark.config.variants import BASELINE_SEED, BASELINES
from benchmark.config import workflow as rule_parts
from benchmark.reporting import published_records
from benchmark.reporting.landing import landing
from benchmark.reporting.terminal.closing import closing
from benchmark.reporting.terminal.job_lines import watch
from benchmark.system.console import command_line
from benchmark.system.devices import cuda_count, resolve_device
from benchmark.system.errors import UserError
from benchmark.system.locks import hold

min_version("9.0")

GIVEN = dict(config)
try:
    CONFIG = rule_parts.read_config(GIVEN, sys.argv)
    PROTOCOL = load_protocol(CONFIG.protocol)
except UserError as error:
    sys.exit(f"error: {error}")

OPTIONS = rule_parts.options_of(CONFIG)
DEVICE = CONFIG.device or PROTOCOL.training.device
WHERE_DEVICE = "--config device" if CONFIG.device else f"protocol {PROTOCOL.name}: training.device"
GPU = int(DEVICE == "cuda" or (DEVICE == "auto" and cuda_count() > 0))
FOLDER = f"{CONFIG.results_dir}/{PROTOCOL.name}"
RUN = f"{FOLDER}/runs/{{variant}}/seed={{seed}}"
TRAINS = trains(PROTOCOL)
MADE_BY_RUN = rule_parts.scored_by_run(PROTOCOL)
RECORDS = [(run, published_records.record_of(run) if CONFIG.reuse else None) for run in PROTOCOL.runs()]
LOCK = ExitStack()
config.update(name=PROTOCOL.name, about=PROTOCOL.about, folder=FOLDER)  # for the text of the report
config.update(landing=landing(PROTOCOL, Path(FOLDER)))

# The rules' `python` is the one that runs Snakemake, whether its environment is activated or not. A prefix takes the
# place of Snakemake's own, without which a command that fails before a `|` or a `;` would count as done.
shell.prefix(f"set -euo pipefail; PATH={shlex.quote(os.path.dirname(sys.executable))}:$PATH; ")

LINES = watch(logger, workflow.output_settings, PROTOCOL.name) if workflow.is_main_process else None


def begin():
    """Check that the runs can be made here, and hold the protocol's folder until this process ends, however it ends."""
    try:
        if workflow.non_local_exec:
            check_for_cluster()
        else:
            resolve_device(DEVICE, WHERE_DEVICE, by_driver_alone=True)
        check_chosen(PROTOCOL.name, PROTOCOL.rates)
        LOCK.enter_context(hold(CONFIG.results_dir / PROTOCOL.name))
    except UserError as error:
        sys.exit(f"error: {error}")


def check_for_cluster():
    """Refuse what would have to be the same on all nodes and may not be.

    Raises:
        UserError: each node would choose its device, or all would write one SQLite file over the network.
    """
    if DEVICE == "auto":
        raise UserError(f"{WHERE_DEVICE}: auto lets each node choose; say --config device=cpu or device=cuda")
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise UserError(
            "MLFLOW_TRACKING_URI: is not set, and SQLite is not for nodes that share a disk;"
            " name a server (http://...), or off and `sync` later"
        )


def untracked(text):
    """A parameter that decides no result: Snakemake reruns nothing when a function of `resources` gives another value."""
    return lambda wildcards, resources: text


def end(log, failed):
    """Close the lines: after a failure with what to do, after a whole protocol with its main table and its places."""
    if LINES is None:
        return
    LINES.end()
    place = command_line(*map(os.path.relpath, log))
    if LINES.complete and not failed:
        for line in closing(PROTOCOL, CONFIG.results_dir / PROTOCOL.name, GIVEN, place):
            LINES.tell(line)
        return
    if failed:
        LINES.tell("not finished: mend what the errors name, then the same command goes on from here")
    LINES.tell(f"Log      {place}")

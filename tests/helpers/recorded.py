"""Records, and what is made of them, from the files of runs as a test has left them."""

from pathlib import Path

import benchmark.reporting.figures.write_figures
import benchmark.reporting.finished_runs
import benchmark.reporting.tables.write_tables
from benchmark.config.variants import NO_SEED
from benchmark.reporting.protocol_results import ProtocolResults
from benchmark.reporting.record import write_record
from benchmark.system.files import read_json


def write_records(protocol, results_dir):
    for run in protocol.runs():
        write_record(protocol, run.variant, run.seed, results_dir)
    for name in protocol.rows_not_trained():
        write_record(protocol, name, NO_SEED, results_dir)


def read_runs(protocol, results_dir):
    write_records(protocol, results_dir)
    return benchmark.reporting.finished_runs.read_runs(protocol, results_dir)


def table_of(name, protocol, runs, folder=Path("nowhere")):
    """A table of the registry from `runs`; `folder` is that of the protocol, where a table reads its cost or LPIPS."""
    return benchmark.reporting.tables.write_tables.make_table(name, ProtocolResults(protocol, runs, folder))


def write_tables(protocol, results_dir):
    write_records(protocol, results_dir)
    benchmark.reporting.tables.write_tables.write_tables(protocol, results_dir)


def write_figures(protocol, results_dir):
    write_records(protocol, results_dir)
    benchmark.reporting.figures.write_figures.write_figures(protocol, results_dir)


def decided(path):
    """What a record says but the time that its run took, which differs from one time to the next."""
    return {name: value for name, value in read_json(path).items() if name != "cost"}

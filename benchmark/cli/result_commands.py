"""Commands on what finished runs leave: tables, figures, published results, MLflow."""

import argparse

from benchmark.cli.exit_status import DONE, FOUND
from benchmark.cli.options import DATA_DIR, DEVICE, OUTPUT, PROTOCOL, RESULTS_DIR, REUSE, SEED, VARIANT, file, switch
from benchmark.cli.registry import RESULTS, command
from benchmark.cli.selection import check_id
from benchmark.system.installation import check_project


@command(RESULTS, options=[PROTOCOL, RESULTS_DIR, REUSE], examples=["--protocol quick"])
def tables(options: argparse.Namespace) -> None:
    """Make the tables of a protocol from its finished runs."""
    from benchmark.reporting.tables.write_tables import write_tables

    write_tables(options.protocol, options.results_dir, reuse=options.reuse)


@command(RESULTS, options=[PROTOCOL, RESULTS_DIR, REUSE], examples=["--protocol quick"])
def figures(options: argparse.Namespace) -> None:
    """Draw the figures of a protocol from its finished runs."""
    from benchmark.reporting.figures.write_figures import write_figures

    write_figures(options.protocol, options.results_dir, reuse=options.reuse)


CHOICE = OUTPUT.but("default: workflows/rates/<protocol>.yaml, where the key `rates` of other protocols finds it")


@command(
    RESULTS,
    options=[PROTOCOL, RESULTS_DIR, REUSE, CHOICE],
    examples=["--protocol study-rates", "--protocol study-rates --reuse --output rates.yaml"],
    writes_results=False,
)
def choose_rates(options: argparse.Namespace) -> None:
    """Choose the learning rate of each network by its runs at each rate of a grid, and write the choice to a file."""
    from benchmark.reporting.finished_runs import read_trained
    from benchmark.reporting.rate_choice import write_choice

    if options.output is None:
        check_project()
    runs = read_trained(options.protocol, options.results_dir, reuse=options.reuse)
    print(write_choice(options.protocol, runs, options.results_dir / options.protocol.name, options.output))


RECORDS_ONLY = switch("--records-only", "only the records, of those runs that are finished")


@command(
    RESULTS,
    options=[PROTOCOL, RESULTS_DIR, REUSE, RECORDS_ONLY],
    examples=["--protocol quick", "--protocol study-main --records-only"],
    writes_results=False,
)
def publish(options: argparse.Namespace) -> None:
    """Copy tables, figures and records of a finished protocol, or the records there are, to results/reference."""
    from benchmark.reporting.publish import publish as publish_results
    from benchmark.reporting.publish import publish_records

    check_project()
    if options.records_only:
        count = publish_records(options.protocol, options.results_dir)
        print(f"published {count} records of protocol {options.protocol.name}")
    else:
        print(publish_results(options.protocol, options.results_dir, reuse=options.reuse))


@command(RESULTS, options=[PROTOCOL, RESULTS_DIR], examples=["--protocol quick"], writes_results=False)
def compare(options: argparse.Namespace) -> int:
    """Hold a fresh result against the published one; exit status 1 where they differ."""
    from benchmark.reporting.publish import compare as compare_results

    report, equal = compare_results(options.protocol, options.results_dir)
    print(report)
    return DONE if equal else FOUND


RECORD = file("RECORD", "record of a run, as results/reference/<protocol>/records/*.json", metavar="RECORD")


@command(
    RESULTS,
    options=[RECORD, RESULTS_DIR, DATA_DIR, DEVICE.but("default: what the record says")],
    examples=["results/reference/quick/records/predrnnpp.seed=1.json"],
)
def reproduce(options: argparse.Namespace) -> int:
    """Run again what a record tells of and say whether it came out equal; exit status 1 where it did not."""
    from benchmark.reporting.reproduce import reproduce as run_again

    report, equal = run_again(options.RECORD, options.results_dir, options.data_dir, options.device)
    print(report)
    return DONE if equal else FOUND


@command(
    RESULTS,
    options=[PROTOCOL.optional(), VARIANT.optional(), SEED.optional(), RESULTS_DIR],
    examples=["", "--protocol quick --variant predrnnpp --seed 1"],
)
def sync(options: argparse.Namespace) -> None:
    """Bring MLflow up to date with the run folders: of one run, of a protocol, or of all."""
    from benchmark.reporting.tracking.mirror import sync as sync_runs

    check_id(options.variant)
    protocol = options.protocol.name if options.protocol else None
    for folder, run_id in sync_runs(options.results_dir, protocol, options.variant, options.seed).items():
        print(f"{folder} -> MLflow run {run_id}")

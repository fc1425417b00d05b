"""Verbs on what finished runs leave: tables, figures, published results, MLflow."""

import argparse

from benchmark.cli.command import Verb
from benchmark.cli.options import check_id


def tables(options: argparse.Namespace) -> None:
    """Make the tables of a protocol from its finished runs."""
    from benchmark.reporting.tables.write_tables import write_tables

    write_tables(options.protocol, options.results_dir, reuse=options.reuse)


def figures(options: argparse.Namespace) -> None:
    """Draw the figures of a protocol from its finished runs."""
    from benchmark.reporting.figures.write_figures import write_figures

    write_figures(options.protocol, options.results_dir, reuse=options.reuse)


def publish(options: argparse.Namespace) -> None:
    """Copy tables, figures and records of a finished protocol, or the records there are, to results/reference."""
    from benchmark.reporting.publish import publish as publish_results
    from benchmark.reporting.publish import publish_records

    if options.records_only:
        count = publish_records(options.protocol, options.results_dir)
        print(f"published {count} records of protocol {options.protocol.name}")
    else:
        print(publish_results(options.protocol, options.results_dir, reuse=options.reuse))


def compare(options: argparse.Namespace) -> None:
    """Hold a fresh result against the published one; exit status 1 where they differ."""
    from benchmark.reporting.publish import compare as compare_results

    report, equal = compare_results(options.protocol, options.results_dir)
    print(report)
    if not equal:
        raise SystemExit(1)


def reproduce(options: argparse.Namespace) -> None:
    """Run again what a record tells of and say whether it came out equal; exit status 1 where it did not."""
    from benchmark.reporting.reproduce import reproduce as run_again

    report, equal = run_again(options.RECORD, options.results_dir, options.data_dir, options.device)
    print(report)
    if not equal:
        raise SystemExit(1)


def sync(options: argparse.Namespace) -> None:
    """Bring MLflow up to date with the run folders: of one run, of a protocol, or of all."""
    from benchmark.reporting.tracking.mirror import sync as sync_runs

    check_id(options.variant)
    protocol = options.protocol.name if options.protocol else None
    for folder, run_id in sync_runs(options.results_dir, protocol, options.variant, options.seed).items():
        print(f"{folder} -> MLflow run {run_id}")


VERBS = {
    "tables": Verb(tables, ("protocol", "results_dir", "reuse"), ("--protocol quick",)),
    "figures": Verb(figures, ("protocol", "results_dir", "reuse"), ("--protocol quick",)),
    "publish": Verb(
        publish,
        ("protocol", "results_dir", "reuse", "records_only"),
        ("--protocol quick", "--protocol study-main --records-only"),
        writes_results=False,
    ),
    "compare": Verb(compare, ("protocol", "results_dir"), ("--protocol quick",), writes_results=False),
    "reproduce": Verb(
        reproduce,
        ("RECORD", "results_dir", "data_dir", "device?"),
        ("results/reference/quick/records/predrnnpp.seed=1.json",),
    ),
    "sync": Verb(
        sync,
        ("protocol?", "variant?", "seed?", "results_dir"),
        ("", "--protocol quick --variant predrnnpp --seed 1"),
    ),
}

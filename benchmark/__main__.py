"""The verbs: `python -m benchmark <verb>`. Every rule of the workflow is one of them; each imports what it needs."""

import argparse
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmark.config import load_protocol
from benchmark.device import resolve_device
from benchmark.errors import UserError, unknown
from benchmark.files import is_storage_error
from benchmark.interrupt import STATUS, Interrupted
from benchmark.memory import told
from benchmark.options import OPTIONS, check_id, check_results_dir, device_of, folder_of, run_of, runs_of
from benchmark.progress import say
from benchmark.speed import OPTIONS as SPEED_OPTIONS
from benchmark.speed import speed
from benchmark.variants import BASELINE_SEED, BASELINES


def init_store(options: argparse.Namespace) -> None:
    """Create the MLflow store and the protocol's experiment; one that is away stops nothing."""
    from benchmark.mlflow_store import TrackingUnavailable, create_store

    try:
        create_store(options.protocol.name)
    except TrackingUnavailable as error:
        print(f"MLflow gets the runs later, from `sync`: {error}", file=sys.stderr)


def plan(options: argparse.Namespace) -> None:
    """Count parameters and MACs of every variant and check that they are matched."""
    from benchmark.plan import plan as write_plan

    print(write_plan(options.protocol, options.results_dir))


def data(options: argparse.Namespace) -> None:
    """Prepare the digits and hash the fixed clips."""
    from benchmark.data.prepared import prepare

    prepare(options.protocol.data, options.data_dir, folder_of(options) / "data", options.download)


def backbone(options: argparse.Namespace) -> None:
    """Look for the network under LPIPS and say which file is used, or why there is none."""
    from benchmark.backbone import prepare

    net = options.protocol.evaluation.lpips_backbone
    prepare(net, options.data_dir, folder_of(options) / "lpips_backbone.json", options.download)


def train(options: argparse.Namespace) -> None:
    """Train one run, or several variants of a seed side by side; each goes on from its checkpoint."""
    runs, device = runs_of(options), device_of(options)
    from benchmark.cost import count_parameters
    from benchmark.plan import check_matched
    from benchmark.train import train_cohort

    check_matched(options.protocol, {run.variant: count_parameters(run.model) for run in runs})
    flags = {"resume_only": options.resume_only, "skip_trained": options.skip_trained}
    train_cohort(runs, options.results_dir, device, **flags)


def evaluate(options: argparse.Namespace) -> None:
    """Score a run or a baseline on its test clips; a file of weights on those of a protocol or on your own clips."""
    check_clips(options)
    if options.weights is not None:
        print_scores(options)
        return
    if options.variant is None or options.seed is None:
        raise UserError("evaluate: say which run with --variant and --seed, or which weights with --weights")
    if options.variant not in BASELINES:
        run_of(options)
    elif options.seed != BASELINE_SEED:
        raise UserError(f"--seed: {unknown('seed', options.seed, [BASELINE_SEED])}: a baseline has none")
    device = device_of(options)
    from benchmark.evaluate import evaluate as evaluate_one

    name, batch_size = f"{options.variant} seed={options.seed}, evaluate", options.protocol.evaluation.batch_size
    with told(name, batch_size, device, "evaluation.batch_size"):
        evaluate_one(options.protocol, options.variant, options.seed, options.results_dir, options.data_dir, device)


def check_clips(options: argparse.Namespace) -> None:
    """Refuse options of `evaluate` that leave open what is scored on which clips."""
    given = [name for name in OWN_CLIPS if getattr(options, name) not in (None, False)]
    if (options.protocol is None) == (options.data is None):
        said = "both were" if options.data else "neither was"
        raise UserError(
            "evaluate: say which clips, either --protocol NAME (its test clips) or --data FILE (your own, with"
            f" --weights); {said} given"
        )
    if options.data is not None and (
        options.weights is None or options.variant is not None or options.seed is not None
    ):
        raise UserError(
            "evaluate: --data takes --weights FILE, and no --variant or --seed, which name runs of a protocol"
        )
    if options.data is None and given:
        raise UserError(f"evaluate: --{given[0].replace('_', '-')} goes with --data; a protocol sets it by itself")
    if options.download and options.lpips_backbone is None:
        raise UserError("evaluate: --download fetches the backbone that --lpips-backbone names; name one")


def print_scores(options: argparse.Namespace) -> None:
    """Score the file of --weights and print its table."""
    own = options.data is not None
    device = resolve_device(options.device or "auto", "--device") if own else device_of(options)
    from benchmark.rendering import to_markdown
    from benchmark.score_weights import score_files, score_weights

    if own:
        given = {name: getattr(options, name) or default for name, default in OWN_CLIPS.items()}
        with told(f"{options.weights}", given["batch_size"], device, "--batch-size"):
            table = score_files(options.weights, options.data, data_dir=options.data_dir, device=device, **given)
    else:
        with told(f"{options.weights}", options.protocol.evaluation.batch_size, device, "evaluation.batch_size"):
            table = score_weights(options.weights, options.protocol, options.results_dir, options.data_dir, device)
    print(to_markdown(table), end="")


def probe(options: argparse.Namespace) -> None:
    """Measure the gradients of one run at initialisation and after training."""
    run, device = run_of(options), device_of(options)
    from benchmark.probe import probe as probe_run

    with told(f"{run.variant} seed={run.seed}, probe", run.probe.batch_size, device, "probe.batch_size"):
        probe_run(run, options.results_dir, device)


def record(options: argparse.Namespace) -> None:
    """Put together what is kept of a finished run or baseline, of which tables and figures are made."""
    if options.variant not in BASELINES:
        run_of(options)
    from benchmark.record import write_record

    write_record(options.protocol, options.variant, options.seed, options.results_dir)


def status(options: argparse.Namespace) -> None:
    """Show which runs of a protocol are done, running (how far), diverged, stale or missing; live in a terminal."""
    from benchmark.status import show

    show(options.protocol, options.results_dir, once=options.once)


def doctor(options: argparse.Namespace) -> None:
    """Say what this machine has for a protocol and what to do about what it lacks; exit status 1 for a problem."""
    from benchmark.doctor import report

    if not report(options.protocol or load_protocol("quick"), options.data_dir, options.results_dir):
        raise SystemExit(1)


def sync(options: argparse.Namespace) -> None:
    """Bring MLflow up to date with the run folders: of one run, of a protocol, or of all."""
    from benchmark.tracking import sync as sync_runs

    check_id(options.variant)
    protocol = options.protocol.name if options.protocol else None
    for folder, run_id in sync_runs(options.results_dir, protocol, options.variant, options.seed).items():
        print(f"{folder} -> MLflow run {run_id}")


def tables(options: argparse.Namespace) -> None:
    """Make the tables of a protocol from its finished runs."""
    from benchmark.tables import write_tables

    write_tables(options.protocol, options.results_dir, reuse=options.reuse)


def figures(options: argparse.Namespace) -> None:
    """Draw the figures of a protocol from its finished runs."""
    from benchmark.figures import write_figures

    write_figures(options.protocol, options.results_dir, reuse=options.reuse)


def publish(options: argparse.Namespace) -> None:
    """Copy tables, figures and records of a finished protocol, or the records there are, to results/reference."""
    from benchmark.publish import publish as publish_results
    from benchmark.publish import publish_records

    if options.records_only:
        count = publish_records(options.protocol, options.results_dir)
        print(f"published {count} records of protocol {options.protocol.name}")
    else:
        print(publish_results(options.protocol, options.results_dir, reuse=options.reuse))


def compare(options: argparse.Namespace) -> None:
    """Hold a fresh result against the published one; exit status 1 where they differ."""
    from benchmark.publish import compare as compare_results

    report, equal = compare_results(options.protocol, options.results_dir)
    print(report)
    if not equal:
        raise SystemExit(1)


def reproduce(options: argparse.Namespace) -> None:
    """Run again what a record tells of and say whether it came out equal; exit status 1 where it did not."""
    from benchmark.reproduce import reproduce as run_again

    report, equal = run_again(options.RECORD, options.results_dir, options.data_dir, options.device)
    print(report)
    if not equal:
        raise SystemExit(1)


def verify(options: argparse.Namespace) -> None:
    """Hold cells, networks, probe, clips and metrics against the cases in DIR; exit status 1 where one fails."""
    from benchmark.verify import verify as run_cases

    states = []
    for outcome in run_cases(options.DIR, options.data_dir):
        print(outcome, flush=True)
        states.append(outcome.state)
    print(", ".join(f"{states.count(state)} {state}" for state in ("pass", "fail", "skipped")))
    if "fail" in states:
        raise SystemExit(1)


def import_weights(options: argparse.Namespace) -> None:
    """Bring weights of another code base into a file of ours, with their spec."""
    from benchmark.exchange import import_weights as bring_in

    sizes = {name: getattr(options, name) for name in ("patch_size", "channels", "frame_size", "context")}
    print(bring_in(options.code_base, options.input, options.output, **sizes))


def export_weights(options: argparse.Namespace) -> None:
    """Write a file of our weights as another code base reads them."""
    from benchmark.exchange import export_weights as write_out

    print(write_out(options.code_base, options.input, options.output))


RUN = ("protocol", "variant", "seed", "results_dir", "data_dir", "device?")
OWN_CLIPS = dict.fromkeys(("layout", "context", "horizon", "lpips_backbone", "download")) | {
    "output": Path("scores.parquet"),
    "batch_size": 50,
}
"""Options of `evaluate` for clips of a person's own, where no protocol sets them -> default."""
VERBS: dict[str, tuple[Callable[[argparse.Namespace], None], tuple[str, ...]]] = {
    "init-store": (init_store, ("protocol",)),
    "plan": (plan, ("protocol", "results_dir")),
    "data": (data, ("protocol", "results_dir", "data_dir", "download")),
    "backbone": (backbone, ("protocol", "results_dir", "data_dir", "download")),
    "train": (train, (*RUN, "resume_only", "skip_trained")),
    "evaluate": (
        evaluate,
        ("protocol?", "variant?", "seed?", "weights?", "data?", *(f"{name}?" for name in OWN_CLIPS), *RUN[3:]),
    ),
    "probe": (probe, RUN),
    "record": (record, RUN[:4]),
    "status": (status, ("protocol", "results_dir", "once")),
    "doctor": (doctor, ("protocol?", "results_dir", "data_dir")),
    "sync": (sync, ("protocol?", "variant?", "seed?", "results_dir")),
    "tables": (tables, ("protocol", "results_dir", "reuse")),
    "figures": (figures, ("protocol", "results_dir", "reuse")),
    "publish": (publish, ("protocol", "results_dir", "reuse", "records_only")),
    "compare": (compare, ("protocol", "results_dir")),
    "reproduce": (reproduce, ("RECORD", "results_dir", "data_dir", "device?")),
    "verify": (verify, ("DIR", "data_dir")),
    "import-weights": (
        import_weights,
        ("from", "input", "output", "patch_size?", "channels?", "frame_size?", "context?"),
    ),
    "export-weights": (export_weights, ("to", "input", "output")),
    "speed": (speed, tuple(f"{name}?" for name in SPEED_OPTIONS)),
}
"""Verb -> what it does and the options it takes; `?` = may be left out, capitals = an argument without a flag."""

READERS = ("publish", "compare", "status", "doctor")
"""Verbs that write nothing to the results folder."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m benchmark", description="Train, evaluate and probe; see README.md.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (function, takes) in VERBS.items():
        about = (function.__doc__ or "").strip().partition("\n")[0]
        verb = verbs.add_parser(name, help=about, description=about)
        for option in takes:
            key = option.rstrip("?")
            settings = OPTIONS.get(f"{name} {key}") or OPTIONS[key]
            if key.isupper():
                verb.add_argument(key, **settings)
                continue
            needed = not option.endswith("?") and not {"default", "action"} & set(settings)
            verb.add_argument(f"--{key.replace('_', '-')}", required=needed, **settings)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        0 = done, 1 = `compare`, `reproduce` or `verify` found a difference or `doctor` a problem, 2 = the user's
        mistake, said shortly, 130 = Ctrl-C and 143 = TERM: training goes on by the same command.
    """
    options = parser().parse_args(arguments)
    try:
        if getattr(options, "protocol", None) is not None:
            options.protocol = load_protocol(options.protocol)
        if options.verb not in READERS:
            check_results_dir(options)
        VERBS[options.verb][0](options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if not is_storage_error(error):
            raise
        print(f"error: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        command = shlex.join(["python", "-m", "benchmark", *(sys.argv[1:] if arguments is None else arguments)])
        say(f"{signal.Signals(stop.number).name}: {stop}, checkpoint written; go on with: {command}", sys.stderr)
        return STATUS[stop.number]
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

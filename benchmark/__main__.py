"""The verbs: `python -m benchmark <verb>`. Every rule of the workflow is one of them; each imports what it needs."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmark.config import Protocol, RunConfig, load_protocol
from benchmark.device import resolve_device
from benchmark.errors import UserError, unknown
from benchmark.speed import OPTIONS as SPEED_OPTIONS
from benchmark.speed import speed
from benchmark.variants import BASELINE_SEED, BASELINES


def init_store(options: argparse.Namespace) -> None:
    """Create the MLflow store and the protocol's experiment, before several runs open it at once."""
    from benchmark.tracking import create_store

    create_store(options.protocol.name)


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
    """Train one run; goes on from its checkpoint."""
    run, device = run_of(options), device_of(options)
    from benchmark.cost import count_parameters
    from benchmark.plan import check_matched
    from benchmark.train import train as train_run

    check_matched(options.protocol, {run.variant: count_parameters(run.model)})
    train_run(run, options.results_dir, device, resume_only=options.resume_only)


def evaluate(options: argparse.Namespace) -> None:
    """Score one run, a baseline, or a file of weights on the test clips."""
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

    evaluate_one(options.protocol, options.variant, options.seed, options.results_dir, options.data_dir, device)


def print_scores(options: argparse.Namespace) -> None:
    """Score the file of --weights and print its table."""
    device = device_of(options)
    from benchmark.rendering import to_markdown
    from benchmark.score_weights import score_weights

    table = score_weights(options.weights, options.protocol, options.results_dir, options.data_dir, device)
    print(to_markdown(table), end="")


def probe(options: argparse.Namespace) -> None:
    """Measure the gradients of one run at initialisation and after training."""
    run, device = run_of(options), device_of(options)
    from benchmark.probe import probe as probe_run

    probe_run(run, options.results_dir, device)


def sync(options: argparse.Namespace) -> None:
    """Bring MLflow up to date with the run folders: of one run, of a protocol, or of all."""
    from benchmark.tracking import sync as sync_runs

    protocol = options.protocol.name if options.protocol else None
    for folder, run_id in sync_runs(options.results_dir, protocol, options.variant, options.seed).items():
        print(f"{folder} -> MLflow run {run_id}")


def tables(options: argparse.Namespace) -> None:
    """Make the tables of a protocol from its finished runs."""
    from benchmark.tables import write_tables

    write_tables(options.protocol, options.results_dir)


def figures(options: argparse.Namespace) -> None:
    """Draw the figures of a protocol from its finished runs."""
    from benchmark.figures import write_figures

    write_figures(options.protocol, options.results_dir)


def publish(options: argparse.Namespace) -> None:
    """Copy tables, figures and records of a finished protocol to results/reference."""
    from benchmark.publish import publish as publish_results

    print(publish_results(options.protocol, options.results_dir))


def compare(options: argparse.Namespace) -> None:
    """Hold a fresh result against the published one; exit status 1 where they differ."""
    from benchmark.publish import compare as compare_results

    report, equal = compare_results(options.protocol, options.results_dir)
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
VERBS: dict[str, tuple[Callable[[argparse.Namespace], None], tuple[str, ...]]] = {
    "init-store": (init_store, ("protocol",)),
    "plan": (plan, ("protocol", "results_dir")),
    "data": (data, ("protocol", "results_dir", "data_dir", "download")),
    "backbone": (backbone, ("protocol", "results_dir", "data_dir", "download")),
    "train": (train, (*RUN, "resume_only")),
    "evaluate": (evaluate, ("weights?", "protocol", "variant?", "seed?", *RUN[3:])),
    "probe": (probe, RUN),
    "sync": (sync, ("protocol?", "variant?", "seed?", "results_dir")),
    "tables": (tables, ("protocol", "results_dir")),
    "figures": (figures, ("protocol", "results_dir")),
    "publish": (publish, ("protocol", "results_dir")),
    "compare": (compare, ("protocol", "results_dir")),
    "verify": (verify, ("DIR", "data_dir")),
    "import-weights": (
        import_weights,
        ("from", "input", "output", "patch_size?", "channels?", "frame_size?", "context?"),
    ),
    "export-weights": (export_weights, ("to", "input", "output")),
    "speed": (speed, tuple(f"{name}?" for name in SPEED_OPTIONS)),
}
"""Verb -> what it does and the options it takes; `?` = may be left out, capitals = an argument without a flag."""

CODE_BASES = ("openstl", "predrnn-pytorch")


def positive(text: str) -> int:
    """A whole number above 0, as argparse takes it."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


OPTIONS = {
    "protocol": {"metavar": "NAME|FILE", "help": "protocol: a name in workflows/protocols, or a YAML file"},
    "variant": {"metavar": "ID", "help": "variant of the protocol"},
    "seed": {"metavar": "N", "type": int, "help": "seed of the run"},
    "results_dir": {"metavar": "DIR", "type": Path, "default": Path("results"), "help": "default: results"},
    "data_dir": {
        "metavar": "DIR",
        "type": Path,
        "default": Path("data"),
        "help": "published files; default: data",
    },
    "device": {"choices": ("auto", "cpu", "cuda"), "help": "default: what the protocol says"},
    "download": {"action": "store_true", "help": "fetch published files that data_dir lacks"},
    "weights": {"metavar": "FILE", "type": Path, "help": "weights of `train` or `import-weights`, in place of a run"},
    "DIR": {"type": Path, "help": "cases, as in tests/golden"},
    "from": {"dest": "code_base", "choices": CODE_BASES, "help": "code base the weights are of"},
    "to": {"dest": "code_base", "choices": CODE_BASES, "help": "code base to write for"},
    "input": {"metavar": "FILE", "type": Path, "help": "weights to read"},
    "output": {"metavar": "FILE", "type": Path, "help": "weights to write"},
    "patch_size": {"metavar": "N", "type": positive, "help": "side of a patch; default: as for --channels 1"},
    "channels": {"metavar": "N", "type": positive, "help": "channels of a frame; default: what the patches leave"},
    "frame_size": {
        "metavar": "N",
        "type": positive,
        "help": "side of a frame; default: that of the norms, or 16 patches",
    },
    "context": {
        "metavar": "N",
        "type": positive,
        "help": "frames the weights were trained to see first, for the record",
    },
    "resume_only": {"action": "store_true", "help": "it is an error if there is no checkpoint to go on from"},
}


def folder_of(options: argparse.Namespace) -> Path:
    """The protocol's folder."""
    return options.results_dir / options.protocol.name


def run_of(options: argparse.Namespace) -> RunConfig:
    """The run that --variant and --seed name."""
    protocol: Protocol = options.protocol
    known = [entry.id for entry in protocol.variants]
    if options.variant not in known:
        raise UserError(f"--variant: protocol {protocol.name}: {unknown('variant', options.variant, known)}")
    if options.seed not in protocol.seeds:
        raise UserError(f"--seed: protocol {protocol.name}: {unknown('seed', options.seed, protocol.seeds)}")
    return protocol.run(options.variant, options.seed)


def device_of(options: argparse.Namespace) -> str:
    """`cpu` or `cuda`, from --device or the protocol."""
    if options.device:
        return resolve_device(options.device, "--device")
    return resolve_device(options.protocol.training.device, f"protocol {options.protocol.name}: training.device")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m benchmark", description="Train, evaluate and probe; see README.md.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (function, takes) in VERBS.items():
        about = (function.__doc__ or "").strip().partition("\n")[0]
        verb = verbs.add_parser(name, help=about, description=about)
        for option in takes:
            key = option.rstrip("?")
            settings = SPEED_OPTIONS[key] if name == "speed" else OPTIONS[key]
            if key.isupper():
                verb.add_argument(key, **settings)
                continue
            needed = not option.endswith("?") and not {"default", "action"} & set(settings)
            verb.add_argument(f"--{key.replace('_', '-')}", required=needed, **settings)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0 = done, 1 = `compare` or `verify` found a difference, 2 = the user's mistake, said shortly."""
    options = parser().parse_args(arguments)
    try:
        if getattr(options, "protocol", None) is not None:
            options.protocol = load_protocol(options.protocol)
        VERBS[options.verb][0](options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

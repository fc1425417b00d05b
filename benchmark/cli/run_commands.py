"""Commands on runs: from a protocol to the record of a finished run."""

import argparse
import sys

from benchmark.cli.completion import speeds
from benchmark.cli.options import (
    DATA_DIR,
    DEVICE,
    DOWNLOAD,
    PROTOCOL,
    RESULTS_DIR,
    REUSE,
    SEED,
    SEED_OR_BASELINE,
    SEEDS,
    VARIANT,
    VARIANT_OR_BASELINE,
    WEIGHTS,
    number,
    switch,
)
from benchmark.cli.registry import RUNS, Option, command
from benchmark.cli.selection import check_variant, device_of, protocol_folder, run_of, runs_of
from benchmark.cli.weight_commands import (
    CLIP_OPTIONS,
    CLIPS,
    NORMS,
    PROBED_OPTIONS,
    check_clips,
    print_norms,
    print_scores,
)
from benchmark.config.protocol import Protocol, check_shareable
from benchmark.config.rates import check_chosen
from benchmark.config.variants import BASELINE_SEED, BASELINES
from benchmark.system import processes
from benchmark.system.errors import UserError, unknown
from benchmark.system.gpu_lock import reserve_gpu
from benchmark.system.installation import PROGRAM
from benchmark.system.memory import lack_of_memory, report_out_of_memory, within_memory

QUICK = "--protocol quick --variant predrnnpp --seed 1"
"""A run, as examples name it."""

SPEED = Option(
    "--speed",
    "measured speed: a name in results/reference/speed, or a file of `speed --json`; default: the nearest of the device"
    " at hand",
    complete=speeds,
    settings={"metavar": "NAME|FILE"},
)
COUNTS_ONLY = switch("--counts-only", "parameters and MACs alone, as the workflow needs them")


@command(
    RUNS,
    options=[PROTOCOL, RESULTS_DIR, SPEED, COUNTS_ONLY],
    examples=["--protocol quick", "--protocol paper --speed cpu-64x4-fp32"],
)
def plan(options: argparse.Namespace) -> None:
    """Count parameters and MACs of every variant, check that they are matched, and say what the protocol will cost."""
    if options.counts_only and options.speed:
        raise UserError("plan: --counts-only leaves out the hours that --speed is for; give one of them")
    speed = None
    if options.speed:  # a wrong name is said before anything is counted
        from benchmark.cost.measured_speeds import named_speed

        speed = named_speed(options.speed)
    from benchmark.cost.plan import plan as write_plan

    counts = write_plan(options.protocol, options.results_dir)
    if options.counts_only:
        print(counts)
    else:
        from benchmark.cost.report import cost_report
        from benchmark.data.kinds import kind_of

        print(f"{cost_report(options.protocol, speed)}\n\n{counts}")
        if line := lack_of_memory(
            f"protocol {options.protocol.name}: data", kind_of(options.protocol.data).memory_needs()
        ):
            print(line)


@command(RUNS, options=[PROTOCOL], examples=["--protocol quick"])
def init_store(options: argparse.Namespace) -> None:
    """Create the MLflow store and the protocol's experiment; one that is away stops nothing."""
    from benchmark.reporting.tracking.store import TrackingUnavailable, create_store

    try:
        create_store(options.protocol.name)
    except TrackingUnavailable as error:
        print(f"MLflow gets the runs later, from `sync`: {error}", file=sys.stderr)


@command(
    RUNS,
    options=[PROTOCOL, RESULTS_DIR, DATA_DIR, DOWNLOAD],
    examples=["--protocol quick", "--protocol gpu --data-dir data --download"],
)
def data(options: argparse.Namespace) -> None:
    """Prepare the digits, or decode the videos, and hash the fixed clips."""
    from benchmark.data.kinds import kind_of

    kind, folder = kind_of(options.protocol.data), protocol_folder(options) / "data"
    with within_memory(f"protocol {options.protocol.name}: data", kind.memory_needs()):
        kind.prepare(options.protocol, options.data_dir, folder, options.download)


CLIP_COUNT = number("--clips", "clips of the estimate; default: 2000")


@command(RUNS, options=[PROTOCOL, RESULTS_DIR, CLIP_COUNT], examples=["--protocol study-main"])
def floor(options: argparse.Namespace) -> None:
    """Estimate the error of the best predictors that see only the last context frames; `data` goes before it."""
    from benchmark.evaluation.floor import CLIPS, write_floor

    if options.clips == 1:
        raise UserError("--clips: 1 is too few: one clip gives no standard error")
    print(write_floor(options.protocol, options.results_dir, options.clips or CLIPS))


@command(RUNS, options=[PROTOCOL, RESULTS_DIR], examples=["--protocol study-main"])
def baselines(options: argparse.Namespace) -> None:
    """Score the predictions without training on the validation clips, as trainings are; `data` goes before it."""
    from benchmark.evaluation.baseline_errors import write_baseline_errors

    print(write_baseline_errors(options.protocol, options.results_dir))


@command(
    RUNS,
    options=[PROTOCOL, RESULTS_DIR, DATA_DIR, DOWNLOAD],
    examples=["--protocol quick --data-dir data --download"],
)
def backbone(options: argparse.Namespace) -> None:
    """Look for the network under LPIPS and say which file is used, or why there is none."""
    from benchmark.evaluation.lpips_backbone import prepare

    net = options.protocol.evaluation.lpips_backbone
    prepare(net, options.data_dir, protocol_folder(options) / "lpips_backbone.json", options.download)


VARIANTS = Option(
    "--variant",
    "variant of the protocol, or several to train side by side: a,b,c",
    required=True,
    complete=VARIANT.complete,
    settings={"metavar": "ID,..."},
)
RESUME_ONLY = switch("--resume-only", "it is an error if there is no checkpoint to go on from")
SKIP_TRAINED = switch("--skip-trained", "leave alone what this config and code have trained to its end")


@command(
    RUNS,
    options=[PROTOCOL, VARIANTS, SEEDS, RESULTS_DIR, DATA_DIR, DEVICE, RESUME_ONLY, SKIP_TRAINED],
    examples=[
        QUICK,
        "--protocol quick --variant convlstm,predrnn,predrnnpp --seed 1",
        "--protocol study-recall --variant convlstm --seed 1,2,3,4",
    ],
    shared=True,
)
def train(options: argparse.Namespace) -> None:
    """Train one run, or several variants and seeds side by side; each goes on from its checkpoint."""
    runs, device = runs_of(options), device_of(options)
    check_chosen(options.protocol.name, options.protocol.rates)
    check_shareable(runs)
    from benchmark.cost.plan import check_matched
    from benchmark.reporting.tracking.background_mirror import BackgroundMirror
    from benchmark.training.cohort import train_cohort
    from benchmark.training.train import train as train_run
    from models.counts import count_parameters

    check_matched(options.protocol, {run.variant: count_parameters(run.model) for run in runs})
    flags = {"resume_only": options.resume_only, "skip_trained": options.skip_trained}
    if len(runs) == 1:
        train_run(runs[0], options.results_dir, device, beside=BackgroundMirror, **flags)
    else:
        train_cohort(runs, options.results_dir, device, beside=BackgroundMirror, **flags)


@command(
    RUNS,
    options=[
        *(PROTOCOL.optional(), VARIANT_OR_BASELINE.optional(), SEED_OR_BASELINE.optional(), WEIGHTS, CLIPS),
        *(*CLIP_OPTIONS, RESULTS_DIR, DATA_DIR),
        DEVICE.but("default: what the protocol says; auto for your clips"),
    ],
    examples=[QUICK, "--weights model.safetensors --data clips.npy --layout NTHW"],
    shared=True,
)
def evaluate(options: argparse.Namespace) -> None:
    """Score a run or a baseline on its test clips; a file of weights on those of a protocol or on your own clips."""
    check_clips("evaluate", options, CLIP_OPTIONS)
    if options.download and options.lpips_backbone is None:
        raise UserError("evaluate: --download fetches the backbone that --lpips-backbone names; name one")
    if options.weights is not None:
        if processes.count() > 1:
            raise UserError(f"evaluate: --weights is for one process; start `{PROGRAM}` without torchrun")
        print_scores(options)
        return
    if options.variant is None or options.seed is None:
        raise UserError("evaluate: say which run with --variant and --seed, or which weights with --weights")
    if options.variant not in BASELINES:
        run_of(options)
    elif options.seed != BASELINE_SEED:
        raise UserError(f"--seed: {unknown('seed', options.seed, [BASELINE_SEED])}: a baseline has none")
    device = device_of(options)
    from benchmark.evaluation.evaluate import evaluate as evaluate_one

    name, batch_size = f"{options.variant} seed={options.seed}, evaluate", options.protocol.evaluation.batch_size
    with reserve_gpu(device), report_out_of_memory(name, batch_size, device, "evaluation.batch_size"):
        evaluate_one(options.protocol, options.variant, options.seed, options.results_dir, options.data_dir, device)


@command(
    RUNS,
    options=[
        *(PROTOCOL.optional(), VARIANT.optional(), SEED.optional(), WEIGHTS, CLIPS, *PROBED_OPTIONS, NORMS),
        *(RESULTS_DIR, DATA_DIR, DEVICE.but("default: what the protocol says; auto with --weights")),
    ],
    examples=[QUICK, "--weights model.safetensors --data clips.npy", "--weights model.safetensors --protocol quick"],
)
def probe(options: argparse.Namespace) -> None:
    """Measure the gradients of one run at initialisation and after training, or of a file of weights on any clips."""
    check_clips("probe", options, PROBED_OPTIONS)
    if options.weights is not None:
        print_norms(options)
        return
    if options.variant is None or options.seed is None:
        raise UserError("probe: say which run with --variant and --seed, or which weights with --weights")
    if options.output is not None:
        raise UserError("probe: --output goes with --weights; what is measured of a run lies in its folder")
    run, device = run_of(options), device_of(options)
    from benchmark.evaluation.gradient_probe import probe as probe_run
    from benchmark.reporting.figures.gradient_norms import draw_probe

    name = f"{run.variant} seed={run.seed}, probe"
    with reserve_gpu(device), report_out_of_memory(name, run.probe.batch_size, device, "probe.batch_size"):
        probe_run(run, options.results_dir, device)
    draw_probe(run, options.results_dir)


@command(RUNS, options=[PROTOCOL, VARIANT_OR_BASELINE, SEED_OR_BASELINE, RESULTS_DIR], examples=[QUICK])
def record(options: argparse.Namespace) -> None:
    """Put together what is kept of a finished run or baseline, of which tables and figures are made."""
    if options.variant not in BASELINES:
        run_of(options)
    from benchmark.reporting.record import write_record

    write_record(options.protocol, options.variant, options.seed, options.results_dir)


@command(
    RUNS,
    options=[PROTOCOL, VARIANT, RESULTS_DIR, DATA_DIR, DEVICE, REUSE],
    examples=["--protocol study-init --variant convlstm --data-dir data"],
)
def measure(options: argparse.Namespace) -> None:
    """Make, score, probe and record all seeds of a variant in one process, for protocols that train nothing."""
    from benchmark.config.probe_stages import trains
    from benchmark.reporting.published_records import record_of

    protocol: Protocol = options.protocol
    if trains(protocol):
        raise UserError(f"measure: protocol {protocol.name} trains its runs; use train, evaluate, probe and record")
    check_variant(protocol, options.variant)
    device = device_of(options)
    from benchmark.evaluation.evaluate import evaluate as evaluate_one
    from benchmark.evaluation.gradient_probe import probe as probe_run
    from benchmark.reporting.figures.gradient_norms import draw_probe
    from benchmark.reporting.record import write_record
    from benchmark.reporting.tracking.background_mirror import BackgroundMirror
    from benchmark.training.train import train as train_run

    for seed in protocol.seeds_of(options.variant):
        run = protocol.run(options.variant, seed)
        if options.reuse and record_of(run) is not None:
            continue
        name = f"{run.variant} seed={seed}"
        train_run(run, options.results_dir, device, beside=BackgroundMirror)
        with (
            reserve_gpu(device),
            report_out_of_memory(name, run.evaluation.batch_size, device, "evaluation.batch_size"),
        ):
            evaluate_one(protocol, run.variant, seed, options.results_dir, options.data_dir, device)
        with reserve_gpu(device), report_out_of_memory(name, run.probe.batch_size, device, "probe.batch_size"):
            probe_run(run, options.results_dir, device)
        draw_probe(run, options.results_dir)
        write_record(protocol, run.variant, seed, options.results_dir)


@command(
    RUNS,
    options=[PROTOCOL, RESULTS_DIR, switch("--once", "print it once, also on a terminal")],
    examples=["--protocol quick", "--protocol study-main --once"],
    writes_results=False,
)
def status(options: argparse.Namespace) -> None:
    """Show which runs of a protocol are done, running (how far), diverged, stale or missing; live in a terminal."""
    from benchmark.reporting.terminal.status import show

    show(options.protocol, options.results_dir, once=options.once)

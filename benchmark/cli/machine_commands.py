"""Commands on this machine: what it has, how fast it is, whether it computes what others do."""

import argparse
from importlib.util import find_spec
from typing import Any

from benchmark.cli.completion import variants
from benchmark.cli.exit_status import DONE, FOUND
from benchmark.cli.options import DATA_DIR, PROTOCOL, RESULTS_DIR, file, switch, whole, widths
from benchmark.cli.registry import MACHINE, Option, command
from benchmark.config.protocol import load_protocol
from benchmark.config.variants import VARIANTS
from benchmark.cost.speed import WHAT, time_paths
from benchmark.system import installation
from benchmark.system.console import command_line


@command(
    MACHINE,
    options=[PROTOCOL.optional(), RESULTS_DIR, DATA_DIR],
    examples=["", "--protocol gpu --data-dir data"],
    writes_results=False,
)
def doctor(options: argparse.Namespace) -> int:
    """Say what this machine has for a protocol and what to do about what it lacks; exit status 1 for a problem."""
    from benchmark.cli.doctor.report import report

    protocol = options.protocol or load_protocol("quick")
    return DONE if report(protocol, options.data_dir, options.results_dir) else FOUND


@command(
    MACHINE,
    options=[file("DIR", "cases, as in tests/golden", metavar="DIR"), DATA_DIR],
    examples=["tests/golden --data-dir data"],
)
def verify(options: argparse.Namespace) -> int:
    """Hold cells, networks, probe, clips and metrics against the cases in DIR; exit status 1 where one fails."""
    from benchmark.exchange.verify import verify as run_cases

    states = []
    for outcome in run_cases(options.DIR, options.data_dir):
        print(outcome, flush=True)
        states.append(outcome.state)
    print(", ".join(f"{states.count(state)} {state}" for state in ("pass", "fail", "skipped")))
    return FOUND if "fail" in states else DONE


@command(
    MACHINE,
    options=[file("FOLDER", "where to; made if it is missing", metavar="FOLDER")],
    examples=["my-study"],
    writes_results=False,
)
def copy_workflow(options: argparse.Namespace) -> None:
    """Copy the Snakefile with its rules, protocols and profiles into FOLDER, to work there without a checkout."""
    count = installation.copy_workflow(options.FOLDER)
    print(f"{count} files copied into {options.FOLDER}")
    if find_spec("snakemake") is None:
        print(f"Snakemake is not installed: {installation.remedy('snakemake')}")
    print(f"go on with: {command_line('cd', options.FOLDER)} && snakemake --cores all all --config protocol=smoke")


def defaulted(flag: str, default: Any, help: str, **settings: Any) -> Option:
    """An option of `speed` that says its default; a whole number unless `settings` has another type."""
    words = ",".join(map(str, default)) if isinstance(default, tuple) else default
    number = {} if "choices" in settings else {"metavar": "N", "type": whole}
    return Option(flag, f"{help}default: {words}", settings=number | settings | {"default": default})


SPEED_OPTIONS = (
    defaulted("--what", "train", "".join(f"{k}: {v}; " for k, v in WHAT.items()), choices=tuple(WHAT)),
    Option(
        "--variant",
        f"one of {', '.join(VARIANTS)}; default: predrnnpp",
        complete=variants,
        settings={"metavar": "ID", "default": "predrnnpp"},
    ),
    defaulted("--hidden-channels", (16,) * 4, "width of every layer, bottom first; ", metavar="N,N,...", type=widths),
    defaulted("--norm", "none", "layer norm; ", choices=("none", "channel", "element")),
    defaulted("--frame-size", 64, "side of a frame; "),
    defaulted("--patch-size", 4, "side of a patch; "),
    defaulted("--kernel-size", 5, "side of a kernel; "),
    defaulted("--batch-size", 8, "clips in a batch; "),
    defaulted("--context", 10, "frames given; "),
    defaulted("--horizon", 10, "frames predicted; "),
    Option(
        "--precision",
        "of the fast path; the plain one is always fp32, which is the default",
        settings={"choices": ("fp32", "tf32", "bf16"), "default": "fp32"},
    ),
    switch("--recompute", "the fast path keeps the states only and computes the rest twice"),
    switch("--any-order", "allow algorithms that may differ in the last bits from call to call, for what that saves"),
    switch("--captured", "train: on a GPU the plain path is a CUDA graph, too"),
    defaulted("--device", "auto", "", choices=("auto", "cpu", "cuda")),
    defaulted("--threads", 2, "CPU threads; "),
    defaulted("--repeats", 5, "timed repeats of each path, in turn; "),
    defaulted("--runs", 4, "cohort: runs trained together; "),
    Option(
        "--stack",
        "cohort: so many runs of one variant, trained as one network, in place of --runs",
        settings={"metavar": "N", "type": whole},
    ),
    defaulted("--clips", 1000, "evaluate, probe: clips in all; "),
    file("--json", "write all numbers there"),
    file("--trace", "train: count the kernels of a step, and write PyTorch's trace of it there"),
    switch("--predicted", "measure nothing: print what was predicted for a GPU beside what has been measured"),
)


@command(
    MACHINE,
    options=SPEED_OPTIONS,
    examples=["", "--predicted", "--what inference --hidden-channels 64,64,64,64 --batch-size 8 --json speed.json"],
)
def speed(options: argparse.Namespace) -> None:
    """Time the fast path beside the plain one, in turn in one process, against the device's own ceilings."""
    time_paths(options)

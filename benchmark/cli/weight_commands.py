"""Commands on clips of a person's own and on weights of other code bases."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.cli.exit_status import DONE, FOUND
from benchmark.cli.options import (
    BATCH_SIZE,
    CODE_BASES,
    CONTEXT,
    DEVICE,
    DOWNLOAD,
    HORIZON,
    INPUT,
    LAYOUT,
    LPIPS_BACKBONE,
    OUTPUT,
    PROTOCOL,
    WEIGHTS,
    WHITE,
    file,
    number,
    switch,
)
from benchmark.cli.registry import YOUR_OWN, Option, command
from benchmark.config.protocol import load_protocol
from benchmark.system.devices import resolve_device
from benchmark.system.errors import UserError
from benchmark.system.gpu_lock import reserve_gpu
from benchmark.system.memory import report_out_of_memory

CLIP = file(
    "--input", "a clip: a .gif, a folder of PNG frames, or what --data of `evaluate` takes; see docs/weights.md", "PATH"
).needed()
FIT = switch(
    "--fit", "make the frames fit the weights: cropped to their shape, scaled to their size, in grey or in colour"
)
CLIPS = file("--data", "your clips: a .npy, a .npz or a folder; see docs/weights.md", metavar="PATH")
SCORES = OUTPUT.but("scores of every clip and frame; default: scores.parquet")
CLIP_OPTIONS = (LAYOUT, WHITE, CONTEXT, HORIZON, LPIPS_BACKBONE, DOWNLOAD, SCORES, BATCH_SIZE)
"""What `evaluate` takes for clips of a person's own; for test clips the protocol sets it."""
CLIP_DEFAULTS: dict[str, Any] = {"output": Path("scores.parquet"), "batch_size": 50}
NORMS = OUTPUT.but("with --weights: norms of every clip, state and frame; default: gradient_norms.parquet")
PROBED_OPTIONS = (LAYOUT, WHITE, CONTEXT, HORIZON, number("--clips", "clips measured; default: 32"), BATCH_SIZE)
"""What `probe` takes for clips of a person's own."""


@command(
    YOUR_OWN,
    options=[
        WEIGHTS.but("weights: model.safetensors of a run's folder, or what `import-weights` wrote").needed(),
        CLIP,
        OUTPUT.but("what to write: .npy (values), .gif (animation), .mp4 (video) or .png (prediction strip)").needed(),
        *(LAYOUT, WHITE, CONTEXT),
        HORIZON.but(
            "frames predicted; default: as many as the input has after the context, or else as many as are given"
        ),
        *(FIT, BATCH_SIZE, DEVICE.but("default: auto")),
    ],
    examples=[
        "--weights model.safetensors --input clip.gif --output prediction.gif",
        "--weights model.safetensors --input frames --fit --context 10 --horizon 30 --output prediction.npy",
    ],
)
def predict(options: argparse.Namespace) -> None:
    """Show how a file of weights goes on with a clip of yours: as an array, an animation, a video or a strip."""
    from benchmark.exchange.input_clips import check_paths

    check_paths(options.weights, options.input, options.output)
    device = resolve_device(options.device or "auto", "--device")
    from benchmark.exchange.predict import predict as predict_clips

    batch_size = options.batch_size or 50
    sizes = {name: getattr(options, name) for name in ("layout", "white", "context", "horizon", "fit")}
    with reserve_gpu(device), report_out_of_memory(f"{options.weights}", batch_size, device, "--batch-size"):
        summary = predict_clips(
            options.weights, options.input, options.output, **sizes, batch_size=batch_size, device=device
        )
    print(summary)


FROM = Option(
    "--from", "code base the weights are of", required=True, settings={"dest": "code_base", "choices": CODE_BASES}
)


@command(
    YOUR_OWN,
    options=[
        *(FROM, INPUT.needed(), OUTPUT.needed()),
        number("--patch-size", "side of a patch; default: as for --channels 1"),
        number("--channels", "channels of a frame; default: what the patches leave"),
        number("--frame-size", "side of a frame; default: that of the norms, or 16 patches"),
        CONTEXT.but("frames the weights were trained to see first, for the record"),
        switch("--tensors-only", "read the tensors of a file that holds other things, too; these are never run"),
    ],
    examples=["--from openstl --input best.ckpt --output convlstm.safetensors --context 10"],
)
def import_weights(options: argparse.Namespace) -> None:
    """Bring weights of another code base into a file of ours, with their spec."""
    from benchmark.exchange.state_dicts import import_weights as bring_in

    sizes = {name: getattr(options, name) for name in ("patch_size", "channels", "frame_size", "context")}
    print(bring_in(options.code_base, options.input, options.output, **sizes, tensors_only=options.tensors_only))


TO = Option("--to", "code base to write for", required=True, settings={"dest": "code_base", "choices": CODE_BASES})


@command(
    YOUR_OWN,
    options=[TO, INPUT.needed(), OUTPUT.needed()],
    examples=["--to openstl --input convlstm.safetensors --output back.ckpt"],
)
def export_weights(options: argparse.Namespace) -> None:
    """Write a file of our weights as another code base reads them."""
    from benchmark.exchange.state_dicts import export_weights as write_out

    print(write_out(options.code_base, options.input, options.output))


def check_clips(command: str, options: argparse.Namespace, of_clips: Sequence[Option]) -> None:
    """Refuse options of `evaluate` or `probe` that leave open what is measured on which clips."""
    given = [option.flag for option in of_clips if getattr(options, option.dest) not in (None, False)]
    if (options.protocol is None) == (options.data is None):
        said = "both were" if options.data else "neither was"
        raise UserError(
            f"{command}: say which clips, either --protocol NAME (its test clips) or --data FILE (your own, with"
            f" --weights); {said} given"
        )
    if options.data is not None and (
        options.weights is None or options.variant is not None or options.seed is not None
    ):
        raise UserError(
            f"{command}: --data takes --weights FILE, and no --variant or --seed, which name runs of a protocol"
        )
    if options.data is None and given:
        raise UserError(f"{command}: {given[0]} goes with --data; a protocol sets it by itself")
    if options.weights is not None and (options.variant is not None or options.seed is not None):
        raise UserError(
            f"{command}: --weights is in place of a run, which --variant and --seed name; give one of the two"
        )


def print_scores(options: argparse.Namespace) -> None:
    """Score the file of --weights and print its table."""
    your_clips = options.data is not None
    device = resolve_device(options.device or "auto", "--device")
    from benchmark.exchange.score import score_files, score_weights
    from benchmark.reporting.tables.rendering import to_markdown

    if your_clips:
        names = [option.dest for option in CLIP_OPTIONS]
        given: dict[str, Any] = {name: getattr(options, name) or CLIP_DEFAULTS.get(name) for name in names}
        with (
            reserve_gpu(device),
            report_out_of_memory(f"{options.weights}", given["batch_size"], device, "--batch-size"),
        ):
            table = score_files(options.weights, options.data, data_dir=options.data_dir, device=device, **given)
    else:
        batch_size = options.protocol.evaluation.batch_size
        with (
            reserve_gpu(device),
            report_out_of_memory(f"{options.weights}", batch_size, device, "evaluation.batch_size"),
        ):
            table = score_weights(options.weights, options.protocol, options.results_dir, options.data_dir, device)
    print(to_markdown(table), end="")


def print_norms(options: argparse.Namespace) -> None:
    """Measure the file of --weights and print its table."""
    device = resolve_device(options.device or "auto", "--device")
    from benchmark.exchange.probe_weights import probe_files, probe_test_clips
    from benchmark.reporting.tables.rendering import to_markdown

    output = options.output or Path("gradient_norms.parquet")
    name, batch_size = f"{options.weights}", options.batch_size or 16
    if options.data is None:
        with reserve_gpu(device), report_out_of_memory(name, batch_size, device, "probe.batch_size"):
            folders = options.results_dir, options.data_dir
            table = probe_test_clips(options.weights, options.protocol, *folders, output=output, device=device)
    else:
        given: dict[str, Any] = {option.dest: getattr(options, option.dest) for option in PROBED_OPTIONS}
        given |= {"batch_size": batch_size, "output": output, "device": device}
        with reserve_gpu(device), report_out_of_memory(name, batch_size, device, "--batch-size"):
            table = probe_files(options.weights, options.data, **given)
    print(to_markdown(table), end="")


OWN_CLASS = Option(
    "CLASS",
    "a model with a method predict, or a cell, as Python imports it",
    settings={"metavar": "PACKAGE.MODULE:CLASS"},
)
ARGS = Option(
    "--args",
    "what the constructor of a model is given, as JSON; default: nothing",
    settings={"metavar": "JSON", "default": "{}"},
)


@command(
    YOUR_OWN,
    options=[OWN_CLASS, ARGS, PROTOCOL.but("whose clips and sizes; default: quick").optional()],
    examples=["examples.simvp_like:SimVPLike", "examples.simvp_like:SimVPLike --args '{\"width\": 8}'"],
)
def check(options: argparse.Namespace) -> int:
    """Check a model or cell of yours: a line for each thing that training, scores and probe need of it.

    Exit status 1 where one failed.
    """
    try:
        given = json.loads(options.args)
    except ValueError as error:
        raise UserError(f"--args: {options.args!r} is no JSON ({error})") from None
    if not isinstance(given, dict):
        raise UserError(f'--args: {options.args!r} is no mapping of names to values, such as {{"width": 8}}')
    from benchmark.exchange.contract import check_class

    lines, passed = check_class(getattr(options, OWN_CLASS.dest), given, options.protocol or load_protocol("quick"))
    print("\n".join(lines))
    return DONE if passed else FOUND

"""Commands on clips of a person's own and on weights of other code bases."""

import argparse

from benchmark.cli.options import (
    BATCH_SIZE,
    CODE_BASES,
    CONTEXT,
    DEVICE,
    HORIZON,
    INPUT,
    LAYOUT,
    OUTPUT,
    WEIGHTS,
    WHITE,
    file,
    number,
    switch,
)
from benchmark.cli.registry import YOUR_OWN, Option, command
from benchmark.system.devices import resolve_device
from benchmark.system.gpu_lock import reserve_gpu
from benchmark.system.memory import report_out_of_memory

CLIP = file(
    "--input", "a clip: a .gif, a folder of PNG frames, or what --data of `evaluate` takes; see docs/weights.md", "PATH"
).needed()
FIT = switch(
    "--fit", "make the frames fit the weights: cropped to their shape, scaled to their size, in grey or in colour"
)


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

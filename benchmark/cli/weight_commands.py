"""Verbs on clips of a person's own and on weights of other code bases."""

import argparse

from benchmark.cli.command import Verb
from benchmark.system.devices import resolve_device
from benchmark.system.gpu_lock import reserve_gpu
from benchmark.system.memory import report_out_of_memory


def predict(options: argparse.Namespace) -> None:
    """Show how a file of weights goes on with a clip of yours: as an array, an animation, a video or a strip."""
    from benchmark.exchange.input_clips import check_paths

    check_paths(options.weights, options.input, options.output)
    device = resolve_device(options.device or "auto", "--device")
    from benchmark.exchange.predict import predict as predict_clips

    batch_size = options.batch_size or 50
    sizes = {name: getattr(options, name) for name in ("layout", "white", "context", "horizon", "fit")}
    with reserve_gpu(device), report_out_of_memory(f"{options.weights}", batch_size, device, "--batch-size"):
        said = predict_clips(
            options.weights, options.input, options.output, **sizes, batch_size=batch_size, device=device
        )
    print(said)


def import_weights(options: argparse.Namespace) -> None:
    """Bring weights of another code base into a file of ours, with their spec."""
    from benchmark.exchange.state_dicts import import_weights as bring_in

    sizes = {name: getattr(options, name) for name in ("patch_size", "channels", "frame_size", "context")}
    print(bring_in(options.code_base, options.input, options.output, **sizes, tensors_only=options.tensors_only))


def export_weights(options: argparse.Namespace) -> None:
    """Write a file of our weights as another code base reads them."""
    from benchmark.exchange.state_dicts import export_weights as write_out

    print(write_out(options.code_base, options.input, options.output))


VERBS = {
    "predict": Verb(
        predict,
        (
            *("weights", "input", "output", "layout?", "white?", "context?", "horizon?", "fit", "batch_size?"),
            "device?",
        ),
        (
            "--weights model.safetensors --input clip.gif --output prediction.gif",
            "--weights model.safetensors --input frames --fit --context 10 --horizon 30 --output prediction.npy",
        ),
    ),
    "import-weights": Verb(
        import_weights,
        ("from", "input", "output", "patch_size?", "channels?", "frame_size?", "context?", "tensors_only"),
        ("--from openstl --input best.ckpt --output convlstm.safetensors --context 10",),
    ),
    "export-weights": Verb(
        export_weights,
        ("to", "input", "output"),
        ("--to openstl --input convlstm.safetensors --output back.ckpt",),
    ),
}

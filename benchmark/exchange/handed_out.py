"""The test clips as other code is given them, which predicts how they go on."""

from pathlib import Path

import numpy as np

from benchmark.config.protocol import Protocol
from benchmark.data.clips import clips_hash
from benchmark.data.predictions import ARRAY, HASH, wanted
from benchmark.exchange.input_clips import check_apart
from benchmark.exchange.score import test_clips
from benchmark.system.errors import UserError
from benchmark.system.files import atomic_buffer


def hand_out(protocol: Protocol, output: Path, results_dir: Path, data_dir: Path) -> str:
    """Write the context of the test clips of `protocol` to `output`; returns what it is and what to hand back.

    The file holds `context` (uint8; clips, context frames, height, width; 255 is white), `horizon`, the number of
    frames to predict, and `test_sha256`, the hash of the whole clips. What follows the context is not in it.

    Raises:
        UserError: `output` is no .npz or cannot be written, or what the clips are made of is missing.
    """
    if output.suffix.lower() != ".npz":
        raise UserError(f"--output: {output} must end with .npz")
    check_apart(output)
    clips = test_clips(protocol, results_dir, data_dir)
    given, predicted, digest = protocol.data.context, protocol.data.horizon, clips_hash(clips)
    context = clips[:][:, :given, 0].numpy()  # (N, K, H, W)
    arrays = {"context": context, "horizon": np.array(predicted), HASH: np.array(digest)}
    with atomic_buffer(output) as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]  # no array has the name of the flag
    count, _, height, width = context.shape
    return (
        f"{output}: context {context.shape} of the test clips of protocol {protocol.name}, uint8 with 255 for white;"
        f" {HASH} {digest[:12]}\n"
        f"hand back {wanted((count, predicted, height, width))}, in this order, uint8 with 255 for white or floats with"
        f" 1 for white: a .npy, a .npz ({ARRAY}, and {HASH} as it is here), or a folder of one .npy or one folder of"
        " PNG a clip"
    )

"""The prepared folder of a protocol on moving digits. Imports torch only after checking files."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from benchmark.config.data_sections import DigitsConfig
from benchmark.data.prepared_folder import PUBLIC
from benchmark.data.published_files import PUBLIC_TEST
from benchmark.data.still_digits.bank import damaged
from benchmark.data.still_digits.prepare import GENERATED, get_bank, write_prepared
from benchmark.system.errors import UserError

_PUBLIC_CLIPS, _PUBLIC_FRAMES = 10_000, 20


def prepare(data: DigitsConfig, data_dir: Path, folder: Path, download: bool = False) -> dict[str, Any]:
    """Write `digits.npz` (and in it the public test clips, if used) and `data.json` to `folder`.

    Args:
        data: what the clips are.
        data_dir: where published files lie.
        folder: made if needed.
        download: fetch published files that are not there.

    Returns:
        What `data.json` holds: source, sizes, hashes, and which test clips there are. No path.

    Raises:
        UserError: a published file is missing, damaged or could not be downloaded.
    """
    _check_public_test(data)
    bank = get_bank(data.digits, data.digit_size, data_dir, (PUBLIC_TEST,) if data.public_test else (), download)
    public = data.public_test and _has_public_test(data_dir)

    from benchmark.data.moving_digits.clips import DigitClips

    clips = DigitClips(bank, data, (lambda: [public_clips(data_dir, data)]) if public else None)
    validation, test = clips.fixed_clips("validation"), clips.fixed_clips("test")
    arrays = {"public_test": test.numpy()} if public else {}
    return write_prepared(folder, bank, validation, test, PUBLIC if public else GENERATED, **arrays)


def _check_public_test(data: DigitsConfig) -> None:
    frames = data.context + data.horizon
    if data.public_test and (frames > _PUBLIC_FRAMES or data.test_clips > _PUBLIC_CLIPS):
        raise UserError(
            f"public_test: {PUBLIC_TEST.name} has {_PUBLIC_CLIPS} clips of {_PUBLIC_FRAMES} frames, "
            f"not {data.test_clips} (test_clips) of {frames} (context + horizon); ask for less, or false"
        )


def _has_public_test(data_dir: Path) -> bool:
    path = PUBLIC_TEST.find(data_dir)
    if path is None:
        missing = PUBLIC_TEST.destination(data_dir)
        print(f"public_test: {missing} not found; test clips are generated instead", file=sys.stderr)
        return False
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    if md5 != PUBLIC_TEST.content_md5:
        raise damaged(path, f"MD5 {md5}", PUBLIC_TEST.content_md5)
    return True


def public_clips(data_dir: Path, data: DigitsConfig) -> UInt8[np.ndarray, "clips T 1 H W"]:
    """The first clips of the public Moving MNIST test file, as torchvision reads it; at most 20 frames."""
    from torchvision.datasets import MovingMNIST

    clips = MovingMNIST(root=data_dir, split=None).data
    return clips[: data.test_clips, : data.context + data.horizon].numpy().copy()

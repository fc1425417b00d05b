"""The prepared folder of a protocol on moving digits. Imports torch only after checking files."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from benchmark.config.data_sections import DigitsConfig
from benchmark.data.moving_digits.digits import ORIGINALS, damaged, load_bank
from benchmark.data.prepared_folder import PUBLIC, write_record
from benchmark.data.published_files import PUBLIC_TEST, fetch
from benchmark.system.errors import UserError
from benchmark.system.files import atomic_buffer

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
    if download:
        for original in ORIGINALS[data.digits] + ((PUBLIC_TEST,) if data.public_test else ()):
            fetch(original, data_dir)
    bank = load_bank(data.digits, data.digit_size, data_dir)
    public = data.public_test and _has_public_test(data_dir)

    from benchmark.data.clips import clips_hash
    from benchmark.data.moving_digits.clips import DigitClips

    clips = DigitClips(bank, data, (lambda: [public_clips(data_dir, data)]) if public else None)
    test = clips.fixed_clips("test")
    record = {
        "source": bank.source,
        "digit_size": data.digit_size,
        "split_sizes": {split: len(digits) for split, digits in bank.splits.items()},
        "digits_sha256": bank.sha256,
        "validation_sha256": clips_hash(clips.fixed_clips("validation")),
        "test_sha256": clips_hash(test),
        "test_set": PUBLIC if public else "generated",
    }
    arrays = bank.splits | ({"public_test": test.numpy()} if public else {})
    with atomic_buffer(folder / "digits.npz") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]  # no array has the name of the flag
    return write_record(folder, record)


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

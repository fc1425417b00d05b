"""The prepared folder of clips that are made of still digits. Imports torch only to hash the clips."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.data.prepared_folder import write_record
from benchmark.data.published_files import Original, fetch
from benchmark.data.still_digits.bank import ORIGINALS, DigitBank, load_bank
from benchmark.system.files import atomic_buffer

if TYPE_CHECKING:
    from torch import Tensor

GENERATED = "generated"
"""What test clips are that the benchmark makes itself."""


def get_bank(
    source: str, digit_size: int, data_dir: Path, further: Sequence[Original] = (), download: bool = False
) -> DigitBank:
    """The digits of `source`; with `download` its files and the `further` ones are fetched where they are missing.

    Raises:
        UserError: a published file is missing, damaged or could not be downloaded.
    """
    if download:
        for original in (*ORIGINALS[source], *further):
            fetch(original, data_dir)
    return load_bank(source, digit_size, data_dir)


def write_prepared(
    folder: Path, bank: DigitBank, validation: "Tensor", test: "Tensor", test_set: str, **further: np.ndarray
) -> dict[str, Any]:
    """Write `digits.npz`, the bank and `further` arrays, and `data.json` to `folder`.

    Args:
        folder: made if needed.
        validation, test: the fixed clips, uint8 (clips, T, 1, H, W).
        test_set: what the test clips are.

    Returns:
        What `data.json` holds: source, sizes, hashes, and which test clips there are. No path.
    """
    from benchmark.data.clips import clips_hash

    record = {
        "source": bank.source,
        "digit_size": bank.train.shape[-1],
        "split_sizes": {split: len(digits) for split, digits in bank.splits.items()},
        "digits_sha256": bank.sha256,
        "validation_sha256": clips_hash(validation),
        "test_sha256": clips_hash(test),
        "test_set": test_set,
    }
    with atomic_buffer(folder / "digits.npz") as file:
        np.savez_compressed(file, **bank.splits, **further)  # pyright: ignore[reportArgumentType]  # no array has the name of the flag
    return write_record(folder, record)

"""The fixed clips of a prepared folder, of any kind of data, and the hash that stands for them."""

import hashlib
from pathlib import Path

from benchmark.config.data_sections import DataConfig
from benchmark.data.clip_source import AT_ONCE, Clips, FixedSplit
from benchmark.data.kinds import kind_of
from benchmark.data.prepared_folder import read_data_record
from benchmark.system.errors import UserError


def load_clips(folder: Path, data: DataConfig, split: FixedSplit) -> Clips:
    """The clips of `split` that `folder` was prepared with.

    Returns:
        uint8 on the CPU, T = context + horizon.

    Raises:
        UserError: the folder is missing, damaged or made for other clips.
    """
    record = read_data_record(folder)
    clips = kind_of(data).open(folder).fixed_clips(split)
    if clips_hash(clips) != record[f"{split}_sha256"]:
        raise UserError(f"{folder / 'data.json'}: made for other {split} clips; run the command `data` again")
    return clips


def clips_hash(clips: Clips) -> str:
    """SHA-256 of the shape and the pixels."""
    digest = hashlib.sha256(str(tuple(clips.shape)).encode())
    for first in range(0, len(clips), AT_ONCE):
        digest.update(clips[first : first + AT_ONCE].contiguous().numpy())
    return digest.hexdigest()

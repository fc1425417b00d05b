"""The data folder of a protocol, of either kind of data. Imports torch only after checking files."""

from pathlib import Path
from typing import Any

from benchmark.config import Protocol
from benchmark.data.frame_bank import load_frames
from benchmark.data.prepared import prepare, write_record
from benchmark.data.prepared_videos import prepare_videos
from benchmark.data_sections import VideosConfig


def prepare_clips(protocol: Protocol, data_dir: Path, folder: Path, download: bool = False) -> dict[str, Any]:
    """Write what `protocol` trains on, and the hashes of its fixed clips, to `folder`; returns what `data.json` holds.

    Args:
        data_dir: where published files and a person's own clips lie.
        folder: made if needed.
        download: fetch published files that are not there.

    Raises:
        UserError: files are missing, damaged, or could not be downloaded.
    """
    if not isinstance(protocol.data, VideosConfig):
        return prepare(protocol.data, data_dir, folder, download)
    record = prepare_videos(protocol, data_dir, folder)
    bank = load_frames(folder, record, training=False)

    from benchmark.data.clips import clips_hash, fixed_clips

    hashes = {
        f"{split}_sha256": clips_hash(fixed_clips(bank, protocol.data, split)) for split in ("validation", "test")
    }
    return write_record(folder, record | hashes)

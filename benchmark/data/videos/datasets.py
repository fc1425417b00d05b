"""Sets of videos: which videos there are, which split each is of, and which of their frames count. Imports no torch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmark.data.counter_rng import Domain, counter_hash
from benchmark.data.videos.clip_files import ClipFiles, open_clips, open_splits
from benchmark.data.videos.frame_bank import SPLITS
from benchmark.data.videos.layouts import Part
from benchmark.system.errors import UserError

STEP = 20
"""Frames between windows by the rule `authors`, where an action has no other."""


@dataclass(frozen=True, kw_only=True)
class Video:
    """One video of a set."""

    name: str
    """What messages call it."""
    parts: Callable[[], Iterator[Part]]
    """Its frames in order, part by part."""
    pieces: tuple[tuple[int, int], ...] | None = None
    """First frame (from 0) and end of each piece that counts; None = the whole video."""
    step: int = STEP
    """Frames between windows by the rule `authors`."""


@dataclass(frozen=True)
class VideoSet:
    """The videos of each split, and what there is to say of them."""

    videos: dict[str, list[Video]]
    about: str


def open_own(path: Path, needed: dict[str, int], layout: str | None) -> VideoSet:
    """A person's own clips: a folder, .npy or .npz as `open_clips` takes it, or one such for each of `SPLITS`.

    Without splits a tenth of the clips goes to validation and a tenth to test, by a fixed seed.

    Args:
        needed: frames that every clip of a split must have.
        layout: of arrays, see `open_clips`.

    Raises:
        UserError: clips are missing, damaged, too few, too short, or of a kind that is not known.
    """
    if not path.exists():
        raise UserError(f"data_dir: {path} not found; data.videos names a folder or a file below data_dir")
    try:
        parted = open_splits(path, needed, layout)
        clips = parted or {"": open_clips(path, max(needed.values()), layout)}
    except UserError as error:  # the same files can be given to a verb, which has an option for it
        raise UserError(str(error).replace("--layout", "data.layout")) from None
    kinds = ", ".join(dict.fromkeys(one.read_as for one in clips.values()))
    notes = "".join(f", {note}" for one in clips.values() for note in one.notes)
    if parted:
        videos = {
            split: [_video(path / split, one, number) for number in range(one.count)] for split, one in clips.items()
        }
        return VideoSet(videos, f"{counts(videos)} ({kinds}), split as they lie{notes}")
    whole = clips[""]
    sizes = split_sizes(whole.count)
    if min(sizes.values()) < 1:
        raise UserError(
            f"{path}: {whole.count} clip{'s' * (whole.count > 1)} cannot be split; three are needed,"
            f" or one of {', '.join(SPLITS)} each"
        )
    order = counter_hash(0, Domain.VIDEO_SPLIT, np.arange(whole.count)).argsort().tolist()
    videos = {}
    for split, size in sizes.items():
        videos[split], order = [_video(path, whole, number) for number in sorted(order[:size])], order[size:]
    return VideoSet(videos, f"{counts(videos)} ({kinds}), split by a fixed seed{notes}")


def counts(videos: dict[str, list[Video]]) -> str:
    """How many there are of each split."""
    return ", ".join(f"{len(found):,} {split}" for split, found in videos.items())


def split_sizes(count: int) -> dict[str, int]:
    """How many of `count` clips go to each split."""
    tenth = max(1, round(count / 10))
    return {"train": count - 2 * tenth, "validation": tenth, "test": tenth}


def _video(path: Path, clips: ClipFiles, number: int) -> Video:
    return Video(name=f"{path}: clip {number + 1}", parts=partial(clips.whole, number))

"""The KTH actions (Schuldt, Laptev, Caputo 2004) in their public layout: videos by action, split by person."""

import re
from functools import partial
from pathlib import Path

from benchmark.data.videos.datasets import Video, VideoSet
from benchmark.data.videos.frame_bank import SPLITS
from benchmark.data.videos.video_files import video_parts
from benchmark.system.errors import UserError

ACTIONS = {"boxing": 20, "handclapping": 20, "handwaving": 20, "jogging": 3, "running": 3, "walking": 20}
"""Action -> frames between windows by the rule `authors`, as predrnn-pytorch and E3D-LSTM step through the videos.

There a step of the slow actions is as long as a training clip, 20 frames; and it counts from the end of a video.
"""
PERSONS = {"train": range(1, 15), "validation": range(15, 17), "test": range(17, 26)}
"""Persons 17 to 25 are the published test set, 1 to 16 the training set, of which we keep two for validation."""
SCENES = range(1, 5)
SEQUENCES = "00sequences.txt"
_LINE = re.compile(r"^(person\d\d_[a-z]+_d\d)\s+frames\s+(.+)$")
_PIECE = re.compile(r"(\d+)\s*-\s*(\d+)")
_NAMED = 5


def open_kth(folder: Path) -> VideoSet:
    """The videos below `folder` by split; pieces are those of `SEQUENCES` where that lies there, else whole videos.

    Raises:
        UserError: there are none for a split, or `folder` holds something that is not named as published.
    """
    if not folder.is_dir():
        raise UserError(
            f"data_dir: {folder} not found; put the published folders {', '.join(ACTIONS)} of the KTH actions there"
        )
    sequences = folder / SEQUENCES
    pieces = read_sequences(sequences) if sequences.exists() else None
    videos: dict[str, list[Video]] = {split: [] for split in SPLITS}
    missing = []
    for action, step in ACTIONS.items():
        names = {f"person{person:02}_{action}_d{scene}": person for person in range(1, 26) for scene in SCENES}
        paths = {name: folder / action / f"{name}_uncomp.avi" for name in names}
        check_named_as_published(folder / action, {path.name for path in paths.values()})
        for name, path in paths.items():
            if not path.exists():
                missing.append(name)
                continue
            if pieces is not None and name not in pieces:
                raise UserError(
                    f"{sequences}: says nothing of {name}; use the published file, or none for whole videos"
                )
            split = next(split for split, persons in PERSONS.items() if names[name] in persons)
            video = Video(
                name=str(path), parts=partial(video_parts, path), pieces=pieces[name] if pieces else None, step=step
            )
            videos[split].append(video)
    for split, found in videos.items():
        if not found:
            persons = f"persons {PERSONS[split].start} to {PERSONS[split].stop - 1}"
            raise UserError(
                f"{folder}: has no video of {persons} ({split}); a file is <action>/personNN_<action>_dK_uncomp.avi"
            )
    what = f"the sequences of {SEQUENCES}" if pieces is not None else f"whole videos (no {SEQUENCES})"
    return VideoSet(videos, f"{counted(missing)}, {what}, split by person: {persons_note()}")


def check_named_as_published(folder: Path, names: set[str]) -> None:
    """Raise UserError if anything in `folder` but hidden files is not of one of `names`."""
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    strange = [name for name in there if name not in names and not name.startswith(".")]
    if strange:
        raise UserError(f"{folder}: {strange[0]} is no personNN_{folder.name}_dK_uncomp.avi; take it away")


def counted(missing: list[str]) -> str:
    """How many videos there are, and which are missing."""
    every = len(ACTIONS) * len(SCENES) * sum(map(len, PERSONS.values()))
    names = ", ".join(missing[:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")
    return f"{every - len(missing)} of {every} videos" + (f" (missing: {names})" if missing else "")


def persons_note() -> str:
    """Which persons are in which split."""
    return ", ".join(f"{persons.start} to {persons.stop - 1} {split}" for split, persons in PERSONS.items())


def read_sequences(path: Path) -> dict[str, tuple[tuple[int, int], ...]]:
    """Video -> its pieces, counted from 0 with their ends, as the published text file has them.

    Raises:
        UserError: a line names pieces that are none.
    """
    found = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        if match := _LINE.match(line.strip()):
            pieces = [(int(first) - 1, int(last)) for first, last in _PIECE.findall(match[2])]
            if not pieces or any(first < 0 or first >= end for first, end in pieces):
                raise UserError(f"{path}: line {number}: {match[2][:80]!r} names no frames; use the published file")
            found[match[1]] = tuple(pieces)
    if not found:
        raise UserError(f"{path}: has no line such as 'person01_boxing_d1 frames 1-95, 96-185'; use the published file")
    return found

"""Videos in AVI, MP4 and their like, decoded by FFmpeg's libraries (PyAV). Imports neither torch nor av by itself."""

import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from benchmark.data.pixels import to_grey
from benchmark.data.videos.containers import opened
from benchmark.system.errors import UserError

ENDINGS = (".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg")
"""Endings that are read as videos."""
TURNED = "turned as the header says"
TRANSPARENT = "with transparency, which is left out"
_AT_ONCE = 64
_NO_COLOUR, _FAINT = 128, 2
"""What the planes of colour hold where there is none, and how far lossy coding lets that stray."""
_TURNS: dict[tuple[int, ...], int] = {(1, 0, 0, 1): 0, (0, -1, 1, 0): 1, (-1, 0, 0, -1): 2, (0, 1, -1, 0): 3}
"""Signs of a display matrix -> quarter turns against the clock."""


@dataclass(frozen=True)
class VideoFacts:
    """What is known of a video before its frames are decoded."""

    length: int
    """Number of frames that are shown."""
    notes: frozenset[str]
    """What is to be said of how it is read."""


def look_at_video(path: Path) -> VideoFacts:
    """Count the frames that the video at `path` shows; only the first of them is decoded.

    Raises:
        UserError: it is no video, or not whole, or not to be shown as it is stored and not turned by quarters either.
    """
    with opened(path) as track:
        first = None
        for packet in track.packets():
            first = first or next(iter(packet.decode()), None)
        if first is None:
            raise UserError(f"{path}: holds no frame that can be decoded")
        track.missing()
        notes = set(track.notes)
        if quarter_turns(path, first):
            notes.add(TURNED)
        if any(part.is_alpha for part in first.format.components):
            notes.add(TRANSPARENT)
        return VideoFacts(track.shown, frozenset(notes))


def notes_of(videos: Iterable[VideoFacts]) -> tuple[str, ...]:
    """What is to be said of how videos are read, and of how many of them."""
    counts = Counter(note for video in videos for note in video.notes)
    return tuple(f"{count:,} video{'s' * (count > 1)} {note}" for note, count in sorted(counts.items()))


def video_parts(path: Path) -> Iterator[UInt8[np.ndarray, "part 1 H W"]]:
    """All frames of the video at `path` in grey, part by part, turned as they are to be shown.

    Grey is the luma, from black to white, of what is stored with it, and `to_grey` of what is stored in colours.

    Raises:
        UserError: as `look_at_video`.
    """
    frames = _frames(path)
    while part := [_grey(path, frame) for frame in islice(frames, _AT_ONCE)]:
        yield np.stack(part)[:, None]


def read_grey(path: Path, frames: int) -> UInt8[np.ndarray, "T 1 H W"]:
    """The first `frames` frames of a video, as `video_parts` gives them; raises as that."""
    return np.stack([_grey(path, frame) for frame in _first(path, frames)])[:, None]


def read_video(path: Path, frames: int) -> UInt8[np.ndarray, "T C H W"]:
    """The first `frames` frames of a video, of one channel where all colours are grey; raises as `video_parts`."""
    found = _first(path, frames)
    if all(map(_is_grey, found)):
        return np.stack([_grey(path, frame) for frame in found])[:, None]
    return np.stack([_turned(path, frame, "rgb24") for frame in found]).transpose(0, 3, 1, 2)


def quarter_turns(path: Path, frame: Any) -> int:
    """By how many quarters, against the clock, a frame is to be turned to be seen upright.

    Raises:
        UserError: it is to be mirrored, or turned by something else.
    """
    matrices = [bytes(side)[:36] for side in frame.side_data if side.type.name == "DISPLAYMATRIX"]
    if not matrices:
        return 0
    a, b, _, c, d, *_ = struct.unpack("=9i", matrices[0])
    turns = _TURNS.get(tuple((value > 0) - (value < 0) for value in (a, b, c, d)))
    if turns is None:
        raise UserError(
            f"{path}: says that it is to be shown mirrored, or turned by other than quarters; encode it anew as it is"
            " to be seen"
        )
    return turns


def _first(path: Path, frames: int) -> list[Any]:
    found = list(islice(_frames(path), frames))
    if len(found) < frames:
        raise UserError(f"{path}: is damaged: {len(found)} of its frames can be decoded, {frames} are needed")
    return found


def _frames(path: Path) -> Iterator[Any]:
    """The frames of a video as PyAV has them, all of one size, each as often as it is shown."""
    with opened(path) as track:
        frame, size, number = None, None, 0
        for packet in track.packets():
            number += packet.size > 0
            for after in packet.decode():
                size = size or (after.width, after.height)
                if after.is_corrupt:
                    raise UserError(f"{path}: is damaged: a frame near number {number} does not decode")
                if (after.width, after.height) != size:
                    raise UserError(f"{path}: has frames of several sizes, {size} and {after.width, after.height}")
                for _ in range(track.repeats.popleft() if track.repeats else 0):
                    yield frame
                frame = after
                yield frame
        for _ in range(track.missing()):
            yield frame


def _turned(path: Path, frame: Any, form: str) -> UInt8[np.ndarray, "H W ..."]:
    return np.rot90(frame.to_ndarray(format=form), quarter_turns(path, frame))


def _grey(path: Path, frame: Any) -> UInt8[np.ndarray, "H W"]:
    if not _has_colours(frame):
        return _turned(path, frame, "gray")
    return to_grey(_turned(path, frame, "rgb24").transpose(2, 0, 1)[None])[0]


def _has_colours(frame: Any) -> bool:
    """Whether a frame is stored as red, green and blue, which FFmpeg turns into grey with an error of a level."""
    return frame.format.is_rgb or frame.format.has_palette


def _is_grey(frame: Any) -> bool:
    """Whether a frame has no colour; a conversion to red, green and blue would give it some by rounding."""
    name = frame.format.name
    if name.startswith(("gray", "ya", "mono")):
        return True
    if name.startswith("yuv") and frame.format.components[0].bits == 8:
        planes = [np.frombuffer(one, np.uint8).reshape(one.height, -1)[:, : one.width] for one in frame.planes[1:3]]
        return all(np.abs(plane.astype(int) - _NO_COLOUR).max() <= _FAINT for plane in planes)
    colours = frame.to_ndarray(format="rgb24")
    return bool((colours == colours[..., :1]).all())

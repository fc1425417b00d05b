"""Videos in AVI, MP4 and their like, decoded by FFmpeg's libraries (PyAV). Imports neither torch nor av by itself."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from benchmark.system.errors import UserError

ENDINGS = (".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg")
"""Endings that are read as videos."""
_AT_ONCE = 64
_NO_COLOUR, _FAINT = 128, 2
"""What the planes of colour hold where there is none, and how far lossy coding lets that stray."""


def video_parts(path: Path) -> Iterator[UInt8[np.ndarray, "part 1 H W"]]:
    """All frames of the video at `path` in grey (its luma, from black to white), part by part.

    Raises:
        UserError: it is no video, or not whole.
    """
    frames = _frames(path)
    while part := [frame.to_ndarray(format="gray") for frame in islice(frames, _AT_ONCE)]:
        yield np.stack(part)[:, None]


def read_video(path: Path, frames: int) -> UInt8[np.ndarray, "T C H W"]:
    """The first `frames` frames of a video, of one channel where all colours are grey; raises as `video_parts`."""
    found = list(islice(_frames(path), frames))
    if len(found) < frames:
        raise UserError(f"{path}: is damaged: {len(found)} of its frames can be decoded, {frames} are needed")
    if all(map(_is_grey, found)):
        return np.stack([frame.to_ndarray(format="gray") for frame in found])[:, None]
    return np.stack([frame.to_ndarray(format="rgb24") for frame in found]).transpose(0, 3, 1, 2)


def video_length(path: Path) -> int:
    """Number of frames of the video at `path`, counted without decoding them; raises UserError where it is no video."""
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path)) as container:
            return sum(packet.size > 0 for packet in container.demux(container.streams.video[0]))
    except (FFmpegError, ValueError, IndexError) as error:
        raise UserError(f"{path}: cannot be read as a video ({error})") from None


def _frames(path: Path) -> Iterator[Any]:
    """The frames of a video as PyAV has them, all of one size."""
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path}: holds no video, only {len(container.streams)} streams of other kinds")
            stream, packets, size = container.streams.video[0], 0, None
            for packet in container.demux(stream):
                packets += packet.size > 0
                for frame in packet.decode():
                    size = size or (frame.width, frame.height)
                    if frame.is_corrupt:
                        raise UserError(f"{path}: is damaged: a frame near number {packets} does not decode")
                    if (frame.width, frame.height) != size:
                        raise UserError(f"{path}: has frames of several sizes, {size} and {frame.width, frame.height}")
                    yield frame
            if packets < stream.frames:
                raise UserError(f"{path}: is cut off: {packets} frames of the {stream.frames} that it says it has")
    except (FFmpegError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: cannot be read as a video ({error})") from None


def _is_grey(frame: Any) -> bool:
    """Whether a frame has no colour; a conversion to red, green and blue would give it some by rounding."""
    if frame.format.name.startswith("gray"):
        return True
    if frame.format.name.startswith("yuv") and frame.format.components[0].bits == 8:
        planes = [np.frombuffer(one, np.uint8).reshape(one.height, -1)[:, : one.width] for one in frame.planes[1:]]
        return all(np.abs(plane.astype(int) - _NO_COLOUR).max() <= _FAINT for plane in planes)
    colours = frame.to_ndarray(format="rgb24")
    return bool((colours == colours[..., :1]).all())

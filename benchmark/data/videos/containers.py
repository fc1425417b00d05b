"""What the container of a video says of it: how long it is, what is shown, what is missing. Imports no av by itself."""

import struct
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmark.system.errors import UserError

REPEATED = "with repeated frames, which are repeated"
UNEVEN = "of uneven frame times, read frame after frame"
NOT_SQUARE = "of pixels that are not square, read as they are stored"
TRIMMED = "with an edit list, of which only what it shows is read"

_BOXES = {*b"ftyp moov mdat free skip wide moof mfra sidx styp uuid meta udta pnot pdin".split()}
"""Boxes at the top level of MP4 and MOV; after anything else the file may hold what it likes."""
_UNEVEN = 0.1
"""How far the time between two frames may stray from the others, as a share."""
_VP8_SHOWN = 0x10
_INFO, _DURATION = b"\x15\x49\xa9\x66", (b"\x44\x89\x84", b"\x44\x89\x88")
"""Matroska: the element of facts of a file, and the heads of the duration in it."""


class Track:
    """The packets of the first video in a container, and what they say.

    Attributes:
        shown: frames that are shown of the packets seen so far.
        repeats: of the packets seen so far whose frame was not taken yet: how often the frame before is shown again.
        notes: what is to be said of the video.
    """

    def __init__(self, path: Path, container: Any) -> None:
        self.path, self.container, self.stream = path, container, container.streams.video[0]
        self.shown, self.repeats, self.notes = 0, deque[int](), set[str]()
        self._kind, self._seen, self._end_s, self._times = container.format.name, 0, 0.0, []
        self._next = self.stream.start_time or 0
        self._codec = self.stream.codec_context.name
        if self.stream.sample_aspect_ratio not in (None, 0, 1):
            self.notes.add(NOT_SQUARE)

    def packets(self) -> Iterator[Any]:
        """Every packet of the video, and the empty one after them that makes a decoder give all it has.

        Raises:
            UserError: the file is cut off, or its frames cannot be put in order.
        """
        streams = self.container.streams
        others = [*streams.audio, *streams.subtitles] if self._is("matroska") else []
        for packet in self.container.demux(self.stream, *others):
            if packet.size and packet.pts is not None:
                end = packet.pts + (packet.duration or 0)
                self._end_s = max(self._end_s, float(end * packet.time_base))
            if packet.stream_index == self.stream.index:
                self._see(packet)
                yield packet

    def missing(self) -> int:
        """How often the last frame is shown again after all packets; raises UserError where frames are missing."""
        more = self.stream.frames - (self.shown if self._is("avi") else self._seen)
        if more > 0 and self._is("mov"):  # whole, see `opened`: those that no shown frame needs are passed over
            self.notes.add(TRIMMED)
            more = 0
        if more > 0 and (not self._is("avi") or is_short(self.path)):
            raise UserError(
                f"{self.path}: is cut off: {self.stream.frames - more} frames of the {self.stream.frames} that it says"
                " it has"
            )
        rate = self.stream.average_rate
        if self._is("matroska") and self.container.duration and rate and states_duration(self.path):
            stated_s, frame_s = self.container.duration / 1e6, float(1 / rate)
            if self._end_s + max(0.75 * frame_s, 0.02) < stated_s:
                raise UserError(
                    f"{self.path}: is cut off: {self._end_s:.3g} seconds of the {stated_s:.3g} that it says it has"
                )
        if more > 0:
            self._repeat(more)
        self._look_at_times()
        return max(more, 0)

    def _is(self, kind: str) -> bool:
        return kind in self._kind

    def _see(self, packet: Any) -> None:
        if not packet.size:
            return
        self._seen += 1
        if packet.is_corrupt:
            raise UserError(f"{self.path}: is cut off: its frame number {self._seen} is not whole")
        if packet.is_discard:
            self.notes.add(TRIMMED)
            return
        if self._codec in ("vp8", "libvpx") and not bytes(packet)[0] & _VP8_SHOWN:
            return
        before = 0
        if self._is("avi") and packet.dts is not None:  # counts chunks, also empty ones, which are no packets
            before, self._next = max(0, packet.dts - self._next), packet.dts + 1
        elif packet.pts is not None:
            self._times.append(packet.pts)
        if before:
            self._repeat(before)
        self.repeats.append(before)
        self.shown += 1

    def _repeat(self, count: int) -> None:
        """Count frames that repeat the one before."""
        if not self.shown:
            raise UserError(f"{self.path}: begins with an empty frame, which repeats nothing; encode it anew")
        if self.stream.codec_context.has_b_frames:
            raise UserError(
                f"{self.path}: has empty frames among others that are not stored in their order, so that it cannot be"
                " told which they repeat; encode it anew"
            )
        self.notes.add(REPEATED)
        self.shown += count

    def _look_at_times(self) -> None:
        times = sorted(self._times)
        gaps = sorted(after - before for before, after in pairwise(times))
        if gaps and gaps[-1] - gaps[0] > max(2, _UNEVEN * gaps[len(gaps) // 2]):
            self.notes.add(UNEVEN)


@contextmanager
def opened(path: Path) -> Iterator[Track]:
    """The first video of the file at `path`.

    Raises:
        UserError: it holds none, or is cut off or damaged; also where that shows while the packets are decoded.
    """
    import av
    from av.error import FFmpegError

    try:
        if is_short(path) and is_iso(path):
            raise UserError(too_short(path))
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path}: holds no video, only {len(container.streams)} streams of other kinds")
            yield Track(path, container)
    except UserError:
        raise
    except (FFmpegError, ValueError, IndexError, OSError) as error:
        told = too_short(path) if is_short(path) else f"{path}: cannot be read as a video ({error})"
        raise UserError(told) from None


def is_iso(path: Path) -> bool:
    """Whether a file is one of boxes, as MP4 and MOV are."""
    with path.open("rb") as file:
        return file.read(8)[4:] in _BOXES


def is_short(path: Path) -> bool:
    """Whether a file has fewer bytes than it says; one that cannot be read is another mistake."""
    try:
        return stated_bytes(path) > path.stat().st_size
    except OSError:
        return False


def too_short(path: Path) -> str:
    """The error for a file that `is_short`."""
    return f"{path}: is cut off: {path.stat().st_size:,} bytes of the {stated_bytes(path):,} that it says it has"


def stated_bytes(path: Path) -> int:
    """How long an AVI, MP4 or MOV says that it is, by the sizes of the parts at its top level; 0 for other files."""
    place, form = 0, ">I4s" if is_iso(path) else "<4sI"
    with path.open("rb") as file:
        while len(head := file.read(16)) >= 8:
            first, second = struct.unpack(form, head[:8])
            size, kind = (first, second) if form == ">I4s" else (second + 8 + second % 2, first)
            if kind not in (_BOXES if form == ">I4s" else {b"RIFF"}):
                break
            if size == 1 and len(head) == 16:  # the size stands after the name
                (size,) = struct.unpack(">Q", head[8:])
            if size < 8:  # up to the end of the file
                break
            place += size
            file.seek(place)
    return place


def states_duration(path: Path) -> bool:
    """Whether a Matroska file says how long it is; what is sent while it is made does not."""
    with path.open("rb") as file:
        head = file.read(2**20)
    place = head.find(_INFO)
    return place >= 0 and any(mark in head[place : place + 256] for mark in _DURATION)

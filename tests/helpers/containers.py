"""Headers of real videos, changed by their bytes: edit lists, display matrices, empty chunks, durations."""

import struct
from pathlib import Path

INSIDE = (b"moov", b"trak", b"edts")
"""Boxes of an MP4 that hold boxes which are changed here."""


def boxes(content, begin=0, end=None):
    """Place, size and name of the boxes of an MP4, and of those inside of `INSIDE`."""
    end = len(content) if end is None else end
    while begin + 8 <= end:
        size, name = struct.unpack(">I4s", content[begin : begin + 8])
        yield begin, size, name
        if name in INSIDE:
            yield from boxes(content, begin + 8, begin + size)
        begin += size or end


def changed(path: Path, change) -> Path:
    """`path`, whose bytes were handed to `change` as a bytearray."""
    content = bytearray(path.read_bytes())
    path.write_bytes(change(content) or content)
    return path


def trimmed(path, first, frames, rate=25):
    """An MP4 with an edit list that shows `frames` frames from number `first` on."""

    def change(content):
        by_name = {name: place for place, _, name in boxes(content)}
        place = by_name[b"elst"] + 16
        duration, time = struct.unpack(">Ii", content[place : place + 8])  # in units of the movie and of the video
        whole = len_in_units(content)
        content[place : place + 8] = struct.pack(">Ii", frames * 1000 // rate, time + first * whole)
        assert duration

    def len_in_units(content):
        place = content.find(b"mdhd")
        (scale,) = struct.unpack(">I", content[place + 16 : place + 20])
        return scale // rate

    return changed(path, change)


def with_matrix(path, a, b, c, d):
    """An MP4 whose track is to be shown by this matrix, in whole numbers."""

    def change(content):
        place = content.find(b"tkhd") + 4 + 40
        values = [a << 16, b << 16, 0, c << 16, d << 16]
        content[place : place + 20] = struct.pack(">5i", *values)

    return changed(path, change)


def with_empty_chunk(path, number):
    """An AVI whose frame `number`, from 0, is an empty chunk: the frame before it is to be shown again."""

    def change(content):
        place = content.find(b"movi") + 4
        for found in range(number + 1):
            while content[place : place + 4] != b"00dc":
                place += padded(content, place)
            if found < number:
                place += padded(content, place)
        size = padded(content, place) - 8
        content[place + 4 : place + 16] = struct.pack("<I4sI", 0, b"JUNK", size - 8)
        entry = content.find(b"idx1") + 8 + 16 * number
        content[entry + 12 : entry + 16] = bytes(4)

    def padded(content, place):
        (size,) = struct.unpack("<I", content[place + 4 : place + 8])
        return 8 + size + size % 2

    return changed(path, change)


def cut(path, share):
    """A file of which the first `share` is left."""
    return changed(path, lambda content: content[: int(len(content) * share)])

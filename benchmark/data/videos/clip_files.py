"""Clips in a person's own files: arrays in the layouts people have, predrnn's npz, folders of clips; read in parts."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmark.config.data_sections import CLIP_LAYOUTS, LAYOUTS
from benchmark.data.npz import map_member, names_in, read_npz
from benchmark.data.pixels import to_grey
from benchmark.data.published_files import PUBLIC_TEST
from benchmark.data.videos.layouts import Frames, Part, check_dtype, layout_of, to_ntchw
from benchmark.data.videos.single_clips import (
    check_like,
    entries_of,
    gif_length,
    map_array,
    npy_length,
    png_frames,
    read_gif,
    read_npy,
    read_png,
)
from benchmark.data.videos.video_files import ENDINGS, look_at_video, notes_of, read_grey, read_video, video_parts
from benchmark.system.errors import UserError, unknown

PREDRNN = ("clips", "dims", "input_raw_data")
"""Arrays of an npz of predrnn: start and length (2, N, 2) of the input and of the output part of every clip, the sizes
C, H, W of a frame, and all frames (frames, C, H, W)."""

_PIXELS_AT_ONCE = 2**24
_FRAMES_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class ClipFiles:
    """Clips on disk, of which only the asked ones are in memory."""

    read_as: str
    """How the file was understood, in words."""
    count: int
    """Number of clips."""
    lengths: tuple[int, ...]
    """Frames of each clip."""
    frame: tuple[int, int, int]
    """Channels, height and width of a frame."""
    read: Callable[[range, int], Frames]
    """The first frames of some clips, counted from 0, as they are stored: uint8, or float in [0, 1]."""
    whole: Callable[[int], Iterator[Part]]
    """All frames of one clip, part by part; those of videos in grey."""
    luma: Callable[[range, int], Frames] | None = None
    """As `read`, in grey as `whole` gives it; None where that is `to_grey` of what is stored."""
    notes: tuple[str, ...] = ()
    """What is to be said of how the clips are read."""

    def read_in_grey(self, numbers: range, frames: int) -> Frames:
        """As `read`, with the very greys that data are made of."""
        if self.luma is not None:
            return self.luma(numbers, frames)
        return np.stack([to_grey(clip)[:, None] for clip in self.read(numbers, frames)])

    def check_values(self, path: Path, frames: int, white: int | None = None) -> str:
        """Read the first `frames` frames of all clips once, before anything is computed from them.

        Returns:
            The type and the range of the values, in words.

        Raises:
            UserError: a file is damaged or unlike the others, float values are not in [0, 1], or all uint8 values are
                0 or 1 and no `white` says what 1 means.
        """
        at_once = max(1, _PIXELS_AT_ONCE // (frames * int(np.prod(self.frame))))
        lows, highs = [], []
        for first in range(0, self.count, at_once):
            numbers = range(first, min(first + at_once, self.count))
            pixels = self.read(numbers, frames)
            with np.errstate(invalid="ignore"):
                low, high = (reduce(axis=(1, 2, 3, 4)) for reduce in (pixels.min, pixels.max))
            wrong = ~((low >= 0) & (high <= 1))  # true where a value is NaN
            if pixels.dtype != np.uint8 and wrong.any():
                place = int(wrong.argmax())
                span = f"{pixels.dtype} values from {low[place]:g} to {high[place]:g}"
                raise UserError(
                    f"{path}: clip {first + place + 1} has {span};"
                    " floats must lie in [0, 1] without NaN (uint8 may be 0 to 255); those from 0 to 255 are read with"
                    " --white 255"
                )
            lows.append(low.min())
            highs.append(high.max())
        if white is None and pixels.dtype == np.uint8 and max(highs) == 1:
            raise UserError(
                f"{path}: all uint8 values are 0 or 1; add --white 1 where 1 is white (a mask), or --white 255 where it"
                " is almost black"
            )
        return f"{pixels.dtype} from {min(lows):g} to {max(highs):g}" + (
            f", read with --white {white}" if white else ""
        )


def open_clips(path: Path, needed: int, layout: str | None = None, white: int | None = None) -> ClipFiles:
    """Find out how the clips at `path` are stored; pixels are not read yet.

    Args:
        path: a .npy of clips, a .npz of one such array or of `PREDRNN`, one .gif or one of `ENDINGS`, or a folder of
            clips, each a folder of PNG frames, a .npy, a .gif or one of `ENDINGS`; clips and frames in the natural
            order of their names.
        needed: frames that every clip must have.
        layout: one of `LAYOUTS`, or of `CLIP_LAYOUTS` for a folder of .npy. Without it a layout is taken only where
            no other fits: 1 or 3 channels, square frames, and at least `needed` of them in a clip.
        white: the value of a white pixel, where a person named it; only then arrays may be of bool.

    Raises:
        UserError: no or several layouts fit, or the files are missing, damaged or of another kind.
    """
    if layout is not None and layout not in LAYOUTS:
        raise UserError(f"--layout: {unknown('layout', layout, LAYOUTS)}")
    if path.is_dir():
        clips = _open_folder(path, needed, layout, white)
    elif not path.exists():
        raise UserError(f"{path}: no such file or folder")
    elif path.suffix.lower() == ".npy":
        clips = _open_array(path, map_array(path), needed, layout, white)
    elif path.suffix.lower() == ".npz":
        clips = _open_npz(path, needed, layout, white)
    elif path.suffix.lower() in (".gif", *ENDINGS):
        clips = open_single(path, layout)
    else:
        raise UserError(f"{path}: is no .npy, no .npz, no folder of clips and no video ({', '.join(ENDINGS)}, .gif)")
    if min(clips.lengths) < needed:
        number, least = clips.lengths.index(min(clips.lengths)) + 1, min(clips.lengths)
        raise UserError(f"{path}: clip {number} has {least} frames; context and horizon need {needed}")
    return clips


def open_splits(path: Path, needed: dict[str, int], layout: str | None = None) -> dict[str, ClipFiles] | None:
    """The clips of each split, where `path` holds a folder, .npy or .npz, or a .npz an array, for each; else None.

    Args: `needed`: split -> frames that every clip of it must have.

    Raises:
        UserError: as `open_clips`, or there are some splits and not others.
    """
    if path.is_dir():
        there = {entry.stem if entry.is_file() else entry.name: entry for entry in entries_of(path)}
    elif path.suffix.lower() == ".npz":
        there = dict.fromkeys(names_in(path), path)
    else:
        return None
    if not needed.keys() & there.keys():
        return None
    if strange := needed.keys() ^ there.keys():
        state = "is missing" if min(strange) in needed else "is no split"
        raise UserError(
            f"{path}: {min(strange)} {state}; beside each other may lie {', '.join(needed)} and nothing else"
        )
    if path.is_dir():
        return {split: open_clips(there[split], count, layout) for split, count in needed.items()}
    return {split: _open_array(path, map_member(path, split), count, layout) for split, count in needed.items()}


def open_single(path: Path, layout: str | None) -> ClipFiles:
    """The one clip at `path`: a folder of PNG frames, a .gif or one of `ENDINGS`; raises UserError as `open_clips`."""
    if layout is not None:
        raise UserError(f"--layout {layout}: {path} holds images, whose layout is known; leave --layout out")
    kind = "folder" if path.is_dir() else path.suffix.lower()
    names = {"folder": "PNG frames", ".gif": "GIF video"}
    return _open_images([path], kind, names.get(kind, f"{kind[1:].upper()} video"))


def _open_array(path: Path, array: np.ndarray, needed: int, layout: str | None, white: int | None = None) -> ClipFiles:
    check_dtype(path, array.dtype, white)
    note = ""
    if layout is None and path.name == PUBLIC_TEST.name and _md5(path) == PUBLIC_TEST.md5:
        layout, note = "TNHW", " (the published Moving MNIST test clips, by checksum)"
    layout = layout_of(path, array.shape, needed, layout, LAYOUTS)
    read_as = ",".join(layout) + note
    if "N" not in layout:
        layout, array = f"N{layout}", array[None]
    sizes = dict(zip(layout, array.shape, strict=True))

    def cut(numbers: range, frames: range) -> Frames:
        part = {"N": slice(numbers.start, numbers.stop), "T": slice(frames.start, frames.stop)}
        return to_ntchw(array[tuple(part.get(axis, slice(None)) for axis in layout)], layout)

    def whole(number: int) -> Iterator[Part]:
        for first in range(0, sizes["T"], _FRAMES_AT_ONCE):
            frames = cut(range(number, number + 1), range(first, first + _FRAMES_AT_ONCE))[0]
            yield checked(f"{path}: clip {number + 1}", frames)

    return ClipFiles(
        read_as=read_as,
        count=sizes["N"],
        lengths=(sizes["T"],) * sizes["N"],
        frame=(sizes.get("C", 1), sizes["H"], sizes["W"]),
        read=lambda numbers, frames: cut(numbers, range(frames)),
        whole=whole,
    )


def _open_npz(path: Path, needed: int, layout: str | None, white: int | None) -> ClipFiles:
    names = names_in(path)
    if set(PREDRNN) <= set(names):
        if layout is not None:
            raise UserError(f"--layout {layout}: {path} is an npz of predrnn, which has its own; leave --layout out")
        return _open_predrnn(path, *read_npz(path, *PREDRNN[:2]), map_member(path, PREDRNN[2]))  # pyright: ignore[reportCallIssue]  # two arrays
    if len(names) != 1:
        raise UserError(
            f"{path}: holds {', '.join(names) or 'no array'}; allowed are one array of clips, or {', '.join(PREDRNN)}"
        )
    return _open_array(path, map_member(path, names[0]), needed, layout, white)


def _open_predrnn(path: Path, clips: np.ndarray, dims: np.ndarray, frames: np.ndarray) -> ClipFiles:
    check_dtype(path, frames.dtype)
    if frames.ndim != 4 or 0 in frames.shape or dims.reshape(-1).tolist() != list(frames.shape[1:]):
        raise UserError(
            f"{path}: dims is {dims.tolist()} and input_raw_data has shape {frames.shape};"
            " needed are dims [[C, H, W]] and frames (frames, C, H, W)"
        )
    if clips.ndim != 3 or clips.shape[::2] != (2, 2) or not clips.size or not np.issubdtype(clips.dtype, np.integer):
        raise UserError(f"{path}: clips is {clips.dtype} of shape {clips.shape}; needed are integers (2, N, 2)")
    (start, given), (second, predicted) = clips[0].T.astype(int), clips[1].T.astype(int)
    lengths = given + predicted
    wrong = (start < 0) | (given < 1) | (predicted < 1) | (second != start + given) | (start + lengths > len(frames))
    if wrong.any():
        place = int(wrong.argmax())
        parts = " and ".join(f"{length} frames from {first}" for first, length in clips[:, place].tolist())
        raise UserError(
            f"{path}: clip {place + 1} is {parts} of {len(frames)}; the output must follow the input, inside the frames"
        )

    def read(numbers: range, count: int) -> Frames:
        return np.stack([frames[start[number] : start[number] + count] for number in numbers])

    splits = sorted(set(zip(given.tolist(), predicted.tolist(), strict=True)))
    split = f"{splits[0][0]} frames in, {splits[0][1]} out" if len(splits) == 1 else f"{len(splits)} different splits"
    return ClipFiles(
        read_as=f"{', '.join(PREDRNN)} of predrnn ({split})",
        count=clips.shape[1],
        lengths=tuple(lengths.tolist()),
        frame=frames.shape[1:],
        read=read,
        whole=lambda number: iter(
            [checked(f"{path}: clip {number + 1}", read(range(number, number + 1), int(lengths[number]))[0])]
        ),
    )


def _open_folder(path: Path, needed: int, layout: str | None, white: int | None) -> ClipFiles:
    entries = entries_of(path)
    kinds = sorted({"folder" if entry.is_dir() else entry.suffix.lower() or entry.name for entry in entries})
    if len(kinds) != 1 or kinds[0] not in ("folder", ".npy", ".gif", *ENDINGS):
        raise UserError(
            f"{path}: holds {' and '.join(kinds) or 'nothing'}; a folder of clips holds only folders of PNG frames,"
            f" or only files of one kind: .npy, .gif, {', '.join(ENDINGS)}"
        )
    (kind,) = kinds
    if layout is not None and kind != ".npy":
        raise UserError(f"--layout {layout}: {path} holds images, whose layout is known; leave --layout out")
    if kind != ".npy":
        names = {"folder": "folders of PNG frames", ".gif": "GIF videos"}
        return _open_images(entries, kind, names.get(kind, f"{kind[1:].upper()} videos"))
    named = layout_of(entries[0], map_array(entries[0]).shape, needed, layout, CLIP_LAYOUTS)
    lengths = [npy_length(named, entry) for entry in entries]
    return _stored_alone(entries, lengths, partial(read_npy, named, white=white), f"files of {','.join(named)}")


def _open_images(entries: list[Path], kind: str, read_as: str) -> ClipFiles:
    """Clips that are one file or folder of images each."""
    if kind == "folder":
        return _stored_alone(entries, [len(png_frames(entry)) for entry in entries], read_png, read_as)
    if kind == ".gif":
        return _stored_alone(entries, [gif_length(entry) for entry in entries], read_gif, read_as)
    found = [look_at_video(entry) for entry in entries]
    return replace(
        _stored_alone(entries, [video.length for video in found], read_video, read_as),
        whole=lambda number: video_parts(entries[number]),
        luma=lambda numbers, frames: np.stack([read_grey(entries[number], frames) for number in numbers]),
        notes=notes_of(found),
    )


def _stored_alone(
    entries: list[Path], lengths: list[int], read_clip: Callable[[Path, int], Part], read_as: str
) -> ClipFiles:
    """Clips of these lengths that are read one by one."""
    like = read_clip(entries[0], 1)

    def read(numbers: range, frames: int) -> Frames:
        clips = [read_clip(entries[number], frames) for number in numbers]
        for number, clip in zip(numbers, clips, strict=True):
            check_like(entries[number], clip, like)
        return np.stack(clips)

    return ClipFiles(
        read_as=read_as,
        count=len(entries),
        lengths=tuple(lengths),
        frame=like.shape[1:],
        read=read,
        whole=lambda number: iter([checked(entries[number], read_clip(entries[number], lengths[number]))]),
    )


def checked(name: Path | str, frames: Part) -> Part:
    """`frames`, whose values are uint8, or floats in [0, 1]; raises UserError where they are not."""
    if frames.dtype == np.uint8 or not frames.size:
        return frames
    low, high = frames.min(), frames.max()
    if not (low >= 0 and high <= 1):  # NaN is neither
        how = "; divide them by 255, or store them as uint8" if low >= 0 and 1 < high <= 255 else ""
        raise UserError(
            f"{name}: has {frames.dtype} values from {low:g} to {high:g}; floats must lie in [0, 1] without NaN"
            f" (uint8 may be 0 to 255){how}"
        )
    return frames


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()

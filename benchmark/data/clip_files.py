"""Clips in a person's own files: arrays in the layouts people have, predrnn's npz, folders of clips; read in parts."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmark.data.clip_layouts import CLIP_LAYOUTS, LAYOUTS, Frames, check_dtype, layout_of, to_ntchw
from benchmark.data.npz import map_member, names_in, read_npz
from benchmark.data.originals import PUBLIC_TEST
from benchmark.data.single_clips import (
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
from benchmark.errors import UserError, unknown

PREDRNN = ("clips", "dims", "input_raw_data")
"""Arrays of an npz of predrnn: start and length (2, N, 2) of the input and of the output part of every clip, the sizes
C, H, W of a frame, and all frames (frames, C, H, W)."""

_PIXELS_AT_ONCE = 2**24


@dataclass(frozen=True, kw_only=True)
class ClipFiles:
    """Clips on disk, of which only the asked ones are in memory."""

    read_as: str
    """How the file was understood, in words."""
    count: int
    """Number of clips."""
    lengths: tuple[int, int]
    """Frames of the shortest and of the longest clip."""
    frame: tuple[int, int, int]
    """Channels, height and width of a frame."""
    read: Callable[[range, int], Frames]
    """The first frames of some clips, counted from 0, as they are stored: uint8, or float in [0, 1]."""

    def check_values(self, path: Path, frames: int) -> str:
        """Read the first `frames` frames of all clips once, before anything is computed from them.

        Returns:
            The type and the range of the values, in words.

        Raises:
            UserError: a file is damaged or unlike the others, or float values are not in [0, 1].
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
                    " floats must lie in [0, 1] without NaN (uint8 may be 0 to 255)"
                )
            lows.append(low.min())
            highs.append(high.max())
        return f"{pixels.dtype} from {min(lows):g} to {max(highs):g}"


def open_clips(path: Path, needed: int, layout: str | None = None) -> ClipFiles:
    """Find out how the clips at `path` are stored; pixels are not read yet.

    Args:
        path: a .npy of clips, a .npz of one such array or of `PREDRNN`, or a folder of clips, each a folder of PNG
            frames, a .npy or a .gif; clips and frames in the natural order of their names.
        needed: frames that every clip must have.
        layout: one of `LAYOUTS`, or of `CLIP_LAYOUTS` for a folder of .npy. Without it a layout is taken only where
            no other fits: 1 or 3 channels, square frames, and at least `needed` of them in a clip.

    Raises:
        UserError: no or several layouts fit, or the files are missing, damaged or of another kind.
    """
    if layout is not None and layout not in LAYOUTS:
        raise UserError(f"--layout: {unknown('layout', layout, LAYOUTS)}")
    if path.is_dir():
        clips = _open_folder(path, needed, layout)
    elif not path.exists():
        raise UserError(f"{path}: no such file or folder")
    elif path.suffix == ".npy":
        clips = _open_array(path, map_array(path), needed, layout)
    elif path.suffix == ".npz":
        clips = _open_npz(path, needed, layout)
    else:
        raise UserError(f"{path}: is no .npy, no .npz and no folder of clips")
    if clips.lengths[0] < needed:
        raise UserError(f"{path}: a clip has {clips.lengths[0]} frames; context and horizon need {needed}")
    return clips


def _open_array(path: Path, array: np.ndarray, needed: int, layout: str | None) -> ClipFiles:
    check_dtype(path, array.dtype)
    note = ""
    if layout is None and path.name == PUBLIC_TEST.name and _md5(path) == PUBLIC_TEST.md5:
        layout, note = "TNHW", " (the published Moving MNIST test clips, by checksum)"
    layout = layout_of(path, array.shape, needed, layout, LAYOUTS)
    read_as = ",".join(layout) + note
    if "N" not in layout:
        layout, array = f"N{layout}", array[None]
    sizes = dict(zip(layout, array.shape, strict=True))

    def read(numbers: range, frames: int) -> Frames:
        cut = {"N": slice(numbers.start, numbers.stop), "T": slice(frames)}
        return to_ntchw(array[tuple(cut.get(axis, slice(None)) for axis in layout)], layout)

    return ClipFiles(
        read_as=read_as,
        count=sizes["N"],
        lengths=(sizes["T"], sizes["T"]),
        frame=(sizes.get("C", 1), sizes["H"], sizes["W"]),
        read=read,
    )


def _open_npz(path: Path, needed: int, layout: str | None) -> ClipFiles:
    names = names_in(path)
    if set(PREDRNN) <= set(names):
        if layout is not None:
            raise UserError(f"--layout {layout}: {path} is an npz of predrnn, which has its own; leave --layout out")
        return _open_predrnn(path, *read_npz(path, *PREDRNN[:2]), map_member(path, PREDRNN[2]))  # pyright: ignore[reportCallIssue]  # two arrays
    if len(names) != 1:
        raise UserError(
            f"{path}: holds {', '.join(names) or 'no array'}; allowed are one array of clips, or {', '.join(PREDRNN)}"
        )
    return _open_array(path, map_member(path, names[0]), needed, layout)


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
        lengths=(int(lengths.min()), int(lengths.max())),
        frame=frames.shape[1:],
        read=read,
    )


def _open_folder(path: Path, needed: int, layout: str | None) -> ClipFiles:
    entries = entries_of(path)
    kinds = sorted({"folder" if entry.is_dir() else entry.suffix or entry.name for entry in entries})
    if len(kinds) != 1 or kinds[0] not in ("folder", ".npy", ".gif"):
        raise UserError(
            f"{path}: holds {' and '.join(kinds) or 'nothing'};"
            " a folder of clips holds only folders of PNG frames, only .npy or only .gif"
        )
    (kind,) = kinds
    if layout is not None and kind != ".npy":
        raise UserError(f"--layout {layout}: {path} holds images, whose layout is known; leave --layout out")
    if kind == ".npy":
        layout = layout_of(entries[0], map_array(entries[0]).shape, needed, layout, CLIP_LAYOUTS)
    read_clip, length_of, kind_of = {
        "folder": (read_png, lambda folder: len(png_frames(folder)), "folders of PNG frames"),
        ".npy": (partial(read_npy, layout), partial(npy_length, layout), f"files of {','.join(layout or '')}"),  # pyright: ignore[reportArgumentType]  # checked where there are such files
        ".gif": (read_gif, gif_length, "GIF films"),
    }[kind]
    lengths = [length_of(entry) for entry in entries]
    like = read_clip(entries[0], 1)

    def read(numbers: range, frames: int) -> Frames:
        clips = [read_clip(entries[number], frames) for number in numbers]
        for number, clip in zip(numbers, clips, strict=True):
            check_like(entries[number], clip, like)
        return np.stack(clips)

    return ClipFiles(
        read_as=kind_of, count=len(entries), lengths=(min(lengths), max(lengths)), frame=like.shape[1:], read=read
    )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()

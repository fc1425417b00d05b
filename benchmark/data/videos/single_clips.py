"""One clip in a folder of clips: a folder of PNG frames, an array or a video; each as (T, C, H, W)."""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageSequence

from benchmark.data.videos.layouts import check_dtype, misfit, to_ntchw
from benchmark.system.errors import UserError

DAMAGED = Exception
"""What libraries raise where a file is not what its name says: whatever their parsers meet first."""


def entries_of(folder: Path) -> list[Path]:
    """What is in `folder`, but for hidden files, in natural order: 2 before 10."""

    def natural(path: Path) -> tuple[list[str | int], str]:
        parts = re.split(r"(\d+)", path.name)
        return [int(part) if place % 2 else part for place, part in enumerate(parts)], path.name

    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=natural)


def png_frames(folder: Path) -> list[Path]:
    """The frames of a clip in order; raises UserError where anything else is among them."""
    frames = entries_of(folder)
    stray = [path for path in frames if path.suffix.lower() != ".png"]
    if stray or not frames:
        raise UserError(f"{stray[0] if stray else folder}: a clip is a folder of PNG frames and nothing else")
    return frames


def read_png(folder: Path, frames: int) -> UInt8[np.ndarray, "T C H W"]:
    """The first `frames` frames; raises UserError where one is no 8-bit grey or colour PNG or unlike the first."""
    clip = []
    for path in png_frames(folder)[:frames]:
        try:
            with Image.open(path, formats=["PNG"]) as image:
                mode, pixels = image.mode, np.asarray(image)
        except DAMAGED as error:
            raise UserError(f"{path}: cannot be read as an image ({error})") from None
        if mode not in ("L", "RGB"):
            raise UserError(f"{path}: is of mode {mode}; allowed are 8-bit grey (L) and colour (RGB)")
        clip.append(pixels[None, None] if mode == "L" else pixels.transpose(2, 0, 1)[None])
        check_like(path, clip[-1], clip[0])
    return np.concatenate(clip)


def npy_length(layout: str, path: Path) -> int:
    """Number of frames; raises UserError where the array is not in `layout`."""
    array = map_array(path)
    if fault := misfit(layout, array.shape, 1):
        raise UserError(f"{path}: shape {array.shape} is not {layout} as the first clip: {fault}")
    return array.shape[layout.index("T")]


def read_npy(layout: str, path: Path, frames: int, white: int | None = None) -> Shaped[np.ndarray, "T C H W"]:
    """The first `frames` frames of a clip in `layout`; `white` as in `check_dtype`."""
    array = map_array(path)
    check_dtype(path, array.dtype, white)
    return to_ntchw(array[None, :frames], f"N{layout}")[0]  # T stands first in every layout of one clip


def gif_length(path: Path) -> int:
    """Number of frames that the video holds."""
    try:
        with Image.open(path, formats=["GIF"]) as video:
            return video.n_frames  # pyright: ignore[reportAttributeAccessIssue]  # of GIF
    except DAMAGED as error:
        raise UserError(f"{path}: cannot be read as a video ({error})") from None


def read_gif(path: Path, frames: int) -> UInt8[np.ndarray, "T C H W"]:
    """The first `frames` frames, of one channel where all colours are grey: a GIF has a palette and no grey mode."""
    try:
        with Image.open(path, formats=["GIF"]) as video:
            colours = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(video)]
    except DAMAGED as error:
        raise UserError(f"{path}: cannot be read as a video ({error})") from None
    clip = np.stack(colours).transpose(0, 3, 1, 2)
    return (clip[:, :1] if (clip == clip[:, :1]).all() else clip)[:frames]


def map_array(path: Path) -> np.ndarray:
    """The array in a .npy, whose pages the system loads when they are read."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except DAMAGED as error:
        raise UserError(f"{path}: cannot be read as an array ({error})") from None


def check_like(path: Path, clip: np.ndarray, like: np.ndarray) -> None:
    """Raise UserError if the frames of two clips (T, C, H, W) differ in kind or size."""
    if (clip.shape[1:], clip.dtype) != (like.shape[1:], like.dtype):
        raise UserError(
            f"{path}: frames (C, H, W) are {clip.dtype} {clip.shape[1:]}, the first {like.dtype} {like.shape[1:]}"
        )

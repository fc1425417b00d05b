"""Clips that a person hands to `predict` and `evaluate`: how they are read, and made to fit. Imports no torch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps

from benchmark.data.pixels import to_grey
from benchmark.data.videos.clip_files import ClipFiles, open_clips, open_single
from benchmark.data.videos.layouts import Frames
from benchmark.data.videos.single_clips import entries_of
from benchmark.data.videos.video_files import ENDINGS
from benchmark.system.console import command_line
from benchmark.system.errors import UserError
from benchmark.system.storage import check_output
from models.spec import ModelSpec

OUTPUTS = {".npy": "values", ".gif": "an animation", ".mp4": "a video", ".png": "a prediction strip"}
"""Ending of what `predict` writes -> what it is."""
READABLE = (".gif", ".npy", ".npz", *ENDINGS)


def check_paths(weights: Path, source: Path, output: Path) -> None:
    """Refuse what cannot be read or written, before anything large is imported.

    Raises:
        UserError: weights or input are missing, one of the kinds is not known, or the output cannot be
            written or would harm the input.
    """
    if output.suffix.lower() not in OUTPUTS:
        kinds = ", ".join(f"{suffix} ({what})" for suffix, what in OUTPUTS.items())
        raise UserError(f"--output: {output} says not what to write; allowed are {kinds}")
    for flag, path in {"--weights": weights, "--input": source}.items():
        if not path.exists():
            raise UserError(f"{flag}: {path}: no such file")
    check_apart(output, weights, source)
    if source.is_file() and source.suffix.lower() not in READABLE:
        raise UserError(
            f"--input: {source} is no {', '.join(READABLE)} and no folder; of anything else make one of these first"
        )


def check_apart(output: Path, *sources: Path) -> None:
    """Refuse an output that cannot be written or would harm what is read, before anything is computed.

    Raises:
        UserError: `output` is one of `sources`, lies in one that is a folder, or cannot be written.
    """
    for source in (source.resolve() for source in sources):
        if source == output.resolve() or source in output.resolve().parents:
            raise UserError(f"--output: {output} would lie in what is read; name another file")
    check_output(output)


def open_input(path: Path, given: int, layout: str | None, white: int | None = None) -> ClipFiles:
    """The clips at `path`: one video, one folder of PNG frames, or what `open_clips` knows.

    Args:
        given: frames that every clip must have.
        layout: of arrays, see `open_clips`.
        white: the value of a white pixel, see `scale_values`.

    Raises:
        UserError: as `open_clips`.
    """
    of_png = path.is_dir() and {entry.suffix.lower() for entry in entries_of(path)} == {".png"}
    if not of_png and not (path.is_file() and path.suffix.lower() in (".gif", *ENDINGS)):
        return scale_values(open_clips(path, given, layout, white), path, white)
    clip = open_single(path, layout)
    if clip.lengths[0] < given:
        raise UserError(f"{path}: has {clip.lengths[0]} frames, but {given} are to be given; say fewer with --context")
    return scale_values(clip, path, white)


def scale_values(clips: ClipFiles, path: Path, white: int | None) -> ClipFiles:
    """The same clips, whose value `white` is white.

    Args:
        path: of the clips, for messages.
        white: 1 or 255; None for what the type says: 255 in uint8, 1 in floats.

    Returns:
        Clips whose `read` gives uint8 from 0 to 255, or float32.
    """

    def read(numbers: range, frames: int) -> Frames:
        values = clips.read(numbers, frames)
        if values.dtype != np.uint8:
            return as_float(values) / np.float32(white)
        if white == 255:
            return values
        if values.max() > 1:
            raise UserError(f"{path}: has {values.dtype} values up to {values.max()}, but --white 1 says 1 is white")
        return values * np.uint8(255)

    return clips if white is None else replace(clips, read=read)


def fit_clips(clips: ClipFiles, spec: ModelSpec) -> ClipFiles:
    """The same clips with frames as a network of `spec` takes them, see `fit_frames`."""
    side = spec.frame_size
    if clips.frame == (spec.channels, side, side):
        return clips
    read = clips.read_in_grey if (spec.channels, clips.frame[0]) == (1, 3) else clips.read
    return replace(
        clips,
        frame=(spec.channels, side, side),
        read=lambda numbers, frames: fit_frames(read(numbers, frames), spec.channels, side),
    )


def fit_frames(frames: Frames, channels: int, side: int) -> Float[np.ndarray, "N T {channels} {side} {side}"]:
    """Crop the middle square of every frame, scale it to `side` pixels and turn colour to grey or grey to colour.

    Returns:
        float32 in [0, 1]; grey of colour is one of 256 levels before it is scaled, see `to_grey`.

    Raises:
        UserError: neither 1 nor 3 channels are asked for.
    """
    if channels not in (1, 3):
        raise UserError(f"--fit: the weights take frames of {channels} channels; grey has 1 and colour has 3")
    if channels < frames.shape[2]:
        clips, length, _, *size = frames.shape
        frames = to_grey(frames.reshape(-1, *frames.shape[2:])).reshape(clips, length, 1, *size)
    values = as_float(frames).repeat(channels // frames.shape[2], axis=2)
    planes = values.reshape(-1, *values.shape[3:])
    scaled = [ImageOps.fit(Image.fromarray(plane), (side, side), Image.Resampling.BILINEAR) for plane in planes]
    return np.stack([np.asarray(plane) for plane in scaled]).reshape(*values.shape[:3], side, side).clip(0, 1)


def as_float(frames: Frames) -> Float[np.ndarray, "N T C H W"]:
    """float32 in [0, 1]: uint8 is divided by 255, floats stay what they are."""
    return frames.astype(np.float32) / np.float32(255 if frames.dtype == np.uint8 else 1)


def how_to_fit(source: Path, spec: ModelSpec) -> str:
    """What the weights expect, and how to give them that."""
    side, colour = spec.frame_size, {1: "grey", 3: "colour"}.get(spec.channels, f"{spec.channels} channels")
    expected = f"the weights are for {side}x{side} pixels, {colour}, in patches of {spec.patch_size}"
    if source.suffix.lower() != ".gif":
        return f"{expected}; --fit crops, scales and converts to that"
    form = {1: "gray", 3: "rgb24"}.get(spec.channels, "gray")
    frames = source.with_suffix("")
    # A pattern of ffmpeg's: `%` in the folder's own name is written twice; a path that begins with `-` is no option.
    pattern = Path(f"{frames.absolute()}".replace("%", "%%")) / "%04d.png"
    convert = command_line("ffmpeg", "-i", source.absolute(), "-vf", f"scale={side}:{side},format={form}", pattern)
    make = command_line("mkdir", "--", frames)
    return f"{expected}; --fit crops, scales and converts to that, or do it yourself: {make} && {convert}"

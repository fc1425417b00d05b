"""The prepared folder of a protocol on videos: `frames.npy`, `windows.npz`, `data.json`. Torch is imported last."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.config.data_sections import HELD_OUT, KTH, VideosConfig
from benchmark.config.protocol import Protocol
from benchmark.data.counter_rng import Domain, counter_hash
from benchmark.data.pixels import resize_area, to_grey, to_square
from benchmark.data.prepared_folder import write_record
from benchmark.data.videos.datasets import Video, VideoSet, open_own
from benchmark.data.videos.frame_bank import (
    FRAMES,
    SPLITS,
    WINDOWS,
    FrameWriter,
    bank_hash,
    load_frames,
    windows_hash,
    written_frames,
)
from benchmark.data.videos.kth import open_kth
from benchmark.system.console import Progress, echo
from benchmark.system.errors import UserError
from benchmark.system.files import atomic_buffer


@dataclass
class Piece:
    """Frames that follow each other in a video."""

    first: int
    """Their place on disk."""
    count: int
    step: int
    """As in `Video`."""


@dataclass
class Decoded:
    """What became of the videos."""

    pieces: dict[str, list[Piece]] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    """Width and height of frames before they were resized."""
    coloured: int = 0
    """Videos whose colour became grey."""
    cut: int = 0
    """Pieces that were to end past the end of their video."""


def video_set(protocol: Protocol, data: VideosConfig, data_dir: Path) -> VideoSet:
    """The videos that `protocol` names below `data_dir`; none is decoded yet.

    Raises:
        UserError: they are missing, or not in a layout that is known.
    """
    if data.videos == KTH:
        return open_kth(data_dir / KTH)
    return open_own(data_dir / data.videos, window_frames(protocol), data.layout)


def window_frames(protocol: Protocol) -> dict[str, int]:
    """Frames of a window of each split; those of the test go on for `evaluation.beyond`."""
    data = protocol.data
    predicted = {
        "train": data.trained_horizon,
        "validation": data.horizon,
        "test": protocol.evaluation.beyond or data.horizon,
    }
    return {split: data.context + predicted[split] for split in SPLITS}


def prepare_videos(protocol: Protocol, data: VideosConfig, data_dir: Path, folder: Path) -> dict[str, Any]:
    """Decode the videos of `protocol` into `folder`, and choose the windows that are clips.

    Returns:
        What `data.json` holds.

    Raises:
        UserError: videos are missing, damaged or too short, or there are fewer windows than the protocol asks for.
    """
    found, lengths = video_set(protocol, data, data_dir), window_frames(protocol)
    with written_frames(folder / FRAMES, data.frame_size) as writer:
        decoded = decode(found, data, writer)
        starts, notes = choose_windows(decoded, data, lengths)
        for key, value in protocol.shown_clips().items():
            if value > len(starts["test"]):
                raise UserError(f"{key}: {value} is more than the {len(starts['test'])} test clips of these videos")
    with atomic_buffer(folder / WINDOWS) as file:
        np.savez_compressed(file, **starts)  # pyright: ignore[reportArgumentType]  # no array has the name of the flag
    record = {
        "source": data.videos,
        "frame_size": data.frame_size,
        "films": {split: len(found.videos[split]) for split in SPLITS},
        "frames": decoded.frames,
        "split_sizes": {split: len(starts[split]) for split in SPLITS},
        "window_frames": lengths,
        "frames_sha256": decoded.sha256,
        "windows_sha256": windows_hash(starts),
        "test_set": HELD_OUT,
        "about": "; ".join([found.about, frames_note(decoded, data), notes]),
    }
    echo(f"{data.videos}: {record['about']}", sys.stderr)
    record["train_sha256"] = bank_hash(record)

    from benchmark.data.clips import clips_hash
    from benchmark.data.videos.clips import VideoClips

    clips = VideoClips(load_frames(folder, record, training=False), data)
    hashes = {f"{split}_sha256": clips_hash(clips.fixed_clips(split)) for split in ("validation", "test")}
    return write_record(folder, record | hashes)


def decode(found: VideoSet, data: VideosConfig, writer: FrameWriter) -> Decoded:
    """Write the frames of all videos, split after split."""
    count = sum(map(len, found.videos.values()))
    decoded, done, progress = Decoded(), 0, Progress(f"{data.videos}: decoding", count, 0, "video")
    for split in SPLITS:
        writer.begin()
        before, decoded.pieces[split] = writer.count, []
        for video in found.videos[split]:
            decoded.pieces[split] += write_video(video, data, writer, decoded)
            done += 1
            progress.tell(done, f"{writer.count:,} frames")
        decoded.frames[split], decoded.sha256[split] = writer.count - before, writer.sha256()
    return decoded


def write_video(video: Video, data: VideosConfig, writer: FrameWriter, decoded: Decoded) -> list[Piece]:
    """Write the frames of one video that count, and return its pieces."""
    first, kept, coloured = writer.count, [], False
    for part in video.parts():
        decoded.sizes.add((part.shape[3], part.shape[2]))
        coloured |= part.shape[1] == 3
        fitted = resize_area(to_square(to_grey(part), data.square, video.name), data.frame_size)
        if video.pieces is None:
            writer.add(fitted)
        else:
            kept.append(fitted)
    decoded.coloured += coloured
    if video.pieces is None:
        if writer.count == first:
            raise UserError(f"{video.name}: has no frames; take it away")
        return [Piece(first, writer.count - first, video.step)]
    frames, pieces = np.concatenate(kept) if kept else np.empty((0, 0, 0), np.uint8), []
    for begin, end in video.pieces:
        decoded.cut += end > len(frames)
        if begin < len(frames):
            pieces.append(Piece(writer.count, len(frames[begin:end]), video.step))
            writer.add(frames[begin:end])
    return pieces


def window_starts(length: int, frames: int, rule: str, step: int) -> range:
    """Where windows of `frames` frames begin in `length` frames, by a rule of `VideosConfig`.

    Note:
        Those of `authors` end with the last frame, as the authors' code counts them from there.
    """
    last = length - frames
    if last < 0:
        return range(0)
    return {
        "every": range(last + 1),
        "apart": range(0, last + 1, frames),
        "authors": range(last % step, last + 1, step),
    }[rule]


def choose_windows(decoded: Decoded, data: VideosConfig, lengths: dict[str, int]) -> tuple[dict[str, np.ndarray], str]:
    """The first frame of each clip by split, in a fixed shuffled order, and how many there were of which kind.

    Raises:
        UserError: there are fewer windows than clips are asked for.
    """
    starts, notes, short = {}, [], 0
    wanted = {"train": data.train_clips, "validation": data.validation_clips, "test": data.test_clips}
    for place, split in enumerate(SPLITS):
        rule, frames = data.train_windows if split == "train" else data.test_windows, lengths[split]
        pieces = decoded.pieces[split]
        short += sum(piece.count < frames for piece in pieces)
        found = [piece.first + np.array(window_starts(piece.count, frames, rule, piece.step)) for piece in pieces]
        every = np.concatenate(found).astype(np.int64) if found else np.empty(0, np.int64)
        asked = wanted[split] or max(len(every), 1)
        if asked > len(every):
            raise UserError(
                f"data.{split}_clips: {asked:,} asked for; the {len(pieces):,} pieces of video hold {len(every):,}"
                f" windows of {frames} frames ({rule})"
            )
        starts[split] = every[counter_hash(0, Domain.WINDOWS, place, np.arange(len(every))).argsort()][:asked]
        some = f"{asked:,} of " if asked < len(every) else ""
        notes.append(f"{some}{len(every):,} of {frames} frames ({rule}) for {split}")
    left_out = f"; {short:,} pieces shorter than their window" if short else ""
    return starts, f"windows: {', '.join(notes)}{left_out}"


def frames_note(decoded: Decoded, data: VideosConfig) -> str:
    """What became of the frames."""
    sizes = [f"{width}x{height}" for width, height in sorted(decoded.sizes)]
    some = sizes[0] if len(sizes) == 1 else f"{len(sizes)} sizes from {sizes[0]} to {sizes[-1]}"
    side = f"{data.frame_size}x{data.frame_size}"
    kept = sizes == [side]
    shape = {"stretch": ", aspect not kept", "crop": ", the middle square of them"}.get(data.square or "", "")
    notes = [f"frames of {some} pixels" + ("" if kept else f" to {side} by area{shape}")]
    notes += [f"{decoded.coloured:,} videos of colour made grey"] if decoded.coloured else []
    notes += [f"{decoded.cut:,} pieces end past their video and were cut"] if decoded.cut else []
    return ", ".join(notes)

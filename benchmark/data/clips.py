"""The clips of a protocol, of either kind of data: those that train, and the fixed ones that judge."""

import hashlib
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from benchmark.config.data_sections import DataConfig, DigitsConfig
from benchmark.data.moving_digits.digits import DigitBank, load_digits
from benchmark.data.moving_digits.occlusion import OCCLUDED, draw_gaps, occlude
from benchmark.data.moving_digits.occlusion import Clips as Frames
from benchmark.data.moving_digits.stream import ClipStream
from benchmark.data.prepared_folder import PUBLIC, read_arrays, read_data_record
from benchmark.data.videos.frame_bank import FrameBank, load_frames
from benchmark.data.videos.windows import WindowClips, WindowStream
from benchmark.system.errors import UserError

Bank = DigitBank | FrameBank
Stream = ClipStream | WindowStream
Clips = UInt8[Tensor, "clips T 1 H W"] | WindowClips
"""In memory, or on disk and read where they are indexed."""
_CHUNK = 64


def load_bank(folder: Path, data: DataConfig, *, training: bool = False) -> Bank:
    """What the clips in `folder` are made of; with `training` checked to the last byte.

    Raises:
        UserError: the folder is missing, damaged or made for another kind of data.
    """
    if isinstance(data, DigitsConfig):
        return load_digits(folder)
    return load_frames(folder, record_of_films(folder), training)


def record_of_films(folder: Path) -> dict[str, Any]:
    """What `data.json` of `folder` says; raises UserError where it was made of digits."""
    record = read_data_record(folder)
    if "window_frames" not in record:
        raise UserError(f"{folder / 'data.json'}: made of digits, not of films; run the command `data` again")
    return record


def load_clips(folder: Path, data: DataConfig, split: Literal["validation", "test"]) -> Clips:
    """The clips of `split` that `folder` was prepared with: of digits generated again or the public ones, or of films.

    Returns:
        uint8 on the CPU, T = context + horizon.

    Raises:
        UserError: the folder is missing, damaged or made for other clips.
    """
    record = read_data_record(folder)
    if split == "test" and record["test_set"] == PUBLIC:
        clips = torch.from_numpy(*read_arrays(folder, "public_test"))
    else:
        clips = fixed_clips(load_bank(folder, data), data, split)
    if clips_hash(clips) != record[f"{split}_sha256"]:
        raise UserError(f"{folder / 'data.json'}: made for other {split} clips; run the command `data` again")
    return clips


def fixed_clips(bank: Bank, data: DataConfig, split: Literal["validation", "test"]) -> Clips:
    """The clips of `split`, of digits or films that are never trained on; the same for every run and seed.

    Returns:
        uint8 on the CPU, T = context + horizon.
    """
    if isinstance(bank, FrameBank):
        return WindowClips(bank.frames, bank.starts[split], data.context + data.horizon)
    assert isinstance(data, DigitsConfig)
    count = data.validation_clips if split == "validation" else data.test_clips
    stream = digits_stream(bank, data, split)
    clips = torch.empty(count, stream.frames, 1, data.frame_size, data.frame_size, dtype=torch.uint8)
    for numbers in torch.arange(count).split(_CHUNK):
        clips[numbers] = stream.clips(numbers)
    return clips


def fixed_stream(bank: Bank, data: DataConfig, split: Literal["validation", "test"]) -> Stream:
    """The stream whose first clips are the fixed ones of `split`.

    Raises:
        UserError: its films were prepared for shorter clips.
    """
    if isinstance(bank, FrameBank):
        clips = WindowClips(bank.frames, bank.starts[split], data.context + data.horizon)
        if clips.shape[1] > bank.lengths[split]:
            raise UserError(
                f"the {split} clips were prepared with {bank.lengths[split]} frames, not {clips.shape[1]};"
                " run the command `data` again"
            )
        return WindowStream(clips, seed=0)
    assert isinstance(data, DigitsConfig)
    return digits_stream(bank, data, split)


def digits_stream(bank: DigitBank, data: DigitsConfig, split: Literal["validation", "test"]) -> ClipStream:
    """The stream whose first clips are the fixed ones of `split`, of digits."""
    return ClipStream(
        bank.splits[split],
        seed=0,
        split=split,
        frame_size=data.frame_size,
        num_digits=data.num_digits,
        frames=data.context + data.horizon,
    )


def train_stream(bank: Bank, data: DataConfig, seed: int, device: str) -> Stream:
    """What a run of `seed` is trained on, made on `device`."""
    frames = data.context + data.trained_horizon
    if isinstance(bank, FrameBank):
        return WindowStream(WindowClips(bank.frames, bank.starts["train"], frames), seed=seed, device=device)
    assert isinstance(data, DigitsConfig)
    return ClipStream(
        bank.train,
        seed=seed,
        frame_size=data.frame_size,
        num_digits=data.num_digits,
        frames=frames,
        pool=data.train_clips,
        device=device,
    )


def public_clips(data_dir: Path, data: DigitsConfig) -> UInt8[Tensor, "clips T 1 H W"]:
    """The first clips of the public Moving MNIST test file, as torchvision reads it; at most 20 frames."""
    from torchvision.datasets import MovingMNIST

    clips = MovingMNIST(root=data_dir, split=None).data
    return clips[: data.test_clips, : data.context + data.horizon].clone()


def clips_hash(clips: Clips) -> str:
    """SHA-256 of the shape and the pixels."""
    digest = hashlib.sha256(str(tuple(clips.shape)).encode())
    for first in range(0, len(clips), _CHUNK):
        digest.update(clips[first : first + _CHUNK].contiguous().numpy())  # pyright: ignore[reportArgumentType]  # an array is a buffer
    return digest.hexdigest()


def inputs_of(
    frames: Frames, numbers: Int64[Tensor, " B"], stream: ClipStream | WindowStream, data: DataConfig
) -> Frames:
    """What a network is shown of the clips `numbers` of `stream`, whose frames are `frames`.

    Each clip has one of `data.gaps`, a pure function of the stream's seed and its number; without gaps the frames
    themselves are returned. On a GPU nothing waits for it.
    """
    if not data.gaps:
        return frames
    assert isinstance(stream, ClipStream)
    assert isinstance(data, DigitsConfig)
    _, left = stream.positions(numbers)
    gap = draw_gaps(data.gaps, stream.seed, numbers)
    return occlude(frames, left[:, OCCLUDED], gap, data)

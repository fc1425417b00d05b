"""The fixed clips that runs are judged by, and their hashes."""

import hashlib
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from benchmark.data.digits import DigitBank
from benchmark.data.prepared import PUBLIC, load_digits, read_arrays, read_record
from benchmark.data.stream import ClipStream
from benchmark.errors import UserError
from benchmark.sections import DataConfig

_CHUNK = 64


def load_clips(folder: Path, data: DataConfig, split: Literal["validation", "test"]) -> UInt8[Tensor, "clips T 1 H W"]:
    """The clips of `split` that `folder` was prepared with: generated again, or the public ones in it.

    Returns:
        uint8 on the CPU, T = context + horizon.

    Raises:
        UserError: the folder is missing, damaged or made for other clips.
    """
    record = read_record(folder)
    if split == "test" and record["test_set"] == PUBLIC:
        clips = torch.from_numpy(*read_arrays(folder, "public_test"))
    else:
        clips = fixed_clips(load_digits(folder), data, split)
    if clips_hash(clips) != record[f"{split}_sha256"]:
        raise UserError(f"{folder / 'data.json'}: made for other {split} clips; run the verb `data` again")
    return clips


def fixed_clips(
    bank: DigitBank, data: DataConfig, split: Literal["validation", "test"]
) -> UInt8[Tensor, "clips T 1 H W"]:
    """The generated clips of `split`, of digits that are never trained on; the same for every run and seed.

    Returns:
        uint8 on the CPU, T = context + horizon.
    """
    count = data.validation_clips if split == "validation" else data.test_clips
    stream = fixed_stream(bank, data, split)
    clips = torch.empty(count, stream.frames, 1, data.frame_size, data.frame_size, dtype=torch.uint8)
    for numbers in torch.arange(count).split(_CHUNK):
        clips[numbers] = stream.clips(numbers)
    return clips


def fixed_stream(bank: DigitBank, data: DataConfig, split: Literal["validation", "test"]) -> ClipStream:
    """The stream whose first clips are the fixed ones of `split`."""
    return ClipStream(
        bank.splits[split],
        seed=0,
        split=split,
        frame_size=data.frame_size,
        num_digits=data.num_digits,
        frames=data.context + data.horizon,
    )


def public_clips(data_dir: Path, data: DataConfig) -> UInt8[Tensor, "clips T 1 H W"]:
    """The first clips of the public Moving MNIST test file, as torchvision reads it; at most 20 frames."""
    from torchvision.datasets import MovingMNIST

    clips = MovingMNIST(root=data_dir, split=None).data
    return clips[: data.test_clips, : data.context + data.horizon].clone()


def clips_hash(clips: UInt8[Tensor, "clips T 1 H W"]) -> str:
    """SHA-256 of the shape and the pixels."""
    digest = hashlib.sha256(str(tuple(clips.shape)).encode())
    digest.update(clips.contiguous().numpy())  # pyright: ignore[reportArgumentType]  # an array is a buffer
    return digest.hexdigest()

"""Clips of videos: windows of frames that lie in one array on disk, made into batches on any device."""

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from benchmark.data.tensors import PoolOrder, to_float

Place = int | slice | list[int] | Int64[Tensor, " B"]


class WindowClips:
    """Fixed clips that are on disk: what is indexed is read, so that many clips take no memory.

    Args:
        frames: uint8 (n, H, W), mapped from disk.
        starts: the first frame of each clip.
        length: T, frames of a clip.
    """

    def __init__(self, frames: np.ndarray, starts: Int64[np.ndarray, " clips"], length: int) -> None:
        self.frames, self.starts = frames, starts
        self.shape = torch.Size([len(starts), length, 1, *frames.shape[1:]])

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, place: Place) -> UInt8[Tensor, "*B T 1 H W"]:
        """The clips at `place`, or the one, as a tensor takes an index in its first axis."""
        chosen = self.starts[place if isinstance(place, slice) else np.asarray(place)]
        return torch.from_numpy(self.read(np.asarray(chosen)))

    def read(self, starts: Int64[np.ndarray, "*B"]) -> UInt8[np.ndarray, "*B T 1 H W"]:
        """The clips that begin at these frames."""
        out = np.empty((*starts.shape, *self.shape[1:]), np.uint8)
        self.read_into(out.reshape(-1, *self.shape[1:]), starts.reshape(-1))
        return out

    def read_into(self, out: UInt8[np.ndarray, "B T 1 H W"], starts: Int64[np.ndarray, " B"]) -> None:
        """Fill `out` with the clips that begin at these frames."""
        for clip, start in zip(out, starts.tolist(), strict=True):
            clip[:, 0] = self.frames[start : start + len(clip)]


class WindowStream:
    """Training clips as a pure function of (seed, step): all windows once an epoch, in an order of the seed.

    Args:
        clips: the windows; on disk.
        seed: seed of the run.
        device: where the batches are made; only their bytes go there.
    """

    def __init__(self, clips: WindowClips, *, seed: int, device: torch.device | str = "cpu") -> None:
        self.seed, self.device, self._clips = seed, torch.device(device), clips
        self._order = PoolOrder(seed, len(clips), "cpu")  # which frames to read is for the CPU to know

    def batch(self, step: int, batch_size: int) -> Float32[Tensor, "B T 1 H W"]:
        """The clips of optimiser step `step` (from 0), float32 in [0, 1]; on a GPU without waiting for it."""
        starts = self._clips.starts[self.clip_numbers(step, batch_size).numpy()]
        # A copy from pinned memory does not wait; PyTorch gives that memory to no other batch until it is done.
        pinned = self.device.type == "cuda"
        pixels = torch.empty(batch_size, *self._clips.shape[1:], dtype=torch.uint8, pin_memory=pinned)
        self._clips.read_into(pixels.numpy(), starts)
        return to_float(pixels.to(self.device, non_blocking=pinned))

    def clips(self, indices: Int64[Tensor, " B"]) -> UInt8[Tensor, "B T 1 H W"]:
        """The clips of these numbers, uint8 on the CPU."""
        return self._clips[indices.cpu()]

    def clip_numbers(self, step: int, batch_size: int) -> Int64[Tensor, " B"]:
        """The numbers of the clips in the batch of `step`, on the CPU."""
        return self._order.numbers(step, batch_size)

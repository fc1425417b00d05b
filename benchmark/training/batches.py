"""What trainings are fed with: batch after batch of the stream, and the clips they are validated on."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmark.config.protocol import RunConfig
from benchmark.data.clip_source import Clips, ClipSource, Stream
from benchmark.data.clips import load_clips
from benchmark.data.kinds import kind_of
from benchmark.system import processes
from benchmark.training.masks import feed_mask, gradient_mask
from benchmark.training.step import Batch

AHEAD = 16
"""Batches that a GPU makes at once: as many kernels make them as make one."""
RESIDENT_BYTES = 2**30
"""Validation clips that take no more than this stay on the GPU."""


@dataclass
class Batches:
    """What the runs of one seed see in training, all of them the same."""

    run: RunConfig
    """One of them, whose seed, data and batches are those of all."""
    device: str
    digits: str
    """Hash of the digits or videos."""
    source: ClipSource
    stream: Stream
    validation: Clips
    ahead: int = 1
    """Batches that are made at once."""
    _made: tuple[int, Tensor, Tensor] | None = field(default=None, init=False)
    """What was made last: its number, counted in so many batches, its clips, and what the network is shown of them."""

    def of_seed(self, run: RunConfig) -> "Batches":
        """What `run` of the same protocol and another seed sees: a stream of its own, the same validation clips."""
        return replace(self, run=run, stream=self.source.train_stream(run.seed, self.device))

    def batch(self, step: int) -> Batch:
        """The batch of step `step` (from 0), or this process's share of it."""
        data, training = self.run.data, self.run.training
        size = training.batch_size // processes.count()
        number = step * processes.count() + processes.rank()  # in batches of that size this share has that number
        frames, inputs = self._clips(number, size)
        mask = feed_mask(
            training.sampling,
            seed=self.run.seed,
            step=step,
            batch_size=training.batch_size,
            context=data.context,
            horizon=data.trained_horizon,
            device=self.device,
        )
        flows = gradient_mask(
            training.detach_every,
            seed=self.run.seed,
            step=step,
            batch_size=size,
            steps=mask.shape[1],
            device=self.device,
        )
        return Batch(frames, inputs, mask[processes.rank() * size :][:size], flows)

    def _clips(self, number: int, size: int) -> tuple[Tensor, Tensor]:
        """Clips (B, T, C, H, W) of batch `number`, and what the network is shown of them."""
        block, place = divmod(number, self.ahead)
        if self._made is None or self._made[0] != block:
            several = self.ahead * size
            frames = self.stream.batch(block, several)
            inputs = self.source.inputs(frames, self.stream.clip_numbers(block, several), self.stream)
            self._made = block, frames, inputs
        _, frames, inputs = self._made
        own = slice(place * size, (place + 1) * size)
        return frames[own], inputs[own]


def load_batches(run: RunConfig, results_dir: Path, device: str) -> Batches:
    """The stream and the validation clips of `run`.

    Raises:
        UserError: the data are missing or damaged.
    """
    data, folder = run.data, results_dir / run.protocol / "data"
    source = kind_of(data).open(folder, training=True)
    validation = load_clips(folder, data, "validation")
    # A bar lies over context frames only: what the predictions are held against stays as it is.
    if data.gaps:
        validation = source.inputs(validation[:], torch.arange(len(validation)), source.fixed_stream("validation"))
    if device == "cuda" and isinstance(validation, Tensor) and validation.nbytes <= RESIDENT_BYTES:
        validation = validation.to(device)
    stream = source.train_stream(run.seed, device)
    # Windows of videos are read by the CPU, batch by batch; several processes take batches in turn.
    ahead = AHEAD if device == "cuda" and data.made_on_device and processes.count() == 1 else 1
    return Batches(run, device, source.sha256, source, stream, validation, ahead)

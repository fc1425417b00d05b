"""What trainings are fed with: batch after batch of the stream, and the clips they are validated on."""

from dataclasses import dataclass
from pathlib import Path

import torch

from benchmark.config.protocol import RunConfig
from benchmark.data.clip_source import Clips, ClipSource, Stream
from benchmark.data.clips import load_clips
from benchmark.data.kinds import kind_of
from benchmark.system import processes
from benchmark.training.scheduled_sampling import feed_mask
from benchmark.training.step import Batch


@dataclass(frozen=True)
class Batches:
    """What the runs of a training see, all of them the same."""

    run: RunConfig
    """One of them, whose seed, data and batches are those of all."""
    device: str
    digits: str
    """Hash of the digits or videos."""
    source: ClipSource
    stream: Stream
    validation: Clips

    def batch(self, step: int) -> Batch:
        """The batch of step `step` (from 0), or this process's share of it."""
        data, training = self.run.data, self.run.training
        size = training.batch_size // processes.count()
        number = step * processes.count() + processes.rank()  # in batches of that size this share has that number
        frames = self.stream.batch(number, size)  # (B, T, C, H, W)
        inputs = self.source.inputs(frames, self.stream.clip_numbers(number, size), self.stream)
        mask = feed_mask(
            training.sampling,
            seed=self.run.seed,
            step=step,
            batch_size=training.batch_size,
            context=data.context,
            horizon=data.trained_horizon,
            device=self.device,
        )
        return Batch(frames, inputs, mask[processes.rank() * size :][:size])


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
    return Batches(run, device, source.sha256, source, source.train_stream(run.seed, device), validation)

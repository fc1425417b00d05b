"""The optimiser step of a model outside the benchmark, which may draw random numbers and keep running means."""

import torch

from benchmark.config.protocol import RunConfig
from benchmark.data.counter_rng import counter_hash
from benchmark.system import processes
from benchmark.training import step as training_step
from benchmark.training.divergence_guard import GuardedAdam
from benchmark.training.step import Batch, StepResult
from models.forecasters.network import Forecaster


class SeededStep:
    """`train_one_step` in training mode, whose random numbers follow from the run's seed and the number of the step.

    So a run that goes on from a checkpoint draws what it would have drawn. Buffers, such as the running means of a
    batch norm, stay as they were where loss or gradient are not finite. PyTorch's own random numbers are as before.

    Args:
        run: trained.
        network: its model.
        optimizer: of its weights.
        first_step: the step, from 0, that is taken first.
    """

    def __init__(self, run: RunConfig, network: Forecaster, optimizer: GuardedAdam, first_step: int) -> None:
        self.training, self.seed, self.network, self.optimizer = run.training, run.seed, network, optimizer
        self.updates = first_step * optimizer.guard.updates_a_step
        training_step.set_computation(network, run.training)

    def __call__(self, batch: Batch) -> StepResult:
        """Take the step."""
        devices = [batch.frames.device] if batch.frames.is_cuda else []
        buffers = list(self.network.buffers())
        before = [buffer.clone() for buffer in buffers]
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int(counter_hash(self.seed, self.updates, processes.rank())))
            self.network.train()
            try:
                result = training_step.train_one_step(self.network, self.optimizer, batch, self.training)
            finally:
                self.network.eval()
        self.updates += 1
        finite = result.loss.isfinite() & result.gradient_norm.isfinite()
        for buffer, old in zip(buffers, before, strict=True):
            buffer.copy_(torch.where(finite, buffer, old))
        return result

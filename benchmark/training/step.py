"""One optimiser step: forward, loss, backward, clip, step; and the optimiser that takes it."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from benchmark.config.protocol import RunConfig
from benchmark.config.sections import TrainingConfig
from benchmark.training import distributed
from benchmark.training.divergence_guard import DivergenceGuard, GuardedAdam, take_guarded_step
from models.forecasters.network import Network
from models.precision import low_precision, tensor_cores
from models.predictor import Predictor, Truncation, predict

EVERYWHERE = torch.empty(0)


class Batch(NamedTuple):
    """Clips to train on; of several runs at once with a run axis."""

    frames: Float[Tensor, "*R B T C H W"]
    """What the predictions are compared with, in [0, 1]."""
    inputs: Float[Tensor, "*R B T C H W"]
    """What the network is shown of them: the frames themselves, but for what `data.gaps` hides."""
    feed_mask: Float[Tensor, "*R B T-1"]
    """1 = the network sees the true frame, 0 = its own last prediction."""
    flows: Float[Tensor, "*R B T-1"] | Float[Tensor, "*R 0"] = EVERYWHERE
    """1 = gradient flows back from the step to the one before, 0 = it does not; empty = it does everywhere."""


class StepResult(NamedTuple):
    """What an optimiser step found, left on the device; of several runs at once (R,)."""

    loss: Float[Tensor, "*R"]
    gradient_norm: Float[Tensor, "*R"]
    """Before clipping."""

    def of_each(self) -> "list[StepResult]":
        """What the step found of each run."""
        return [StepResult(*found) for found in zip(*self, strict=True)]


class NoWorkers:
    """This process takes the whole batch; `DataParallelCpu` shares it with others."""

    @contextlib.contextmanager
    def sharing(self, network: Network, batch: Batch, training: TrainingConfig) -> Iterator[Batch]:
        """The part of the batch that this process takes in the body, while others take theirs: here all of it."""
        yield batch

    def add_up(self, loss: Tensor, gradients: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """Loss and gradients of the whole batch, from those of this process's part."""
        return loss, gradients


def train_one_step(
    network: Network,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    training: TrainingConfig,
    workers: NoWorkers = NoWorkers(),  # noqa: B008  # it keeps nothing
) -> StepResult:
    """One optimiser step on a batch.

    Of several processes (torchrun) each gives its share of the batch, and all take the step of the whole.
    """
    device = batch.frames.device.type
    with workers.sharing(network, batch, training) as part, tensor_cores(training.precision, device):
        loss = loss_on(network, part, training)
        gradients = backward(network, loss)
    loss, gradients = workers.add_up(loss.detach(), gradients)
    gradients = [gradient + 0 for gradient in gradients]  # tensors of their own: autograd's may share memory
    loss = distributed.add_up(loss, gradients)
    return update(network, optimizer, loss, gradients, training)


def update(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Float[Tensor, ""],
    gradients: Sequence[Tensor],
    training: TrainingConfig,
) -> StepResult:
    """Clip the gradients of a batch and take the optimiser step, unless its guard leaves it out."""
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        parameter.grad = gradient
    norm = nn.utils.clip_grad_norm_(network.parameters(), training.clip_norm or float("inf"))
    take_guarded_step(optimizer, loss, norm)
    return StepResult(loss, norm)


def loss_on(network: Network, batch: Batch, training: TrainingConfig) -> Float[Tensor, ""]:
    """The training loss of a network on a batch, as `batch_loss` has it; a model may have its own."""
    if isinstance(network, Predictor):
        return batch_loss(forward(network, batch, training), batch.frames[:, 1:], training)
    with low_precision(training.precision, batch.frames.device.type):
        if network.has_own_loss:
            return part_of_mean(network.loss(batch.frames, batch.feed_mask).float(), len(batch.frames), training)
        context = network.spec.context
        prediction = network.predict(batch.inputs[:, :context], batch.frames.shape[1] - context)
    return batch_loss(prediction, batch.frames[:, context:], training)


def forward(network: Predictor, batch: Batch, training: TrainingConfig) -> Float[Tensor, "*R B steps C H W"]:
    """The predictions of frames 2 to T, convolutions in the precision of the training."""
    with low_precision(training.precision, batch.frames.device.type):
        return network(batch.inputs, batch.feed_mask, cut=Truncation(batch.flows) if batch.flows.numel() else None)


def loss_of(
    prediction: Float[Tensor, "B steps C H W"], target: Float[Tensor, "B steps C H W"], training: TrainingConfig
) -> Float[Tensor, ""]:
    """The training loss over all predicted frames, or the last `training.loss_frames` of them (our Eq. 10a)."""
    last = slice(-training.loss_frames, None) if training.loss_frames else slice(None)
    error = prediction[..., last, :, :, :].float() - target[..., last, :, :, :]
    per_pixel = error.square() if training.loss == "l2" else error.square() + error.abs()
    return per_pixel.mean() if training.loss_reduction == "mean" else 0.5 * per_pixel.sum()


def batch_loss(
    prediction: Float[Tensor, "B steps C H W"], target: Float[Tensor, "B steps C H W"], training: TrainingConfig
) -> Float[Tensor, ""]:
    """The training loss of a batch; of a part of one, what is to be added to those of the other parts."""
    loss = loss_of(prediction, target, training)
    return part_of_mean(loss, len(target), training) if training.loss_reduction == "mean" else loss


def part_of_mean(loss: Float[Tensor, ""], clips: int, training: TrainingConfig) -> Float[Tensor, ""]:
    """What the mean over so many clips has in the mean over the whole batch."""
    return loss if clips == training.batch_size else loss * (clips / training.batch_size)


def backward(network: Network, loss: Float[Tensor, ""]) -> Sequence[Tensor]:
    """The gradient of the loss at every parameter; 0 at one that has no part in it."""
    return torch.autograd.grad(loss, list(network.parameters()), materialize_grads=True)


def make_optimizer(network: nn.Module, training: TrainingConfig) -> GuardedAdam:
    """Guarded Adam, with PyTorch's defaults apart from the rate; on CUDA in one kernel that a graph can hold."""
    device = next(network.parameters()).device
    settings = {"lr": training.learning_rate, "fused": device.type == "cuda", "capturable": device.type == "cuda"}
    return GuardedAdam(network.parameters(), DivergenceGuard(training, device), **settings)


def make_schedule(optimizer: torch.optim.Optimizer, training: TrainingConfig) -> LRScheduler:
    """The schedule of the learning rate, advanced once an iteration."""
    if training.schedule == "constant" or not training.steps:
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=training.learning_rate, total_steps=training.steps, cycle_momentum=False
    )


def set_computation(network: Network, training: TrainingConfig) -> None:
    """Let the network compute as `training` asks: memory for time."""
    network.recompute = training.recompute


def roll_out(network: Network, context: Float[Tensor, "B K C H W"], run: RunConfig) -> Float[Tensor, "B T C H W"]:
    """The predicted frames of the horizon in fp32, not clipped, in the run's precision."""
    return predict(network, context, run.data.horizon, run.training.precision)

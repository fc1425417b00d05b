"""One optimiser step, and the settings of the device it runs on."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from benchmark.config.protocol import RunConfig
from benchmark.config.sections import TrainingConfig
from benchmark.training import distributed
from benchmark.training.divergence_guard import DivergenceGuard, GuardedAdam, take_step
from models.predictor import Predictor, predict

Differentiate = Callable[..., tuple[Tensor, Sequence[Tensor]]]
"""What `differentiate` is, or does in another way."""


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


def arrange(network: Predictor, training: TrainingConfig) -> None:
    """Let the network compute as `training` asks, memory for time and with fused operations."""
    network.recompute = training.recompute
    if training.fuse and not network.fused:
        torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())  # tells the compiler, too
        network.fuse()


def loss_of(
    prediction: Float[Tensor, "B steps C H W"], target: Float[Tensor, "B steps C H W"], training: TrainingConfig
) -> Float[Tensor, ""]:
    """The training loss over all predicted frames (our Eq. 10)."""
    error = prediction.float() - target
    per_pixel = error.square() if training.loss == "l2" else error.square() + error.abs()
    return per_pixel.mean() if training.loss_reduction == "mean" else 0.5 * per_pixel.sum()


def differentiate(
    network: Predictor,
    training: TrainingConfig,
    frames: Float[Tensor, "B T C H W"],
    feed_mask: Float[Tensor, "B T-1"],
    inputs: Float[Tensor, "B T C H W"] | None = None,
) -> tuple[Tensor, Sequence[Tensor]]:
    """The loss of a batch, or of a part of one, and its gradients by parameter; what parts give is to be added."""
    with torch.autocast(frames.device.type, torch.bfloat16, enabled=training.precision == "bf16"):
        prediction = network(frames if inputs is None else inputs, feed_mask)
    loss = loss_of(prediction, frames[:, 1:], training)
    if training.loss_reduction == "mean" and len(frames) != training.batch_size:
        loss = loss * (len(frames) / training.batch_size)
    return loss.detach(), torch.autograd.grad(loss, list(network.parameters()), materialize_grads=True)


def update(
    network: Predictor,
    optimizer: torch.optim.Optimizer,
    frames: Float[Tensor, "B T C H W"],
    feed_mask: Float[Tensor, "B T-1"],
    training: TrainingConfig,
    inputs: Float[Tensor, "B T C H W"] | None = None,
    differentiate: Differentiate = differentiate,
) -> tuple[Tensor, Tensor]:
    """One optimiser step; returns the loss and the gradient norm before clipping, both left on the device.

    The network is held against `frames`; `inputs` is what it is shown where that differs from them. Of several
    processes each gives its share of the batch, and all take the step of the whole.
    """
    loss, gradients = differentiate(network, training, frames, feed_mask, inputs)
    gradients = [gradient + 0 for gradient in gradients]  # tensors of their own: autograd's may share memory
    loss = distributed.add_up(loss, gradients)
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        parameter.grad = gradient
    norm = nn.utils.clip_grad_norm_(network.parameters(), training.clip_norm or float("inf"))
    take_step(optimizer, loss, norm)
    return loss, norm


def roll_out(network: Predictor, context: Float[Tensor, "B K C H W"], run: RunConfig) -> Float[Tensor, "B T C H W"]:
    """The predicted frames of the horizon in fp32, not clipped, in the run's precision."""
    return predict(network, context, run.data.horizon, run.training.precision)

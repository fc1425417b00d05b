"""One optimiser step, and the settings of the device it runs on."""

import os

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from benchmark.config import RunConfig, TrainingConfig
from models.predictor import Predictor


def prepare_device(device: str, threads: int) -> None:
    """Fix threads and algorithms so that the same run gives the same bits again; fp32 means fp32, without TF32."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a help in finding faults that costs 3 % of a step
    if device == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def make_optimizer(network: nn.Module, training: TrainingConfig) -> torch.optim.Adam:
    """Adam with PyTorch's defaults apart from the learning rate."""
    return torch.optim.Adam(network.parameters(), lr=training.learning_rate)


def make_schedule(optimizer: torch.optim.Optimizer, training: TrainingConfig) -> LRScheduler:
    """The schedule of the learning rate, advanced once an iteration."""
    if training.schedule == "constant" or not training.steps:
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=training.learning_rate, total_steps=training.steps, cycle_momentum=False
    )


def loss_of(
    prediction: Float[Tensor, "B steps C H W"], target: Float[Tensor, "B steps C H W"], training: TrainingConfig
) -> Float[Tensor, ""]:
    """The training loss over all predicted frames (our Eq. 10)."""
    error = prediction.float() - target
    per_pixel = error.square() if training.loss == "l2" else error.square() + error.abs()
    return per_pixel.mean() if training.loss_reduction == "mean" else 0.5 * per_pixel.sum()


def update(
    network: Predictor,
    optimizer: torch.optim.Optimizer,
    frames: Float[Tensor, "B T C H W"],
    feed_mask: Float[Tensor, "B T-1"],
    training: TrainingConfig,
    inputs: Float[Tensor, "B T C H W"] | None = None,
) -> tuple[Tensor, Tensor]:
    """One optimiser step; returns the loss and the gradient norm before clipping, both left on the device.

    The network is held against `frames`; `inputs` is what it is shown where that differs from them.
    """
    with torch.autocast(frames.device.type, torch.bfloat16, enabled=training.precision == "bf16"):
        prediction = network(frames if inputs is None else inputs, feed_mask)
    loss = loss_of(prediction, frames[:, 1:], training)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(network.parameters(), training.clip_norm or float("inf"))
    optimizer.step()
    return loss.detach(), norm


@torch.no_grad()
def roll_out(network: Predictor, context: Float[Tensor, "B K C H W"], run: RunConfig) -> Float[Tensor, "B T C H W"]:
    """The predicted frames of the horizon in fp32, not clipped, in the run's precision."""
    with torch.autocast(context.device.type, torch.bfloat16, enabled=run.training.precision == "bf16"):
        return network.predict(context, run.data.horizon).float()

"""One optimiser step, and the settings of the device it runs on."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from benchmark import distributed, processes
from benchmark.config import RunConfig
from benchmark.guard import Guard, GuardedAdam, take_step
from benchmark.sections import TrainingConfig
from models.predictor import Predictor

SMALLEST_PART = 2**14
"""Numbers in one state of a layer, over its clips and its grid, below which a part is not worth its thread."""
T = TypeVar("T")


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


def make_optimizer(network: nn.Module, training: TrainingConfig) -> GuardedAdam:
    """Guarded Adam, with PyTorch's defaults apart from the rate; on CUDA in one kernel that a graph can hold."""
    device = next(network.parameters()).device
    settings = {"lr": training.learning_rate, "fused": device.type == "cuda", "capturable": device.type == "cuda"}
    return GuardedAdam(network.parameters(), Guard(training, device), **settings)


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

    The network is held against `frames`; `inputs` is what it is shown where that differs from them. Of several
    processes each gives its share of the batch, and all take the step of the whole.
    """
    parameters, batch_size = list(network.parameters()), len(frames) * processes.count()

    def differentiate(frames: Tensor, feed_mask: Tensor, inputs: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=training.precision == "bf16"):
            prediction = network(frames if inputs is None else inputs, feed_mask)
        loss = loss_of(prediction, frames[:, 1:], training)
        if training.loss_reduction == "mean":
            loss = loss * (len(frames) / batch_size)
        return loss.detach(), torch.autograd.grad(loss, parameters, materialize_grads=True)

    found = on_parts(network, differentiate, frames, feed_mask, inputs)
    loss = sum(loss for loss, _ in found)
    for parameter, *gradients in zip(parameters, *(gradients for _, gradients in found), strict=True):
        parameter.grad = sum(gradients)  # a tensor of its own even for one part: autograd's may share memory
    loss = distributed.add_up(loss, [parameter.grad for parameter in parameters])
    norm = nn.utils.clip_grad_norm_(network.parameters(), training.clip_norm or float("inf"))
    take_step(optimizer, loss, norm)
    return loss, norm


def on_parts(network: Predictor, work: Callable[..., T], *batch: Float[Tensor, "B ..."] | None) -> list[T]:
    """`work` of `network` on as many parts of a batch as there are CPU threads, one thread a part; results in order.

    Threads that share every small operation wait for each other thousands of times a step: long, on a busy machine.
    The plain path, a GPU and parts that would be too small take the batch as a whole: between operations on few
    numbers, threads wait for Python.
    """
    threads = min(torch.get_num_threads(), len(batch[0]))
    part = len(batch[0]) // threads * network.spec.patches**2 * max(network.spec.hidden_channels)
    if threads == 1 or batch[0].is_cuda or network.plain or part < SMALLEST_PART:
        return [work(*batch)]
    parts = ([None] * threads if tensor is None else tensor.tensor_split(threads) for tensor in batch)
    return list(_workers(threads).map(work, *parts))


@cache
def _workers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "part", initializer=torch.set_num_threads, initargs=(1,))


Step = Callable[..., tuple[Tensor, Tensor]]
"""(frames, feed mask, inputs or None) -> loss and gradient norm, as `update` gives them."""


def make_step(network: Predictor, optimizer: torch.optim.Optimizer, training: TrainingConfig) -> Step:
    """One optimiser step for this network: on CUDA a graph, captured at the first call; `update` elsewhere."""
    network.recompute = training.recompute
    if next(network.parameters()).is_cuda:
        return CapturedStep(network, optimizer, training)
    return lambda frames, mask, inputs=None: update(network, optimizer, frames, mask, training, inputs)


class CapturedStep:
    """`update` as one CUDA graph: thousands of kernels launched at once, and no wait for the device.

    Weights, Adam's moments and the learning rate stay where they are in memory; batches are copied to where the
    capture saw the first. All calls must have the shapes of the first.
    """

    def __init__(self, network: Predictor, optimizer: torch.optim.Optimizer, training: TrainingConfig) -> None:
        self.network, self.optimizer, self.training = network, optimizer, training
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, frames: Tensor, feed_mask: Tensor, inputs: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Copy the batch in and replay; the returned tensors are the caller's own."""
        if self.graph is None:
            self._capture(frames, feed_mask, inputs)
        for held, given in zip(self.batch, (frames, feed_mask, inputs), strict=True):
            if held is not None:
                held.copy_(given)
        for rate, group in zip(self.rates, self.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        self.graph.replay()
        return self.loss.clone(), self.norm.clone()

    def _capture(self, *batch: Tensor | None) -> None:
        """Warm up on a side stream, undo what that changed, and capture.

        Raises:
            RuntimeError: something in the step cannot be captured.
        """
        self.batch = [None if part is None else part.clone() for part in batch]
        groups = self.optimizer.param_groups
        floats = [group["lr"] for group in groups]
        self.rates = [torch.tensor(float(rate), device=batch[0].device) for rate in floats]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate  # the graph reads this tensor, the schedule keeps its float
        frames, mask, inputs = self.batch
        step = partial(update, self.network, self.optimizer, frames, mask, self.training, inputs)
        try:
            restore = remember(self.network, self.optimizer)
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    step()
            torch.cuda.current_stream().wait_stream(stream)
            restore()
            self.optimizer.zero_grad(set_to_none=True)  # gradients then lie in the graph's own memory
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.loss, self.norm = step()
            self.graph = graph
        except RuntimeError as error:
            raise RuntimeError(f"the training step cannot be captured as a CUDA graph: {error}") from error
        finally:
            for group, rate in zip(groups, floats, strict=True):
                group["lr"] = rate


@torch.no_grad()
def remember(network: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """A function that puts weights, optimiser and guard back in place; state that is not there yet becomes zero."""
    weights = {parameter: parameter.clone() for parameter in network.parameters()}
    states = {
        parameter: {name: value.clone() for name, value in optimizer.state.get(parameter, {}).items()}
        for parameter in weights
    }
    guard = getattr(optimizer, "guard", None)
    judged = guard and guard.state.clone()

    @torch.no_grad()
    def restore() -> None:
        for parameter, value in weights.items():
            parameter.copy_(value)
            for name, moment in optimizer.state[parameter].items():
                before = states[parameter].get(name)
                moment.zero_() if before is None else moment.copy_(before)
        if guard is not None:
            guard.state.copy_(judged)

    return restore


def roll_out(network: Predictor, context: Float[Tensor, "B K C H W"], run: RunConfig) -> Float[Tensor, "B T C H W"]:
    """The predicted frames of the horizon in fp32, not clipped, in the run's precision."""
    return predict(network, context, run.data.horizon, run.training.precision)


def predict(
    network: Predictor, context: Float[Tensor, "B K C H W"], horizon: int, precision: str
) -> Float[Tensor, "B T C H W"]:
    """`horizon` frames after `context` in fp32, not clipped; `precision` is that of the convolutions."""

    def work(context: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(context.device.type, torch.bfloat16, enabled=precision == "bf16"):
            return network.predict(context, horizon).float()

    return torch.cat(on_parts(network, work, context))

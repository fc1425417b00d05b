"""The optimiser step in the form that suits its device: a graph on a GPU, processes beside each other on a CPU."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmark.config.sections import TrainingConfig
from benchmark.system import processes
from benchmark.training import step as engine
from benchmark.training.cpu_parallel import DataParallelCpu
from models.predictor import Predictor

Step = Callable[..., tuple[Tensor, Tensor]]
"""(frames, feed mask, inputs or None) -> loss and gradient norm, as `update` gives them."""


def make_step(network: Predictor, optimizer: torch.optim.Optimizer, training: TrainingConfig) -> Step:
    """One optimiser step for this network: on CUDA a graph, captured at the first call; elsewhere `update`.

    On a CPU with several threads each takes a part of a batch, as a process; the plain path takes it as a whole.
    """
    engine.arrange(network, training)
    if next(network.parameters()).is_cuda:
        return CapturedStep(network, optimizer, training)
    clips = training.batch_size // processes.count()
    count = 1 if network.reference_path else min(torch.get_num_threads(), clips)
    ways = {"differentiate": DataParallelCpu(count)} if count > 1 else {}
    return lambda frames, mask, inputs=None: engine.update(network, optimizer, frames, mask, training, inputs, **ways)


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
                held.copy_(given)  # pyright: ignore[reportArgumentType]  # given where one is held
        for rate, group in zip(self.rates, self.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        self.graph.replay()  # pyright: ignore[reportOptionalMemberAccess]  # captured above
        return self.loss.clone(), self.norm.clone()

    def _capture(self, frames: Tensor, feed_mask: Tensor, inputs: Tensor | None) -> None:
        """Warm up on a side stream, undo what that changed, and capture.

        Raises:
            RuntimeError: something in the step cannot be captured.
        """
        frames, feed_mask, inputs = frames.clone(), feed_mask.clone(), None if inputs is None else inputs.clone()
        self.batch = (frames, feed_mask, inputs)
        groups = self.optimizer.param_groups
        floats = [group["lr"] for group in groups]
        self.rates = [torch.tensor(float(rate), device=frames.device) for rate in floats]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate  # the graph reads this tensor, the schedule keeps its float
        step = partial(engine.update, self.network, self.optimizer, frames, feed_mask, self.training, inputs)
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

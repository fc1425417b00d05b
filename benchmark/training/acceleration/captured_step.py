"""An optimiser step in the form that suits its device: a graph on a GPU, processes beside each other on a CPU."""

from collections.abc import Callable, Sequence
from weakref import WeakSet

import torch
from torch import nn

from benchmark.config.sections import TrainingConfig
from benchmark.system import processes
from benchmark.system.errors import is_out_of_memory
from benchmark.training import step as training_step
from benchmark.training.acceleration.cpu_parallel import DataParallelCpu
from benchmark.training.step import Batch, NoWorkers, StepResult
from models.predictor import Predictor

Step = Callable[[Batch], StepResult]
"""`train_one_step` of one network, or of several at once: then batch and result have a run axis."""
WARM_UPS = 3
"""Steps before the capture, in which libraries choose their kernels and take their workspaces."""


def make_step(network: Predictor, optimizer: torch.optim.Optimizer, training: TrainingConfig) -> Step:
    """`train_one_step` for this network: on CUDA a graph, captured at the first call.

    On a CPU with several threads each takes a part of a batch, as a process; the reference path takes it as a whole.
    """
    training_step.set_computation(network, training)
    if next(network.parameters()).is_cuda:
        return CapturedStep(
            lambda batch: training_step.train_one_step(network, optimizer, batch, training), [(network, optimizer)]
        )
    clips = training.batch_size // processes.count()
    count = 1 if network.reference_path else min(torch.get_num_threads(), clips)
    workers = DataParallelCpu(count) if count > 1 else NoWorkers()
    return lambda batch: training_step.train_one_step(network, optimizer, batch, training, workers)


class CapturedStep:
    """A step as one CUDA graph: thousands of kernels launched at once, and no wait for the device.

    Weights, Adam's moments and the learning rate stay where they are in memory; batches are copied to where the
    capture saw the first. All calls must have the shapes of the first.

    A graph keeps the address of the workspace that cuBLAS has for its stream, and steps of a cohort are replayed side
    by side: so each is warmed up and captured on a stream of its own.

    Args:
        step: the step.
        trained: the networks that it trains, each with its optimiser.
    """

    def __init__(self, step: Step, trained: Sequence[tuple[nn.Module, torch.optim.Optimizer]]) -> None:
        self.step, self.trained = step, trained
        self.graph: torch.cuda.CUDAGraph | None = None
        self.stream: torch.cuda.Stream | None = None
        _STEPS.add(self)

    def __call__(self, batch: Batch) -> StepResult:
        """Copy the batch in and replay; the returned tensors are the caller's own."""
        if self.graph is None:
            self.graph = self._capture(batch)
        for captured, given in zip(self.batch, batch, strict=True):
            captured.copy_(given)
        for rate, group in zip(self.rates, self._groups(), strict=True):
            rate.fill_(group["lr"])
        self.graph.replay()
        return StepResult(*(found.clone() for found in self.result))

    def _groups(self) -> list[dict]:
        """The groups of parameters of all optimisers."""
        return [group for _, optimizer in self.trained for group in optimizer.param_groups]

    def _capture(self, batch: Batch) -> torch.cuda.CUDAGraph:
        """Warm up, undo what that changed, and capture.

        Raises:
            RuntimeError: something in the step cannot be captured, after which this process can no longer use the GPU;
                or there was no memory, as PyTorch says it.
        """
        self.batch = Batch(*(tensor.clone() for tensor in batch))
        groups = self._groups()
        floats = [group["lr"] for group in groups]
        self.rates = [torch.tensor(float(rate), device=batch.frames.device) for rate in floats]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate  # the graph reads this tensor, the schedule keeps its float
        try:
            restores = [save_in_memory(network, optimizer) for network, optimizer in self.trained]
            self.stream = torch.cuda.Stream()
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                for _ in range(WARM_UPS):
                    self.step(self.batch)
            torch.cuda.current_stream().wait_stream(self.stream)
            for restore in restores:
                restore()
            for _, optimizer in self.trained:
                optimizer.zero_grad(set_to_none=True)  # gradients then lie in the graph's own memory
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self.stream):
                self.result = self.step(self.batch)
            return graph
        except RuntimeError as error:
            if lack := lack_of_memory_in(error):
                raise lack from None
            raise RuntimeError(f"the training step cannot be captured as a CUDA graph: {error}") from error
        finally:
            for group, rate in zip(groups, floats, strict=True):
                group["lr"] = rate


_STEPS: WeakSet[CapturedStep] = WeakSet()
"""All captured steps of this process."""


def reset_graphs() -> None:
    """Give back what all graphs hold: one with sums over several processes keeps their group from being destroyed."""
    for step in _STEPS:
        if step.graph is not None:
            step.graph.reset()


def lack_of_memory_in(error: BaseException | None) -> RuntimeError | None:
    """The lack of memory that led to `error`, if one did: a capture that it broke off ends with an error of its own."""
    while error is not None:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            return error
        error = error.__cause__ or error.__context__
    return None


@torch.no_grad()
def save_in_memory(network: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """A function that puts weights, optimiser and guard back in place; state that is not there yet becomes zero."""
    weights = {parameter: parameter.clone() for parameter in network.parameters()}
    states = {
        parameter: {name: value.clone() for name, value in optimizer.state.get(parameter, {}).items()}
        for parameter in weights
    }
    guard = getattr(optimizer, "guard", None)
    guard_before = guard and guard.state.clone()

    @torch.no_grad()
    def restore() -> None:
        for parameter, value in weights.items():
            parameter.copy_(value)
            for name, moment in optimizer.state[parameter].items():
                before = states[parameter].get(name)
                moment.zero_() if before is None else moment.copy_(before)
        if guard is not None:
            guard.state.copy_(guard_before)

    return restore

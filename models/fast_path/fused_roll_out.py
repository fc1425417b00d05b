"""The roll-out of a network in stages, forward and backward, on a GPU: a convolution and one kernel a stage.

What a convolution reads lies joined in one buffer a stage, of all time steps, channels last and padded to multiples of
8; every stage writes its state there, wherever one reads it. So nothing is joined, permuted or rounded by itself, and
the gradient of a kernel is one convolution over all time steps and clips, its products summed in full precision. Where
norms follow the convolutions these stay as many as the cell has (`normed_gates.py`).

The way back is written out: the gradients at a state are added up by the kernel that needs them.
"""

import functools
import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.fast_path.fused_plan import Bound, Plan, Reader
from models.fast_path.joined_weights import Form, padded
from models.fast_path.normed_gates import NormedGates
from models.fast_path.stage_plans import PLANS

OLDEST = 8, 0
"""Compute capability with which bf16 came."""


class Tape:
    """The buffers of one roll-out, and what its way back needs.

    Args:
        depth: time steps that the buffers hold: all, or one where there is no way back.
    """

    def __init__(self, plan: Plan, patches: Tensor, mask: Tensor, low: torch.dtype, keep: bool) -> None:
        batch, _, channels, height, width = patches.shape
        self.plan, self.low, self.keep, self.mask = plan, low, keep, mask
        self.steps, self.rows, self.grid = mask.shape[1], batch * height * width, (batch, height, width)
        self.depth = self.steps if keep else 1
        self.whole, self.device, self.channels = patches.dtype, patches.device, channels
        self.buffers = {number: self._empty(one) for number, one in plan.buffers.items()}
        for buffer in self.buffers.values():
            buffer[0].zero_()  # states before the first step
        self.gates: dict[tuple[int, int], Tensor] = {}
        self.before: dict[tuple[int, int], Tensor | None] = {}
        self.mixed: dict[tuple[int, int], Tensor] = {}

    def _empty(self, one: Form) -> Tensor:
        return torch.empty(self.depth, *self.grid, one.shape[-1], dtype=self.low, device=self.device)

    def matrix(self, buffer: int, step: int) -> Tensor:
        """What the convolution `buffer` reads at a step: (rows, C)."""
        return self.buffers[buffer][step % self.depth].view(self.rows, -1)

    def targets(self, readers: list[Reader], step: int) -> list[Tensor]:
        """Where a state of this step is read."""
        return [
            self.matrix(reader.buffer, step + reader.later)[:, reader.columns]
            for reader in readers
            if step + reader.later < self.steps
        ]

    def padded_frames(self, frames: Tensor) -> Tensor:
        """(B, T, P, h, w) -> (T, rows, P padded)."""
        frames = frames.permute(1, 0, 3, 4, 2)
        if missing := padded(self.channels) - self.channels:
            frames = nn.functional.pad(frames, (0, missing))
        return frames.reshape(len(frames), self.rows, -1)

    def images(self, matrix: Tensor) -> Tensor:
        """(n * rows, C) or (n, rows, C) -> (n * B, C, h, w), channels last."""
        return matrix.reshape(-1, *self.grid[1:], matrix.shape[-1]).permute(0, 3, 1, 2)

    def run(self, patches: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """The predictions (B, T - 1, P, h, w)."""
        from models.fast_path import stages

        plan = self.plan
        self.kernels, self.biases = plan.weights.join([parameters[place] for place in plan.of_convs], self.low)
        if plan.normed:
            self.normed = NormedGates(plan, parameters, self.biases, self.grid[0], self.depth)
        true = self.padded_frames(patches)
        predictions = true.new_empty(self.steps, *true.shape[1:])
        for target in self.targets(plan.input_readers, -1):
            target.copy_(true[0])
        memories: dict[tuple | None, Tensor] = {}
        for step in range(self.steps):
            for bound in plan.stages:
                self._forward(bound, step, memories)
            more = step + 1 < self.steps
            stages.frame(
                self.matrix(plan.head, step),
                self.kernels[plan.head].flatten(1),
                self.biases[plan.head],
                predictions[step],
                true[step + 1] if more else None,
                self.mask[:, step + 1] if more else None,
                self.targets(plan.input_readers, step),
            )
        predictions = predictions.view(self.steps, *self.grid, -1)[..., : self.channels]
        return predictions.permute(1, 0, 4, 2, 3)

    def _forward(self, bound: Bound, step: int, memories: dict[tuple | None, Tensor]) -> None:
        from models.fast_path import stages

        stage, targets = bound.stage, self.targets(bound.readers, step)
        gates, bias = self._gates(bound, step)
        before = after = mixed = None
        if bound.memory is not None:
            shape = self.rows, bound.padded_width
            before = memories.get(bound.memory)
            before = torch.zeros(shape, dtype=self.whole, device=self.device) if before is None else before
            memories[bound.memory] = after = torch.empty_like(before)
        if bound.mix is not None:
            assert bound.both is not None
            mixed, (buffer, columns) = gates.new_empty(self.rows, bound.padded_width), bound.both
            stages.output(
                gates,
                bias,
                self.matrix(buffer, step)[:, columns],
                self.kernels[bound.mix].flatten(1),
                self.biases[bound.mix],
                mixed,
                targets,
                self.plan.sigmoid_output,
            )
        elif stage.makes == "z'":
            assert before is not None
            assert after is not None
            stages.highway(gates, bias, before, after, targets, stage.constant)
        else:
            stages.update(gates, bias, before, after, targets, stage.constant, stage.makes == "h'")
        if self.keep:
            key = bound.number, step
            self.gates[key], self.before[key] = gates, before
            if mixed is not None:
                self.mixed[key] = mixed

    def _gates(self, bound: Bound, step: int) -> tuple[Tensor, Tensor]:
        """The gates of a stage (rows, columns), and what is to be added to all rows."""
        gates = None
        for product in bound.products:
            inputs, kernel = self.images(self.matrix(product.number, step)), self.kernels[product.number]
            gates = nn.functional.conv2d(inputs, kernel, padding=kernel.shape[-1] // 2)
            gates = gates.permute(0, 2, 3, 1).reshape(self.rows, -1)
            if self.plan.normed:
                self.normed.keep(product, step, gates)
        if self.plan.normed:
            return self.normed.gates(bound, step), self.normed.no_bias
        assert gates is not None
        return gates, self.biases[bound.products[0].number]

    def back(self, of_predictions: Tensor) -> list[Tensor]:
        """The gradients of all parameters from those of the predictions."""
        from models.fast_path import stages

        plan, steps = self.plan, self.steps
        given = self.padded_frames(of_predictions)
        of_gates = [
            torch.empty(steps, self.rows, one.shape[0], dtype=self.low, device=self.device) for one in plan.forms
        ]
        of_inputs: dict[tuple[int, int], Tensor] = {}
        of_memories: dict[tuple | None, Tensor] = {}
        for step in reversed(range(steps)):
            of_hidden = self.matrix(plan.head, step).new_empty(self.rows, plan.forms[plan.head].shape[-1])
            more = step + 1 < steps
            stages.frame_backward(
                given[step],
                self.mask[:, step + 1] if more else None,
                self._gradients(plan.input_readers, step, of_inputs),
                self.kernels[plan.head].flatten(1),
                of_gates[plan.head][step],
                of_hidden,
            )
            of_inputs[plan.head, step] = of_hidden
            extra: dict[str, Tensor] = {}
            for bound in reversed(plan.stages):
                self._backward(bound, step, of_gates, of_inputs, of_memories, extra)
            for number in self.buffers:
                of_inputs.pop((number, step + 1), None)
        return self._of_parameters(of_gates)

    def _gradients(self, readers: list[Reader], step: int, of_inputs: dict[tuple[int, int], Tensor]) -> list[Tensor]:
        """The gradients at a state from all that have read it."""
        return [
            of_inputs[reader.buffer, step + reader.later][:, reader.columns]
            for reader in readers
            if step + reader.later < self.steps
        ]

    def _backward(
        self,
        bound: Bound,
        step: int,
        of_gates: list[Tensor],
        of_inputs: dict[tuple[int, int], Tensor],
        of_memories: dict[tuple | None, Tensor],
        extra: dict[str, Tensor],
    ) -> None:
        """The way back through a stage; `extra` holds what W5 gives to the new c and m of its cell."""
        from models.fast_path import stages

        stage, key = bound.stage, (bound.number, step)
        gates, before, gradients = self.gates[key], self.before[key], self._gradients(bound.readers, step, of_inputs)
        if self.plan.normed:
            bias, of_raw = self.normed.no_bias, self.normed.of_stage(bound, gates)
        else:
            number = bound.products[0].number
            bias, of_raw = self.biases[number], of_gates[number][step]
        if bound.mix is not None:
            of_both = gates.new_empty(self.rows, 2 * bound.padded_width)
            stages.output_backward(
                gates,
                bias,
                self.mixed[key],
                self.kernels[bound.mix].flatten(1),
                gradients,
                of_raw,
                of_gates[bound.mix][step],
                of_both,
                self.plan.sigmoid_output,
            )
            if bound.mix in self.buffers:
                of_inputs[bound.mix, step] = of_both
            else:
                extra |= {"c'": of_both[:, : bound.padded_width], "m'": of_both[:, bound.padded_width :]}
        else:
            if stage.makes in extra:
                gradients.append(extra.pop(stage.makes))
            of_new, of_before = of_memories.get(bound.memory), None if before is None else torch.empty_like(before)
            if stage.makes == "z'":
                assert before is not None
                assert of_before is not None
                stages.highway_backward(gates, bias, before, of_new, gradients, of_raw, of_before, stage.constant)
            else:
                with_output = stage.makes == "h'"
                stages.update_backward(
                    gates, bias, before, of_new, gradients, of_raw, of_before, stage.constant, with_output
                )
            if of_before is not None:
                of_memories[bound.memory] = of_before
        for product in bound.products:
            number = product.number
            if self.plan.normed:
                self.normed.back(product, step, of_gates[number][step])
            given, inputs = self.images(of_gates[number][step]), self.images(self.matrix(number, step))
            found = convolve_back(given, inputs, self.kernels[number], to_inputs=True)
            of_inputs[number, step] = found.permute(0, 2, 3, 1).reshape(self.rows, -1)

    def _of_parameters(self, of_gates: list[Tensor]) -> list[Tensor]:
        """The gradients of the kernels, each over all time steps at once, brought to the parameters."""
        kernels: dict[int, Tensor] = {}
        for number in (product.number for product in self.plan.products):
            given, inputs = self.images(of_gates[number]), self.images(self.buffers[number])
            kernels[number] = convolve_back(given, inputs, self.kernels[number], to_inputs=False)
        for bound in self.plan.stages:
            if bound.mix is not None:
                assert bound.both is not None
                buffer, columns = bound.both
                memories = self.buffers[buffer].flatten(0, 3)[:, columns]
                kernels[bound.mix] = (of_gates[bound.mix].flatten(0, 1).t() @ memories)[..., None, None]
        head = self.plan.head
        kernels[head] = (of_gates[head].flatten(0, 1).t() @ self.buffers[head].flatten(0, 3))[..., None, None]
        biases = [given.flatten(0, 1).sum(0, dtype=self.whole) for given in of_gates]
        of_convs = self.plan.weights.part([kernels[number] for number in range(len(kernels))], biases)
        found = dict(zip(self.plan.of_convs, of_convs, strict=True))
        found |= self.normed.gradients() if self.plan.normed else {}
        return [found[place] for place in sorted(found)]


def convolve_back(given: Tensor, inputs: Tensor, kernel: Tensor, to_inputs: bool) -> Tensor:
    """The gradient of a convolution that keeps height and width, at its inputs or at its kernel."""
    padding = [kernel.shape[-1] // 2] * 2
    found = torch.ops.aten.convolution_backward(
        given, inputs, kernel, None, [1, 1], padding, [1, 1], False, [0, 0], 1, [to_inputs, not to_inputs, False]
    )
    return found[0 if to_inputs else 1]


class RollOut(torch.autograd.Function):
    """Predictions of patches, and the gradients of all parameters."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, patches: Tensor, mask: Tensor, low: torch.dtype, *parameters: Tensor) -> Tensor:
        """Roll out, and keep what the way back needs."""
        ctx.tape = Tape(plan, patches, mask, low, keep=True)
        return ctx.tape.run(patches, parameters)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_predictions: Tensor) -> tuple[Tensor | None, ...]:
        """The way back; what it needs stays as it is, until the graph is gone."""
        return None, None, None, None, *ctx.tape.back(of_predictions)


_PLANS: WeakKeyDictionary[nn.Module, Plan] = WeakKeyDictionary()


def roll_out(
    network: Any, patches: Float[Tensor, "B T P h w"], mask: Float[Tensor, "B T-1"]
) -> Float[Tensor, "B T-1 P h w"]:
    """The predictions of a network for which `why_not_fused` has no reason, convolutions in autocast's precision."""
    plan = _PLANS.get(network)
    if plan is None or plan.device != patches.device:
        plan = _PLANS[network] = Plan(network)
    kind = patches.device.type
    low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else patches.dtype
    parameters = network.prediction_weights()
    if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters):
        return RollOut.apply(plan, patches, mask, low, *parameters)
    return Tape(plan, patches, mask, low, keep=False).run(patches, parameters)


def why_not_fused(network: Any, device: str) -> str | None:
    """What keeps a network from its fused stages on a device; None where nothing does."""
    if device != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return "its stages are fused on a GPU alone"
    if device == "cuda" and (why := why_no_kernels()):
        return why
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < OLDEST:
        return "its kernels need a GPU of compute capability {}.{} or later".format(*OLDEST)
    if network.to_frame.weight.dim() > 4:
        return "the weights of several runs stand side by side"
    if device == "cuda" and network.to_frame.weight.dtype != torch.float32:
        return f"its weights are in {str(network.to_frame.weight.dtype).removeprefix('torch.')}, not in float32"
    if network.spec.cell not in PLANS:
        return f"the cell {network.spec.cell} has no stages in models/fast_path/stage_plans.py"
    if network.recompute:
        return "recompute: true computes step by step"
    return None


@functools.cache
def why_no_kernels() -> str | None:
    """What keeps Triton from a GPU of this machine; None where nothing does."""
    if importlib.util.find_spec("triton") is None:
        return "Triton, which comes with PyTorch on Linux, is not installed"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "Triton needs a C compiler, gcc, clang or what CC names, and none is found"
    scheme = sysconfig.get_default_scheme().replace("local", "prefix")  # Debian's own names a folder without headers
    header = Path(sysconfig.get_path("include", scheme), "Python.h")
    return None if header.exists() else f"Triton needs the C headers of Python, and there is no {header}"

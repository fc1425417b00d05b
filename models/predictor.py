"""The stack of cells that predicts the next frame, and its roll-out over a clip."""

import importlib
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.convolution import SEPARATE, GateSums, Watched, conv1x1, initialise, zeros
from models.decoupling import overlap
from models.fast_path.fused_roll_out import roll_out, why_not_fused
from models.fast_path.merged_gates import Merged
from models.forecasters.outside import ForecasterError, is_outside, load_class
from models.gradient_highway import GradientHighwayUnit
from models.precision import low_precision, tensor_cores
from models.spec import CELLS, ModelSpec

Trace = dict[tuple[str, int], list[Tensor]]
"""(state, layer) -> its tensor (*R, B, D, h, w) at t = 1, 2, ...; states H, C, M by layer, Z and S by highway slot."""


@dataclass(frozen=True)
class Cut:
    """Lets gradient flow through one path only, from step `first` (counted from 0) on.

    `kept="memory"` detaches the generated frames from their past, `kept="frames"` the states.
    """

    kept: Literal["memory", "frames"]
    first: int

    def before(self, t: int, prediction: Tensor, states: dict) -> tuple[Tensor, dict]:
        """What step `t` (from 0) reads of the step before, with the gradient that it lets through."""
        if t < self.first:
            return prediction, states
        if self.kept == "memory":
            return prediction.detach(), states
        return prediction, {key: state if state is None else state.detach() for key, state in states.items()}


@dataclass(frozen=True)
class Truncation:
    """Lets gradient flow back only from those steps whose column in `flows` is 1: truncated backpropagation in time.

    At a step with 0 all states and the network's own prediction are constants for the gradient; the forward pass is as
    without (our Eq. 10b). A tensor decides, so that a captured graph serves every choice.
    """

    flows: Float[Tensor, "*R B steps"]

    def before(self, t: int, prediction: Tensor, states: dict) -> tuple[Tensor, dict]:
        """What step `t` (from 0) reads of the step before, with the gradient that it lets through."""
        flows = self.flows[..., t, None, None, None]
        states = {key: state if state is None else Gated.apply(state, flows) for key, state in states.items()}
        return Gated.apply(prediction, flows), states  # pyright: ignore[reportReturnType]  # a tensor


class Gated(torch.autograd.Function):
    """A tensor as it is, whose gradient is 0 where `flows` is 0."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, flows: Tensor) -> Tensor:
        """`value`."""
        ctx.save_for_backward(flows)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]  # PyTorch's own has any number
        """The gradient at `value`; not a product, in which an infinite one would become NaN."""
        (flows,) = ctx.saved_tensors
        return torch.where(flows != 0, gradient, 0), None


class Predictor(nn.Module):
    """Predicts every next frame of a clip; Wang et al. 2017 and 2018; our Eq. 7 to 9.

    Args:
        spec: what the network is.

    Attributes:
        reference_path: every gate convolution by itself, as the equations read, in place of merged ones
            (`models/fast_path/merged_gates.py`).
        recompute: keep only the states of each step but the first, and compute the rest again on the way back.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.reference_path = False
        self.recompute = False
        widths = spec.hidden_channels
        cell = cell_class(spec.cell)
        inputs = [spec.patch_channels, *widths[:-1]]
        if spec.highway_slot:
            inputs[spec.highway_slot] = spec.highway_width
        memories = [widths[-1], *widths[:-1]]  # zigzag: the bottom layer reads the M of the top layer
        self.cells = nn.ModuleList(cell(spec, *sizes) for sizes in zip(inputs, widths, memories, strict=True))
        self.highway = GradientHighwayUnit(spec, widths[spec.highway_slot - 1]) if spec.highway_slot else None
        self.to_frame = conv1x1(spec, widths[-1], spec.patch_channels)
        initialise(self, spec)
        # Drawn last: all other weights are those that the seed gives without it.
        self.adapter = nn.Conv2d(widths[0], widths[0], 1, bias=False) if spec.adapter else None

    def forward(
        self,
        frames: Float[Tensor, "*R B T C H W"],
        feed_mask: Float[Tensor, "*R B T-1"],
        trace: Trace | None = None,
        cut: Cut | Truncation | None = None,
        gate_trace: Trace | None = None,
        overlaps: list[Tensor] | None = None,
    ) -> Float[Tensor, "*R B T-1 C H W"]:
        """Roll the network out over a clip; with a run axis R where the weights have one (`models/stack.py`).

        Args:
            frames: true frames in [0, 1]; frames that the feed mask never shows may hold anything finite.
            feed_mask: 1 = the network sees the true frame, 0 = its own last prediction; column 0 is always 1.
            trace: filled with every state at every step, if given.
            cut: stops gradient on one of the two paths or at some steps, if given; the predictions stay the same.
            gate_trace: filled with every gate before its nonlinearity, by name and layer, if given; p and s are those
                of the highway.
            overlaps: filled with how alike the increments of C and M are (`models/decoupling.py`), (*R, B) at every
                step of every layer, if given.

        Returns:
            The predictions of frames 2 to T, not clipped.

        Raises:
            ValueError: `overlaps` is given and the spec has no `adapter`.
        """
        if overlaps is not None and self.adapter is None:
            raise ValueError("overlaps: are of networks whose spec has `adapter: true`, which is false here")
        watched = any(one is not None for one in (trace, cut, gate_trace, overlaps))
        if not watched and self.why_unfused(frames) is None:
            return to_frames(roll_out(self, to_patches(frames, self.spec.patch_size), feed_mask), self.spec.patch_size)
        inputs = to_patches(frames, self.spec.patch_size).unbind(-4)  # each (*R, B, P, h, w)
        steps = feed_mask.shape[-1]
        states = self._zero_states(inputs[0])
        gates: GateSums = SEPARATE if self.reference_path else Merged(frames.device.type)
        prediction, predictions = inputs[0], []
        for t in range(steps):
            if cut is not None and t > 0:
                prediction, states = cut.before(t, prediction, states)
            mask = feed_mask[..., t, None, None, None]  # (*R, B, 1, 1, 1)
            x = mask * inputs[t] + (1 - mask) * prediction  # Eq. 7
            if self.recompute and t > 0 and trace is gate_trace is None:  # the first step makes the merged weights
                step = partial(self._again, gates, overlaps is not None)
                prediction, states, found = checkpoint(step, x, states, use_reentrant=False, preserve_rng_state=False)
                if overlaps is not None:
                    overlaps += found
            else:
                prediction, states = self._step(x, states, gates, trace, gate_trace, overlaps)
            predictions.append(prediction)
        return to_frames(torch.stack(predictions, dim=-4), self.spec.patch_size)

    def why_unfused(self, frames: Float[Tensor, "*R B T C H W"]) -> str | None:
        """Why the roll-out over these frames is not computed in fused stages (`models/fast_path/fused_roll_out.py`).

        Returns:
            One reason in words; None where it is.
        """
        if self.reference_path:
            return "the reference path is asked for"
        if frames.requires_grad and torch.is_grad_enabled():
            return "a gradient at the frames is asked for"
        if self.adapter is not None and torch.is_grad_enabled():
            return "the decoupling loss reads what each step adds to C and M, which the stages do not give"
        return why_not_fused(self, frames.device.type)

    def prediction_weights(self) -> list[nn.Parameter]:
        """The weights that predictions depend on: all but the adapter of the decoupling loss."""
        return [weight for name, weight in self.named_parameters() if not name.startswith("adapter.")]

    def predict(self, context: Float[Tensor, "*R B K C H W"], horizon: int) -> Float[Tensor, "*R B horizon C H W"]:
        """Predict `horizon` frames after `context`, fed with the network's own predictions; not clipped.

        Raises:
            ValueError: the context has too few axes.
        """
        if context.dim() < 5:
            raise ValueError(f"frames: has {context.dim()} axes, {tuple(context.shape)}; 5 are needed, B T C H W")
        given = context.shape[-4]
        unseen = context.new_zeros(*context.shape[:-4], horizon, *context.shape[-3:])
        mask = free_running_mask(1, given, horizon, context)[0].expand(*context.shape[:-4], -1)
        return self(torch.cat([context, unseen], dim=-4), mask)[..., given - 1 :, :, :, :]

    def _step(
        self,
        x: Float[Tensor, "*R B P h w"],
        states: dict,
        gates: GateSums,
        trace: Trace | None = None,
        gate_trace: Trace | None = None,
        overlaps: list[Tensor] | None = None,
    ) -> tuple[Float[Tensor, "*R B P h w"], dict]:
        """The prediction of the next frame, in patches, and all states one step later (our Eq. 8)."""
        states = dict(states)
        m = states["M"]
        for layer, cell in enumerate(self.cells, start=1):
            seen = gates if gate_trace is None else Watched(gates, partial(record_gate, gate_trace, layer))
            increments: dict[str, Tensor] = {}
            seen = seen if overlaps is None else Watched(seen, see_increment=increments.__setitem__)
            h, c, m = cell(x, states["H", layer], states["C", layer], m, seen)
            if overlaps is not None:
                overlaps.append(overlap(self.adapter, increments["C"], increments["M"], gates))  # pyright: ignore[reportArgumentType]  # there is one: `forward` has seen to it
            states["H", layer], states["C", layer] = h, c
            record(trace, layer, H=h, C=c, M=m)
            x = h
            if layer == self.spec.highway_slot:
                x, switch = self.highway(h, states["Z"], seen)  # pyright: ignore[reportOptionalCall]  # there is one where the spec has a slot
                states["Z"] = x
                record(trace, layer, Z=x, S=switch)
        states["M"] = m
        return gates.mix(self.to_frame, x), states  # Eq. 9

    def _again(self, gates: GateSums, decoupled: bool, x: Tensor, states: dict) -> tuple[Tensor, dict, list[Tensor]]:
        """A step that `checkpoint` may compute twice, and its overlaps where they are asked for."""
        overlaps: list[Tensor] = []
        return *self._step(x, states, gates.again(), overlaps=overlaps if decoupled else None), overlaps

    def _zero_states(self, x: Float[Tensor, "*R B P h w"]) -> dict:
        """All states at t = 0; M is the top layer's."""
        widths = self.spec.hidden_channels
        states: dict[Any, Tensor | None] = {
            (name, layer): zeros(x, width) for layer, width in enumerate(widths, start=1) for name in "HC"
        }
        states["M"] = zeros(x, widths[-1]) if "M" in cell_class(self.spec.cell).states else None
        if self.highway is not None:
            states["Z"] = zeros(x, self.spec.highway_width)
        return states

    def step(self, x: Float[Tensor, "B P h w"], states: dict | None = None) -> tuple[Float[Tensor, "B P h w"], dict]:
        """One step by itself, on the reference path: the prediction of the next frame, in patches, and all states.

        Args:
            x: a frame in patches, or the last prediction.
            states: those of the step before, as it returned them; None at the first step. A state that the cell does
                not have is None.
        """
        return self._step(x, self._zero_states(x) if states is None else states, SEPARATE)


def cell_class(name: str) -> Any:
    """The cell called `name` in `CELLS`, or of the class outside the benchmark that has this name.

    Its `states` are those of H, C and M that it has. Its `nonlinearities` say of every gate that its `forward` sums
    what it goes through, with None for a sum that is no gate. Its `keeps` say of a memory which gate multiplies what
    was in it; a cell that has none of them has no time constants.
    """
    if is_outside(name):
        return outside_cell(name)
    module, class_name = CELLS[name].split(":")
    return getattr(importlib.import_module(module), class_name)


def outside_cell(name: str) -> Any:
    """The class outside the benchmark called `name`, as a cell.

    Raises:
        ForecasterError: it is not to be found, or no cell; says what is missing.
    """
    found = load_class(name)
    missing = [part for part in ("states", "nonlinearities") if not hasattr(found, part)]
    if not issubclass(found, nn.Module) or missing:
        raise ForecasterError(f"{name}: is no cell: {f'has no {missing[0]}' if missing else 'no torch.nn.Module'}")
    return found


def build(spec: ModelSpec, seed: int) -> Predictor:
    """The network of `spec` with the initial weights that `seed` gives, whatever was drawn before; on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Predictor(spec)


def record(trace: Trace | None, layer: int, **states: Tensor | None) -> None:
    """Append the states of this step to `trace`."""
    if trace is None:
        return
    for name, state in states.items():
        if state is not None:
            trace.setdefault((name, layer), []).append(state)


def record_gate(trace: Trace, layer: int, name: str, gate: Tensor) -> None:
    """Append a gate of this step to `trace`."""
    trace.setdefault((name, layer), []).append(gate)


def free_running_mask(
    batch: int, context: int, horizon: int, like: Tensor
) -> Float[Tensor, "{batch} {context}+{horizon}-1"]:
    """The feed mask that shows the context frames and then only the network's own predictions."""
    mask = torch.zeros(batch, context + horizon - 1, dtype=like.dtype, device=like.device)
    mask[:, :context] = 1
    return mask


def to_patches(frames: Float[Tensor, "*B T C H W"], size: int) -> Float[Tensor, "*B T P h w"]:
    """Fold square patches into channels, ordered row, column, channel as in the ports; P = size * size * C."""
    height, width = frames.shape[-2:]
    blocks = frames.unflatten(-1, (width // size, size)).unflatten(-3, (height // size, size))  # (*B, T, C, h, s, w, s)
    return blocks.movedim((-3, -1), (-5, -4)).flatten(-5, -3)


def to_frames(patches: Float[Tensor, "*B T P h w"], size: int) -> Float[Tensor, "*B T C H W"]:
    """The inverse of `to_patches`."""
    blocks = patches.unflatten(-3, (size, size, -1))  # (*B, T, s, s, C, h, w)
    return blocks.movedim((-5, -4), (-3, -1)).flatten(-2, -1).flatten(-3, -2)


@runtime_checkable
class Predicts(Protocol):
    """Anything that predicts frames."""

    def predict(self, context: Tensor, horizon: int) -> Tensor:
        """`horizon` frames (B, horizon, C, H, W) after the frames (B, K, C, H, W) of `context`."""
        ...


def predict(
    network: Predicts, context: Float[Tensor, "*R B K C H W"], horizon: int, precision: str
) -> Float[Tensor, "*R B T C H W"]:
    """`horizon` frames after `context` in fp32, not clipped; `precision` is that of the convolutions."""
    device = context.device.type
    with torch.no_grad(), low_precision(precision, device), tensor_cores(precision, device):
        return network.predict(context, horizon).float()

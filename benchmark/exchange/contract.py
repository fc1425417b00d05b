"""What a person's own model or cell must keep to be trained, resumed, scored and probed like others: `check`."""

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.config.protocol import Protocol, RunConfig
from benchmark.config.sections import PrimaryConfig, VariantEntry
from benchmark.evaluation.gradient_probe import gradient_norms, roll_out
from benchmark.system.errors import UserError
from benchmark.training.acceleration.captured_step import Step
from benchmark.training.masks import feed_mask
from benchmark.training.run_state import step_of
from benchmark.training.step import Batch, make_optimizer
from models.counts import count_macs, count_parameters
from models.forecasters.network import Network, build_network
from models.forecasters.outside import ForecasterError, is_outside, load_class
from models.predictor import Predictor

CLIPS = 3
STEPS = 4
"""Optimiser steps of a training that is interrupted in its middle."""
ROUNDING = 1e-4
"""Difference between predictions in [0, 1] that float32 may make where a batch is computed in another order."""


@dataclass(frozen=True)
class Subject:
    """What is checked."""

    run: RunConfig
    network: Network
    frames: Float[Tensor, "B T C H W"]
    """Noise from 0 to 1 in the sizes of the protocol."""

    @property
    def context(self) -> Tensor:
        """The given frames, a copy of them."""
        return self.frames[:, : self.run.data.context].clone()

    def predicted(self, context: Tensor) -> Tensor:
        """What the network predicts without training."""
        with torch.no_grad():
            return self.network.predict(context, self.run.data.horizon)


class Broken(Exception):
    """A check that failed: how."""


def check_class(name: str, args: dict[str, Any], protocol: Protocol) -> tuple[list[str], bool]:
    """Check the class called `name` at the sizes of `protocol`.

    Args:
        name: `package.module:Class`, a model with `predict` or a cell.
        args: what the constructor of a model is given.
        protocol: says which clips and, for a cell, which stack.

    Returns:
        A line for each check, and whether all passed.

    Raises:
        ForecasterError, UserError: there is no such class, or it cannot be made.
    """
    run = run_of(name, args, protocol)
    network = build_network(run.model, run.seed)
    generator = torch.Generator().manual_seed(0)
    size = (CLIPS, run.data.context + run.data.horizon, 1, run.data.frame_size, run.data.frame_size)
    subject = Subject(run, network, torch.rand(size, generator=generator))
    macs = count_macs(run.model, run.data.context, run.data.horizon)
    lines = [
        f"{name}: {count_parameters(run.model):,} parameters, {macs:,} MACs a clip; {run.data.context} frames of"
        f" {run.data.frame_size}x{run.data.frame_size} in, {run.data.horizon} out (protocol {protocol.name})"
    ]
    passed = True
    for check in CHECKS:
        what = (check.__doc__ or "").rstrip(".")
        try:
            note = check(subject)
            lines.append(f"pass  {what}{f' ({note})' if note else ''}")
        except (Broken, ForecasterError) as error:
            lines.append(f"FAIL  {what}: {error}")
            passed = False
        except Exception as error:  # of their code, which may do anything
            lines.append(f"FAIL  {what}: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
            passed = False
    return lines, passed


def run_of(name: str, args: dict[str, Any], protocol: Protocol) -> RunConfig:
    """A run of `protocol` with this class alone, in small batches on the CPU.

    Raises:
        UserError: it can be no variant of the protocol.
    """
    if not is_outside(name):
        raise UserError(f"{name!r}: is no class; write it as Python imports it, package.module:Class")
    kind = "model" if hasattr(load_class(name), "predict") else "cell"
    sizes = {} if kind == "model" else {"hidden_channels": 8, "layers": 2}
    try:
        entry = VariantEntry.model_validate({"id": "checked", kind: name, "args": args} | sizes)
        alone = {"variants": (entry,), "primary": PrimaryConfig(), "rates": None, "seeds": (1,)}  # pyright: ignore[reportCallIssue]  # pydantic takes defaults from Field
        run = protocol.model_copy(update=alone).run("checked", 1)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
    training = run.training.model_copy(update={"batch_size": CLIPS, "device": "cpu", "threads": 1})
    return run.model_copy(update={"training": training})


def no_memory(subject: Subject) -> None:
    """the same frames give the same bits, whatever was predicted before."""
    first = subject.predicted(subject.context)
    subject.predicted(1 - subject.context)
    if not torch.equal(first, subject.predicted(subject.context)):
        raise Broken("the second prediction differs; nothing may be kept between calls, and none be drawn at random")


def context_unchanged(subject: Subject) -> None:
    """the given frames are not changed in place."""
    context = subject.context
    subject.predicted(context)
    if not torch.equal(context, subject.context):
        raise Broken("predict wrote into the tensor that it was given")


def clips_apart(subject: Subject) -> None:
    """a clip's prediction does not depend on the clips beside it."""
    together = subject.predicted(subject.context)
    others = subject.context
    others[1:] = 1 - others[1:]
    difference = (subject.predicted(others)[0] - together[0]).abs().max().item()
    if not difference <= ROUNDING:  # NaN is neither
        raise Broken(f"it differs by {difference:.2g} where the others are exchanged")


def any_batch(subject: Subject) -> None:
    """one clip alone is predicted as in a batch."""
    difference = (subject.predicted(subject.context[:1])[0] - subject.predicted(subject.context)[0]).abs().max().item()
    if not difference <= ROUNDING:
        raise Broken(f"it differs by {difference:.2g}")


def weights_learn(subject: Subject) -> None:
    """the loss reaches every weight."""
    network, (step, batch) = subject.network, training_of(subject)
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    for _ in range(STEPS):  # a weight may have no gradient as long as one that it is multiplied by is 0
        step(batch)
    still = [name for name, weight in network.named_parameters() if torch.equal(weight, before[name])]
    if still:
        raise Broken(f"{still[0]}{f' and {len(still) - 1} more' if still[1:] else ''} did not change in {STEPS} steps")


def training_of(subject: Subject, first_step: int = 0, optimizer: Any = None) -> tuple[Step, Batch]:
    """The optimiser step of the subject, and a batch."""
    run, frames = subject.run, subject.frames
    optimizer = optimizer or make_optimizer(subject.network, run.training)
    data, sampling = run.data, run.training.sampling
    sizes = {"batch_size": CLIPS, "context": data.context, "horizon": data.horizon, "device": "cpu"}
    mask = feed_mask(sampling, seed=run.seed, step=first_step, **sizes)
    return step_of(run, subject.network, optimizer, first_step), Batch(frames, frames, mask)


def resumed(subject: Subject) -> None:
    """a training that is interrupted goes on to the same bits."""
    weights = []
    for stops in ((), (STEPS // 2,)):
        network = build_network(subject.run.model, subject.run.seed)
        optimizer = make_optimizer(network, subject.run.training)
        own = Subject(subject.run, network, subject.frames)
        for number in range(STEPS):
            if number in stops:
                kept = stored({"network": network.state_dict(), "optimizer": optimizer.state_dict()})
                network = build_network(subject.run.model, subject.run.seed)
                optimizer = make_optimizer(network, subject.run.training)
                network.load_state_dict(kept["network"])
                optimizer.load_state_dict(kept["optimizer"])
                own = Subject(subject.run, network, subject.frames)
            step, batch = training_of(own, number, optimizer)
            step(batch)
        weights.append(network.state_dict())
    different = [name for name, value in weights[0].items() if not torch.equal(value, weights[1][name])]
    if different:
        raise Broken(f"{different[0]} differs after {STEPS} steps; all that is kept from step to step must be a buffer")


def stored(state: dict[str, Any]) -> dict[str, Any]:
    """`state` as a checkpoint gives it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def gradient_back(subject: Subject) -> str:
    """the last predicted frame has a gradient at the given frames, in float64."""
    network = copy.deepcopy(subject.network).double()
    network.reference_path = True
    found = gradient_norms(roll_out(network, subject.frames.double(), subject.run.data.context))
    norms = found["X", 0].mean(dim=0)
    if not norms.isfinite().all():
        raise Broken("it is not finite")
    if not norms.any():
        raise Broken("it is 0 at all of them; the prediction must depend on them without no_grad, detach or NumPy")
    unused = [str(t) for t, norm in enumerate(norms.tolist(), start=1) if norm == 0]
    states = ", ".join(f"{letter}{layer}" for letter, layer in found if letter != "X")
    ignored = f"0 at frame {', '.join(unused)}; " if unused else ""
    return f"{ignored}states: {states or 'none named'}"


def other_horizon(subject: Subject) -> str:
    """one frame more can be predicted."""
    try:
        with torch.no_grad():
            subject.network.predict(subject.context, subject.run.data.horizon + 1)
    except ValueError as error:
        if isinstance(subject.network, Predictor):
            raise
        return f"it cannot, so that evaluation.beyond does not go with it: {error}"
    return ""


CHECKS: tuple[Callable[[Subject], str | None], ...] = (
    no_memory,
    context_unchanged,
    clips_apart,
    any_batch,
    gradient_back,
    resumed,
    weights_learn,
    other_horizon,
)
"""In the order in which they are made; the last but one changes the weights."""

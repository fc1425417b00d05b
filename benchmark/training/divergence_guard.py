"""The guard of a training: no update whose loss or gradient is not finite reaches the weights."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from benchmark.config.sections import TrainingConfig

LIMIT = 10
"""Updates left out in a row with which a run has diverged, whatever `on_divergence` is: they would go on for ever."""
LOSS, GRADIENT = 1, 2
"""What was not finite; a gradient is where its norm is not."""


class GuardState(NamedTuple):
    """What a guard found so far, in numbers of the host."""

    left_out: int
    """Updates that did not reach the weights."""
    diverged: bool
    step: int
    """The step, from 1, of the last row of updates left out: the weights are those before it."""
    batch: int
    """Index of that step's batch in the stream, from 0."""
    reversed: bool
    """Whether it was that batch reversed in time (`reversed_second_step`)."""
    what: str
    """`loss` or `gradient`."""

    def to_dict(self) -> dict[str, Any]:
        """What `status.json` says of a run that diverged."""
        return {"batch": self.batch, "non_finite": self.what} | ({"reversed": True} if self.reversed else {})


class DivergenceGuard:
    """Checks every update where it is computed, so that a GPU need not be waited for; latched once diverged.

    Args:
        training: says by `on_divergence` what follows from an update that is not finite.
        device: of the training.
    """

    def __init__(self, training: TrainingConfig, device: torch.device) -> None:
        self.training = training
        self.limit = 1 if training.on_divergence == "stop" else LIMIT
        self.updates_a_step = 2 if training.reversed_second_step else 1
        # Updates checked, left out, left out in a row; first of the last row; what it was; whether diverged.
        self.state = torch.zeros(6, dtype=torch.int64, device=device)

    def check(self, loss: Float[Tensor, ""], norm: Float[Tensor, ""]) -> Int64[Tensor, ""]:
        """Count an update by its loss and gradient norm; 1 if it must be left out.

        Arithmetic alone: a choice between a tensor and a number would copy the number to a GPU, and wait.
        """
        updates, left_out, in_a_row, first, what, diverged = self.state.unbind()
        finite_loss = loss.isfinite().long()
        bad = 1 - finite_loss * norm.isfinite().long()
        counts = bad * (1 - diverged)
        begins = counts * (in_a_row == 0)
        first = begins * updates + (1 - begins) * first
        what = begins * (LOSS + (GRADIENT - LOSS) * finite_loss) + (1 - begins) * what
        in_a_row = diverged * in_a_row + counts * (in_a_row + 1)
        diverged = diverged | (in_a_row >= self.limit).long()
        self.state.copy_(torch.stack([updates + 1, left_out + counts, in_a_row, first, what, diverged]))
        return bad | diverged

    def learning_rate(self, rate: float | Tensor) -> float | Tensor:
        """The learning rate to use in place of `rate`, see `TrainingConfig.rate_factor`; nobody waits for a GPU."""
        if self.training.on_divergence != "lower_lr":
            return rate
        factor = self.training.rate_factor(self.state[1].float(), torch.exp2)
        return rate * (factor if factor.is_cuda else factor.item())

    def read(self) -> GuardState:
        """What was found so far; waits for the device."""
        _, left_out, _, first, what, diverged = self.state.tolist()
        step, second = divmod(first, self.updates_a_step)
        words = "loss" if what == LOSS else "gradient"
        return GuardState(left_out, bool(diverged), step + 1, step, bool(second), words)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"state": self.state}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict`, in place: a captured step reads where this one writes."""
        self.state.copy_(state["state"])


class GuardedAdam(torch.optim.Adam):
    """Adam that leaves out the updates its guard forbids; every other is Adam's, bit for bit."""

    def __init__(self, parameters: Any, guard: DivergenceGuard, **settings: Any) -> None:
        super().__init__(parameters, **settings)
        self.guard = guard

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`, whatever device wrote it: how a step is computed is this optimiser's own."""
        super().load_state_dict(state_dict)
        own = {name: self.defaults[name] for name in ("fused", "capturable")}
        for group in self.param_groups:
            group.update(own)
            for parameter in group["params"]:
                moments = self.state[parameter]
                if "step" in moments:  # a kernel reads it beside the weights, Python on the host
                    place = parameter.device if any(own.values()) else "cpu"
                    moments["step"] = moments["step"].to(place, torch.float32)


def take_guarded_step(optimizer: torch.optim.Optimizer, loss: Float[Tensor, ""], norm: Float[Tensor, ""]) -> None:
    """`optimizer.step()`, unless its guard, if it has one, leaves the update out: weights and moments stay then."""
    guard = getattr(optimizer, "guard", None)
    if guard is None:
        optimizer.step()
        return
    left_out = guard.check(loss.detach(), norm)
    if optimizer.defaults["fused"]:
        optimizer.found_inf = left_out.float()  # its kernel reads this where it is  # pyright: ignore[reportAttributeAccessIssue]  # of fused optimisers
    elif left_out:
        optimizer.zero_grad(set_to_none=True)  # without gradients a step changes nothing
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = guard.learning_rate(group["lr"])
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate

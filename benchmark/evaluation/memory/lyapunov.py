"""Lyapunov exponents: how fast small changes of the state grow while a network feeds on itself (our Eq. 21)."""

import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp, vmap

from models.predictor import Predictor, to_patches

EXPONENTS = 8
"""The leading ones."""
WARM_UP, STEPS = 10, 30
"""Steps in which directions turn to those that grow most, and then those over which growth is averaged."""

Step = Callable[[Float[Tensor, "B n"]], Float[Tensor, "B n"]]


@torch.no_grad()
def exponents_of(network: Predictor, context: Float[Tensor, "B K C H W"]) -> Float[Tensor, "B m"]:
    """The leading exponents of the free roll-out after `context`, per frame, largest first.

    The state is all recurrent states (H and C of each layer, M of the top one, Z) and the frame that is fed back. No
    target and no horizon has a part in it.

    Args:
        network: in the precision that is wanted.
        context: given frames.

    Returns:
        Natural logs of growth in a frame; m is `EXPONENTS`, or fewer where the state is smaller. -inf where the state
        forgets a direction at once, NaN where the roll-out is not finite.
    """
    states = None
    for frame in to_patches(context, network.spec.patch_size).unbind(dim=1):
        prediction, states = network.step(frame, states)
    assert states is not None, "no context"
    kept = [key for key, state in states.items() if state is not None]
    parts = [prediction, *(states[key] for key in kept)]  # each (B, D, h, w)
    shapes = [part.shape[1:] for part in parts]

    def step(flat: Float[Tensor, "B n"]) -> Float[Tensor, "B n"]:
        sizes = [shape.numel() for shape in shapes]
        fed, *others = (part.unflatten(1, shape) for part, shape in zip(flat.split(sizes, dim=1), shapes, strict=True))
        after, found = network.step(fed, dict.fromkeys(states) | dict(zip(kept, others, strict=True)))
        return torch.cat([part.flatten(1) for part in (after, *(found[key] for key in kept))], dim=1)

    return exponents(step, torch.cat([part.flatten(1) for part in parts], dim=1), WARM_UP, STEPS)


def exponents(step: Step, state: Float[Tensor, "B n"], warm_up: int, steps: int) -> Float[Tensor, "B m"]:
    """The leading exponents of the map `step` from `state` on, by forward-mode products and a QR at every step.

    Args:
        step: maps each row by itself.
        state: where it begins.
        warm_up: steps before growth counts.
        steps: over which its log is averaged.

    Returns:
        Largest first; see `exponents_of`.
    """
    directions = first_directions(state)
    total = torch.zeros_like(directions[:, 0])
    with warnings.catch_warnings():  # PyTorch's forward mode uses, where it is first used, what PyTorch has deprecated
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
        for t in range(warm_up + steps):
            state, pushed = push(step, state, directions)
            directions, growth = torch.linalg.qr(pushed)
            if t >= warm_up:
                total += growth.diagonal(dim1=1, dim2=2).abs().log()
    return (total / steps).sort(dim=1, descending=True).values


def push(
    step: Step, state: Float[Tensor, "B n"], directions: Float[Tensor, "B n m"]
) -> tuple[Float[Tensor, "B n"], Float[Tensor, "B n m"]]:
    """The state one step later, and the Jacobian there times each of the directions."""
    pushed = vmap(lambda one: jvp(step, (state,), (one,)), in_dims=2, out_dims=(None, 2))  # pyright: ignore[reportArgumentType]  # None: it is the same for all
    return pushed(directions)  # pyright: ignore[reportReturnType]  # a pair, as `has_aux` is not set


def first_directions(state: Float[Tensor, "B n"]) -> Float[Tensor, "B n m"]:
    """Random orthonormal directions, the same for every clip, network and device."""
    n = state.shape[1]
    drawn = torch.randn(n, min(EXPONENTS, n), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.linalg.qr(drawn)[0].to(state).expand(len(state), -1, -1)

"""The masks of a batch: when a network in training sees its own prediction, and where its gradient ends."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.config.sections import SamplingConfig
from benchmark.data.counter_rng import Domain, counter_hash
from benchmark.data.tensors import uniform


def feed_rates(sampling: SamplingConfig, step: int) -> tuple[float, float]:
    """Probability of a true frame at `step` (from 0), within the context and within the horizon.

    `scheduled` (Bengio et al. 2015, as in PredRNN): the horizon's falls linearly from 1 to 0 at `stop`.
    `reverse` (Wang et al. 2022): the context's stays at 1/2 up to `reverse_start`, then nears 1 exponentially, while
    the horizon's falls linearly from 1/2 to 0 at `stop`.
    """
    if sampling.kind == "none":
        return 1.0, 1.0
    if sampling.kind == "scheduled":
        return 1.0, max(0.0, 1.0 - step / sampling.stop)
    if step < sampling.reverse_start:
        return 0.5, 0.5
    since = step - sampling.reverse_start
    context = 1.0 - 0.5 * math.exp(-since / sampling.reverse_decay) if step < sampling.stop else 1.0
    return context, max(0.0, 0.5 - 0.5 * since / (sampling.stop - sampling.reverse_start))


def feed_mask(
    sampling: SamplingConfig,
    *,
    seed: int,
    step: int,
    batch_size: int,
    context: int,
    horizon: int,
    device: str,
) -> Float[Tensor, "{batch_size} {context}+{horizon}-1"]:
    """The feed mask of the batch at `step`: a pure function of its arguments, equal on every device."""
    context_rate, horizon_rate = feed_rates(sampling, step)
    columns = context + horizon - 1
    draws = uniform(seed, step, batch_size * columns, device=device).view(batch_size, columns)
    rates = torch.full((columns,), horizon_rate, device=device, dtype=draws.dtype)
    rates[:context] = context_rate
    mask = (draws < rates).float()
    mask[:, 0] = 1
    return mask


def gradient_mask(
    every: int | None, *, seed: int, step: int, batch_size: int, steps: int, device: str
) -> Float[Tensor, "{batch_size} {steps}"] | Float[Tensor, " 0"]:
    """Where gradient flows back through time in the batch at `step`: not at every `every`-th time step (our Eq. 10b).

    The first of those is drawn anew at each training step, the same for all clips of its batch: a pure function of the
    arguments. Empty where `every` is None: gradient flows everywhere.
    """
    if every is None:
        return torch.empty(0, device=device)
    phase = counter_hash(seed, Domain.DETACH, step) % every
    flows = (torch.arange(steps, device=device) % every != phase).float()
    return flows.expand(batch_size, steps)

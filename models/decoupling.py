"""How alike the increments of the two memories are: the decoupling loss of PredRNN-V2 (Wang et al. 2022)."""

from collections.abc import Sequence
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from models.convolution import GateSums


def overlap(
    adapter: nn.Conv2d,
    of_c: Float[Tensor, "*R B D h w"],
    of_m: Float[Tensor, "*R B D h w"],
    gates: GateSums,
) -> Float[Tensor, "*R B"]:
    """|cosine| over space between what one layer adds to C and to M at one step, its mean over channels; our Eq. 10c.

    Args:
        adapter: of the network; both increments go through it.
        of_c: what is added to C, i g.
        of_m: what is added to M, i' g'.
        gates: how 1x1 convolutions are computed.

    Returns:
        In [0, 1], one a clip; 0 for a channel of which an increment is 0 everywhere.
    """
    adapted = [gates.mix(adapter, one).to(one.dtype) for one in (of_c, of_m)]
    if of_c.dim() == 4:
        return _mean_cosine(*adapted)
    # Run by run: sums over all runs at once would be in another order than those of a run alone.
    return torch.stack([_mean_cosine(c, m) for c, m in zip(*adapted, strict=True)])


def decoupling(overlaps: Sequence[Tensor]) -> Tensor:
    """The mean of `overlaps` (*R, B) over layers and steps, (*R, B): the decoupling loss of each clip; our Eq. 10c.

    They are added one after the other, as for a run alone whatever stands beside it.
    """
    return reduce(torch.add, overlaps) / len(overlaps)


def _mean_cosine(c: Float[Tensor, "B D h w"], m: Float[Tensor, "B D h w"]) -> Float[Tensor, " B"]:
    c, m = (normalize(one.flatten(-2), dim=-1) for one in (c, m))
    return (c * m).sum(-1).abs().mean(-1)

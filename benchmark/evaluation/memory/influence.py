"""Forward influence: what becomes of the last predicted frame when one context frame was another (our Eq. 20)."""

import torch
from jaxtyping import Float
from torch import Tensor

from models.predictor import Predicts


@torch.no_grad()
def influence(
    network: Predicts, frames: Float[Tensor, "B T C H W"], exchanged: Float[Tensor, "B K C H W"]
) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
    """Exchange one context frame at a time and predict freely, as far as the clips go.

    Args:
        network: predicts.
        frames: whole clips.
        exchanged: what frame t = 1, ..., K of each clip is exchanged for; K is the context.

    Returns:
        Root mean square change of the last predicted frame over its pixels, and change of its squared error summed
        over pixels, for each t.
    """
    context = exchanged.shape[1]
    given, target, horizon = frames[:, :context], frames[:, -1], frames.shape[1] - context
    unchanged = network.predict(given, horizon)[:, -1]
    changes, errors = [], []
    for t in range(context):
        other = given.clone()
        other[:, t] = exchanged[:, t]
        last = network.predict(other, horizon)[:, -1]
        changes.append((last - unchanged).square().flatten(1).mean(dim=1).sqrt())
        errors.append(((last - target).square() - (unchanged - target).square()).flatten(1).sum(dim=1))
    return torch.stack(changes, dim=1), torch.stack(errors, dim=1)

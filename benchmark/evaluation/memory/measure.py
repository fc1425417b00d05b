"""Forward influence and Lyapunov exponents of one network on test clips."""

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from torch import Tensor

from benchmark.data.tensors import to_float
from benchmark.evaluation.memory.influence import influence
from benchmark.evaluation.memory.lyapunov import exponents_of
from benchmark.evaluation.memory.table import memory_rows
from models.forecasters.network import Network
from models.predictor import Predictor

LYAPUNOV_CLIPS = 4
"""Of the probe's clips, the first: each costs as much as some thirty roll-outs."""


def measure_memory(
    network: Network,
    clips: UInt8[Tensor, "N T C H W"],
    exchanged: UInt8[Tensor, "N K C H W"] | None,
    context: int,
    batch_size: int,
    device: str,
) -> pd.DataFrame:
    """Measure `network`, in float64 and on the reference path, as the gradients are.

    Lyapunov exponents are those of our networks: only their state is known.

    Args:
        network: measured.
        clips: whole ones.
        exchanged: what each context frame of each clip is exchanged for; None where nothing can be.
        context: given frames.
        batch_size: clips at once.
        device: where.

    Returns:
        Rows of `memory.parquet`, without stage and step.
    """
    network = network.double().to(device)
    network.reference_path = True
    tables = [memory_rows("influence", np.empty((0, 0)), ("clip", "t"), state="X")]  # the columns, if nothing else
    for first in range(0, 0 if exchanged is None else len(clips), batch_size):
        frames = to_float(clips[first : first + batch_size].to(device)).double()
        others = to_float(exchanged[first : first + batch_size].to(device)).double()  # pyright: ignore[reportOptionalSubscript]  # no turn where it is None
        for name, values in zip(("influence", "error_change"), influence(network, frames, others), strict=True):
            found = memory_rows(name, values.cpu().numpy(), ("clip", "t"), state="X")
            tables.append(found.assign(clip=found["clip"] + first))
    for first in range(0, min(LYAPUNOV_CLIPS, len(clips)), batch_size):
        if not isinstance(network, Predictor):
            break
        given = to_float(clips[first : min(first + batch_size, LYAPUNOV_CLIPS), :context].to(device)).double()
        found = memory_rows("lyapunov", exponents_of(network, given).cpu().numpy(), ("clip", "unit"))
        tables.append(found.assign(clip=found["clip"] + first))
    return pd.concat(tables, ignore_index=True)

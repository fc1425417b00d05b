"""How far back a file of weights learns from, trained here or imported: gradient norms on clips of any kind."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.config.protocol import Protocol
from benchmark.data.tensors import to_float
from benchmark.data.videos.clip_files import open_clips
from benchmark.evaluation.frame_gradients import network_norms
from benchmark.evaluation.gradient_decay import decay, inner_slope
from benchmark.exchange.input_clips import check_apart, scale_values
from benchmark.exchange.score import check_accepts, clips_note, context_frames, split_note, test_clips
from benchmark.reporting.tables.rendering import Table, number
from benchmark.system.devices import prepare_device
from benchmark.system.parquet import write_parquet
from benchmark.training.weight_files import load_weights

CLIPS = 32
"""Clips measured unless the person says how many: as the protocols of the studies have it."""
HEADS = {"residual": "of the squared error", "fixed": "of a fixed direction"}


def probe_test_clips(
    path: Path, protocol: Protocol, results_dir: Path, data_dir: Path, *, output: Path, device: str
) -> Table:
    """Measure the weights at `path` on the clips that the probe of `protocol` takes; made here if they are not there.

    Raises:
        UserError: data or weights are missing or damaged, or the network takes no frames like those.
    """
    prepare_device(device, protocol.training.threads)
    clips = test_clips(protocol, results_dir, data_dir)
    pixels = torch.as_tensor(clips[: protocol.probe.clips])
    notes = [f"{len(pixels)} test clips of protocol {protocol.name}."]
    where = f"the clips of protocol {protocol.name}"
    batch_size = protocol.probe.batch_size
    return measured(path, pixels, protocol.data.context, batch_size, notes, where, output=output, device=device)


def probe_files(
    path: Path,
    data: Path,
    *,
    output: Path,
    layout: str | None,
    white: int | None,
    context: int | None,
    horizon: int | None,
    clips: int | None,
    batch_size: int,
    device: str,
) -> Table:
    """Measure the weights at `path` on the first `clips` clips at `data`; arguments and errors as `score_files`."""
    check_apart(output, path, data)
    prepare_device(device, torch.get_num_threads())
    given = context_frames(path, context)
    found = scale_values(open_clips(data, given + (horizon or 1), layout, white), data, white)
    predicted = horizon or min(found.lengths) - given
    found.check_values(data, given + predicted, white)
    pixels = torch.from_numpy(found.read(range(min(clips or CLIPS, found.count)), given + predicted))
    notes = [f"{data.name}: {clips_note(found, given + predicted)}; the first {len(pixels)} are measured."]
    return measured(path, pixels, given, batch_size, notes, f"{data}: its clips", output=output, device=device)


def measured(
    path: Path,
    pixels: Tensor,
    context: int,
    batch_size: int,
    notes: list[str],
    where: str,
    *,
    output: Path,
    device: str,
) -> Table:
    """The table of the gradient norms at the context frames; those of every clip and state go to `output`.

    Args:
        pixels: (N, T, C, H, W), uint8, or float from 0 to 1.
    """
    network = load_weights(path)
    check_accepts(network.spec, pixels.shape[2:], f"{path}: {where}")
    frames: Float[Tensor, "N T C H W"] = (to_float(pixels) if pixels.dtype == torch.uint8 else pixels).double()
    network = network.double().to(device)
    network.reference_path = True
    norms = network_norms(network, frames.to(device), context, batch_size)
    write_parquet(output, norms)
    of_frames = norms[norms["state"] == "X"]
    values, cells = [], [{"Frame t": str(t)} for t in range(1, context + 1)]
    for measure, head in HEADS.items():
        table = of_frames[of_frames["measure"] == measure].pivot(index="clip", columns="t", values="norm")
        with np.errstate(divide="ignore"):
            logs = np.log(table.to_numpy()).mean(axis=0)
        relative = np.exp(logs - logs[-1])
        for cell, log, over in zip(cells, logs, relative, strict=True):
            cell[f"Gradient {head}"] = f"{math.exp(log):.3g}"
            cell["that at t over that at the last" if measure == "residual" else "the same, fixed"] = number(over, 3)
        values.append({"measure": measure, "inner_slope": inner_slope(logs)} | decay(table))
    return Table(
        f"How far back {path.name} learns from",
        pd.DataFrame(values),
        pd.DataFrame(cells),
        [*notes, split_note(path, context, frames.shape[1] - context), *reading_notes(values[0]), output_note(output)],
    )


def reading_notes(found: dict[str, Any]) -> list[str]:
    """What the numbers mean: slope, reach and half-life of the gradient of the error."""
    reach, slope, half_life = found["reach"], found["inner_slope"], found["half_life"]
    how = (
        "L2 norm of the gradient of the last predicted frame with respect to each given frame, geometric mean over"
        " clips, float64. A column that falls towards frame 1 forgets: the oldest frame counts less than the last."
    )
    if reach is None or slope is None:
        return [how, "A norm is 0 or not finite: the network ignores a frame, or its gradient overflows; no reach."]
    words = "no decay is shown" if half_life is None else f"it halves within {half_life:.1f} frames of age"
    steep = "" if math.isnan(slope) else f" Slope: {slope:+.3f} (powers of two a frame, both ends left out)."
    return [how, f"Reach: {reach:.3g} (frame 1 over the last given one; 1 = both count alike); {words}.{steep}"]


def output_note(output: Path) -> str:
    """Where everything measured lies."""
    return f"Norms of every clip, state (X, H, C, M, Z), layer and frame: {output}."

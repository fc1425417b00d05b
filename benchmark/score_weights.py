"""Scores of a file of weights, trained here or imported, on the test clips of a protocol."""

from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from benchmark import engine
from benchmark.checkpoint import load_weights, trained_context
from benchmark.config import Protocol
from benchmark.data.clips import load_clips
from benchmark.errors import UserError
from benchmark.evaluate import recorded_lpips, score_clips
from benchmark.metrics import METRICS, summarise
from benchmark.rendering import Table, digits, number
from models.spec import ModelSpec


def score_weights(path: Path, protocol: Protocol, results_dir: Path, data_dir: Path, device: str) -> Table:
    """Score the weights at `path`, imported ones for instance, on the test clips of `protocol`, in fp32.

    Raises:
        UserError: data, backbone or weights are missing or damaged, or the network takes no frames like those.
    """
    engine.prepare_device(device, protocol.training.threads)
    network = load_weights(path).to(device)
    clips = load_clips(results_dir / protocol.name / "data", protocol.data, "test")
    check_frames(network.spec, clips, f"{path}: the clips of protocol {protocol.name}")
    lpips = recorded_lpips(protocol, results_dir, data_dir, device)

    @torch.no_grad()
    def forecast(context: Float[Tensor, "B K C H W"]) -> Float[Tensor, "B T C H W"]:
        return network.predict(context, protocol.data.horizon)

    table, _ = score_clips(forecast, clips, protocol, lpips, device)
    means = summarise(table.assign(weights=path.name), by=["weights"])
    cells = {METRICS[row.metric].head: number(row.mean, digits(row.metric)) for row in means.itertuples()}
    given, trained = protocol.data.context, trained_context(path)
    notes = [
        f"{len(clips)} test clips of protocol {protocol.name}: {given} frames given, {protocol.data.horizon} predicted."
    ]
    if trained not in (None, given):
        notes.append(f"The weights were trained with {trained} frames given.")
    notes += [
        f"{METRICS[name].head}: {METRICS[name].definition}; mean over clips and frames." for name in means["metric"]
    ]
    if lpips is None:
        notes.append(f"LPIPS was not measured: no {protocol.evaluation.lpips_backbone} backbone.")
    infinite = int(means["infinite"].sum())
    if infinite:
        notes.append(f"Frames with infinite PSNR (prediction identical to truth), left out of its mean: {infinite}.")
    return Table("Scores on the test clips", means, pd.DataFrame([{"Weights": path.name} | cells]), notes)


def check_frames(spec: ModelSpec, clips: UInt8[Tensor, "N T C H W"], where: str) -> None:
    """Raise UserError if a network of `spec` cannot take these frames.

    A norm per element fixes the size of a frame; without one it may be any multiple of the patches.
    """
    channels, size = clips.shape[2:4]
    if spec.channels != channels:
        raise UserError(f"{where} have {channels} channel(s), the network takes {spec.channels}")
    if spec.norm == "element" and spec.frame_size != size:
        raise UserError(f"{where} have frames of {size} pixels, the norms of the network are for {spec.frame_size}")
    if size % spec.patch_size:
        raise UserError(f"{where} have frames of {size} pixels, which patches of {spec.patch_size} do not divide")

"""Scores of a file of weights, trained here or imported: on the test clips of a protocol or on a person's own clips."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.config.lpips_backbones import BACKBONES
from benchmark.config.metrics import METRICS, columns
from benchmark.config.protocol import Protocol
from benchmark.config.variants import OF_ANY_CLIPS
from benchmark.data.clip_source import Clips
from benchmark.data.clips import load_clips
from benchmark.data.kinds import kind_of
from benchmark.data.tensors import to_float
from benchmark.data.videos.clip_files import ClipFiles, open_clips
from benchmark.evaluation.evaluate import recorded_lpips, score_clips
from benchmark.evaluation.forecasts import Forecast, baseline
from benchmark.evaluation.lpips_backbone import load_lpips, look_for, prepare
from benchmark.evaluation.mean_scores import mean_scores
from benchmark.evaluation.metric_functions import score
from benchmark.exchange.input_clips import check_apart, scale_values
from benchmark.reporting.tables.notes import definition_note
from benchmark.reporting.tables.rendering import Table, number
from benchmark.system.console import echo
from benchmark.system.devices import prepare_device
from benchmark.system.errors import UserError
from benchmark.system.parquet import write_parquet
from benchmark.training.weight_files import load_weights, trained_context
from models.predictor import Predictor
from models.spec import ModelSpec


def score_weights(path: Path, protocol: Protocol, results_dir: Path, data_dir: Path, device: str) -> Table:
    """Score the weights at `path`, imported ones for instance, on the test clips of `protocol`, in fp32.

    Raises:
        UserError: data, backbone or weights are missing or damaged, or the network takes no frames like those.
    """
    prepare_device(device, protocol.training.threads)
    network = load_weights(path).to(device)
    clips = test_clips(protocol, results_dir, data_dir)
    check_frames(network.spec, clips.shape[2:], f"{path}: the clips of protocol {protocol.name}")
    if not (results_dir / protocol.name / "lpips_backbone.json").exists():
        prepare(
            protocol.evaluation.lpips_backbone, data_dir, results_dir / protocol.name / "lpips_backbone.json", False
        )
    lpips = recorded_lpips(protocol, results_dir, data_dir, device)
    given, predicted = protocol.data.context, protocol.data.horizon
    frames, _ = score_clips(forecast_of(network, predicted), clips, protocol, lpips, device)
    notes = [f"{len(clips)} test clips of protocol {protocol.name}.", split_note(path, given, predicted)]
    if lpips is None:
        notes.append(f"LPIPS was not measured: no {protocol.evaluation.lpips_backbone} backbone.")
    return score_table("Scores on the test clips", {path.name: frames}, notes)


def test_clips(protocol: Protocol, results_dir: Path, data_dir: Path) -> Clips:
    """The test clips of `protocol`, which are prepared first where they are not there.

    Raises:
        UserError: what they are made of is not in `data_dir`, or they are damaged.
    """
    folder = results_dir / protocol.name / "data"
    if not (folder / "data.json").exists():
        echo(f"protocol {protocol.name}: its clips are made first, in {folder}")
        kind_of(protocol.data).prepare(protocol, data_dir, folder, False)
    return load_clips(folder, protocol.data, "test")


def score_files(
    path: Path,
    data: Path,
    *,
    output: Path,
    layout: str | None,
    white: int | None,
    context: int | None,
    horizon: int | None,
    lpips_backbone: str | None,
    data_dir: Path,
    download: bool | None,
    batch_size: int,
    device: str,
) -> Table:
    """Score the weights at `path` and the baselines on the clips at `data`, in fp32.

    The scores of every frame predicted by the weights go to `output`.

    Args:
        data, layout: see `open_clips`.
        white: the value of a white pixel, see `benchmark.exchange.input_clips.scale_values`.
        context: frames given; None for as many as the weights were trained with.
        horizon: frames predicted; None for what the shortest clip leaves.
        lpips_backbone: looked for in `data_dir`/lpips and torch's cache, into which `download` fetches it; None to
            leave LPIPS out.

    Raises:
        UserError: a file is missing, damaged, of another kind or cannot be written, clips are too short, or the
            network takes no frames like those.
    """
    check_apart(output, path, data)
    prepare_device(device, torch.get_num_threads())
    network = load_weights(path).to(device)
    given = context_frames(path, context)
    clips = scale_values(open_clips(data, given + (horizon or 1), layout, white), data, white)
    check_frames(network.spec, clips.frame, f"{data}: its clips")
    predicted = horizon or min(clips.lengths) - given
    record = look_for(lpips_backbone, data_dir, bool(download)) if lpips_backbone else None
    lpips = load_lpips(record, data_dir, device) if record else None
    values = clips.check_values(data, given + predicted, white)
    forecasts = {path.name: forecast_of(network, predicted)}
    forecasts |= {label: baseline(name, predicted) for name, label in OF_ANY_CLIPS.items()}
    try:
        frames = {
            name: score_batches(forecast, clips, given, predicted, batch_size, lpips, device)
            for name, forecast in forecasts.items()
        }
    except UserError as error:  # what a metric cannot score is in this file, which it does not know
        raise UserError(str(error) if str(data) in str(error) else f"{data}: {error}") from None
    write_parquet(output, frames[path.name])
    notes = [f"{data.name}: {clips_note(clips, given + predicted)}; {values}.", split_note(path, given, predicted)]
    if lpips is None:
        notes.append(lpips_note(lpips_backbone))
    notes += [f"Scores of every frame: {output}.", *reading_notes(frames)]
    return score_table("Scores on clips of your own", frames, notes)


def score_batches(
    forecast: Forecast,
    clips: ClipFiles,
    context: int,
    horizon: int,
    batch_size: int,
    lpips: torch.nn.Module | None,
    device: str,
) -> pd.DataFrame:
    """Score `forecast` on `clips`, of which one batch at a time is in memory.

    Returns:
        One row a clip and predicted frame (both counted from 1), one column a metric, in every convention.
    """
    names = columns(lpips.pnet_type if lpips else None, conventions=True)  # pyright: ignore[reportArgumentType]  # LPIPS keeps its name there
    # Filled in place: small results kept between large temporary maps would fragment the heap.
    values = np.empty((len(names), clips.count, horizon))
    for first in range(0, clips.count, batch_size):
        numbers = range(first, min(first + batch_size, clips.count))
        pixels = torch.from_numpy(clips.read(numbers, context + horizon))  # (B, context + horizon, C, H, W)
        frames = to_float(pixels.to(device)) if pixels.dtype == torch.uint8 else pixels.float().to(device)
        scores = score(forecast(frames[:, :context]), frames[:, context:], lpips, conventions=True)
        for column, name in zip(values, names, strict=True):
            column[numbers.start : numbers.stop] = scores[name].cpu()
    places = {
        "clip": np.repeat(np.arange(1, clips.count + 1), horizon),
        "frame": np.tile(np.arange(1, horizon + 1), clips.count),
    }
    return pd.DataFrame(places | dict(zip(names, values.reshape(len(names), -1), strict=True)))


def forecast_of(network: Predictor, horizon: int) -> Forecast:
    """The forecast of `network`, in fp32."""

    @torch.no_grad()
    def forecast(context: Float[Tensor, "B K C H W"]) -> Float[Tensor, "B T C H W"]:
        return network.predict(context, horizon)

    return forecast


def score_table(title: str, frames: dict[str, pd.DataFrame], notes: list[str]) -> Table:
    """The mean scores of each forecast, one row a metric, with `notes`, what each metric is and what its mean omits.

    Args:
        frames: head of a column -> the scores of every frame; the first is of the weights.
    """
    means = mean_scores(pd.concat(scores.assign(weights=name) for name, scores in frames.items()), by=["weights"])
    cells = []
    for metric, rows in means.groupby("metric", sort=False):
        of = METRICS[str(metric)]
        values = rows.set_index("weights")["mean"]
        cells.append({"Metric": of.head} | {name: number(values[name], of.decimals) for name in frames})
    weights, scores = next(iter(frames.items()))
    own = means[means["weights"] == weights]
    notes = notes + [definition_note(name, "clips and frames") for name in own["metric"]]
    infinite, undefined = int(own["infinite"].max()), int(scores["mse"].isna().sum())
    if infinite:
        notes.append(f"Frames with infinite PSNR (prediction identical to truth), left out of its mean: {infinite}.")
    if undefined:
        notes.append(f"Frames with a prediction that is not finite, which leave no mean: {undefined}.")
    return Table(title, means, pd.DataFrame(cells), notes)


def reading_notes(frames: dict[str, pd.DataFrame]) -> list[str]:
    """What the numbers mean: what the baselines are, and how the weights compare with the best of them.

    Args:
        frames: as in `score_table`: the weights first, then the baselines.
    """
    (weights, ours), *baselines = ((name, float(scores["mse"].mean())) for name, scores in frames.items())
    notes = [
        f"{', '.join(name for name, _ in baselines)}: predictions without training, from the same context frames."
        " A network that is no better than all of them has not learnt how these clips move."
        " ↓ lower is better, ↑ higher is better; numbers of other clips cannot be compared with these."
    ]
    name, least = min(baselines, key=lambda one: one[1])
    if math.isfinite(ours) and least > 0:
        change = ours / least - 1
        verdict = f"{abs(change):.1%} {'below' if change < 0 else 'above'}"
        notes.append(
            f"MSE of {weights} is {verdict} that of the best baseline ({name}): it is"
            f" {'better than' if change < 0 else 'no better than'} a prediction without training."
        )
    return notes


def context_frames(path: Path, context: int | None) -> int:
    """The frames that are given: `context`, or as many as the weights at `path` were trained with.

    Raises:
        UserError: neither is known.
    """
    given = context or trained_context(path)
    if given is None:
        raise UserError(f"{path}: says not how many given frames it was trained with; say how many with --context")
    return given


def clips_note(clips: ClipFiles, used: int) -> str:
    """How the clips were read and what of them is used."""
    shortest, longest = min(clips.lengths), max(clips.lengths)
    length = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
    size = "x".join(map(str, clips.frame[1:]))
    count = f"{clips.count:,} clip{'s' * (clips.count > 1)}"
    cut = f", of which the first {used} are used" if longest > used else ""
    return "; ".join([f"read as {clips.read_as}: {count} of {length} frames of {size} pixels{cut}", *clips.notes])


def split_note(path: Path, given: int, predicted: int) -> str:
    """How many frames the network was given and predicted, and whether that is what it was trained for."""
    trained = trained_context(path)
    other = f" The weights were trained with {trained} frames given." if trained not in (None, given) else ""
    return f"{given} frames given, {predicted} predicted.{other}"


def lpips_note(net: str | None) -> str:
    """Why there is no LPIPS and how to get it."""
    if net is None:
        return f"LPIPS was not measured: name its backbone with --lpips-backbone {' or '.join(BACKBONES)}."
    names = " or ".join(BACKBONES[net].file_names)
    return f"LPIPS was not measured: no {net} backbone; put {names} into lpips/ of --data-dir, or add --download."


def check_frames(spec: ModelSpec, frame: Sequence[int], where: str) -> None:
    """Raise UserError if a network of `spec` cannot take frames of (C, H, W), or if those cannot be scored."""
    check_accepts(spec, frame, where)
    if frame[0] != 1:
        raise UserError(f"{where} have {frame[0]} channels; the metrics are defined for frames of one")


def check_accepts(spec: ModelSpec, frame: Sequence[int], where: str) -> None:
    """Raise UserError if a network of `spec` cannot take frames of (C, H, W).

    A norm per element fixes the size of a frame; without one both sides may be any multiple of the patches.
    """
    channels, *sides = frame
    size = "x".join(map(str, sides))
    if spec.channels != channels:
        raise UserError(f"{where} have {channels} channel(s), the network takes {spec.channels}")
    if spec.norm == "element" and set(sides) != {spec.frame_size}:
        needed = f"{spec.frame_size}x{spec.frame_size}"
        raise UserError(f"{where} have frames of {size} pixels, the norms of the network are for {needed}")
    if any(side % spec.patch_size for side in sides):
        raise UserError(f"{where} have frames of {size} pixels, which patches of {spec.patch_size} do not divide")

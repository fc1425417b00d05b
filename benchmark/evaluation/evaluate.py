"""Scores of a run, of predictions of other code or of a baseline, on the fixed test clips."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from benchmark.config.metrics import METRICS
from benchmark.config.protocol import Protocol, run_path
from benchmark.config.sections import PredictionsEntry
from benchmark.config.variants import PREDICTIONS
from benchmark.data.clip_source import Clips, ClipSource, Stream
from benchmark.data.clips import clips_hash, load_clips
from benchmark.data.kinds import kind_of
from benchmark.data.predictions import Predictions
from benchmark.data.tensors import to_float
from benchmark.evaluation.clip_images import film_animation, film_strip
from benchmark.evaluation.forecasts import Forecast, named_forecast
from benchmark.evaluation.lpips_backbone import load_lpips
from benchmark.evaluation.metric_functions import bring_to, compute, score
from benchmark.evaluation.recall_scores import FurtherScores, recall_scores
from benchmark.system import processes
from benchmark.system.checksums import sha256_of
from benchmark.system.devices import prepare_device
from benchmark.system.errors import UserError
from benchmark.system.files import atomic_buffer, read_json, write_json
from benchmark.system.parquet import write_parquet
from benchmark.training import distributed


def evaluate(protocol: Protocol, variant: str, seed: int, results_dir: Path, data_dir: Path, device: str) -> None:
    """Score a run or another row; writes `frames.parquet`, `examples.npz`, `film.png` and `film.gif` to its folder.

    Of predictions of other code also `predictions.json`: which file of which clips was scored. Where the protocol has
    `evaluation.beyond`, also `beyond.parquet`: the scores of a longer roll-out. Several processes share the batches,
    each of which is scored once, and the first of them writes.

    Raises:
        UserError: data, backbone or trained weights are missing, damaged or of another configuration.
    """
    prepare_device(device, protocol.training.threads)
    folder = run_path(results_dir, protocol.name, variant, seed)
    title, forecast_of = named_forecast(protocol, variant, seed, results_dir, device)
    forecast = forecast_of(protocol.data.horizon)
    data_folder = results_dir / protocol.name / "data"
    clips = load_clips(data_folder, protocol.data, "test")
    lpips = recorded_lpips(protocol, results_dir, data_dir, device)
    tables = {}
    source = kind_of(protocol.data).open(data_folder)
    further = recall_scores(protocol.data, clips, source.mean_target()) if protocol.data.metrics else None
    with distributed.process_group(device):
        if protocol.data.gaps:
            tables["frames.parquet"], examples = score_gaps(forecast, clips, source, protocol, lpips, device)
        else:
            tables["frames.parquet"], examples = score_clips(forecast, clips, protocol, lpips, device, further=further)
        if protocol.evaluation.beyond:
            longer = protocol.data.model_copy(update={"horizon": protocol.evaluation.beyond})
            stream = kind_of(longer).open(data_folder).fixed_stream("test")
            continued = forecast_of(longer.horizon)
            assert not isinstance(continued, Predictions), "the checks of a protocol refuse them"
            tables["beyond.parquet"] = score_beyond(continued, clips, stream, protocol, device)
    if not processes.is_first():
        return
    if entry := protocol.predictions_of(variant):
        write_json(folder / PREDICTIONS, scored_predictions(entry, clips_hash(clips)))
    for name, table in tables.items():
        write_scores(folder / name, table, variant, seed)
    with atomic_buffer(folder / "examples.npz") as file:
        np.savez_compressed(file, **examples)  # pyright: ignore[reportArgumentType]  # no array has the name of the flag
    film_strip(examples, title, folder / "film.png")
    film_animation(examples, folder / "film.gif")


def scored_predictions(entry: PredictionsEntry, test_sha256: str) -> dict[str, str]:
    """What a record says of the predictions that were scored: name and SHA-256 of the file or folder, and the clips."""
    path = Path(entry.predictions)
    return {"file": path.name, "sha256": sha256_of(path), "test_sha256": test_sha256}


def write_scores(path: Path, table: pd.DataFrame, variant: str, seed: int) -> None:
    """Write `table` with two columns in front that say whose scores these are."""
    table.insert(0, "variant", variant)
    table.insert(1, "seed", seed)
    write_parquet(path, table)


def recorded_lpips(protocol: Protocol, results_dir: Path, data_dir: Path, device: str) -> torch.nn.Module | None:
    """LPIPS with the backbone that `backbone` recorded, None where it found none.

    Raises:
        UserError: it has not run, or its file is gone or another.
    """
    record = results_dir / protocol.name / "lpips_backbone.json"
    if not record.exists():
        raise UserError(f"{record}: is missing; run the command `backbone` first")
    return load_lpips(read_json(record), data_dir, device)


def score_gaps(
    forecast: Forecast | Predictions,
    clips: Clips,
    source: ClipSource,
    protocol: Protocol,
    lpips: torch.nn.Module | None,
    device: str,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Score `forecast` on `clips`, the test clips of `source`, at every gap of the protocol.

    Returns:
        The rows of `score_clips` at each gap, with `gap` as first column; and the examples at gap 0.
    """
    boxes = source.boxes(len(clips))
    found = {
        gap: score_clips(forecast, source.at_gap(clips, gap), protocol, lpips, device, boxes)
        for gap in protocol.data.gaps
    }
    table = pd.concat({gap: table for gap, (table, _) in found.items()}, names=["gap"])
    return table.reset_index("gap").reset_index(drop=True), found[0][1]


def score_clips(
    forecast: Forecast | Predictions,
    clips: Clips,
    protocol: Protocol,
    lpips: torch.nn.Module | None,
    device: str,
    boxes: Bool[Tensor, "N T 1 H W"] | None = None,
    further: FurtherScores | None = None,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Score `forecast` on `clips`, batch by batch; several processes share the batches, and each gets all scores.

    Returns:
        One row a clip and predicted frame (both counted from 1) with one column a metric, of which `box_mse` only
        where `boxes` says which pixels it counts, and those of `further` only with it; and, of the clips that
        `evaluation.film_clips` names, `clip`, `context`, `truth` and `prediction` (uint8, clips T H W C).
    """
    data, evaluation = protocol.data, protocol.evaluation
    parts = []
    for first in distributed.share(range(0, len(clips), evaluation.batch_size)):
        frames = to_float(clips[first : first + evaluation.batch_size].to(device))
        if isinstance(forecast, Predictions):
            prediction = forecast.of(first, len(frames)).to(device)
        else:
            prediction = forecast(frames[:, : data.context])
        truth = frames[:, data.context :]  # (B, horizon, C, H, W)
        scores = score(prediction, truth, lpips, conventions=True)
        batch = len(prediction)
        if boxes is not None:
            inside = boxes[first : first + batch, data.context :].to(device)
            scores["box_mse"] = score_box(prediction, truth, inside)
        if further is not None:
            scores |= further(prediction, frames)
        shown = [clip - 1 - first for clip in sorted(evaluation.film_clips) if first < clip <= first + batch]
        parts.append((score_rows(scores, first), (255 * prediction[shown].clamp(0, 1)).byte().cpu()))
    tables, predictions = zip(*distributed.gathered(parts), strict=True)
    numbers = sorted(evaluation.film_clips)
    true = clips[[clip - 1 for clip in numbers]].movedim(2, -1).numpy()  # (clips, T, H, W, C)
    examples = {
        "clip": np.array(numbers),
        "context": true[:, : data.context],
        "truth": true[:, data.context :],
        "prediction": torch.cat(predictions).movedim(2, -1).numpy(),
    }
    return pd.concat(tables, ignore_index=True), examples


def score_beyond(forecast: Forecast, clips: Clips, stream: Stream, protocol: Protocol, device: str) -> pd.DataFrame:
    """Score the long `forecast` on `clips` as `stream` continues them, batch by batch.

    Returns:
        One row a clip and predicted frame (both counted from 1) with one column a metric of `HEADLINE`.
    """
    context, tables = protocol.data.context, []
    for numbers in distributed.share(torch.arange(len(clips)).split(protocol.evaluation.batch_size)):
        longer = stream.clips(numbers)
        assert torch.equal(longer[:, : clips.shape[1]], clips[numbers]), "the stream continues other clips"
        frames = to_float(longer.to(device))
        scores = score(forecast(frames[:, :context]), frames[:, context:])
        tables.append(score_rows(scores, int(numbers[0])))
    return pd.concat(distributed.gathered(tables), ignore_index=True)


def score_rows(scores: dict[str, Float64[Tensor, "B T"]], first: int) -> pd.DataFrame:
    """The scores of a batch whose first clip is number `first` from 0: a row a clip and frame, counted from 1."""
    batch, frames = next(iter(scores.values())).shape
    places = {
        "clip": np.repeat(np.arange(first + 1, first + batch + 1), frames),
        "frame": np.tile(np.arange(1, frames + 1), batch),
    }
    return pd.DataFrame(places | {name: value.cpu().numpy().ravel() for name, value in scores.items()})


def score_box(
    prediction: Float[Tensor, "B T C H W"], truth: Float[Tensor, "B T C H W"], inside: Bool[Tensor, "B T C H W"]
) -> Float64[Tensor, "B T"]:
    """`box_mse` of every frame over the pixels `inside`; NaN where any pixel of the prediction is not finite."""
    metric = METRICS["box_mse"]
    pair = (frames.where(inside, 0).flatten(2, 3) for frames in (prediction, truth))
    undefined = ~prediction.isfinite().flatten(2).all(dim=2)
    return compute(metric, *bring_to(metric.form, *pair)).masked_fill_(undefined, float("nan"))

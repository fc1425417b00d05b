"""What a file of weights predicts after a person's own clips, as values or to look at."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from benchmark.data.videos.layouts import Frames
from benchmark.evaluation.clip_images import film_animation, film_strip
from benchmark.exchange.input_clips import as_float, fit_clips, how_to_fit, open_input
from benchmark.exchange.score import check_accepts, clips_note, context_frames, forecast_of, split_note
from benchmark.system.devices import prepare_device
from benchmark.system.errors import UserError
from benchmark.system.files import atomic_buffer
from benchmark.training.weight_files import load_weights
from models.predictor import Predictor
from models.spec import ModelSpec

MOST_CLIPS = 8
"""Clips in one animation, video or prediction strip."""
LONGEST_NAME = 40


def predict(
    weights: Path,
    source: Path,
    output: Path,
    *,
    layout: str | None,
    context: int | None,
    horizon: int | None,
    white: int | None,
    fit: bool,
    batch_size: int,
    device: str,
) -> str:
    """Predict the frames after the first `context` of each clip at `source`, in fp32, and write them to `output`.

    Args:
        source, layout: see `benchmark.exchange.input_clips.open_input`.
        output: .npy: float32 in [0, 1], (T, H, W, C) for one clip and (N, T, H, W, C) for several; .gif, .mp4 and
            .png: to look at, beside the frames that the input has after the context.
        context: frames given; None for as many as the weights were trained with.
        horizon: frames predicted; None for what the shortest clip leaves, or where it leaves none for as many as are
            given.
        white: the value of a white pixel, see `benchmark.exchange.input_clips.scale_values`.
        fit: crop, scale and convert frames to what the weights are for.

    Returns:
        What was read, predicted and written, for people.

    Raises:
        UserError: a file is missing, damaged, of another kind or cannot be written, clips are too short, or the
            network takes no frames like those.
    """
    prepare_device(device, torch.get_num_threads())
    network = load_weights(weights).to(device)
    given = context_frames(weights, context)
    clips = open_input(source, given, layout, white)
    rest = min(clips.lengths) - given
    predicted = horizon or rest or given
    true = min(rest, predicted)
    values = clips.check_values(source, given + true, white)
    notes = [f"{source}: {clips_note(clips, given + true)}; {values}."]
    if fit:
        clips = fit_clips(clips, network.spec)
    try:
        check_accepts(network.spec, clips.frame, f"{source}: its clips")
    except UserError as error:
        raise UserError(f"{error}; {how_to_fit(source, network.spec)}") from None
    notes += [size_note(network.spec, clips.frame, fit), split_note(weights, given, predicted)]
    count = clips.count if output.suffix.lower() == ".npy" else min(clips.count, MOST_CLIPS)
    numbers = [range(first, min(first + batch_size, count)) for first in range(0, count, batch_size)]
    batches = [roll_out(network, clips.read(batch, given), predicted, device) for batch in numbers]
    prediction = np.concatenate(batches)
    check_finite(weights, prediction)
    if output.suffix.lower() == ".npy":
        notes.append(f"{output}: float32 from 0 to 1, {write_values(prediction, output)}.")
    else:
        frames = clips.read(range(count), given + true)
        draw(np.moveaxis(as_float(frames), 2, -1), prediction, given, output, source.name)
        shown = f"the first {count} of {clips.count:,} clips" if count < clips.count else "input and prediction"
        notes.append(f"{output}: {shown}{'' if true else ', no truth to compare with'}.")
    return "\n".join(filter(None, notes))


def roll_out(network: Predictor, context: Frames, horizon: int, device: str) -> Float[np.ndarray, "N {horizon} H W C"]:
    """The prediction after `context`, clipped to [0, 1]; NaN and infinite values stay."""
    frames = torch.from_numpy(as_float(context)).to(device)
    prediction = forecast_of(network, horizon)(frames).movedim(2, -1).cpu()
    return torch.where(prediction.isfinite(), prediction.clamp(0, 1), prediction).numpy()


def draw(
    frames: Float[np.ndarray, "N S H W C"],
    prediction: Float[np.ndarray, "N T H W C"],
    context: int,
    output: Path,
    name: str,
) -> None:
    """Write an animation, a video or a prediction strip of the clips in `name`, whose first `context` frames are given.

    Raises:
        UserError: PyAV has no encoder for a video.
    """
    true = as_pixels(frames)
    examples = {"clip": np.arange(1, len(true) + 1), "context": true[:, :context], "truth": true[:, context:]}
    examples["prediction"] = as_pixels(prediction)
    if output.suffix.lower() == ".gif":
        film_animation(examples, output)
        return
    if output.suffix.lower() == ".mp4":
        from benchmark.exchange.prediction_video import write_video

        write_video(examples, output)
        return
    name = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
    film_strip(examples, f"{name}: {context} frames given, {prediction.shape[1]} predicted", output, "clip")


def size_note(spec: ModelSpec, frame: tuple[int, int, int], fit: bool) -> str:
    """What was made of the frames, or that the weights are for frames of another size; empty where neither is so."""
    side = f"{spec.frame_size}x{spec.frame_size}"
    if fit:
        return f"Fitted to {side} pixels, {'grey' if spec.channels == 1 else 'colour'}."
    same = frame[1:] == (spec.frame_size, spec.frame_size)
    return "" if same else f"The weights are for frames of {side} pixels; --fit would scale to that."


def check_finite(weights: Path, prediction: Float[np.ndarray, "N T H W C"]) -> None:
    """Raise UserError if anything predicted is not finite, with where that begins."""
    wrong = ~np.isfinite(prediction).all(axis=(2, 3, 4))
    if wrong.any():
        clip, step = np.argwhere(wrong)[0]
        raise UserError(
            f"{weights}: predicts values that are not finite, first in clip {clip + 1}, {step + 1} frames after the"
            " context; nothing was written"
        )


def write_values(prediction: Float[np.ndarray, "N T H W C"], output: Path) -> str:
    """Write a .npy, without the axis of clips where there is one clip; returns its axes in words."""
    several = len(prediction) > 1
    array = prediction if several else prediction[0]
    with atomic_buffer(output) as file:
        np.save(file, array)
    axes = ("clips", "frames", "height", "width", "channels")[not several :]
    return ", ".join(f"{size} {axis}" for size, axis in zip(array.shape, axes, strict=True))


def as_pixels(frames: Float[np.ndarray, "N T H W C"]) -> np.ndarray:
    """uint8, 255 times the value, rounded."""
    return (255 * frames).round().astype(np.uint8)

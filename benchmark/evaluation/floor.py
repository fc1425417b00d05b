"""What memory is worth: the error of the best predictor that sees only the last k context frames (docs/floor.md).

Under squared error the best predictor is the mean of all clips that agree with what it saw, and its error is their
variance. Clips of moving digits can be drawn from exactly those (`moving_digits/starts.py`), so that no mean is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Float64, Int64, UInt8

from benchmark.config.data_sections import DigitsConfig
from benchmark.config.protocol import Protocol
from benchmark.data.counter_rng import counter_hash
from benchmark.data.moving_digits.starts import AxisParts, OpenPaths, stream_motion
from benchmark.data.moving_digits.stream import ClipStream, trajectory
from benchmark.data.still_digits.bank import load_digits
from benchmark.system.errors import UserError
from benchmark.system.files import write_atomic

FLOOR = 1001
"""First counter of every draw here; those of `counter_rng.Domain` lie far below it."""
DRAWS = 4
"""Clips drawn that agree with what is seen, the true one among them."""
CLIPS = 2000
"""Clips of an estimate."""
AT_ONCE = 25
"""Clips rendered at a time."""
_IMAGES, _PATHS = 0, 1


def write_floor(protocol: Protocol, results_dir: Path, clips: int = CLIPS) -> str:
    """Write `floor.csv` of a protocol on moving digits, from its prepared folder, and return its means as text.

    It has one row for each k that the protocol asks for, or for every one if it asks for none, and a last row `all`
    where places are known in all frames: mean over predicted frames and value of each frame (`known_mse`,
    `known_mse_1`, ..., `unseen_mse`, ...), with their standard errors (`known_error`, ...).

    Args: `clips`: at least 2.

    Raises:
        UserError: the protocol is on videos, or its clips are not prepared.
    """
    if not protocol.data.known_motion:
        raise UserError(f"protocol {protocol.name}: data.{protocol.data.kind}: how they move is not known: no floor")
    data = cast(DigitsConfig, protocol.data)
    digits = load_digits(results_dir / protocol.name / "data").test
    seen = sorted(protocol.evaluation.floor) or [*range(1, data.context + 1)]
    found = floor(digits, data, seen, clips)
    exact = np.zeros((clips, data.horizon))
    rows = [
        {"frames_seen": str(k or "all"), "clips": clips}
        | _columns("known", found.known.get(k, exact))
        | _columns("unseen", found.unseen[k])
        for k in (*seen, 0)
    ]
    table = pd.DataFrame(rows)
    write_atomic(results_dir / protocol.name / "floor.csv", table.to_csv(index=False))
    shown = [f"{images}_{value}" for images in ("known", "unseen") for value in ("mse", "error")]
    return table[["frames_seen", "clips", *shown]].to_string(index=False, float_format="{:.3f}".format)


def _columns(name: str, errors: Float64[np.ndarray, "clips horizon"]) -> dict[str, float]:
    """Means and their standard errors: over all predicted frames, and of each."""
    series = {"": errors.mean(axis=1)} | {f"_{frame}": each for frame, each in enumerate(errors.T, start=1)}
    found = {}
    for frame, each in series.items():
        found |= {f"{name}_mse{frame}": each.mean(), f"{name}_error{frame}": each.std(ddof=1) / len(each) ** 0.5}
    return found


@dataclass(frozen=True)
class Floor:
    """Estimated error of the best predictors, by clip and predicted frame: squared error summed over pixels.

    Attributes:
        known: k -> error where the images of the digits are known and their places are seen in the last k frames.
        unseen: the same where only the set of images is known; k = 0 stands for places that are known in all frames.
    """

    known: dict[int, Float64[np.ndarray, "clips horizon"]]
    unseen: dict[int, Float64[np.ndarray, "clips horizon"]]


def floor(
    digits: UInt8[np.ndarray, "n d d"], data: DigitsConfig, frames_seen: Sequence[int], clips: int, seed: int = 0
) -> Floor:
    """The error of the best predictors on clips that move as the first `clips` test clips do; Eq. F2.

    Args:
        digits: images that are drawn for them.
        data: what a clip is.
        frames_seen: the k, each from 1 to `data.context`.
        clips: how many, at least 2.
        seed: of all draws; the motion of the clips is the same for every seed.
    """
    stream = ClipStream(
        digits,
        seed=0,
        split="test",
        frame_size=data.frame_size,
        num_digits=data.num_digits,
        frames=data.context + data.horizon,
    )
    places = torch.stack(stream.positions(torch.arange(clips)), dim=-1).numpy()
    parts = AxisParts(stream_motion(), data.frame_size - data.digit_size, data.context)
    return floor_of(places, digits, parts, frames_seen, seed)


def floor_of(
    places: Int64[np.ndarray, "clips N T 2"],
    digits: UInt8[np.ndarray, "n d d"],
    parts: AxisParts,
    frames_seen: Sequence[int],
    seed: int,
) -> Floor:
    """The error of the best predictors on clips with digits at these places; the rest as in `floor`.

    Args:
        places: top row and left column of every digit in every frame.
        parts: of the motion that `places` are drawn from.
    """
    seen = sorted(frames_seen)
    known: dict = {k: [] for k in seen}
    unseen: dict = {k: [] for k in (0, *seen)}
    for first in range(0, len(places), AT_ONCE):
        true = places[first : first + AT_ONCE]
        numbers = np.arange(first, first + len(true))
        images = digits[_drawn_images(len(digits), seed, numbers, true.shape[1])]
        same = np.repeat(images[:, :1], DRAWS, axis=1)
        for k, drawn in _drawn_places(true, numbers, parts, seen, seed).items():
            future = drawn[:, :, :, parts.context :]
            unseen[k].append(_variance(images, future, parts.room))
            if k:
                known[k].append(_variance(same, future, parts.room))
    return Floor(*({k: np.concatenate(found) for k, found in each.items()} for each in (known, unseen)))


def draw_path(paths: OpenPaths, words: Int64[np.ndarray, "n 3"], frames: int) -> Int64[np.ndarray, "n T 2"]:
    """Top row and left column of one digit in all frames, drawn from `paths` by random `words`."""
    direction, start = paths.draw(words)
    motion = paths.parts.motion
    start, step = (torch.from_numpy(way / motion.unit) for way in (start, motion.steps[direction]))
    return (trajectory(start, step, frames) * paths.parts.room).long().transpose(1, 2).numpy()


def render(
    digits: UInt8[np.ndarray, "B N d d"], places: Int64[np.ndarray, "B N T 2"], room: int
) -> Float32[np.ndarray, "B T H W"]:
    """Frames in [0, 1] of digits at these places; where digits overlap, the brighter pixel."""
    B, N, T, _ = places.shape
    d = digits.shape[-1]
    H = d + room
    # As in `ClipStream`: each digit in a margin of zeros, on which a frame is a window.
    framed = np.zeros((B * N, H + room, H + room), np.float32)
    framed[:, room:H, room:H] = digits.reshape(B * N, d, d) / np.float32(255)
    windows = np.lib.stride_tricks.sliding_window_view(framed, (H, H), axis=(1, 2))
    top, left = np.moveaxis(room - places.reshape(B * N, T, 2), -1, 0)
    layers = windows[np.arange(B * N)[:, None], top, left].reshape(B, N, T, H, H)
    return reduce(np.maximum, np.moveaxis(layers, 1, 0))


def _drawn_places(
    true: Int64[np.ndarray, "B N T 2"], numbers: Int64[np.ndarray, " B"], parts: AxisParts, seen: list[int], seed: int
) -> dict[int, Int64[np.ndarray, "B draws N T 2"]]:
    """k -> the true places, then others that agree with them in the last k context frames; all true for k = 0."""
    drawn = {k: np.repeat(true[:, None], DRAWS, axis=1) for k in (0, *seen)}
    for place, number in enumerate(numbers.tolist()):
        for digit, path in enumerate(true[place]):
            for k, paths in zip(seen, parts.given(path[: parts.context], seen), strict=True):
                counters = np.arange(3 * (DRAWS - 1)).reshape(-1, 3)
                words = counter_hash(seed, FLOOR, _PATHS, k, number, digit, counters)
                drawn[k][place, 1:, digit] = draw_path(paths, words, len(path))
    return drawn


def _drawn_images(
    count: int, seed: int, numbers: Int64[np.ndarray, " B"], num_digits: int
) -> Int64[np.ndarray, "B draws N"]:
    """Which of `count` images each digit of each draw has, drawn one by one."""
    clip, draw, digit = np.ix_(numbers, np.arange(DRAWS), np.arange(num_digits))
    return (counter_hash(seed, FLOOR, _IMAGES, clip, draw, digit) * count) >> 32


def _variance(
    images: UInt8[np.ndarray, "B draws N d d"], places: Int64[np.ndarray, "B draws N T 2"], room: int
) -> Float64[np.ndarray, "B T"]:
    """Unbiased variance over the draws, summed over pixels; of two draws it is half their squared distance."""
    B = len(images)
    frames = render(images.reshape(-1, *images.shape[2:]), places.reshape(-1, *places.shape[2:]), room)
    each = frames.reshape(B, DRAWS, *frames.shape[1:]).var(axis=1, ddof=1)
    return each.sum(axis=(-2, -1), dtype=np.float64)

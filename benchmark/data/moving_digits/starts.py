"""Which starts and directions of a moving digit agree with the places where it was seen: all of them, exactly.

Positions are whole multiples of 2**-32 and so are the steps (`moving_digits/stream.py`): everything is counted in
integers. For a given direction the two axes are independent. Along one axis the starts part by the frame h in which
they first meet a wall: before h a path is a straight line, from h on it is the same for all of them, since walls clamp.
So the starts of one part that agree with what was seen are an interval, whose length is their number.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float64, Int64

from benchmark.data.moving_digits.stream import _directions


@dataclass(frozen=True)
class Motion:
    """How digits move: a start is one of `unit` along each axis, a direction one of `steps`, all equally likely.

    Attributes:
        steps: way per frame, down and to the right, of every direction.
        unit: a power of two; the room that a digit has along an axis, as `steps` count it.
    """

    steps: Int64[np.ndarray, "directions 2"]
    unit: int


@cache
def stream_motion() -> Motion:
    """The motion of the clips of moving digits."""
    return Motion((_directions().numpy() * 2.0**32).astype(np.int64), 2**32)


@dataclass(frozen=True)
class Intervals:
    """Starts along one axis, in the order of their steps.

    Attributes:
        part: rows of `AxisParts`.
        low, high: the starts from `low` on and below `high`.
    """

    part: Int64[np.ndarray, " n"]
    low: Int64[np.ndarray, " n"]
    high: Int64[np.ndarray, " n"]

    @property
    def sizes(self) -> Int64[np.ndarray, " n"]:
        """How many starts each holds."""
        return self.high - self.low


class AxisParts:
    """All starts along an axis, a row for each step that a direction has and each frame of the first wall.

    Args:
        motion: of the digits.
        room: pixels that a digit can move along the axis: frame size - digit size.
        context: K; a first wall is looked for in frames 1 to K, K + 1 stands for none.
    """

    def __init__(self, motion: Motion, room: int, context: int) -> None:
        self.motion, self.room, self.context = motion, room, context
        steps, rows = np.unique(motion.steps, return_inverse=True)
        self.step_rows = rows.reshape(motion.steps.shape)
        """Direction -> the rows, among the distinct steps, of its two."""
        self.count = len(steps)
        step, wall = np.repeat(steps, context + 1), np.tile(np.arange(1, context + 2), len(steps))
        low, high = _starts_to_wall(step, wall, context, motion.unit)
        kept = low < high
        self.step, self.wall = step[kept], wall[kept]
        self.step_row = np.repeat(np.arange(len(steps)), context + 1)[kept]
        self.every = Intervals(np.arange(kept.sum()), low[kept], high[kept])
        self.place = self._places_after_wall()

    def given(self, places: Int64[np.ndarray, "K 2"], frames_seen: Sequence[int]) -> "Iterator[OpenPaths]":
        """What is open once a digit was seen in the last k of `places`, for each k of `frames_seen`, which rise."""
        top = left = self.every
        last = 0
        for k in frames_seen:
            for t in range(self.context - last, self.context - k, -1):
                top, left = self._seen(top, t, int(places[t - 1, 0])), self._seen(left, t, int(places[t - 1, 1]))
            last = k
            yield OpenPaths(self, top, left)

    def _seen(self, starts: Intervals, t: int, place: int) -> Intervals:
        """Those of `starts` that are in pixel `place` in frame `t`."""
        straight = self.wall[starts.part] > t
        first, end = (-(-pixel * self.motion.unit // self.room) for pixel in (place, place + 1))
        moved = t * self.step[starts.part]
        low = np.where(straight, np.maximum(starts.low, first - moved), starts.low)
        high = np.where(straight, np.minimum(starts.high, end - moved), starts.high)
        kept = np.flatnonzero((low < high) & (straight | (self.place[t - 1, starts.part] == place)))
        return Intervals(starts.part[kept], low[kept], high[kept])

    def _places_after_wall(self) -> Int64[np.ndarray, "K parts"]:
        """Pixel in frames 1 to K, from the first wall on; before it 0, which means nothing."""
        unit = self.motion.unit
        places = np.zeros((self.context, len(self.step)), np.int64)
        position, step = np.where(self.step > 0, unit, 0), -self.step
        for t in range(1, self.context + 1):
            moving = self.wall < t
            moved = position + np.where(moving, step, 0)
            hit = moving & ((moved <= 0) | (moved >= unit))
            position, step = moved.clip(0, unit), np.where(hit, -step, step)
            places[t - 1] = position * self.room // unit * (self.wall <= t)
        return places


@dataclass(frozen=True)
class OpenPaths:
    """The starts and directions of one digit that agree with what was seen, all equally likely."""

    parts: AxisParts
    top: Intervals
    left: Intervals

    def sizes(self) -> Float64[np.ndarray, " directions"]:
        """How many pairs of starts each direction has."""
        top, left = (
            np.bincount(self.parts.step_row[one.part], one.sizes, minlength=self.parts.count)
            for one in (self.top, self.left)
        )
        return top[self.parts.step_rows[:, 0]] * left[self.parts.step_rows[:, 1]]

    def draw(self, words: Int64[np.ndarray, "n 3"]) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, "n 2"]]:
        """Directions and their starts, down and to the right.

        Args:
            words: random, in [0, 2**32).
        """
        upto = np.cumsum(self.sizes())
        chance = words / 2.0**32
        direction = np.searchsorted(upto, chance[:, 0] * upto[-1], side="right")
        rows = self.parts.step_rows[direction]
        starts = [
            self._draw_along(one, rows[:, axis], chance[:, 1 + axis]) for axis, one in enumerate((self.top, self.left))
        ]
        return direction, np.stack(starts, axis=1)

    def _draw_along(
        self, starts: Intervals, rows: Int64[np.ndarray, " n"], chance: Float64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        """One of the starts of the step in each of `rows`."""
        upto = np.concatenate([[0], np.cumsum(starts.sizes)])
        row = self.parts.step_row[starts.part]
        first, end = (upto[np.searchsorted(row, rows, side=side)] for side in ("left", "right"))
        number = first + (chance * (end - first)).astype(np.int64)
        interval = np.searchsorted(upto, number, side="right") - 1
        return starts.low[interval] + number - upto[interval]


def _starts_to_wall(
    step: Int64[np.ndarray, " n"], wall: Int64[np.ndarray, " n"], context: int, unit: int
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """The starts, from low on and below high, that meet their first wall in frame `wall`; K + 1 stands for none."""
    way = np.abs(step)
    near, far = way * (wall - 1), np.where(wall > context, unit, way * wall)
    # The way to the far wall, unit - start, lies in (near, far]; that to the wall at 0 is the start, which may be 0.
    low = np.where(step > 0, unit - far, np.where(wall == 1, 0, near + 1))
    high = np.where(step > 0, unit - near, far + 1)
    return low.clip(0, unit), high.clip(0, unit)

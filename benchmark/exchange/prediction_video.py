"""A prediction as an MP4 video, whose pictures are those of the animated GIF."""

from pathlib import Path

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.video.stream import VideoStream

from benchmark.evaluation.clip_images import FRAME_MS, animation_frame
from benchmark.system.errors import UserError
from benchmark.system.files import atomic_buffer

ENCODERS = {"libx264": {"crf": "12"}, "mpeg4": {"qmin": "1", "qmax": "2"}}
"""Encoder (H.264, MPEG-4) -> options that keep single pixels sharp; the first that PyAV was built with is taken."""


def write_video(examples: dict[str, np.ndarray], path: Path) -> None:
    """Write an MP4 that plays what `film_animation` plays, a frame in `FRAME_MS` milliseconds, without its long end.

    Args:
        examples: as in `benchmark.evaluation.clip_images.film_strip`.
        path: MP4 to write. Its sides are even, as these codecs need them: white is added on the right and below.

    Raises:
        UserError: PyAV was built without any of `ENCODERS`.
    """
    encoder = next((name for name in ENCODERS if can_encode(name)), None)
    if encoder is None:
        raise UserError(f"--output: {path}: PyAV has no encoder of {' or '.join(ENCODERS)} here; write .gif instead")
    frames = examples["context"].shape[1] + examples["prediction"].shape[1]
    with atomic_buffer(path) as file, av.open(file, "w", format="mp4") as container:
        stream: VideoStream = container.add_stream(encoder, 1000 // FRAME_MS, ENCODERS[encoder])  # pyright: ignore[reportAssignmentType]  # encoders of video
        stream.pix_fmt = "yuv420p"
        first = even_sides(np.asarray(animation_frame(examples, 1)))
        stream.height, stream.width = first.shape[:2]
        for t in range(1, frames + 1):
            picture = even_sides(np.asarray(animation_frame(examples, t)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())


def even_sides(picture: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3, uint8) with white added on the right and below where a side is odd."""
    height, width = picture.shape[:2]
    return np.pad(picture, [(0, height % 2), (0, width % 2), (0, 0)], constant_values=255)


def can_encode(name: str) -> bool:
    """Whether PyAV was built with the encoder `name`."""
    try:
        av.Codec(name, "w")
    except UnknownCodecError:
        return False
    return True

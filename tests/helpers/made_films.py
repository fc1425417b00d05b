"""Real videos, made with a real encoder: moving squares, in the public layout of KTH or as a person may have them."""

from pathlib import Path

import av
import numpy as np

from benchmark.data.videos.kth import ACTIONS

GREYS = np.stack([np.full(256, 255, np.uint8)] + [np.arange(256, dtype=np.uint8)] * 3, axis=-1)
"""A palette (alpha, red, green, blue) of all greys in order."""


def moving_square(frames, height, width, seed):
    """uint8 (frames, height, width): a bright square on a dark ground that goes its way; no two videos are alike."""
    video = np.full((frames, height, width), 20 + seed % 50, np.uint8)
    side = max(2, min(height, width) // 4)
    for t in range(frames):
        top, left = (seed + t) % (height - side), (3 * seed + 2 * t) % (width - side)
        video[t, top : top + side, left : left + side] = 150 + 7 * (seed + t) % 100
    return video


def write_video(path, frames, codec="ffv1", pixels="gray", rate=25, container=None, times=None, **keys):
    """Encode uint8 (T, H, W), (T, H, W, 3) or (T, H, W, 4); ffv1 loses nothing, mpeg4 is what the public videos have.

    Args:
        times: of the frames, in halves of a frame's time; None for one after the other.
        keys: `turned` (degrees), `aspect` of a pixel, `gop` (frames between those that stand alone), `options`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container or {}) as output:
        stream = output.add_stream(codec, rate=rate if times is None else 2 * rate, options=keys.get("options") or {})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        if "turned" in keys:
            stream.set_display_rotation(keys["turned"])
        if "aspect" in keys:
            stream.codec_context.sample_aspect_ratio = keys["aspect"]
        if "gop" in keys:
            stream.codec_context.gop_size = keys["gop"]
        for number, frame in enumerate(frames):
            form = "gray" if frame.ndim == 2 else {3: "rgb24", 4: "rgba"}[frame.shape[2]]
            if pixels == "pal8":
                frame, form = (frame, GREYS), pixels
            picture = av.VideoFrame.from_ndarray(frame, format=form)
            picture.pts = number if times is None else times[number]
            output.mux(stream.encode(picture))
        output.mux(stream.encode())


def write_kth(folder: Path, persons, actions=tuple(ACTIONS), scenes=(1,), frames=12, height=12, width=16, **keys):
    """Videos of these persons in the public layout; returns name -> frames."""
    made = {}
    for action in actions:
        for person in persons:
            for scene in scenes:
                name, seed = f"person{person:02}_{action}_d{scene}", len(made)
                made[name] = moving_square(frames, height, width, seed)
                write_video(folder / action / f"{name}_uncomp.avi", made[name], **keys)
    return made

"""Real videos, made with a real encoder: moving squares, in the public layout of KTH or as a person may have them."""

from pathlib import Path

import av
import numpy as np

from benchmark.data.videos.kth import ACTIONS


def moving_square(frames, height, width, seed):
    """uint8 (frames, height, width): a bright square on a dark ground that goes its way; no two videos are alike."""
    video = np.full((frames, height, width), 20 + seed % 50, np.uint8)
    side = max(2, min(height, width) // 4)
    for t in range(frames):
        top, left = (seed + t) % (height - side), (3 * seed + 2 * t) % (width - side)
        video[t, top : top + side, left : left + side] = 150 + 7 * (seed + t) % 100
    return video


def write_video(path, frames, codec="ffv1", pixels="gray", rate=25):
    """Encode uint8 (T, H, W) or (T, H, W, 3); ffv1 loses nothing, mpeg4 is what the public videos have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="gray" if frame.ndim == 2 else "rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


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

"""What was predicted, to look at: a film strip and an animation of a run, and one clip as all variants predict it.

Strip and animation are composed pixel by pixel, so that each pixel of a frame is one square of pixels of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from PIL import Image, ImageDraw, ImageFont

from benchmark.drawing import HIGHLIGHT, WIDTH, finish, page
from benchmark.files import atomic_path

FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
STRIP_WIDTH = 2000
"""About how many pixels wide a strip is, if its frames stay below `LARGEST_CELL`."""
LARGEST_CELL = 128
PANEL_WIDTH = 128
"""About how many pixels wide a frame of an animation is."""
MOST_COLUMNS = 10
"""Frames side by side in the figure of all variants."""
FRAME_MS, LAST_FRAME_MS = 200, 2000
TEXT, FAINT = "#202020", "#707070"
ERRORS = matplotlib.colormaps["RdBu_r"]
"""Colours of prediction - truth from -1 (blue, too dark) to 1 (red, too bright)."""


def as_rgb(frame: np.ndarray, scale: int) -> Image.Image:
    """A frame (H, W, C, uint8; C = 1 or 3) as an RGB image, each pixel a square of `scale` pixels."""
    rgb = np.broadcast_to(frame, (*frame.shape[:2], 3))
    return Image.fromarray(rgb.repeat(scale, axis=0).repeat(scale, axis=1))


def error_colors(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3, uint8) of the signed error of a frame, mean over channels."""
    error = (prediction.astype(np.float64) - truth).mean(axis=-1) / 255
    return ERRORS(0.5 + error / 2, bytes=True)[..., :3]


def color_bar(canvas: Image.Image, x: int, y: int, width: int, size: int) -> None:
    """Draw the scale of the errors with its legend at (x, y), text `size` pixels high."""
    font, draw = ImageFont.truetype(FONT, size), ImageDraw.Draw(canvas)
    words, ends = "error = prediction \N{MINUS SIGN} truth", ("\N{MINUS SIGN}1 (too dark)", "1 (too bright)")
    draw.text((x, y), words, TEXT, font, anchor="lm")
    x += round(draw.textlength(words, font)) + size
    draw.text((x, y), ends[0], TEXT, font, anchor="lm")
    x += round(draw.textlength(ends[0], font)) + size // 2
    ramp = ERRORS(np.linspace(0, 1, width), bytes=True)[None, :, :3].repeat(size, axis=0)
    canvas.paste(Image.fromarray(ramp), (x, y - size // 2))
    draw.rectangle((x - 1, y - size // 2 - 1, x + width, y - size // 2 + size), outline=FAINT)
    draw.text((x + width + size // 2, y), ends[1], TEXT, font, anchor="lm")


def film_strip(examples: dict[str, np.ndarray], title: str, path: Path) -> None:
    """Write a PNG with, for each clip, its true frames above the prediction and the error, columns aligned in time.

    Args:
        examples: `clip` (n,), `context` (n, K, H, W, C), `truth` and `prediction` (n, T, H, W, C), uint8.
        title: the run.
        path: PNG to write.
    """
    context, horizon = examples["context"].shape[1], examples["truth"].shape[1]
    height, width = examples["truth"].shape[2:4]
    scale = max(1, min(round(STRIP_WIDTH / ((context + horizon) * width)), LARGEST_CELL // width))
    cell_w, cell_h = width * scale + 4, height * scale + 4
    size = max(14, min(24, round(0.26 * cell_w)))
    font, bold = ImageFont.truetype(FONT, size), ImageFont.truetype(FONT, round(1.2 * size))
    left, between, top = 7 * size, 2 * size, 3 * size
    block = round(3.4 * size) + 3 * cell_h
    canvas = Image.new(
        "RGB",
        (left + (context + horizon) * cell_w + between + size, top + len(examples["clip"]) * block + 3 * size),
        "white",
    )
    draw = ImageDraw.Draw(canvas)
    draw.text((size, top // 2), title, TEXT, bold, anchor="lm")

    def x_of(t: int) -> int:
        return left + (t - 1) * cell_w + (between if t > context else 0)

    for index, clip in enumerate(examples["clip"]):
        y = top + index * block + round(2.6 * size)
        true = np.concatenate([examples["context"][index], examples["truth"][index]])
        for t in range(1, context + horizon + 1):
            draw.text((x_of(t) + cell_w // 2, y - size // 2 - 4), str(t), TEXT, font, anchor="mm")
            canvas.paste(as_rgb(true[t - 1], scale), (x_of(t), y))
        for step in range(horizon):
            predicted, x = examples["prediction"][index, step], x_of(context + step + 1)
            canvas.paste(as_rgb(predicted, scale), (x, y + cell_h))
            canvas.paste(as_rgb(error_colors(predicted, true[context + step]), scale), (x, y + 2 * cell_h))
            draw.rectangle((x - 1, y + 2 * cell_h - 1, x + cell_w - 4, y + 3 * cell_h - 4), outline="#C8C8C8")
        start = x_of(context + 1) - between // 2 - 2
        draw.line((start, y - 2 * size, start, y + 3 * cell_h), HIGHLIGHT, 3)
        heads = {size: f"test clip {clip}", left: "context", x_of(context + 1): "horizon"}
        for x, words in heads.items():
            draw.text((x, y - 2 * size), words, TEXT, font, anchor="lm")
        for row, words in enumerate(("truth", "prediction", "error")):
            draw.text((left - size // 2, y + row * cell_h + cell_h // 2), words, TEXT, font, anchor="rm")
    color_bar(canvas, left, canvas.height - round(1.6 * size), 8 * size, size)
    with atomic_path(path) as temporary:
        canvas.save(temporary)


def film_animation(examples: dict[str, np.ndarray], path: Path) -> None:
    """Write a GIF that plays the context and then truth, prediction and error side by side, a row a clip.

    Args:
        examples: as in `film_strip`.
        path: GIF to write.
    """
    frames = [
        animation_frame(examples, t) for t in range(1, examples["context"].shape[1] + examples["truth"].shape[1] + 1)
    ]
    palette = animation_palette()
    indexed = [index_colors(frame, palette) for frame in frames]
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    with atomic_path(path) as temporary:
        indexed[0].save(temporary, save_all=True, append_images=indexed[1:], duration=durations, loop=0, optimize=False)


def animation_palette() -> np.ndarray:
    """The 256 colours (256, 3) of an animation: greys that hold 0 and 255, colours of errors, and the highlight."""
    greys = np.linspace(0, 255, 154).round().astype(np.uint8)[:, None].repeat(3, axis=1)
    errors = ERRORS(np.linspace(0, 1, 101), bytes=True)[:, :3]
    accent = np.array([[int(HIGHLIGHT[i : i + 2], 16) for i in (1, 3, 5)]], dtype=np.uint8)
    return np.concatenate([greys, errors, accent])


def index_colors(picture: Image.Image, palette: np.ndarray) -> Image.Image:
    """An RGB picture in the nearest colours of `palette` (256, 3); Pillow's own search is inexact and loses white."""
    red, green, blue = np.asarray(picture).astype(np.int64).transpose(2, 0, 1)
    packed, where = np.unique(red << 16 | green << 8 | blue, return_inverse=True)
    colors = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1)
    nearest = np.square(colors[:, None] - palette.astype(np.int64)).sum(axis=2).argmin(axis=1).astype(np.uint8)
    indexed = Image.fromarray(nearest[where].reshape(red.shape))
    indexed.putpalette(palette.ravel().tolist())
    return indexed


def animation_frame(examples: dict[str, np.ndarray], t: int) -> Image.Image:
    """The picture at time `t` (1 = first given frame): three panels a clip, of which the context leaves two blank."""
    context, horizon = examples["context"].shape[1], examples["truth"].shape[1]
    height, width = examples["truth"].shape[2:4]
    scale, gap, line = max(1, round(PANEL_WIDTH / width)), 10, 26
    panel_w, panel_h = width * scale, height * scale
    canvas = Image.new(
        "RGB", (3 * panel_w + 4 * gap, 2 * line + len(examples["clip"]) * (panel_h + gap) + line), "white"
    )
    draw, font = ImageDraw.Draw(canvas), ImageFont.truetype(FONT, 13)
    predicting, step = t > context, t - context - 1
    words, color = ("prediction", HIGHLIGHT) if predicting else ("context", TEXT)
    draw.text((gap, line // 2 + 2), f"t = {t}", TEXT, font, anchor="lm")
    draw.text((canvas.width - gap, line // 2 + 2), words, color, font, anchor="rm")
    for column, head in enumerate(("truth", "prediction", "error")):
        middle = gap + column * (panel_w + gap) + panel_w // 2
        draw.text((middle, line + line // 2), head, TEXT, font, anchor="mm")
    for index in range(len(examples["clip"])):
        y = 2 * line + index * (panel_h + gap)
        x = [gap + column * (panel_w + gap) for column in range(3)]
        if predicting:
            truth, prediction = examples["truth"][index, step], examples["prediction"][index, step]
            for place, picture in zip(x, (truth, prediction, error_colors(prediction, truth)), strict=True):
                canvas.paste(as_rgb(picture, scale), (place, y))
            draw.rectangle((x[1] - 4, y - 4, x[1] + panel_w + 3, y + panel_h + 3), outline=HIGHLIGHT, width=3)
            draw.rectangle((x[2] - 1, y - 1, x[2] + panel_w, y + panel_h), outline="#C8C8C8")
        else:
            canvas.paste(as_rgb(examples["context"][index, t - 1], scale), (x[0], y))
            for place in x[1:]:
                draw.rectangle((place, y, place + panel_w - 1, y + panel_h - 1), fill="#ECECEC")
    timeline(draw, (gap, canvas.height - line // 2, canvas.width - gap), t, context, context + horizon)
    return canvas


def timeline(draw: ImageDraw.ImageDraw, place: tuple[int, int, int], t: int, context: int, frames: int) -> None:
    """A bar from x to the right end at height y that has filled up to `t`, highlighted from the first prediction on."""
    left, y, right = place

    def x_of(done: int) -> int:
        return left + round((right - left) * done / frames)

    draw.rectangle((left, y - 2, right, y + 2), fill="#E0E0E0")
    draw.rectangle((left, y - 2, x_of(min(t, context)), y + 2), fill=FAINT)
    if t > context:
        draw.rectangle((x_of(context), y - 2, x_of(t), y + 2), fill=HIGHLIGHT)
    draw.line((x_of(context), y - 7, x_of(context), y + 7), HIGHLIGHT, 2)


@dataclass(frozen=True)
class FilmRow:
    """One row of `film_figure`: what it is, its frames (T, H, W, C, uint8), its error, and whether it is a baseline."""

    label: str
    frames: np.ndarray
    mse: float | None = None
    baseline: bool = False


def film_figure(
    context: np.ndarray, rows: Sequence[FilmRow], title: str, notes: Sequence[str], paths: Sequence[Path]
) -> None:
    """Write one clip as all predict it: its context, then under each other the truth and the predictions.

    Args:
        context: given frames (K, H, W, C), uint8.
        rows: the truth and the predictions of the frames after them.
        title: stands on top.
        notes: stand below.
        paths: files to write.
    """
    first = len(context) + 1
    columns = max(min(len(context), MOST_COLUMNS), min(len(rows[0].frames), MOST_COLUMNS))
    pitch, head = 1.06, 0.45
    margin = 0.11 * max(len(row.label) for row in rows)
    depth = head + pitch + 0.25 + head + len(rows) * pitch + 0.2 * any(row.baseline for row in rows)
    span = margin + columns * pitch + 0.75
    with page(paths, height=WIDTH * depth / span) as figure:
        axes = figure.add_subplot()
        axes.set(xlim=(-margin, columns * pitch + 0.75), ylim=(depth, 0), aspect="equal")
        axes.set_axis_off()
        y = head
        draw_numbers(axes, shown(len(context)), 1, y, pitch)
        draw_row(axes, FilmRow("Context", context), y, pitch)
        y += pitch + 0.25 + head
        draw_numbers(axes, shown(len(rows[0].frames)), first, y, pitch)
        axes.text(columns * pitch + 0.7, y - 0.12, "MSE ↓", ha="right", fontsize=7)
        for above, row in zip([None, *rows], rows, strict=False):
            y += 0.2 * (row.baseline and not above.baseline)
            draw_row(axes, row, y, pitch)
            y += pitch
        finish(figure, title, notes)


def shown(frames: int) -> np.ndarray:
    """Which of `frames` frames have a column, counted from 0: all, or `MOST_COLUMNS` evenly spaced with both ends."""
    return np.linspace(0, frames - 1, min(frames, MOST_COLUMNS)).round().astype(int)


def draw_numbers(axes: Axes, places: np.ndarray, first: int, y: float, pitch: float) -> None:
    """The frame numbers over a row whose frame 0 is number `first`."""
    axes.text(-0.15, y - 0.12, "frame t", ha="right", fontsize=7)
    for column, place in enumerate(places):
        axes.text(column * pitch + 0.5, y - 0.12, str(first + place), ha="center", fontsize=7)


def draw_row(axes: Axes, row: FilmRow, y: float, pitch: float) -> None:
    """The shown frames of `row`, its label on the left and its error on the right."""
    color = "#606060" if row.baseline else "black"
    axes.text(-0.15, y + 0.5, row.label, ha="right", va="center", fontsize=7, color=color)
    for column, place in enumerate(shown(len(row.frames))):
        left = column * pitch
        axes.imshow(as_rgb(row.frames[place], 1), extent=(left, left + 1, y + 1, y), aspect="equal")
    if row.mse is not None:
        axes.text(
            axes.get_xlim()[1] - 0.05, y + 0.5, f"{row.mse:.1f}", ha="right", va="center", fontsize=7, color=color
        )

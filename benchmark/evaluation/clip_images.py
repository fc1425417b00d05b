"""What was predicted, to look at: a film strip and an animation of a run, and one clip as all variants predict it.

Strip and animation are composed pixel by pixel, so that each pixel of a frame is one square of pixels of the image.
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmark.system.files import atomic_buffer

FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
STRIP_WIDTH = 2000
"""About how many pixels wide a strip is, if its frames stay below `LARGEST_CELL`."""
LARGEST_CELL = 128
PANEL_WIDTH = 128
"""About how many pixels wide a frame of an animation is."""
FRAME_MS, LAST_FRAME_MS = 200, 2000
TEXT, FAINT = "#202020", "#707070"
HIGHLIGHT = "#D55E00"
"""Of what is predicted."""
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


def film_strip(examples: dict[str, np.ndarray], title: str, path: Path, kind: str = "test clip") -> None:
    """Write a PNG with, for each clip, its true frames above the prediction and the error, columns aligned in time.

    Args:
        examples: `clip` (n,), `context` (n, K, H, W, C), `truth` (n, S, H, W, C) and `prediction` (n, T, H, W, C),
            uint8; S at most T: where the truth ends there is no error.
        title: the run.
        path: PNG to write.
        kind: what each clip is called, before its number.
    """
    grid = StripGrid.of(examples)
    bold = ImageFont.truetype(FONT, round(1.2 * grid.size))
    width = max(grid.x_of(grid.context + grid.horizon + 1), grid.left + 46 * grid.size)  # or the legend would not fit
    top = 3 * grid.size
    canvas = Image.new("RGB", (width + grid.size, top + len(examples["clip"]) * grid.block + 3 * grid.size), "white")
    ImageDraw.Draw(canvas).text((grid.size, top // 2), title, TEXT, bold, anchor="lm")
    for index in range(len(examples["clip"])):
        draw_clip(canvas, examples, index, grid, top + index * grid.block, kind)
    if "error" in grid.rows:
        color_bar(canvas, grid.left, canvas.height - round(1.6 * grid.size), 8 * grid.size, grid.size)
    with atomic_buffer(path) as file:
        canvas.save(file, "PNG")


@dataclass(frozen=True)
class StripGrid:
    """Where things lie in a film strip, in pixels of the image."""

    context: int
    horizon: int
    scale: int
    """Side of the square that a pixel of a frame becomes."""
    cell_w: int
    cell_h: int
    size: int
    """Of the text."""
    rows: tuple[str, ...]
    """What stands under each other."""

    @classmethod
    def of(cls, examples: dict[str, np.ndarray]) -> "StripGrid":
        """The grid for these clips: frames as large as `STRIP_WIDTH` and `LARGEST_CELL` allow."""
        horizon, height, width = examples["prediction"].shape[1:4]
        context = examples["context"].shape[1]
        rows = ("truth", "prediction", "error") if examples["truth"].shape[1] else ("input", "prediction")
        scale = max(1, min(round(STRIP_WIDTH / ((context + horizon) * width)), LARGEST_CELL // width))
        cell_w, cell_h = width * scale + 4, height * scale + 4
        return cls(context, horizon, scale, cell_w, cell_h, max(14, min(24, round(0.26 * cell_w))), rows)

    @property
    def left(self) -> int:
        """Width of the labels."""
        return 7 * self.size

    @property
    def between(self) -> int:
        """Width of the gap between context and horizon."""
        return 2 * self.size

    @property
    def block(self) -> int:
        """Height of one clip."""
        return round(3.4 * self.size) + len(self.rows) * self.cell_h

    def x_of(self, t: int) -> int:
        """Left edge of the frame at time `t`."""
        return self.left + (t - 1) * self.cell_w + (self.between if t > self.context else 0)


def draw_clip(
    canvas: Image.Image, examples: dict[str, np.ndarray], index: int, grid: StripGrid, top: int, kind: str
) -> None:
    """Draw clip `index` of a film strip: from `top` on heads and frame numbers, then the rows of `grid`."""
    draw, font = ImageDraw.Draw(canvas), ImageFont.truetype(FONT, grid.size)
    y, first = top + round(2.6 * grid.size), grid.context + 1
    true = np.concatenate([examples["context"][index], examples["truth"][index]])
    for t in range(1, first + grid.horizon):
        draw.text((grid.x_of(t) + grid.cell_w // 2, y - grid.size // 2 - 4), str(t), TEXT, font, anchor="mm")
    for t, frame in enumerate(true, start=1):
        canvas.paste(as_rgb(frame, grid.scale), (grid.x_of(t), y))
        outline(draw, grid, grid.x_of(t), y)
    for t, predicted in enumerate(examples["prediction"][index], start=first):
        x, error_y = grid.x_of(t), y + 2 * grid.cell_h
        canvas.paste(as_rgb(predicted, grid.scale), (x, y + grid.cell_h))
        outline(draw, grid, x, y + grid.cell_h)
        if t > len(true):
            continue
        canvas.paste(as_rgb(error_colors(predicted, true[t - 1]), grid.scale), (x, error_y))
        outline(draw, grid, x, error_y)
    start = grid.x_of(first) - grid.between // 2 - 2
    draw.line((start, y - 2 * grid.size, start, y + len(grid.rows) * grid.cell_h), HIGHLIGHT, 3)
    heads = {grid.size: f"{kind} {examples['clip'][index]}", grid.left: "context", grid.x_of(first): "horizon"}
    for x, words in heads.items():
        draw.text((x, y - 2 * grid.size), words, TEXT, font, anchor="lm")
    for row, words in enumerate(grid.rows):
        middle = y + row * grid.cell_h + grid.cell_h // 2
        draw.text((grid.left - grid.size // 2, middle), words, TEXT, font, anchor="rm")


def outline(draw: ImageDraw.ImageDraw, grid: StripGrid, x: int, y: int) -> None:
    """A thin line around the frame at (x, y), without which what is white in it would be lost in the page."""
    draw.rectangle((x - 1, y - 1, x + grid.cell_w - 4, y + grid.cell_h - 4), outline="#C8C8C8")


def film_animation(examples: dict[str, np.ndarray], path: Path) -> None:
    """Write a GIF that plays the context and then truth, prediction and error side by side, a row a clip.

    Without truth there is one panel, which plays the context and then, framed, the prediction.

    Args:
        examples: as in `film_strip`.
        path: GIF to write.
    """
    context, (horizon, *_, channels) = examples["context"].shape[1], examples["prediction"].shape[1:]
    frames = [animation_frame(examples, t) for t in range(1, context + horizon + 1)]
    palette = animation_palette()
    if channels == 1:
        indexed = [index_colors(frame, palette) for frame in frames]
    else:
        indexed = [frame.quantize(256, dither=Image.Dither.NONE) for frame in frames]
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    timing = {"duration": durations, "loop": 0}
    with atomic_buffer(path) as file:
        indexed[0].save(file, "GIF", save_all=True, append_images=indexed[1:], optimize=False, **timing)


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
    """The picture at time `t` (1 = first given frame): a row of panels a clip, blank where there is nothing to show."""
    context, true, horizon = (examples[name].shape[1] for name in ("context", "truth", "prediction"))
    height, width = examples["prediction"].shape[2:4]
    heads = ("truth", "prediction", "error") if true else ("input, then prediction",)
    scale, gap, line = max(1, round(PANEL_WIDTH * (1 if true else 2) / width)), 10, 26
    panel_w, panel_h = width * scale, height * scale
    canvas = Image.new(
        "RGB",
        (len(heads) * (panel_w + gap) + gap, 2 * line + len(examples["clip"]) * (panel_h + gap) + line),
        "white",
    )
    draw, font = ImageDraw.Draw(canvas), ImageFont.truetype(FONT, 13)
    predicting, step = t > context, t - context - 1
    words, color = ("prediction", HIGHLIGHT) if predicting else ("context", TEXT)
    draw.text((gap, line // 2 + 2), f"t = {t}", TEXT, font, anchor="lm")
    draw.text((canvas.width - gap, line // 2 + 2), words, color, font, anchor="rm")
    x = [gap + column * (panel_w + gap) for column in range(len(heads))]
    predicted_x = x[1] if true else x[0]
    for place, head in zip(x, heads, strict=True):
        draw.text((place + panel_w // 2, line + line // 2), head, TEXT, font, anchor="mm")
    for index in range(len(examples["clip"])):
        y = 2 * line + index * (panel_h + gap)
        given, truth, prediction = (examples[name][index] for name in ("context", "truth", "prediction"))
        shown = {x[0]: given[t - 1]} if not predicting else {predicted_x: prediction[step]}
        if 0 <= step < true:
            shown |= {x[0]: truth[step], x[2]: error_colors(prediction[step], truth[step])}
        for place in x:
            if place in shown:
                canvas.paste(as_rgb(shown[place], scale), (place, y))
            else:
                draw.rectangle((place, y, place + panel_w - 1, y + panel_h - 1), fill="#ECECEC")
        if predicting:
            draw.rectangle(
                (predicted_x - 4, y - 4, predicted_x + panel_w + 3, y + panel_h + 3), outline=HIGHLIGHT, width=3
            )
        if 0 <= step < true:
            draw.rectangle((x[2] - 1, y - 1, x[2] + panel_w, y + panel_h), outline="#C8C8C8")
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

"""The arithmetic of the metrics, on tensors: to which `benchmark.config.metrics` gives words."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Float64, Int16, Shaped
from torch import Tensor

from benchmark.config.lpips_backbones import BACKBONES
from benchmark.config.metrics import METRICS, Metric, columns
from benchmark.system.errors import UserError

SSIM_WINDOW = 7

Frames = Float[Tensor, "*frames H W"]
Pixels = Float[Tensor, "*frames H W"] | Int16[Tensor, "*frames H W"]
Values = Float64[Tensor, "*frames"]


def bring_to(form: str, prediction: Frames, truth: Frames) -> tuple[Pixels, Pixels]:
    """Bring prediction and truth into the form that a metric takes.

    Returns: `raw`: the frames as they are, `clipped`: the prediction clipped to [0, 1] in float64, `signed`: that
    scaled to [-1, 1]; `uint8`: the values of `np.uint8(255 * clipped)`, made in float32, as int16.
    """
    if form == "raw":
        return prediction, truth
    clipped = prediction.clamp(0, 1)
    if form == "uint8":
        return (255 * clipped.float()).to(torch.int16), (255 * truth.float()).to(torch.int16)
    if form == "signed":
        return 2 * clipped.double() - 1, 2 * truth.double() - 1
    return clipped.double(), truth.double()


def squared_error(prediction: Pixels, truth: Pixels) -> Values:
    """Sum over the pixels of a frame of the squared difference: exact of uint8 values, else in float64."""
    difference = prediction - truth
    return _sum(_square(difference.to(torch.int32 if difference.dtype == torch.int16 else torch.float64)))


def absolute_error(prediction: Pixels, truth: Pixels) -> Values:
    """Sum over the pixels of a frame of the absolute difference, as in `squared_error`."""
    difference = prediction - truth
    return _sum(difference.to(torch.int32 if difference.dtype == torch.int16 else torch.float64).abs_())


def _square(numbers: Shaped[Tensor, "*any"]) -> Shaped[Tensor, "*any"]:
    """In place; of integers many times as fast as `square_`."""
    return numbers.mul_(numbers)


def _sum(pixels: Shaped[Tensor, "*frames H W"]) -> Values:
    """Twice as fast as a sum that makes float64 of every pixel."""
    return pixels.sum(-2, dtype=pixels.dtype).sum(-1, dtype=torch.float64)


def psnr(prediction: Pixels, truth: Pixels, data_range: float) -> Values:
    """Peak signal-to-noise ratio of a frame in dB, of float frames in float64; infinite where they are identical."""
    pixels = prediction.shape[-2] * prediction.shape[-1]
    if prediction.dtype != torch.int16:
        prediction, truth = prediction.double(), truth.double()
    return 10 * torch.log10(data_range**2 * pixels / squared_error(prediction, truth))


def ssim(prediction: Pixels, truth: Pixels, data_range: float) -> Values:
    """Structural similarity of a frame (Wang et al. 2004) with scikit-image's defaults.

    Uniform window, sample covariance, K1 = 0.01, K2 = 0.03, mean over the windows that lie inside the frame.
    Written in u = x + y and v = x - y, since 4xy = u² - v² and 2(x² + y²) = u² + v²: four window sums do. Those
    of uint8 values, and the spreads n sum(u²) - sum(u)² made of them, are exact integers; what follows them needs
    no more than float32. Of float frames all is in float64.
    Raises: UserError where a side of the frame is shorter than the window.
    """
    height, width = prediction.shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        raise UserError(f"frames of {height}x{width} pixels: SSIM needs at least {SSIM_WINDOW}x{SSIM_WINDOW}")
    exact, whole = torch.int32, torch.float32  # int32 holds n² 510², the largest spread
    if prediction.dtype != torch.int16:
        exact = whole = torch.float64
        prediction, truth = prediction.double(), truth.double()
    n = SSIM_WINDOW**2
    u, v = prediction + truth, prediction - truth
    u_square, v_square = (_square(_window_sums(one).to(exact)) for one in (u, v))
    u_sum, v_sum = (_window_sums(_square(one.to(exact))) for one in (u, v))
    u_spread, v_spread = u_square.sub(u_sum, alpha=n).to(whole), v_square.sub(v_sum, alpha=n).to(whole)  # times -1
    u_square, v_square = u_square.to(whole), v_square.to(whole)
    u_square += 2 * (0.01 * data_range * n) ** 2
    u_spread -= 2 * (0.03 * data_range) ** 2 * n * (n - 1)
    likeness = (u_square - v_square).mul_(u_spread - v_spread)
    likeness /= u_square.add_(v_square).mul_(u_spread.add_(v_spread))
    frames, rows, places = prediction.shape[:-2], height - SSIM_WINDOW + 1, width - SSIM_WINDOW + 1
    inside = likeness.as_strided((math.prod(frames), rows, places), (rows * width, width, 1))
    return _sum(inside).view(frames) / (rows * places)


def _window_sums(frames: Shaped[Tensor, "*frames H W"]) -> Shaped[Tensor, " windows"]:
    """Sum over every 7x7 window inside a frame, added up in the frames' own type.

    Seven rows are summed first. Then all rows are one line, on which seven neighbours add up twice as fast as on
    many short lines; sums that straddle the end of a row stay in it.
    """
    line = frames.unfold(-2, SSIM_WINDOW, 1).sum(-1, dtype=frames.dtype).reshape(-1)
    two = line[:-1] + line[1:]
    four = two[:-2] + two[2:]
    length = len(line) - SSIM_WINDOW + 1
    return four[:length].add_(two[4:][:length]).add_(line[6:])


def skill(prediction: Pixels, truth: Pixels, reference: float) -> Values:
    """1 - MSE / MSE of a reference, of a frame over the mean `reference`: its mean is that of the means (Eq. R1)."""
    return 1 - squared_error(prediction.double(), truth.double()) / reference


def nearest(prediction: Pixels, truth: Pixels, others: Float64[Tensor, "*frames others H W"]) -> Values:
    """1 where a frame is nearer to the truth than to each of its `others`, by squared error; else 0 (Eq. R2)."""
    prediction = prediction.double()
    nearest_other = squared_error(prediction.unsqueeze(-3).expand_as(others), others).amin(-1)
    return (squared_error(prediction, truth.double()) < nearest_other).double()


def perceptual_distance(prediction: Pixels, truth: Pixels, network: torch.nn.Module) -> Values:
    """LPIPS of a frame (Zhang et al. 2018) in full float32, its grey repeated to three channels.
    Raises: UserError where the frame is too small for the network.
    """
    height, width = prediction.shape[-2:]
    smallest = BACKBONES[network.pnet_type].smallest_frame  # pyright: ignore[reportArgumentType]  # LPIPS keeps its name there
    if min(height, width) < smallest:
        needs = f"LPIPS ({network.pnet_type}) needs at least {smallest}x{smallest}"
        raise UserError(f"frames of {height}x{width} pixels: {needs}")
    grey = (frames.float().reshape(-1, 1, height, width) for frames in (prediction, truth))
    deterministic = torch.backends.cudnn.deterministic
    with (
        torch.autocast(prediction.device.type, enabled=False),
        torch.backends.cudnn.flags(enabled=True, deterministic=deterministic, allow_tf32=False),
    ):
        distance = network(*(frames.expand(-1, 3, -1, -1) for frames in grey))
    return distance.double().reshape(prediction.shape[:-2])


FUNCTIONS: dict[str, Callable[..., Values]] = {
    function.__name__: function
    for function in (squared_error, absolute_error, psnr, ssim, skill, nearest, perceptual_distance)
}
"""Name in the registry of metrics -> function of prediction and truth that returns one value a frame."""


def compute(metric: Metric, prediction: Pixels, truth: Pixels, lpips: torch.nn.Module | None = None) -> Values:
    """`metric` of every frame, given in its form; `lpips` is the network of LPIPS, which no other metric takes."""
    settings = {} if metric.data_range is None else {"data_range": metric.data_range}
    if metric.compute == perceptual_distance.__name__:
        settings = {"network": lpips}
    return FUNCTIONS[metric.compute](prediction, truth, **settings)


# Pixels scored at once: few enough for a CPU's cache, many enough to keep a GPU busy.
_PIXELS_AT_ONCE = {"cpu": 2**18, "cuda": 2**20}


@torch.no_grad()
def score(
    prediction: Float[Tensor, "B T 1 H W"] | Float[Tensor, "N H W"],
    truth: Float[Tensor, "B T 1 H W"] | Float[Tensor, "N H W"],
    lpips: torch.nn.Module | None = None,
    conventions: bool = False,
) -> dict[str, Float64[Tensor, "B T"] | Float64[Tensor, " N"]]:
    """Score every frame under every metric of `columns`, in bounded memory.

    Args: `prediction` as the network gave it and `truth`, float in [0, 1]; `lpips`: the network of
    `load_lpips`, or None to leave LPIPS out; `conventions`: add the conventions of other publications.
    Raises: UserError where the frame is too small for a metric.
    """
    assert prediction.shape == truth.shape, (prediction.shape, truth.shape)
    height, width = prediction.shape[-2:]
    at_once = max(1, _PIXELS_AT_ONCE[prediction.device.type] // (height * width))
    metrics = [METRICS[name] for name in columns(lpips.pnet_type if lpips else None, conventions)]  # pyright: ignore[reportArgumentType]  # LPIPS keeps its name there
    forms = {metric.form for metric in metrics}
    shape = prediction.shape[:2] if prediction.ndim == 5 else prediction.shape[:1]
    # Filled in place: small results kept between large temporary maps would fragment the heap without bound.
    values = prediction.new_empty((len(metrics), math.prod(shape)), dtype=torch.float64)
    batches = (frames.reshape(-1, height, width).split(at_once) for frames in (prediction, truth))
    for columns_of_batch, *batch in zip(values.split(at_once, dim=1), *batches, strict=True):
        batch = [frames.contiguous() for frames in batch]  # sums of float32 depend on the order
        undefined = batch[0].mul(0).sum((-2, -1)).isnan()  # 0 times what is no number, or infinite, is no number
        pairs = {form: bring_to(form, *batch) for form in forms}
        for column, metric in zip(columns_of_batch, metrics, strict=True):
            column.copy_(compute(metric, *pairs[metric.form], lpips)).masked_fill_(undefined, math.nan)
    return {metric.name: column.reshape(shape) for metric, column in zip(metrics, values, strict=True)}

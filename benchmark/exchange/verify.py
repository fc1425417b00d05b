"""Our cells, networks, probe, clips and metrics compared with numbers that other code computed.

A case is one `.npz` file: what it is follows from the names of its arrays, every size from their shapes. Cells and
networks run in float64 on the CPU with the weights of the other code base (`models.foreign_weights`).
"""

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.config.lpips_backbones import BACKBONES
from benchmark.config.metrics import METRICS
from benchmark.data.moving_digits.stream import trajectory
from benchmark.data.tensors import to_float
from benchmark.evaluation.gradient_probe import gradient_norms, roll_out
from benchmark.evaluation.lpips_backbone import find_backbone, load_lpips
from benchmark.evaluation.metric_functions import score
from benchmark.system.errors import UserError
from models import foreign_weights as interop
from models.decoupling import decoupling
from models.gradient_highway import GradientHighwayUnit
from models.predictor import Predictor, cell_class, free_running_mask, to_frames, to_patches
from models.spec import ModelSpec

EXACT = 0.0
FLOAT64_BOUND = 1e-9
METRIC_BOUND = 1e-6
LPIPS_BOUND = 1e-5  # float32 inside

METRIC_OF = {"mse_clipped": "mse", "mae_clipped": "mae", "psnr_uint8": "psnr", "ssim_uint8": "ssim"}
"""Array of a metrics case -> our metric, where the names differ."""

Arrays = Mapping[str, np.ndarray]
Weights = Mapping[str, Tensor]
"""Weights of the other code base, under its names in a network."""
Compute = Callable[[Arrays], dict[str, Tensor]]
"""Arrays of a case -> what we make in place of its results, under their names."""


@dataclass(frozen=True)
class Outcome:
    """What came of one case."""

    case: str
    state: Literal["pass", "fail", "skipped"]
    why: str = ""
    """Of a failure: the array with the largest error, or what stopped the case."""
    error: float | None = None
    """Largest error of its arrays: max|ours - reference| / max(max|reference|, 1e-12)."""

    def __str__(self) -> str:
        error = "" if self.error is None else f"{self.error:.1e}"
        return f"{self.case:<28} {error:>8}  {self.state}{f' ({self.why})' if self.why else ''}"


def verify(folder: Path, data_dir: Path | None) -> Iterator[Outcome]:
    """Run every case found in `folder`.

    Args:
        folder: holds cases, files `*.npz`.
        data_dir: where the backbone of LPIPS is looked for, besides torch's cache.

    Raises:
        UserError: there is no such folder, or no case in it.
    """
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        fault = "holds no case (*.npz)" if folder.is_dir() else "no such folder"
        raise UserError(f"{folder}: {fault}; the cases of this repository are in tests/golden")
    for path in paths:
        try:
            yield from _outcomes(path, data_dir)
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            yield Outcome(path.stem, "fail", f"cannot be read: {error}")


def _outcomes(path: Path, data_dir: Path | None) -> Iterator[Outcome]:
    if not zipfile.is_zipfile(path):
        raise zipfile.BadZipFile("no .npz file, or a damaged one")
    with np.load(path, allow_pickle=False) as stored:
        names = set(stored.files)
        if {"pred", "true"} <= names:
            yield from _metric_outcomes(path.stem, dict(stored), data_dir)
        elif {"x0", "y0", "theta"} <= names:
            yield _compare(path.stem, trajectories, dict(stored), names & {"top", "left"}, EXACT)
        elif any(name.startswith("param.") for name in names):
            compute = network if "input.frames" in names else cell_step
            results = {name for name in names if name.startswith(("output.", "grad.", "probe."))}
            yield _compare(path.stem, compute, dict(stored), results, FLOAT64_BOUND)
        else:
            yield Outcome(path.stem, "skipped", "the names of its arrays are of no kind of case")


def _metric_outcomes(case: str, arrays: Arrays, data_dir: Path | None) -> Iterator[Outcome]:
    names = {name for name in arrays if METRIC_OF.get(name, name) in METRICS}
    perceptual = {name for name in names if name.startswith("lpips_")}
    yield _compare(case, metrics, arrays, names - perceptual, METRIC_BOUND)
    for net, backbone in BACKBONES.items():
        results = {name for name in perceptual if name.startswith(f"lpips_{net}")}
        if not results:
            continue
        path = find_backbone(net, data_dir)
        if path is None:
            why = f"no backbone; put {' or '.join(backbone.file_names)} into <data_dir>/lpips/"
            yield Outcome(f"{case}: LPIPS ({net})", "skipped", why)
            continue
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        record = {"net": net, "status": "found", "file": path.name, "sha256": sha256}
        compute = partial(metrics, lpips=load_lpips(record, data_dir, "cpu"))
        yield _compare(f"{case}: LPIPS ({net})", compute, arrays, results, LPIPS_BOUND)
    others = arrays.keys() - names - {"pred", "true"}
    if others:
        yield Outcome(f"{case}: {', '.join(sorted(others))}", "skipped", "no metric of ours")


def _compare(case: str, compute: Compute, arrays: Arrays, results: set[str], bound: float) -> Outcome:
    """Compare what `compute` makes with the arrays `results` of the case."""
    if not results:
        return Outcome(case, "skipped", "holds no results")
    try:
        ours = compute(arrays)
        errors = {name: relative_error(ours[name].detach().numpy(), arrays[name]) for name in sorted(results)}
    except KeyError as error:
        return Outcome(case, "fail", f"there is no {error.args[0]}")
    except (IndexError, RuntimeError, ValueError) as error:
        return Outcome(case, "fail", f"cannot be run: {str(error).splitlines()[0]}")
    worst = max(errors, key=lambda name: (np.isnan(errors[name]), errors[name]))
    if errors[worst] <= bound:
        return Outcome(case, "pass", error=errors[worst])
    return Outcome(case, "fail", worst, errors[worst])


def relative_error(ours: np.ndarray, reference: np.ndarray) -> float:
    """Largest difference over the largest value of the reference; equal infinities differ by 0.

    Raises:
        ValueError: the shapes differ.
    """
    if ours.shape != reference.shape:
        raise ValueError(f"an array of shape {ours.shape} where the case has {reference.shape}")
    reference = reference.astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.where(ours == reference, 0.0, np.abs(ours - reference))
    largest = np.abs(reference[np.isfinite(reference)]).max(initial=1e-12)
    return float(difference.max(initial=0.0) / largest)


def cell_step(arrays: Arrays) -> dict[str, Tensor]:
    """One step of a cell or of the highway, and the gradients of sum(output * weight)."""
    inputs = {name: tensor.requires_grad_() for name, tensor in _section(arrays, "input.").items()}
    if any(name.startswith("param.x_concat.") for name in arrays):
        prefix, build = "highway.", _highway
    else:
        prefix, build = "cells.0.", _cell
    theirs = interop.reference_name(prefix)
    weights = {theirs + name: tensor for name, tensor in _section(arrays, "param.").items()}
    module, spec = build(weights, grid=inputs["x"].shape[2])
    _load(module, spec, weights, prefix)
    if prefix == "highway.":
        outputs = {"z": module(inputs["x"], inputs["z"])[0]}
    else:
        has_m = "M" in cell_class(spec.cell).states
        states = module(inputs["x"], inputs["h"], inputs["c"], inputs["m"] if has_m else None)
        outputs = {name: state for name, state in zip("hcm", states, strict=True) if state is not None}
    cotangents = _section(arrays, "weight.")
    scalar = sum((outputs[name] * cotangent).sum() for name, cotangent in cotangents.items())
    of_inputs = torch.autograd.grad(scalar, list(inputs.values()), retain_graph=True, materialize_grads=True)  # pyright: ignore[reportCallIssue, reportArgumentType]  # a sum of tensors
    of_parameters = _parameter_gradients(scalar, module, weights, prefix)  # pyright: ignore[reportArgumentType]  # a sum of tensors
    return (
        {f"output.{name}": output for name, output in outputs.items()}
        | {f"grad.input.{name}": gradient for name, gradient in zip(inputs, of_inputs, strict=True)}
        | {f"grad.param.{name.removeprefix(theirs)}": gradient for name, gradient in of_parameters.items()}
    )


def network(arrays: Arrays) -> dict[str, Tensor]:
    """The roll-out of a network with its loss and gradients, and the free-running one with the probe's norms."""
    patches = torch.from_numpy(arrays["input.frames"]).double().movedim(-1, 2)  # (B, T, P, h, w)
    weights = _section(arrays, "param.")
    side = isqrt(patches.shape[2])
    patch_size = side if side**2 == patches.shape[2] else 1  # the numbers do not depend on how a patch is read
    spec = interop.read_spec(weights, patch_size=patch_size, frame_size=patches.shape[3] * patch_size)
    predictor = Predictor(spec)
    _load(predictor, spec, weights)
    clips = to_frames(patches, patch_size)  # (B, T, C, H, W)
    coin = torch.from_numpy(arrays["input.coin"]).double()
    given = clips.shape[1] - 1 - coin.shape[1]
    overlaps: list[Tensor] | None = [] if spec.adapter else None
    prediction = predictor(clips, torch.cat([coin.new_ones(len(coin), given), coin], dim=1), overlaps=overlaps)
    error = (prediction - clips[:, 1:]).square().mean()
    loss = error + arrays["config.decouple_beta"].item() * decoupling(overlaps).mean() if overlaps else error
    ours = {"output.next_frames": to_patches(prediction, patch_size).movedim(2, -1), "output.loss": loss}
    ours["output.mse"] = error
    gradients = _parameter_gradients(loss, predictor, weights)
    ours |= {f"grad.param.{name}": gradient for name, gradient in gradients.items()}
    if any(name.startswith("probe.") for name in arrays):
        context = arrays["probe.norm.X"].shape[1] if "probe.norm.X" in arrays else given
        mask = free_running_mask(len(clips), context, clips.shape[1] - context, clips)
        ours["probe.next_frames"] = to_patches(predictor(clips, mask), patch_size).movedim(2, -1)
        norms = gradient_norms(roll_out(predictor, clips, context))
        ours |= {f"probe.norm.{state}" + f".{layer}" * (layer > 0): norm for (state, layer), norm in norms.items()}
    return ours


def trajectories(arrays: Arrays) -> dict[str, Tensor]:
    """Top row and left column of a digit in every frame, in pixels."""
    room = int(arrays["canvas"]) - int(arrays["digit"])
    pixels = {}
    for name, start, direction in (("top", "y0", torch.sin), ("left", "x0", torch.cos)):
        step = float(arrays["step"]) * direction(torch.from_numpy(arrays["theta"]))
        path = trajectory(torch.from_numpy(arrays[start]), step, frames=arrays[name].shape[1])
        pixels[name] = (path * room).long()
    return pixels


def metrics(arrays: Arrays, lpips: nn.Module | None = None) -> dict[str, Tensor]:
    """Every metric of every frame under every convention."""
    prediction, truth = torch.from_numpy(arrays["pred"]), torch.from_numpy(arrays["true"])
    truth = to_float(truth) if truth.dtype == torch.uint8 else truth
    scores = score(prediction.unsqueeze(2), truth.unsqueeze(2), lpips, conventions=True)
    return {name: scores[METRIC_OF.get(name, name)] for name in arrays if METRIC_OF.get(name, name) in scores}


def _cell(weights: Weights, grid: int) -> tuple[nn.Module, ModelSpec]:
    spec = interop.read_spec(weights, patch_size=1, frame_size=grid)
    return Predictor(spec).cells[0], spec


def _highway(weights: Weights, grid: int) -> tuple[nn.Module, ModelSpec]:
    out_channels, in_channels, kernel_size = weights["gradient_highway.x_concat.0.weight"].shape[:3]
    spec = ModelSpec(
        cell="convlstm",
        hidden_channels=(in_channels, in_channels),
        frame_size=grid,
        patch_size=1,
        kernel_size=kernel_size,
        highway_slot=1,
        highway_channels=out_channels // 2,
        norm="element" if "gradient_highway.x_concat.1.weight" in weights else "none",
        conv_bias=False,
    )
    return GradientHighwayUnit(spec, in_channels), spec


def _load(module: nn.Module, spec: ModelSpec, weights: Weights, prefix: str = "") -> None:
    """Give `module`, whose name in the network is `prefix`, their weights, in float64.

    Note:
        Its norms take the grid of their weights, which need not be square as ours is.
    """
    module.double()
    names = {prefix + name: name for name in module.state_dict()}
    unused = interop.unused(spec).keys()
    interop.check_names(weights.keys() | unused, {interop.reference_name(name) for name in names} | unused)
    state = {names[name]: tensor for name, tensor in interop.from_reference(weights, names).items()}
    for name, norm in module.named_modules():
        if isinstance(norm, nn.LayerNorm):
            norm.normalized_shape = tuple(state[f"{name}.weight"].shape)
            norm.weight, norm.bias = (
                nn.Parameter(torch.empty_like(state[f"{name}.{part}"])) for part in ("weight", "bias")
            )
    module.load_state_dict(state)


def _parameter_gradients(scalar: Tensor, module: nn.Module, weights: Weights, prefix: str = "") -> dict[str, Tensor]:
    """The gradient of every one of their weights, under their name; zero where we have no such weight."""
    names, parameters = zip(*module.named_parameters(prefix.rstrip(".")), strict=True)
    gradients = torch.autograd.grad(scalar, parameters, retain_graph=True, materialize_grads=True)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    return zeros | interop.to_reference(dict(zip(names, gradients, strict=True)))


def _section(arrays: Arrays, prefix: str) -> dict[str, Tensor]:
    """The arrays whose names begin with `prefix`, without it, in float64."""
    found = {name: array for name, array in arrays.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): torch.from_numpy(array).double() for name, array in found.items()}

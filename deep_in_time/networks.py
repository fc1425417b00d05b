"""Networks by name, from and to files; and the predictions that need none."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmark.config.protocol import Protocol
from benchmark.config.variants import OF_ANY_CLIPS, VARIANTS, slot_number, unknown_variant
from benchmark.evaluation.forecasts import baseline as baseline_forecast
from benchmark.system.errors import UserError, unknown
from benchmark.training.weight_files import load_weights as read_weights
from benchmark.training.weight_files import save_weights as write_weights
from deep_in_time.clips import protocol as as_protocol
from deep_in_time.given import as_clips, check_axes
from models.forecasters.network import Network, build_network
from models.predictor import Predictor, build
from models.spec import ModelSpec

LAYERS = 4
"""Depth where neither layers nor a width for each of them are given."""


def network(
    variant: str,
    *,
    protocol: str | Path | Mapping[str, Any] | Protocol | None = None,
    seed: int = 1,
    hidden_channels: int | Sequence[int] = 64,
    layers: int | None = None,
    **fields: Any,
) -> Network:
    """A network by the name of its variant, with the initial weights that `seed` gives; on the CPU, for training.

    `network(frames, feed_mask)` takes clips (B, T, C, H, W) and a mask (B, T-1), 1 = it sees the true frame, 0 = its
    own last prediction, and returns the predictions (B, T-1, C, H, W) of frames 2 to T.
    `network.predict(context, horizon)` takes the given frames (B, K, C, H, W) and returns (B, horizon, C, H, W).
    Predictions are not clipped.

    Args:
        variant: `convlstm`, `predrnn`, `predrnnpp`, `convgru`, `linear-recurrence`, ... (an error lists all), or one of
            `protocol`.
        protocol: build it as a run of this protocol has it, the very same weights; then no sizes are given here.
        seed: of the initial weights, whatever was drawn before.
        hidden_channels: width of all layers, or of each, bottom first.
        layers: depth where `hidden_channels` is one number; default: 4.
        fields: further fields of `models.spec.ModelSpec`: `frame_size` (needed), `channels`, `patch_size`,
            `kernel_size`, `norm`, `highway_slot`, `forget_bias`, ...

    Raises:
        ValueError: no such variant, or no network is like this; names the field and what is allowed.
    """
    if protocol is not None:
        if fields or layers is not None or hidden_channels != 64:
            raise UserError(
                "protocol: gives all sizes of a network; leave out hidden_channels, layers and other fields"
            )
        run = as_protocol(protocol).run(variant, seed)
        made = build_network(run.model, run.seed)
        return _checking(made) if isinstance(made, Predictor) else made
    if variant not in VARIANTS:
        raise UserError(unknown_variant(variant, VARIANTS))
    known = VARIANTS[variant]
    widths = (hidden_channels,) * (layers or LAYERS) if isinstance(hidden_channels, int) else tuple(hidden_channels)
    if layers not in (None, len(widths)):
        raise UserError(f"hidden_channels: {list(widths)} has {len(widths)} entries for {layers} layers")
    allowed = ModelSpec.__dataclass_fields__.keys()
    for name in fields:
        if name not in allowed:
            raise UserError(unknown("field", name, sorted(allowed)))
    if "frame_size" not in fields:
        raise UserError("frame_size: is missing; say how many pixels high and wide a frame is, or name a protocol")
    slot = fields.pop("highway_slot", known.slot)
    try:
        spec = ModelSpec(
            **{"cell": known.cell, "hidden_channels": widths, "highway_slot": slot_number(slot, len(widths))}
            | known.model
            | fields
        )
    except ValueError as error:
        raise UserError(f"{variant}: {error}") from None
    return _checking(build(spec, seed))


def load_weights(path: str | Path) -> Predictor:
    """The network in a file that a training, `save_weights` or the command `import-weights` wrote; on the CPU.

    Nothing in the file is run as code. What it is stands in `.spec`.

    Raises:
        ValueError: no such file, or it is damaged or of something else.
    """
    return _checking(read_weights(Path(path)))


def save_weights(path: str | Path, network: torch.nn.Module, *, context: int | None = None) -> None:
    """Write a network with its spec, for `load_weights` and for `--weights` of the commands.

    Args:
        path: `.safetensors` by custom; what is there is replaced.
        network: one of ours, by `network` or `load_weights`.
        context: given frames it was trained with, the default of commands that use the file.

    Raises:
        ValueError: it is a network of another kind.
    """
    if not isinstance(network, Predictor):
        raise UserError(
            f"network: is {type(network).__name__}; networks made by `network` or `load_weights` have a file"
        )
    write_weights(Path(os.fspath(path)), network, context=context)


def baseline(name: str) -> Callable[[Float[Tensor, "B K C H W"], int], Float[Tensor, "B T C H W"]]:
    """A prediction that needs no training: a model that has learnt something is better than all of them.

    Args:
        name: `last-frame`, `context-mean` or `black`.

    Returns:
        A function of the given frames (B, K, C, H, W) and the horizon that returns the predicted frames.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in OF_ANY_CLIPS:
        raise UserError(unknown("baseline", name, OF_ANY_CLIPS))
    return lambda context, horizon: baseline_forecast(name, horizon)(as_clips(context, "context"))


def _checking(network: Predictor) -> Predictor:
    """The same network, which says what is wrong with clips that it cannot take."""
    network.register_forward_pre_hook(_check_arguments)
    return network


def _check_arguments(network: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
    frames, spec = arguments[0], network.spec
    check_axes(frames, "frames")
    assert isinstance(spec, ModelSpec)
    channels, *sides = frames.shape[2:]
    if channels != spec.channels or any(side % spec.patch_size for side in sides):
        raise UserError(
            f"frames: are of {channels} channel(s) and {sides[0]}x{sides[1]} pixels; the network takes {spec.channels}"
            f" channel(s), and sides that patches of {spec.patch_size} divide"
        )
    if len(arguments) > 1 and arguments[1].shape != (len(frames), frames.shape[1] - 1):
        needed = (len(frames), frames.shape[1] - 1)
        raise UserError(f"feed_mask: is {tuple(arguments[1].shape)}; needed for these frames is {needed}, (B, T - 1)")

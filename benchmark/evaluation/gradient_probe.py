"""The probe: how strongly the last predicted frame depends on every state and frame before it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from benchmark.config.probe_stages import ENDS
from benchmark.config.protocol import RunConfig
from benchmark.data.clips import load_clips
from benchmark.data.kinds import kind_of
from benchmark.data.tensors import to_float
from benchmark.evaluation.gate_saturation import saturated
from benchmark.evaluation.gradient_decay import summarise_norms
from benchmark.evaluation.memory.measure import measure_memory
from benchmark.evaluation.memory.table import COLUMNS, MEMORY, memory_rows
from benchmark.evaluation.memory.time_constants import mean_log_kept, time_constants
from benchmark.system.devices import prepare_device
from benchmark.system.errors import UserError
from benchmark.system.files import read_json, write_json
from benchmark.system.parquet import write_parquet
from benchmark.training.weight_files import WEIGHTS, load_run_weights, weights_after
from models.forecasters.network import Network, build_network
from models.predictor import Cut, Predictor, Trace, free_running_mask

MEASURES: dict[str, tuple[str, str]] = {
    "residual": ("residual", "all"),
    "fixed": ("fixed", "all"),
    "fixed8": ("directions", "all"),
    "memory": ("residual", "memory"),
    "frames": ("residual", "frames"),
}
"""Measure -> (cotangent, path): what is pulled back from the last frame, and what it may flow through.

The cotangent is the residual or one fixed random direction of norm 1, since squared-error gradients shrink as a model
improves, or `DIRECTIONS` of them, of which that is the first. `memory` cuts the generated frames and `frames` the
states, at horizon steps only.
"""
AT_ENDS = ("residual", "fixed", "memory", "frames")
"""Measures before and after training; `fixed8` comes with `probe.memory`, as what lies in `memory/`."""
WHILE_TRAINING = ("residual", "fixed")
"""Measures at the steps between; one roll-out serves both."""
DIRECTIONS = 8


@dataclass(frozen=True)
class Stage:
    """A network to measure: at initialisation, while training (`step-<n>`) or after it."""

    name: str
    step: int
    network: Network
    measures: tuple[str, ...] = AT_ENDS


@dataclass(frozen=True)
class Measured:
    """What the probe finds in one network."""

    norms: pd.DataFrame
    """Columns measure, clip, state, layer, t, norm."""
    openness: list[float]
    """Mean of 1 - S of the highway per step, over units and clips; empty without one."""
    saturated: dict[str, list[float]]
    """Gate -> its share of saturated units, bottom layer first; of the highway's p and s one each."""
    time_constants: dict[tuple[str, int], Float[Tensor, " D"]]
    """(memory, layer) -> that of each channel; of the memories whose gate the cell declares."""


@dataclass(frozen=True, eq=False)
class RollOut:
    """A free-running roll-out with the graph that leads back from its last frame."""

    last: Float[Tensor, "B C H W"]
    target: Float[Tensor, "B C H W"]
    states: Trace
    """("X", 0): the context in one tensor (B, K, C, H, W); the states of `Trace` but S at every step."""
    switch: list[Tensor]
    """S of the highway at every step; empty without one."""


def probe(run: RunConfig, results_dir: Path, device: str) -> None:
    """Measure a run before, while and after it was trained; writes `probe.parquet` and `probe.json`.

    With `probe.memory` also `memory.parquet`: time constants at all stages, the rest before and after training.

    Raises:
        UserError: the data or weights are missing, damaged or of another configuration.
    """
    folder = run.path(results_dir)
    prepare_device(device, run.training.threads)
    stages = list(stages_of(run, folder))
    clips = load_clips(results_dir / run.protocol / "data", run.data, "test")[: run.probe.clips]
    exchanged = exchanged_frames(run, results_dir) if run.probe.memory else None
    tables, memory, summary = [], [], {}
    for stage in stages:
        sizes = {"context": run.data.context, "batch_size": run.probe.batch_size, "device": device}
        found = measure(stage.network, clips, **sizes, measures=stage.measures)
        tables.append(found.norms.assign(stage=stage.name, step=stage.step))
        if run.probe.memory:
            kept = [
                memory_rows("time_constant", values.cpu().numpy(), ("unit",), state=state, layer=layer)
                for (state, layer), values in found.time_constants.items()
            ]
            more = [measure_memory(stage.network, clips, exchanged, **sizes)] if stage.name in ENDS else []
            memory += [part.assign(stage=stage.name, step=stage.step) for part in (*kept, *more)]
        summary[stage.name] = summarise_norms(found.norms) | {
            "step": stage.step,
            "openness": found.openness,
            "saturated": found.saturated,
        }
    columns = ["stage", "step", "measure", "clip", "state", "layer", "t", "norm"]
    norms = pd.concat(tables, ignore_index=True)[columns]
    write_parquet(folder / "probe.parquet", norms)
    if run.probe.memory:
        write_parquet(folder / MEMORY, pd.concat(memory, ignore_index=True)[[*COLUMNS]])
    write_json(folder / "probe.json", summary)


def exchanged_frames(run: RunConfig, results_dir: Path) -> UInt8[Tensor, "N K C H W"] | None:
    """What each context frame of the clips that are measured is exchanged for; None where nothing can be."""
    if not run.data.exchangeable:
        return None
    source = kind_of(run.data).open(results_dir / run.protocol / "data")
    frames = [source.exchanged(run.probe.clips, t) for t in range(1, run.data.context + 1)]
    return torch.stack(frames, dim=1)


def stages_of(run: RunConfig, folder: Path) -> Iterator[Stage]:
    """The stages of a run in the order of their steps; those that a diverged run did not reach are left out.

    Raises:
        UserError: weights are missing, damaged or of another configuration.
    """
    trained = load_run_weights(folder / WEIGHTS, run)
    status = read_json(folder / "status.json")
    diverged = status["state"] == "diverged"
    at_ends = measures_of(trained, tuple(MEASURES) if run.probe.memory else AT_ENDS)
    yield Stage("init", 0, build_network(run.model, run.seed), at_ends)
    for step in sorted(run.probe.steps):
        path = folder / weights_after(step)
        if path.exists():
            yield Stage(f"step-{step}", step, load_run_weights(path, run), WHILE_TRAINING)
        elif not (diverged and status["step"] <= step):
            raise UserError(
                f"{path}: is missing, the weights that probe.steps asks for; "
                f"remove {WEIGHTS} and .trained.pt there and train again"
            )
    yield Stage("trained", status["step"] if diverged else run.training.steps, trained, at_ends)


def measures_of(network: Network, measures: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `measures` that a network has: the paths by memory and by frames are those of our roll-out."""
    ours = isinstance(network, Predictor)
    return tuple(name for name in measures if ours or MEASURES[name][1] == "all")


def measure(
    network: Network,
    clips: UInt8[Tensor, "N T C H W"],
    context: int,
    batch_size: int,
    device: str,
    measures: tuple[str, ...] = AT_ENDS,
) -> Measured:
    """Measure `network` on `clips` after `context` given frames, `batch_size` clips at once.

    Computed in float64, since at the authors' initialisation the norms lie below what float32 holds, and on the
    reference path, whose convolutions round less. Openness and saturation are those of the roll-out with all paths
    open.
    """
    network = network.double().to(device)
    network.reference_path = True
    rows, openness, shares, kept = [], [], [], []
    for first in range(0, len(clips), batch_size):
        frames = to_float(clips[first : first + batch_size].to(device)).double()
        for path, names in groupby(measures, key=lambda name: MEASURES[name][1]):
            *others, last = names
            gates: Trace | None = {} if path == "all" and isinstance(network, Predictor) else None
            rolled = roll_out(network, frames, context, path, gates)
            for name in (*others, last):
                norms = gradient_norms(rolled, MEASURES[name][0], keep_graph=name != last)
                rows += [long_form(name, state, layer, first, value) for (state, layer), value in norms.items()]
            if gates is not None and isinstance(network, Predictor):
                openness.append([(1 - s).detach().mean(dim=(1, 2, 3)) for s in rolled.switch])
                shares.append({key: len(frames) * value for key, value in saturated(gates, network.spec).items()})
                kept.append({key: len(frames) * log for key, log in mean_log_kept(gates, network.spec).items()})
            del rolled
    return Measured(
        norms=pd.concat(rows, ignore_index=True),
        openness=[torch.cat(step).mean().item() for step in zip(*openness, strict=True)],
        saturated=by_gate({key: value.item() / len(clips) for key, value in summed(shares).items()}),
        time_constants={key: time_constants(value / len(clips)) for key, value in summed(kept).items()},
    )


def summed(parts: list[dict[tuple[str, int], Tensor]]) -> dict[tuple[str, int], Tensor]:
    """The sum over batches of each value; empty where there is none."""
    return {key: sum((part[key] for part in parts), torch.zeros(())) for key in (parts[0] if parts else {})}


def roll_out(
    network: Network,
    frames: Float[Tensor, "B T C H W"],
    context: int,
    path: str = "all",
    gate_trace: Trace | None = None,
) -> RollOut:
    """Predict freely after `context` frames, so that `gradient_norms` can go back.

    Args:
        frames: whole clips; all but the first `context` frames serve only as the target.
        context: number of given frames; the roll-out feeds on its own predictions after them.
        path: what gradient may flow through: `all`, `memory` or `frames`, as in `MEASURES`.
        gate_trace: filled with every gate before its nonlinearity, if given.
    """
    given = frames[:, :context].clone().requires_grad_()
    if not isinstance(network, Predictor):
        predicted, named = network.states(given, frames.shape[1] - context)
        return RollOut(predicted[:, -1], frames[:, -1], {("X", 0): [given]} | named, [])
    inputs = torch.cat([given, torch.zeros_like(frames[:, context:])], dim=1)
    mask = free_running_mask(len(frames), context, frames.shape[1] - context, frames)
    trace: Trace = {}
    cut = None if path == "all" else Cut(kept=path, first=context)  # pyright: ignore[reportArgumentType]  # one of the two
    last = network(inputs, mask, trace, cut, gate_trace)[:, -1]
    states = {("X", 0): [given]} | {key: steps for key, steps in trace.items() if key[0] != "S"}
    return RollOut(last, frames[:, -1], states, trace.get(("S", network.spec.highway_slot), []))


def gradient_norms(
    rolled: RollOut, cotangent: str = "residual", *, keep_graph: bool = False
) -> dict[tuple[str, int], Float[Tensor, "B _"]]:
    """Per-clip L2 norms of the gradient of the last predicted frame, by one backward pass (our Eq. 11).

    Args:
        rolled: where to go back.
        cotangent: `residual` (gradient of the summed squared error of the last frame), `fixed`, or `directions`: root
            mean square of the norms for each of `DIRECTIONS` directions (our Eq. 18).
        keep_graph: for another backward pass.

    Returns:
        (state, layer) -> norms at t = 1, 2, ...: ("X", 0) over the context, H, C, M, Z over all steps.
    """
    if cotangent == "directions":
        each = [(rolled.last * direction).sum() for direction in directions(rolled.last)]
        found = [norms_of(rolled, scalar, keep_graph=keep_graph or scalar is not each[-1]) for scalar in each]
        return {key: torch.stack([norms[key] for norms in found]).square().mean(dim=0).sqrt() for key in found[0]}
    return norms_of(rolled, scalar_of(rolled.last, rolled.target, cotangent), keep_graph=keep_graph)


def norms_of(
    rolled: RollOut, scalar: Float[Tensor, ""], *, keep_graph: bool
) -> dict[tuple[str, int], Float[Tensor, "B _"]]:
    """As `gradient_norms`, of one scalar."""
    flat = [tensor for steps in rolled.states.values() for tensor in steps]
    gradients = iter(torch.autograd.grad(scalar, flat, retain_graph=keep_graph, materialize_grads=True))
    norms = {}
    for key, steps in rolled.states.items():
        found = [next(gradients) for _ in steps]
        stacked = found[0] if key[0] == "X" else torch.stack(found, dim=1)  # (B, T, D, h, w)
        norms[key] = stacked.flatten(2).norm(dim=2)
    return norms


def scalar_of(last: Float[Tensor, "B C H W"], target: Float[Tensor, "B C H W"], cotangent: str) -> Float[Tensor, ""]:
    """s of Eq. 11, summed over the clips, which do not touch each other."""
    residual = last - target
    return residual.square().sum() if cotangent == "residual" else (last * fixed_cotangent(last)).sum()


def fixed_cotangent(like: Float[Tensor, "B C H W"]) -> Float[Tensor, "C H W"]:
    """One random direction of norm 1, the same for every clip, network and device."""
    return directions(like, 1)[0]


def directions(like: Float[Tensor, "B C H W"], count: int = DIRECTIONS) -> Float[Tensor, "{count} C H W"]:
    """Random directions of norm 1, the same for every clip, network and device; the first is that of `fixed`."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(like.shape[1:], generator=generator, dtype=torch.float64) for _ in range(count)]
    return torch.stack([direction / direction.norm() for direction in drawn]).to(like)


def long_form(measure: str, state: str, layer: int, first: int, norms: Float[Tensor, "B T"]) -> pd.DataFrame:
    """The rows of `probe.parquet` for one state; clips and steps are counted from 1."""
    batch, steps = norms.shape
    return pd.DataFrame(
        {
            "measure": measure,
            "clip": np.repeat(np.arange(first + 1, first + batch + 1), steps),
            "state": state,
            "layer": layer,
            "t": np.tile(np.arange(1, steps + 1), batch),
            "norm": norms.cpu().numpy().ravel(),
        }
    )


def by_gate(shares: dict[tuple[str, int], float]) -> dict[str, list[float]]:
    """Gate -> its shares, bottom layer first."""
    found: dict[str, list[float]] = {}
    for (gate, _), value in sorted(shares.items(), key=lambda item: item[0][1]):
        found.setdefault(gate, []).append(value)
    return found

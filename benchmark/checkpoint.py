"""Checkpoints of a training, and the weights it ends with."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from benchmark.errors import UserError
from benchmark.files import atomic_buffer, write_atomic
from benchmark.seal import BLANK, check_seal, sealed
from models.predictor import Predictor
from models.spec import ModelSpec

_ABOUT = "benchmark"
"""Key of what a file of weights says about them, as JSON."""


def save_checkpoint(path: Path, identity: dict[str, str], state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all; `identity` holds the hashes of the run's config and code."""
    with atomic_buffer(path) as file:
        torch.save({"identity": identity, **state}, file)


def load_checkpoint(path: Path, identity: dict[str, str], *, resume_only: bool = False) -> dict[str, Any] | None:
    """The state to go on from, or None to start at step 0.

    A checkpoint of another config or of other code is renamed `checkpoint.<hash>.stale` and said so.

    Raises:
        UserError: `resume_only` and there is nothing to go on from.
    """
    if not path.exists():
        if resume_only:
            raise UserError(f"{path}: no checkpoint to resume from; train without --resume-only")
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    found = state.pop("identity")
    if found == identity:
        return state
    other = [key for key in identity if found.get(key) != identity[key]]
    if resume_only:
        raise UserError(f"{path}: is of other {' and '.join(other)}; train without --resume-only")
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:12]
    stale = path.with_name(f"checkpoint.{digest}.stale")
    path.replace(stale)
    print(f"checkpoint of other {' and '.join(other)} set aside as {stale.name}; starting at step 0", flush=True)
    return None


def save_trained(path: Path, identity: dict[str, str], network: Predictor) -> None:
    """Keep the weights that a training ended with, and the hashes of what made them."""
    save_checkpoint(path, identity, {"network": network.state_dict()})


def load_trained(path: Path, identity: dict[str, str]) -> dict[str, torch.Tensor] | None:
    """The weights that `save_trained` kept; None if there are none, or other hashes made them."""
    if not path.exists():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    return state["network"] if state["identity"] == identity else None


def save_weights(path: Path, network: Predictor, config_hash: str | None = None, context: int | None = None) -> None:
    """Write the weights with their spec.

    Args:
        config_hash: of the config of their run; None for weights from elsewhere.
        context: number of frames they were trained to see first, if it is known.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    about = {"spec": network.spec.to_dict(), "config_hash": config_hash, "context": context, "checksum": BLANK}
    # One entry: safetensors writes several in an order that changes from process to process.
    write_atomic(path, sealed(save(tensors, {_ABOUT: json.dumps(about, sort_keys=True)})))


def load_weights(path: Path, config_hash: str | None = None) -> Predictor:
    """The network stored at `path`, on the CPU; nothing in the file is run as code.

    Raises:
        UserError: no such file, damaged, not ours, or of a run with another config than `config_hash`.
    """
    again = "remove it and train or import again"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no trained weights here; run `train` first") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read as weights ({error.strerror})") from None
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises its own type, which it does not export in all versions
        raise UserError(f"{path}: cannot be read as weights ({error}); {again}") from None
    if _ABOUT not in metadata:
        raise UserError(f"{path}: says not which network it is of, so was not written by this benchmark")
    check_seal(path, content, again)
    try:
        about = json.loads(metadata[_ABOUT])
        spec = ModelSpec(**about["spec"] | {"hidden_channels": tuple(about["spec"]["hidden_channels"])})
        network = _network_like(spec, tensors)
        found = about["config_hash"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path}: holds no network of this benchmark ({error}); {again}") from None
    if config_hash is not None and found != config_hash:
        raise UserError(f"{path}: weights of another configuration of this run; run `train` again")
    return network


def _network_like(spec: ModelSpec, tensors: dict[str, torch.Tensor]) -> Predictor:
    """The network of `spec` with these weights, whose names and shapes are held against it before memory is taken."""
    if len(spec.hidden_channels) > len(tensors):
        raise ValueError(f"{len(tensors)} tensors for {len(spec.hidden_channels)} layers")
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in Predictor(spec).state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = [name for name in sorted(expected.keys() | found.keys()) if expected.get(name) != found.get(name)]
    if wrong:
        shapes = f"{found.get(wrong[0], 'not there')} in place of {expected.get(wrong[0], 'nothing')}"
        raise ValueError(f"{wrong[0]} is {shapes}{f', and {len(wrong) - 1} more' if wrong[1:] else ''}")
    if any(not tensor.is_floating_point() for tensor in tensors.values()):
        raise ValueError("not all weights are floating-point numbers")
    network = Predictor(spec)
    network.load_state_dict(tensors)
    return network


def trained_context(path: Path) -> int | None:
    """The number of context frames that `save_weights` was told of for the weights at `path`, if it was."""
    with safe_open(path, framework="pt") as stored:
        return json.loads(stored.metadata()[_ABOUT])["context"]

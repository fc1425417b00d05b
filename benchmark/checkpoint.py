"""Checkpoints of a training, and the weights it ends with."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmark.errors import UserError
from benchmark.files import atomic_path
from models.predictor import Predictor
from models.spec import ModelSpec


def save_checkpoint(path: Path, identity: dict[str, str], state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all; `identity` holds the hashes of the run's config and code."""
    with atomic_path(path) as temporary:
        torch.save({"identity": identity, **state}, temporary)


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
    stale = path.with_name(f"checkpoint.{found.get('code', 'unknown')}.stale")
    path.replace(stale)
    print(f"checkpoint of other {' and '.join(other)} set aside as {stale.name}; starting at step 0", flush=True)
    return None


def save_weights(path: Path, network: Predictor, config_hash: str) -> None:
    """Write the weights with their spec and the hash of their run's config."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    metadata = {"spec": json.dumps(network.spec.to_dict()), "config_hash": config_hash}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load_weights(path: Path, config_hash: str | None = None) -> Predictor:
    """The network stored at `path`, on the CPU.

    Raises:
        UserError: no such file, not readable, or of a run with another config than `config_hash`.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata()
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path}: no trained weights here; run `train` first") from None
    except Exception as error:  # safetensors raises its own type, which it does not export in all versions
        raise UserError(f"{path}: cannot be read as weights ({error}); remove it and train again") from None
    if config_hash is not None and metadata["config_hash"] != config_hash:
        raise UserError(f"{path}: weights of another configuration of this run; run `train` again")
    network = Predictor(ModelSpec(**json.loads(metadata["spec"])))
    network.load_state_dict(tensors)
    return network

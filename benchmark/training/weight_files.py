"""Files of weights: what a training ends with, with the spec of its network."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save

from benchmark.config.protocol import RunConfig
from benchmark.system.checksums import BLANK, add_checksum, verify_checksum
from benchmark.system.errors import UserError
from benchmark.system.files import write_atomic
from models.forecasters.network import Network, build_network
from models.forecasters.outside import ForecasterError, is_outside
from models.forecasters.spec import ForecasterSpec, Spec, spec_from
from models.predictor import Predictor

WEIGHTS = "model.safetensors"
"""What a training ends with, in its run folder."""

OF_TORCH_SAVE = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How files of torch.save begin, in its zip form and the older one. A file of ours may begin so, too: by its length."""
_ABOUT = "benchmark"
"""Key of what a file of weights says about them, as JSON."""


NAMES_IN_FILES = {
    "conv_first_memory": "conv_first",
    "conv_second_memory": "conv_second",
    "conv_memories": "conv_last",
}
"""Convolution of a cell -> its name in files of weights, which never changes; all others have one name."""


def name_in_files(name: str) -> str:
    """What the weight called `name` in a network is called in files, `cells.0.conv_memories.bias` for instance."""
    return ".".join(NAMES_IN_FILES.get(part, part) for part in name.split("."))


def weights_after(step: int | str) -> str:
    """Name of the file in a run folder that keeps the weights after `step` steps, or of all such files (`*`)."""
    return f"model.step={step}.safetensors"


def save_weights(path: Path, network: Network, config_hash: str | None = None, context: int | None = None) -> None:
    """Write the weights with their spec.

    Args:
        config_hash: of the config of their run; None for weights from elsewhere.
        context: number of frames they were trained to see first, if it is known.
    """
    tensors = {name_in_files(name): tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    about = {"spec": network.spec.to_dict(), "config_hash": config_hash, "context": context, "checksum": BLANK}
    # One entry: safetensors writes several in an order that changes from process to process.
    write_atomic(path, add_checksum(save(tensors, {_ABOUT: json.dumps(about, sort_keys=True)})))


def load_run_weights(path: Path, run: RunConfig) -> Network:
    """The network of a run with the weights stored at `path`, on the CPU; its protocol may name a class to import.

    Raises:
        UserError: no such file, damaged, not ours, or of a run with another config.
    """
    return _load(path, run.identity(), run.model)


def load_weights(path: Path, config_hash: str | None = None) -> Predictor:
    """The network stored at `path`, on the CPU; nothing in the file is run as code, and nothing it names is imported.

    Raises:
        UserError: no such file, damaged, not ours, of a class outside the benchmark, or of a run with another config
            than `config_hash`.
    """
    network = _load(path, config_hash, None)
    assert isinstance(network, Predictor)
    return network


def _load(path: Path, config_hash: str | None, known: Spec | None) -> Network:
    """The network stored at `path`, of a class outside the benchmark only where `known` names it."""
    again = "train or import it again"
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
        if content.startswith(OF_TORCH_SAVE):
            raise UserError(
                f"{path}: is a file of torch.save, of another code base or a checkpoint; `import-weights` brings"
                " weights of OpenSTL and predrnn-pytorch into a file that this command reads"
            ) from None
        raise UserError(f"{path}: cannot be read as weights ({error}); {again}") from None
    if _ABOUT not in metadata:
        raise UserError(f"{path}: says not which network it is of, so was not written by this benchmark")
    verify_checksum(path, content, again)
    try:
        about = json.loads(metadata[_ABOUT])
        spec, found = spec_from(about["spec"]), about["config_hash"]
        if spec != known and is_outside(spec.cell):
            raise OutsideWeights(
                f"{path}: weights of {spec.cell}, a class outside the benchmark, which no file of weights makes this"
                " program import; `evaluate` and `probe` read them by the protocol that names it"
            )
        network = _network_like(spec, tensors)
    except (OutsideWeights, ForecasterError):
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path}: holds no network of this benchmark ({error}); {again}") from None
    if config_hash is not None and found != config_hash:
        raise UserError(f"{path}: weights of another configuration of this run; run `train` again")
    return network


class OutsideWeights(UserError):
    """Weights whose network would be code from elsewhere."""


def _network_like(spec: Spec, tensors: dict[str, torch.Tensor]) -> Network:
    """The network of `spec` with these weights, whose names and shapes are held against it before memory is taken."""
    if len(spec.hidden_channels) > len(tensors):
        raise ValueError(f"{len(tensors)} tensors for {len(spec.hidden_channels)} layers")
    with torch.device("cpu" if isinstance(spec, ForecasterSpec) else "meta"):
        weights = build_network(spec, 0).state_dict()
    expected = {name_in_files(name): tuple(tensor.shape) for name, tensor in weights.items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = [name for name in sorted(expected.keys() | found.keys()) if expected.get(name) != found.get(name)]
    if wrong:
        shapes = f"{found.get(wrong[0], 'not there')} in place of {expected.get(wrong[0], 'nothing')}"
        raise ValueError(f"{wrong[0]} is {shapes}{f', and {len(wrong) - 1} more' if wrong[1:] else ''}")
    if any(
        not tensors[name_in_files(name)].is_floating_point() for name in weights if weights[name].is_floating_point()
    ):
        raise ValueError("not all weights are floating-point numbers")
    network = build_network(spec, 0)
    network.load_state_dict({name: tensors[name_in_files(name)] for name in weights})
    return network


def trained_context(path: Path) -> int | None:
    """The number of context frames that `save_weights` was given for the weights at `path`, or None."""
    with safe_open(path, framework="pt") as stored:
        return json.loads(stored.metadata()[_ABOUT])["context"]

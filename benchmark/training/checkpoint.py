"""Checkpoints of a training, and its final weights."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmark.system.console import echo
from benchmark.system.errors import UserError, is_out_of_memory
from benchmark.system.files import atomic_path, flush_to_disk, write_atomic

_HEAD, _DIGEST = b"deep-in-time checkpoint\n", hashlib.sha256().digest_size
"""What a checkpoint begins with, and the bytes of the digest that follows."""


def previous_of(path: Path) -> Path:
    """Where the checkpoint before the one at `path` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_checkpoint(path: Path, identity: dict[str, str], state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all; `identity` holds the hashes of the run's config and code.

    The one before it is kept. Between the two renames there is only that one, which `load_checkpoint` then takes.
    """
    content = _packed({"identity": identity, **state})
    with atomic_path(path, len(content)) as temporary:
        temporary.write_bytes(content)
        flush_to_disk(temporary)  # a disk that is full says so here, before the checkpoint there is makes room
        if path.exists():
            path.replace(previous_of(path))


def load_checkpoint(path: Path, identity: dict[str, str], *, resume_only: bool = False) -> dict[str, Any] | None:
    """The state to go on from, or None to start at step 0.

    A damaged checkpoint is renamed `checkpoint.damaged` and the one before it taken; one of another config or
    of other code is renamed `checkpoint.<hash>.stale`. Either is reported.

    Raises:
        UserError: `resume_only` and there is nothing to go on from.
    """
    previous = previous_of(path)
    kept = [file for file in (path, previous) if file.exists()]
    if not kept and resume_only:
        raise UserError(f"{path}: no checkpoint to resume from; train without --resume-only")
    events = []
    for file in kept:
        try:
            state = read_checkpoint(file)
        except DamagedFile as error:
            if resume_only and file == kept[-1]:
                raise UserError(f"{error}, and none before it is whole; train without --resume-only") from None
            damaged = file.with_suffix(".damaged")
            file.replace(damaged)
            events.append(f"{error}, set aside as {damaged.name}")
            continue
        found = state.pop("identity")
        if found != identity:
            events.append(_set_aside_stale(file, path, found, identity, resume_only))
            break
        if file == previous:
            events = events or [f"{path}: is missing, the process was killed between two renames"]
            echo(f"{'; '.join(events)}; going on from {file.name} of step {state['step']}")
        return state
    if events:
        echo(f"{'; '.join(events)}; starting at step 0")
    return None


def remove_checkpoints(path: Path) -> None:
    """Remove the checkpoint at `path` and the one before it."""
    for file in (path, previous_of(path)):
        file.unlink(missing_ok=True)


class DamagedFile(UserError):
    """A file that does not hold what was written into it."""


def _packed(state: dict[str, Any]) -> bytes:
    """`state` behind its SHA-256, without which PyTorch would read flipped bits as weights."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()
    return b"".join([_HEAD, hashlib.sha256(payload).digest(), payload])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote to `path`, on the CPU; nothing in the file is run as code.

    Raises:
        DamagedFile: it holds something else.
    """
    content = path.read_bytes()
    head, payload = content[: len(_HEAD) + _DIGEST], memoryview(content)[len(_HEAD) + _DIGEST :]
    if head != _HEAD + hashlib.sha256(payload).digest():
        raise DamagedFile(f"{path}: is damaged (its checksum is another)")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its parsers do
        if is_out_of_memory(error):
            raise
        raise DamagedFile(f"{path}: is no checkpoint ({str(error).partition(chr(10))[0]})") from None
    if not isinstance(state, dict) or "identity" not in state:
        raise DamagedFile(f"{path}: is no checkpoint (it names no run)")
    return state


def _set_aside_stale(file: Path, path: Path, found: dict[str, str], identity: dict[str, str], resume_only: bool) -> str:
    """Rename a checkpoint of another run; the one before it goes, lest it be taken for one of a later run."""
    other = " and ".join(key for key in identity if found.get(key) != identity[key])
    if resume_only:
        raise UserError(f"{file}: is of other {other}; train without --resume-only")
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:12]
    stale = path.with_name(f"checkpoint.{digest}.stale")
    file.replace(stale)
    remove_checkpoints(path)
    return f"checkpoint of other {other} set aside as {stale.name}"


def save_trained(path: Path, identity: dict[str, str], network: nn.Module) -> None:
    """Keep the weights that a training ended with, and the hashes of what made them."""
    write_atomic(path, _packed({"identity": identity, "network": network.state_dict()}))


def load_trained(path: Path, identity: dict[str, str]) -> dict[str, torch.Tensor] | None:
    """The weights that `save_trained` kept; None if there are none, or other hashes made them, or it is damaged."""
    if not path.exists():
        return None
    try:
        state = read_checkpoint(path)
    except DamagedFile as error:
        echo(f"{error}; training again")
        return None
    return state["network"] if state["identity"] == identity else None

"""The clips of a protocol for a training loop of your own: its stream, and the fixed ones that judge."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor, distributed
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from benchmark.config.code_sources import code_hash
from benchmark.config.protocol import Protocol, checked_protocol, load_protocol
from benchmark.data.clip_source import AT_ONCE, Clips, ClipSource, FixedSplit, Stream
from benchmark.data.clips import clips_hash, load_clips
from benchmark.data.kinds import kind_of
from benchmark.data.tensors import to_float
from benchmark.system.devices import resolve_device
from benchmark.system.errors import UserError, unknown
from benchmark.system.installation import extras_named

SPLITS: dict[str, FixedSplit] = {"validation": "validation", "test": "test"}


def protocol(given: str | Path | Mapping[str, Any] | Protocol) -> Protocol:
    """A protocol: which clips, networks, training, scores and seeds.

    Args:
        given: the name of one that comes with the benchmark (`quick`, `gpu`, ...), the path of a YAML file, or its keys
            in a dictionary; a protocol stays what it is.

    Returns:
        The protocol. Its sections are attributes: `.data.context`, `.training.steps`, `.variants`.

    Raises:
        ValueError: there is none, or a key of it is wrong; names the key, its value and what is allowed.
    """
    if isinstance(given, Protocol):
        return given
    if isinstance(given, Mapping):
        return checked_protocol({"name": "mine"} | dict(given), "protocol")
    return load_protocol(os.fspath(given))


@dataclass(frozen=True)
class _Prepared:
    """The clips of a protocol."""

    protocol: Protocol
    folder: Path
    source: ClipSource


class TrainingClips(IterableDataset):
    """The clips that a run of `seed` is trained on, in its order: a pure function of the seed and their number.

    Iterating twice gives the same clips twice. Workers of a `DataLoader` and processes of `torch.distributed` (started
    before this is made) share the items: each is made once. With items that are batches their order stays, too.

    Args:
        given: a protocol, as `protocol` takes it.
        seed: as the seed of a run. The same seed gives every model the same clips.
        length: items over all processes; None for endless ones. Where processes share them, a remainder is left out.
        batch_size: None for single clips (T, 1, H, W); else an item is a batch (B, T, 1, H, W), with the protocol's
            batch size the one that a run sees at that step. Give such items to `DataLoader(..., batch_size=None)`.
        start: number of the first item, to go on where an earlier loop stopped.
        device: `cpu`, `cuda` or `auto`, where the clips are made. On a GPU use no workers.
        shown: every item is a pair: what a network is shown, and the frames. They differ where the protocol hides
            something (`data.gaps`).
        data_dir: where published files or videos lie, as for `--data-dir`.
        folder: where the prepared data lies or is put, `results/<protocol>/data` for that of the workflow; default: a
            folder of its own in the user's cache (`XDG_CACHE_HOME`).
        download: fetch published files that are not there.

    Raises:
        ValueError: the protocol is wrong; files are missing or damaged; a number is out of range.
    """

    def __init__(
        self,
        given: str | Path | Mapping[str, Any] | Protocol,
        *,
        seed: int = 1,
        length: int | None = None,
        batch_size: int | None = None,
        start: int = 0,
        device: str = "cpu",
        shown: bool = False,
        data_dir: str | Path = "data",
        folder: str | Path | None = None,
        download: bool = False,
    ) -> None:
        for name, value, least in (("seed", seed, 0), ("length", length, 1), ("batch_size", batch_size, 1)):
            if value is not None and value < least:
                raise UserError(f"{name}: {value} is below {least}")
        if start < 0:
            raise UserError(f"start: {start} is below 0")
        prepared = _prepare(given, data_dir, folder, download)
        load_clips(prepared.folder, prepared.protocol.data, "validation")  # else the folder is of other clips
        self.protocol, self._source = prepared.protocol, prepared.source
        self.seed, self.length, self.batch_size, self.start, self.shown = seed, length, batch_size, start, shown
        self.device = resolve_device(device, "device")
        shared = distributed.is_available() and distributed.is_initialized()
        self._process = (distributed.get_rank(), distributed.get_world_size()) if shared else (0, 1)

    @property
    def context(self) -> int:
        """Frames given, the first of each clip."""
        return self.protocol.data.context

    @property
    def horizon(self) -> int:
        """Frames predicted in training, those after the context."""
        return self.protocol.data.trained_horizon

    def __len__(self) -> int:
        """Items of this process."""
        if self.length is None:
            raise TypeError("these clips are endless; TrainingClips(..., length=N) has a length")
        return self.length // self._process[1]

    def __iter__(self) -> Iterator[Any]:
        """The items of this process, or of this worker of it; float32 in [0, 1]."""
        worker = get_worker_info()
        if worker is not None and self.device == "cuda":
            raise UserError("device: cuda does not go with workers; make the clips there with num_workers=0")
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        rank, processes = self._process
        stream = self._source.train_stream(self.seed, self.device)
        last = None if self.length is None else len(self)
        if self.batch_size is None:
            yield from self._clips(stream, number, workers, rank, processes, last)
            return
        place = number
        while last is None or place < last:
            step = self.start + rank + processes * place
            yield self._item(stream, stream.clip_numbers(step, self.batch_size), stream.batch(step, self.batch_size))
            place += workers

    def _clips(
        self, stream: Stream, number: int, workers: int, rank: int, processes: int, last: int | None
    ) -> Iterator[Any]:
        """Single clips, made some at a time."""
        first = number
        while last is None or first < last:
            places = range(first, first + AT_ONCE * workers, workers)
            places = [place for place in places if last is None or place < last]
            numbers = torch.cat([stream.clip_numbers(self.start + rank + processes * place, 1) for place in places])
            made = self._item(stream, numbers, to_float(stream.clips(numbers).to(self.device)))
            yield from zip(*made, strict=True) if self.shown else made
            first += AT_ONCE * workers

    def _item(self, stream: Stream, numbers: Tensor, frames: Tensor) -> Any:
        return (self._source.inputs(frames, numbers, stream), frames) if self.shown else frames


class FixedClips(Dataset):
    """The clips that judge, never trained on; the same for every model, seed and machine.

    `clips[3]` is one clip (T, 1, H, W), `clips[:8]` are eight (8, T, 1, H, W), float32 in [0, 1] on the CPU; the first
    `clips.context` of the frames are given, the `clips.horizon` after them are predicted.

    Args:
        given: a protocol, as `protocol` takes it.
        split: `test`, or `validation` for choices of your own; test clips choose nothing.
        data_dir, folder, download: as for `TrainingClips`.

    Raises:
        ValueError: the protocol or the split is wrong; files are missing or damaged.
    """

    def __init__(
        self,
        given: str | Path | Mapping[str, Any] | Protocol,
        split: str = "test",
        *,
        data_dir: str | Path = "data",
        folder: str | Path | None = None,
        download: bool = False,
    ) -> None:
        if split not in SPLITS:
            raise UserError(unknown("split", split, SPLITS))
        prepared = _prepare(given, data_dir, folder, download)
        self.protocol, self.split = prepared.protocol, split
        self._clips: Clips = load_clips(prepared.folder, prepared.protocol.data, SPLITS[split])

    @property
    def context(self) -> int:
        """Frames given, the first of each clip."""
        return self.protocol.data.context

    @property
    def horizon(self) -> int:
        """Frames predicted, those after the context."""
        return self.protocol.data.horizon

    @property
    def sha256(self) -> str:
        """Hash of shape and pixels, `test_sha256` in records: where it differs, scores cannot be compared."""
        return clips_hash(self._clips)

    def __len__(self) -> int:
        """Clips."""
        return len(self._clips)

    def __getitem__(self, place: int | slice) -> Float32[Tensor, "*B T 1 H W"]:
        """The clip or clips at `place`."""
        return to_float(self._clips[place])


@extras_named()
def _prepare(
    given: str | Path | Mapping[str, Any] | Protocol, data_dir: str | Path, folder: str | Path | None, download: bool
) -> _Prepared:
    """The clips of a protocol, which are prepared where they are not yet."""
    chosen, data_dir = protocol(given), Path(data_dir)
    kind = kind_of(chosen.data)
    place = Path(folder) if folder else _cache(chosen, kind.origin(chosen, data_dir, download))
    if not (place / "data.json").exists():
        kind.prepare(chosen, data_dir, place, download)
    return _Prepared(chosen, place, kind.open(place, training=True))


def _cache(chosen: Protocol, origin: Any) -> Path:
    """A folder for what decides these clips: another for other keys, files or code."""
    decisive = [chosen.data.model_dump(mode="json"), origin, code_hash("data", None)]
    name = hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "deep-in-time" / f"data-{name}"

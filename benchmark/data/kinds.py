"""The interface of a kind of data, and the registry of kinds: the one place that tells them apart. Imports no torch."""

import importlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from benchmark.config.data_sections import DataConfig, DigitsConfig, RecallConfig, VideosConfig
from benchmark.config.protocol import Protocol

if TYPE_CHECKING:
    from benchmark.data.clip_source import ClipSource

Section = TypeVar("Section", DigitsConfig, VideosConfig, RecallConfig)

KINDS = {
    "digits": "benchmark.data.moving_digits.kind:MovingDigits",
    "videos": "benchmark.data.videos.kind:Videos",
    "recall": "benchmark.data.recall.kind:Recall",
}
"""Key that a data section of a kind has, as in `DATA_KINDS` -> its interface; a new kind is a module and a line."""


class DataKind(ABC, Generic[Section]):
    """What the benchmark asks of a kind of data. Only `prepare` and `open` may import torch.

    Args:
        data: the data section of a protocol.
    """

    files: ClassVar[tuple[str, ...]]
    """Names of the files in the prepared folder."""
    in_memory: ClassVar[bool] = True
    """Whether the test clips are in memory while they are scored."""

    def __init__(self, data: Section) -> None:
        self.data = data

    @abstractmethod
    def origin(self, protocol: Protocol, data_dir: Path, download: bool) -> Any:
        """What decides the clips besides the data section and code, as plain values; None for nothing."""

    @abstractmethod
    def prepare(self, protocol: Protocol, data_dir: Path, folder: Path, download: bool = False) -> dict[str, Any]:
        """Write `files` to `folder`: what a protocol trains on, and the hashes of its fixed clips.

        Args:
            data_dir: where published files and a person's own clips lie.
            folder: made if needed.
            download: fetch published files that are not there.

        Returns:
            What `data.json` holds: at least `source`, `split_sizes`, `test_set`, `validation_sha256` and
            `test_sha256`, and no path of this machine.

        Raises:
            UserError: files are missing, damaged, or could not be downloaded.
        """

    @abstractmethod
    def open(self, folder: Path, *, training: bool = False) -> "ClipSource":
        """The clips of a prepared folder; with `training` checked to the last byte.

        Raises:
            UserError: the folder is missing, damaged or made for another kind of data.
        """

    @abstractmethod
    def look(self, protocol: Protocol, data_dir: Path) -> str:
        """What there is below `data_dir` for `protocol`, in words, for the command `doctor`.

        Raises:
            UserError: it is missing, damaged or not in a layout that is known.
        """

    @abstractmethod
    def describe(self) -> str:
        """What the clips are made of, as the first words of a note."""

    @abstractmethod
    def same_kind(self) -> str:
        """What decides whether two sets of clips are of one kind, besides their sizes, in words."""

    def further_notes(self, provenances: list[dict[str, Any]]) -> str:
        """Sentences for the end of the note, each after a space, from the provenance of the runs."""
        return ""

    def memory_needs(self) -> dict[str, int]:
        """Key with its value -> bytes of memory that it takes at the least while clips are made; none by itself."""
        return {}

    @abstractmethod
    def test_set(self, folder: Path) -> str:
        """What the test clips of a prepared folder are, as its `data.json` has it."""


def kind_of(data: DataConfig) -> DataKind[Any]:
    """The interface of the kind that a data section is of."""
    module, _, name = KINDS[data.kind].partition(":")
    return getattr(importlib.import_module(module), name)(data)

"""Recall as a kind of data. Imports no torch by itself."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.config.data_sections import RecallConfig
from benchmark.config.protocol import Protocol
from benchmark.data.still_digits.bank import load_digits
from benchmark.data.still_digits.kind import DigitKind
from benchmark.data.still_digits.prepare import GENERATED, get_bank, write_prepared

if TYPE_CHECKING:
    from benchmark.data.recall.clips import RecallClips


class Recall(DigitKind[RecallConfig]):
    """A digit to keep over a gap of other digits or of nothing, generated."""

    def origin(self, protocol: Protocol, data_dir: Path, download: bool) -> Any:
        """Nothing besides the digits, which are known by their checksums."""
        return None

    def prepare(self, protocol: Protocol, data_dir: Path, folder: Path, download: bool = False) -> dict[str, Any]:
        """Write the digits; see `DataKind`."""
        from benchmark.data.recall.clips import RecallClips

        bank = get_bank(self.data.source, self.data.digit_size, data_dir, download=download)
        clips = RecallClips(bank, self.data)
        return write_prepared(folder, bank, clips.fixed_clips("validation"), clips.fixed_clips("test"), GENERATED)

    def open(self, folder: Path, *, training: bool = False) -> "RecallClips":
        """The clips of a prepared folder, whose digits are always checked; see `DataKind`."""
        from benchmark.data.recall.clips import RecallClips

        return RecallClips(load_digits(folder), self.data)

    def describe(self) -> str:
        """What is to be recalled over what."""
        return f"Recall of a digit of {self.data.digit_size} pixels ({self.data.source}) over {self._gap()}"

    def same_kind(self) -> str:
        """What is to be recalled over what."""
        return f"recall of a digit ({self.data.source}) of {self.data.digit_size} pixels over {self._gap()}"

    def further_notes(self, provenances: list[dict[str, Any]]) -> str:
        """What a clip shows, and what must be given out."""
        return (
            " Frame 1 is the cue, a digit with the top row of the frame lit; the frame to predict is that digit without"
            " the lit row. No digit of a test clip was trained on."
        )

    def _gap(self) -> str:
        gap = self.data.gap
        return f"{gap} {'other digit' if self.data.distractors else 'black frame'}{'s' * (gap > 1)}"

    def test_set(self, folder: Path) -> str:
        """Generated, always."""
        return GENERATED

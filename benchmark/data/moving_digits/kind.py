"""Moving digits as a kind of data. Imports no torch by itself."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.config.data_sections import DigitsConfig
from benchmark.config.protocol import Protocol
from benchmark.data.moving_digits.prepare import prepare
from benchmark.data.prepared_folder import PUBLIC, read_arrays, read_data_record
from benchmark.data.still_digits.bank import load_digits
from benchmark.data.still_digits.kind import DigitKind
from benchmark.data.still_digits.prepare import GENERATED
from benchmark.system.files import read_json

if TYPE_CHECKING:
    from benchmark.data.moving_digits.clips import DigitClips


class MovingDigits(DigitKind[DigitsConfig]):
    """Digits that move and bounce, generated; or the public test clips of them."""

    def origin(self, protocol: Protocol, data_dir: Path, download: bool) -> Any:
        """Where the public test clips are looked for, where they are wanted; digits are known by their checksums."""
        return [data_dir, download] if self.data.public_test else None

    def prepare(self, protocol: Protocol, data_dir: Path, folder: Path, download: bool = False) -> dict[str, Any]:
        """Write the digits, and the public test clips if they are used; see `DataKind`."""
        return prepare(self.data, data_dir, folder, download)

    def open(self, folder: Path, *, training: bool = False) -> "DigitClips":
        """The clips of a prepared folder, whose digits are always checked; see `DataKind`."""
        from benchmark.data.moving_digits.clips import DigitClips

        bank, public = load_digits(folder), read_data_record(folder)["test_set"] == PUBLIC
        return DigitClips(bank, self.data, partial(read_arrays, folder, "public_test") if public else None)

    def describe(self) -> str:
        """How many digits of which size and source."""
        return f"{self.data.num_digits} moving digits of {self.data.digit_size} pixels ({self.data.digits})"

    def same_kind(self) -> str:
        """How many digits of which source and size."""
        return f"{self.data.num_digits} digits ({self.data.digits}) of {self.data.digit_size} pixels"

    def test_set(self, folder: Path) -> str:
        """Generated or public; only a protocol that asks for public ones may have them."""
        return read_json(folder / "data.json")["test_set"] if self.data.public_test else GENERATED

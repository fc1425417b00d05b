"""Moving digits as a kind of data. Imports no torch by itself."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.config.data_sections import DigitsConfig
from benchmark.config.protocol import Protocol
from benchmark.data.kinds import DataKind
from benchmark.data.moving_digits.digits import SPLITS, load_bank, load_digits
from benchmark.data.moving_digits.prepare import prepare
from benchmark.data.prepared_folder import PUBLIC, read_arrays, read_data_record
from benchmark.system.errors import UserError
from benchmark.system.files import read_json

if TYPE_CHECKING:
    from benchmark.data.moving_digits.clips import DigitClips


_RESIZED_AT_ONCE = 4096
"""Digits that `resize_area` has in float64, three times over, at once."""


class MovingDigits(DataKind[DigitsConfig]):
    """Digits that move and bounce, generated; or the public test clips of them."""

    files = ("digits.npz", "data.json")

    def origin(self, protocol: Protocol, data_dir: Path, download: bool) -> Any:
        """Where the public test clips are looked for, where they are wanted; digits are known by their checksums."""
        return [data_dir, download] if self.data.public_test else None

    def prepare(self, protocol: Protocol, data_dir: Path, folder: Path, download: bool = False) -> dict[str, Any]:
        """Write the digits, and the public test clips if they are used; see `DataKind`."""
        return prepare(self.data, data_dir, folder, download)

    def open(self, folder: Path, *, training: bool = False) -> "DigitClips":
        """The clips of a prepared folder, whose digits are always checked; see `DataKind`."""
        from benchmark.data.moving_digits.clips import DigitClips

        bank, record = load_digits(folder), read_data_record(folder)
        asked, found = (self.data.digits, self.data.digit_size), (bank.source, record["digit_size"])
        if asked != found:
            made = f"digits of {found[0]}, {found[1]} pixels wide, not {asked[0]}, {asked[1]}"
            raise UserError(f"{folder / 'data.json'}: made for other clips ({made}); run the command `data` again")
        public = record["test_set"] == PUBLIC
        return DigitClips(bank, self.data, partial(read_arrays, folder, "public_test") if public else None)

    def look(self, protocol: Protocol, data_dir: Path) -> str:
        """The digits of the protocol, read whole and held against their checksums."""
        bank = load_bank(self.data.digits, self.data.digit_size, data_dir)
        counts = f"{len(bank.train)} + {len(bank.validation)} + {len(bank.test)}"
        return f"{self.data.digits} for protocol {protocol.name}: {counts} digits to train, validate and test on"

    def describe(self) -> str:
        """How many digits of which size and source."""
        return f"{self.data.num_digits} moving digits of {self.data.digit_size} pixels ({self.data.digits})"

    def same_kind(self) -> str:
        """How many digits of which source and size."""
        return f"{self.data.num_digits} digits ({self.data.digits}) of {self.data.digit_size} pixels"

    def memory_needs(self) -> dict[str, int]:
        """What the fixed clips take, which are made in memory, and the digits while they are resized."""
        data = self.data
        count, pixels = sum(SPLITS[data.digits]), data.digit_size**2
        clip = (data.context + data.horizon) * data.frame_size**2
        return {
            f"data.digit_size: {data.digit_size}": (count + 3 * 8 * min(count, _RESIZED_AT_ONCE)) * pixels,
            f"data.validation_clips: {data.validation_clips}": data.validation_clips * clip,
            f"data.test_clips: {data.test_clips}": data.test_clips * clip,
        }

    def test_set(self, folder: Path) -> str:
        """Generated or public; only a protocol that asks for public ones may have them."""
        return read_json(folder / "data.json")["test_set"] if self.data.public_test else "generated"

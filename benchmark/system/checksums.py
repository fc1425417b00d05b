"""A checksum of a file in the file: what changed since it was written is refused unread. Imports no torch."""

import hashlib
import re
from pathlib import Path

from benchmark.system.errors import UserError

_WORDS = "sha256 of this file with zeros here: "
BLANK = _WORDS + 64 * "0"
"""What a file holds once, wherever its format has room for text, before `add_checksum` fills in the digits."""
_SEAL = re.compile(re.escape(_WORDS).encode() + rb"([0-9a-f]{64})")


def add_checksum(content: bytes) -> bytes:
    """`content` with the checksum of all its bytes in place of its one `BLANK`."""
    assert content.count(BLANK.encode()) == 1
    return content.replace(BLANK.encode(), f"{_WORDS}{hashlib.sha256(content).hexdigest()}".encode())


def verify_checksum(path: Path, content: bytes, again: str) -> None:
    """Hold the `content` of the file `path` against the checksum in it.

    Args:
        again: how to have the file made again, for the error.

    Raises:
        UserError: there is no checksum, or that of another content.
    """
    seals = _SEAL.findall(content)
    if len(seals) != 1:
        raise UserError(f"{path}: is damaged or was not written by this benchmark: it holds no checksum; {again}")
    blank = _SEAL.sub(BLANK.encode(), content)
    if hashlib.sha256(blank).hexdigest().encode() != seals[0]:
        raise UserError(f"{path}: is damaged: its bytes are not those of the checksum in it; {again}")

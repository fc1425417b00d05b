"""Checksums: of files and folders, and of a file in the file, which is refused if it changed. Imports no torch."""

import hashlib
import re
from pathlib import Path

from benchmark.system.errors import UserError

_WORDS = "sha256 of this file with zeros here: "
BLANK = _WORDS + 64 * "0"
"""What a file holds once, wherever its format has room for text, before `add_checksum` fills in the digits."""
_SEAL = re.compile(re.escape(_WORDS).encode() + rb"([0-9a-f]{64})")


def files_at(path: Path) -> list[Path]:
    """The file at `path`, or all files in that folder and its folders, hidden ones left out, in the order of names.

    Raises:
        UserError: there is nothing.
    """
    if path.is_file():
        return [path]
    found = sorted(one for one in path.rglob("[!.]*") if one.is_file())
    if not found:
        raise UserError(f"{path}: {'holds no file' if path.is_dir() else 'no such file or folder'}")
    return found


def sha256_of(path: Path) -> str:
    """SHA-256 of the file at `path`; of a folder that of the names and SHA-256 of its files.

    Raises:
        UserError: there is nothing, or it cannot be read.
    """
    found = {}
    for file in files_at(path):
        try:
            with file.open("rb") as stream:
                found[f"{file.relative_to(path)}"] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    if path.is_file():
        return found["."]
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in found.items()).encode()).hexdigest()


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

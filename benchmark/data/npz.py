"""Arrays in a .npz, whose sizes are believed only after they were checked. Imports no torch."""

import math
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from benchmark.system.errors import UserError

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def names_in(path: Path) -> list[str]:
    """The names of the arrays in `path`; raises UserError where it is no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except Exception as error:  # zipfile lets through what its parts raise on damaged bytes
        raise UserError(f"{path}: cannot be read as an npz ({error})") from None


def read_npz(path: Path, *names: str, most_bytes: int = 2**31) -> list[np.ndarray]:
    """The arrays called `names`, each of at most `most_bytes`; what its checksum in the archive is not, is an error.

    Raises:
        UserError: the file is damaged, lacks an array, or holds one with objects in it or of another size than it says.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [_read(archive, name, most_bytes) for name in names]
    except Exception as error:  # zipfile and numpy let through what their parts raise on damaged bytes
        raise UserError(f"{path}: cannot be read as an npz of {', '.join(names)} ({error})") from None


def map_member(path: Path, name: str) -> np.ndarray:
    """The array `name`, on disk: unpacked into a file whose name goes at once and whose space goes with the array.

    Raises:
        UserError: as `read_npz`, or there is no room for it.
    """
    place = tempfile.gettempdir()
    try:
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
            entry, free = archive.getinfo(f"{name}.npy"), shutil.disk_usage(folder).free
            if entry.file_size > free:
                raise ValueError(f"{entry.file_size:,} bytes, of which {free:,} are free")
            with archive.open(entry) as packed:
                _check_header(packed, entry)  # pyright: ignore[reportArgumentType]  # what `open` of a zip returns
            target = Path(folder, "array.npy")  # whatever the archive calls it
            with archive.open(entry) as packed, target.open("wb") as file:
                shutil.copyfileobj(packed, file, 2**16)
            return np.lib.format.open_memmap(target, mode="r")
    except Exception as error:  # see `read_npz`
        raise UserError(f"{path}: its array {name} cannot be unpacked into {place} and read ({error})") from None


def _read(archive: zipfile.ZipFile, name: str, most_bytes: int) -> np.ndarray:
    entry = archive.getinfo(f"{name}.npy")
    if entry.file_size > most_bytes:
        raise ValueError(f"{name} takes {entry.file_size:,} bytes, more than {most_bytes:,}")
    with archive.open(entry) as file:
        _check_header(file, entry)  # pyright: ignore[reportArgumentType]  # what `open` of a zip returns
    with archive.open(entry) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):  # the end also checks the checksum
            raise ValueError(f"{name} is longer than it says")
    return array


def _check_header(file: zipfile.ZipExtFile, entry: zipfile.ZipInfo) -> None:
    """Raise ValueError if an array holds objects or says another size than it has, before memory is taken for it."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"array format {version} in place of 1.0 or 2.0")
    shape, _, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("Python objects are not loaded")
    held = entry.file_size - file.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != held:
        raise ValueError(f"says {dtype} of shape {shape} and holds {held:,} bytes")

"""Downloads of the published files, checked before they get their name. Imports no torch."""

import hashlib
import http.client
import sys
import time
import urllib.request
from pathlib import Path

from benchmark.data.originals import Original
from benchmark.errors import UserError
from benchmark.files import atomic_path

_CHUNK = 1 << 20
_TIMEOUT_S = 30
_PROGRESS_S = 5


def fetch(original: Original, data_dir: Path) -> Path:
    """Fetch `original` from the first mirror that gives the published bytes, unless it is there already.

    Returns:
        The path of the file below `data_dir`.

    Raises:
        UserError: no mirror gave the file; names each one's failure.
    """
    present = original.find(data_dir)
    if present is not None:
        return present
    path = original.destination(data_dir)
    failures = []
    for url in original.urls:
        try:
            with atomic_path(path) as temporary:
                md5 = _receive(url, temporary)
                if md5 != original.md5:
                    raise _WrongChecksumError(f"MD5 {md5}, expected {original.md5}")
            return path
        except (_WrongChecksumError, http.client.HTTPException, OSError) as error:
            failures.append(f"{url}: {error or type(error).__name__}")
    raise UserError(
        f"download: {original.name} could not be had ({'; '.join(failures)}); "
        f"try again later or put the file in {path.parent}"
    )


class _WrongChecksumError(Exception):
    pass


def _receive(url: str, path: Path) -> str:
    digest = hashlib.md5()
    received = 0
    started = reported = time.monotonic()
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response, path.open("wb") as file:
        length = int(response.headers.get("Content-Length", 0))
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            digest.update(chunk)
            received += len(chunk)
            if time.monotonic() - reported > _PROGRESS_S:
                reported = time.monotonic()
                _report(url, received, length, reported - started)
    if received < length:
        raise http.client.IncompleteRead(b"", length - received)
    _report(url, received, length, time.monotonic() - started)
    return digest.hexdigest()


def _report(url: str, received: int, length: int, elapsed_s: float) -> None:
    total = f" of {length / 1e6:.1f}" if length else ""
    print(f"download {url}: {received / 1e6:.1f}{total} MB in {elapsed_s:.0f} s", file=sys.stderr, flush=True)

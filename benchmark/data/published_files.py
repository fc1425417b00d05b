"""The published files: where they lie below `data_dir`, their checksums and where they come from."""

import hashlib
import http.client
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from benchmark.system.errors import UserError
from benchmark.system.files import atomic_path


@dataclass(frozen=True)
class Original:
    """A published file.

    Attributes:
        name: file name as published.
        folders: folders below `data_dir` where it may lie; downloads go to the first.
        md5: checksum of the file as published.
        content_md5: checksum of its content, unzipped; holds however the file was packed.
        urls: mirrors, tried in order.
    """

    name: str
    folders: tuple[str, ...]
    md5: str
    content_md5: str
    urls: tuple[str, ...]

    def find(self, data_dir: Path) -> Path | None:
        """The path of the file, packed or unpacked, below `data_dir`; None if it is not there."""
        names = dict.fromkeys((self.name, self.name.removesuffix(".gz")))
        places = (data_dir / folder / name for folder in self.folders for name in names)
        return next((path for path in places if path.is_file()), None)

    def destination(self, data_dir: Path) -> Path:
        """Where a download of the file goes."""
        return data_dir / self.folders[0] / self.name


def _mnist(name: str, md5: str, content_md5: str) -> Original:
    mirrors = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")
    return Original(name, ("mnist", "MNIST/raw"), md5, content_md5, tuple(mirror + name for mirror in mirrors))


MNIST_TRAIN = _mnist(
    "train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"
)
MNIST_TEST = _mnist("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea")
PUBLIC_TEST = Original(
    name="mnist_test_seq.npy",
    folders=("MovingMNIST",),
    md5="be083ec986bfe91a449d63653c411eb2",
    content_md5="be083ec986bfe91a449d63653c411eb2",
    urls=("http://www.cs.toronto.edu/~nitish/unsupervised_video/mnist_test_seq.npy",),
)


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

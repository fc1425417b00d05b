"""The published files: where they lie below `data_dir`, their checksums and where they come from."""

from dataclasses import dataclass
from pathlib import Path


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

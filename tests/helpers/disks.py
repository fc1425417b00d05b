"""A small real disk to fill: a tmpfs, or, where mounting is refused, a limit on the size of files."""

import contextlib
import os
import resource
import subprocess
import warnings
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")


class Disk:
    """A disk of its own; `full` leaves no byte on it. Without a mount, `full` forbids every write by file size."""

    def __init__(self, folder: Path, mounted: bool) -> None:
        self.folder, self.mounted = folder, mounted
        self.ballast = folder / "ballast"

    @contextlib.contextmanager
    def full(self):
        """Nothing more fits for the body, but for what `release` gives back."""
        self.fill()
        try:
            yield
        finally:
            self.empty()

    def fill(self) -> None:
        if not self.mounted:
            self.limit(0)
            return
        with self.ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(PAGE))

    def release(self, size: int) -> None:
        """Give back `size` bytes, in whole pages, as the disk does; or let the largest file grow by so much."""
        if not self.mounted:
            self.limit(size + max((path.stat().st_size for path in self.folder.rglob("*")), default=0))
            return
        left = self.ballast.stat().st_size - -(-size // PAGE) * PAGE
        os.truncate(self.ballast, max(left, 0))

    def empty(self) -> None:
        if not self.mounted:
            self.limit(resource.RLIM_INFINITY)
            return
        self.ballast.unlink(missing_ok=True)

    def limit(self, size: int) -> None:
        """Let no file grow beyond `size` bytes."""
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "8m", options: str = ""):
    """Yield a `Disk` of `size` at `folder`; says where it could not be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}{options}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        warnings.warn("no mounting here: a limit on the size of files takes the place of a full disk", stacklevel=3)
    try:
        yield Disk(folder, mounted)
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)

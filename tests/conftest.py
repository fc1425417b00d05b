"""What holds for all tests."""

import os
import signal
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

from tests.helpers import extent
from tests.helpers.order import long_first

ROOT = Path(__file__).parents[1]
pytest_plugins = ["tests.helpers.fixtures"]

# Functions of arrays are held to the shapes and types that they name, wherever a module names any; basedpyright holds
# all others to theirs.
SHAPED = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("models", "benchmark", "deep_in_time")
    for path in (ROOT / package).rglob("*.py")
    if "from jaxtyping import" in path.read_text()
]
install_import_hook(SHAPED, "beartype.beartype")

# What `make test` hands down to the programs it starts is no part of a person's environment.
for name in [name for name in os.environ if name.startswith("MAKE")]:
    del os.environ[name]

# A shell's background jobs ignore Ctrl-C, and so would what the tests start to see it end at one.
signal.signal(signal.SIGINT, signal.default_int_handler)

# On tiny tensors more threads only wait for each other: many times slower where cores are shared. Of all libraries, and
# in the processes that tests start, too; it has to be said before PyTorch and NumPy are imported.
for library in ("OMP", "MKL", "OPENBLAS"):
    os.environ[f"{library}_NUM_THREADS"] = "1"


def pytest_configure(config):
    """Claims are tried in full where the tests marked `slow` are asked for, too."""
    extent.full = config.option.markexpr in ("", "slow")


def pytest_collection_modifyitems(items):
    """Begin with the files that take long; within a file nothing changes."""
    items.sort(key=lambda item: long_first(item.nodeid))


def pytest_runtest_setup(item):
    """Tests marked `gpu` skip where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU; `make gpu-check` runs it")

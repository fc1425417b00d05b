"""What holds for all tests."""

import signal

import pytest
import torch

# A shell's background jobs ignore Ctrl-C, and so would what the tests start to see it end at one.
signal.signal(signal.SIGINT, signal.default_int_handler)

# On tiny tensors more threads only wait for each other: many times slower where cores are shared.
torch.set_num_threads(1)


def pytest_runtest_setup(item):
    """Tests marked `gpu` skip where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a GPU; `make gpu-check` runs it")

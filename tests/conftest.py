"""What holds for all tests."""

import torch

# On tiny tensors more threads only wait for each other: many times slower where cores are shared.
torch.set_num_threads(1)

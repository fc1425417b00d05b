"""`training.fuse`: a cell's elementwise operations compiled into one give what the cell gives."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# In a process of its own: the tests' checks of shapes and types would be compiled too.
SCRIPT = """
import json, sys, torch
from torch._dynamo.utils import counters
from benchmark.training import step as engine
from benchmark.config.sections import TrainingConfig
from benchmark.training.acceleration.captured_step import make_step
from benchmark.training.step import Batch
from models.predictor import build, free_running_mask
from models.spec import ModelSpec

compiled = torch.nn.Module.compile
torch.nn.Module.compile = lambda cell, **keys: compiled(cell, backend=sys.argv[1], **keys)
torch.set_num_threads(1)
spec = ModelSpec(cell="convlstm", hidden_channels=(3,), frame_size=8, kernel_size=3)
frames = torch.rand(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
mask, found = free_running_mask(2, 2, 2, frames), {}
for fuse in (False, True):
    training = TrainingConfig(steps=3, batch_size=2, learning_rate=0.01, fuse=fuse, recompute=True)
    network = build(spec, 1).double()
    step = make_step(network, engine.make_optimizer(network, training), training)
    losses = [step(Batch(frames, frames, mask)).loss.item() for _ in range(3)]
    weights = torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).tolist()
    found[f"{fuse}"] = {"losses": losses, "weights": weights, "graphs": sum(counters["stats"].values())}
print(json.dumps(found))
"""


# The first traces forward and backward pass and leaves out what takes long, to make C++ of them.
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_fused_cells_train_as_the_cells_they_are_made_of(backend):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, backend], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    plain, fused = found["False"], found["True"]
    assert plain["graphs"] == 0 < fused["graphs"]  # it was compiled, and only then
    for key in ("losses", "weights"):
        assert max(abs(a - b) for a, b in zip(plain[key], fused[key], strict=True)) < 1e-9

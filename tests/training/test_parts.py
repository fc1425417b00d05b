"""A batch in parts, a process each: the same training, bit for bit again, and nothing that outlives its training."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from benchmark.config.sections import TrainingConfig
from benchmark.system.errors import UserError
from benchmark.system.files import read_json, read_json_lines
from benchmark.system.memory import worker_pids
from benchmark.training import step as engine
from benchmark.training.acceleration.captured_step import make_step
from benchmark.training.step import Batch
from models.predictor import build, free_running_mask
from models.spec import ModelSpec

SPEC = ModelSpec(cell="causal_lstm", hidden_channels=(3, 2), frame_size=8, kernel_size=3, highway_slot=1)
FRAMES = torch.rand(5, 5, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def threads():
    """Sets the number of threads."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def made(**keys):
    """A network in float64 and its training step."""
    training = TrainingConfig(**{"steps": 20, "batch_size": 5, "learning_rate": 0.01} | keys)
    network = build(SPEC, 1).double()
    return network, make_step(network, engine.make_optimizer(network, training), training)


def trained(steps=20, **keys):
    """Weights and losses after some steps on frames whose context is shown with a bar."""
    network, step = made(**keys)
    inputs, mask = FRAMES.clone(), free_running_mask(5, 3, 2, FRAMES)
    inputs[:, 2, :, :, 3] = 0.5
    losses = [step(Batch(FRAMES, inputs, mask)).loss.item() for _ in range(steps)]
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]), losses


def test_parts_of_a_batch_cut_gradient_where_the_whole_batch_does(threads):
    flows = torch.tensor([[1.0, 1, 0, 1]] * 4 + [[1, 0, 1, 1]])
    batch = Batch(FRAMES, FRAMES, free_running_mask(5, 3, 2, FRAMES), flows)

    def weights(batch):
        network, step = made(clip_norm=0.5)
        for _ in range(3):
            step(batch)
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])

    whole = weights(batch)
    assert not torch.allclose(whole, weights(batch._replace(flows=torch.empty(0))), rtol=1e-3)
    threads(3)
    torch.testing.assert_close(weights(batch), whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("reduction", ["mean", pytest.param("half-sum", marks=pytest.mark.slow)])
def test_parts_of_a_batch_train_what_the_whole_batch_trains(threads, reduction):
    keys = {"loss_reduction": reduction, "clip_norm": 0.5}
    weights, losses = trained(**keys)
    threads(3)  # parts of 2, 2 and 1 clips
    by_parts, losses_by_parts = trained(**keys)
    torch.testing.assert_close(by_parts, weights, rtol=0, atol=1e-9)
    assert losses_by_parts == pytest.approx(losses, rel=1e-9)
    assert not torch.equal(by_parts, weights)  # other sums: they were parts
    assert torch.equal(by_parts, trained(**keys)[0])


def test_processes_end_with_the_step_they_work_for(threads):
    threads(2)
    _, step = made()
    assert len(worker_pids()) == 1
    step(Batch(FRAMES, FRAMES, free_running_mask(5, 3, 2, FRAMES)))
    assert len(worker_pids()) == 2
    del step
    assert len(worker_pids()) == 1


def test_a_process_that_is_ended_from_outside_is_said(threads):
    threads(2)
    _, step = made()
    mask = free_running_mask(5, 3, 2, FRAMES)
    step(Batch(FRAMES, FRAMES, mask))
    os.kill(worker_pids()[1], signal.SIGKILL)
    with pytest.raises(UserError, match=r"ended from outside .*training\.threads"):
        step(Batch(FRAMES, FRAMES, mask))


def test_plain_networks_and_single_clips_are_taken_whole(threads):
    threads(2)
    network, _ = made()
    network.reference_path = True
    training = TrainingConfig(steps=1, batch_size=5, learning_rate=0.01)
    step = make_step(network, engine.make_optimizer(network, training), training)
    step(Batch(FRAMES, FRAMES, free_running_mask(5, 3, 2, FRAMES)))
    _, single = made(batch_size=1)
    single(Batch(FRAMES[:1], FRAMES[:1], free_running_mask(1, 3, 2, FRAMES)))
    assert len(worker_pids()) == 1


def children(pid):
    """The processes that a process started."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def family(job):
    """A job and the processes that have parts of its batches, of which there is at least one; the tracker aside."""
    while job.running():
        commands = {one: Path(f"/proc/{one}/cmdline").read_text() for one in children(job.pid)}
        others = [one for one, command in commands.items() if "spawn_main" in command]
        if others:
            return [job.pid, *others]
        time.sleep(0.01)
    pytest.fail(job.wait()[1])


@pytest.mark.slow
def test_a_training_in_parts_is_killed_and_told_to_end_as_any_other(write_protocol, results, forker):
    keys = {"threads": 2, "steps": 60, "checkpoint_every": 5, "validate_every": 60}
    options = ["--protocol", write_protocol(training=keys), "--variant", "predrnnpp", "--seed", "1"]
    folder = results / "tiny" / "runs" / "predrnnpp" / "seed=1"
    straight = results.with_name("straight")
    (straight / "tiny").mkdir(parents=True)
    (straight / "tiny" / "data").symlink_to(results / "tiny" / "data")

    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)):
        job = forker.start("train", *options, "--results-dir", results)
        known, processes_of_job = family(job), len(read_json_lines(folder / "metrics.jsonl")) if folder.exists() else 0
        while job.running() and len(read_json_lines(folder / "metrics.jsonl")) < processes_of_job + 8:
            time.sleep(0.01)
        for pid in known if number == signal.SIGTERM else known[:1]:  # TERM reaches a whole group
            os.kill(pid, number)
        assert job.wait()[0] == code, job.wait()[1]
        deadline = time.monotonic() + 30
        while any(Path(f"/proc/{pid}").exists() for pid in known[1:]):
            assert time.monotonic() < deadline, "a process outlived its training"
            time.sleep(0.05)
    assert read_json(folder / "status.json")["state"] == "interrupted"
    assert forker.run("train", *options, "--results-dir", results, "--resume-only")[0] == 0
    assert forker.run("train", *options, "--results-dir", straight)[0] == 0
    weights = [
        (base / "tiny" / "runs" / "predrnnpp" / "seed=1" / "model.safetensors").read_bytes()
        for base in (results, straight)
    ]
    assert weights[0] == weights[1]

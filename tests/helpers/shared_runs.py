"""Verbs in the processes that torchrun started, one after another; each process leaves what it saw and said.

`tasks.json` lists the tasks: `arguments` of the verb, and `poison`, the steps (from 0) whose batch is not finite in the
share of the last process alone.
"""

import contextlib
import hashlib
import json
import os
import sys
from functools import partial
from pathlib import Path

import torch.distributed as dist

from benchmark.__main__ import main
from benchmark.data.moving_digits.stream import ClipStream
from benchmark.system import processes
from benchmark.training import step as engine


def digest(tensors):
    """Tells the bits of these tensors from others."""
    return hashlib.sha256(b"".join(tensor.detach().numpy().tobytes() for tensor in tensors)).hexdigest()


def watch(poison):
    """Let every update tell what it was given and what came of it; returns the list that it tells."""
    seen, update, batch = [], engine.train_one_step, ClipStream.batch

    def watched(network, optimizer, batch, *arguments):
        result = update(network, optimizer, batch, *arguments)
        frames, inputs, mask = batch.frames, batch.inputs, batch.feed_mask
        given = {"frames": [digest([clip]) for clip in frames], "inputs": [digest([clip]) for clip in inputs]}
        came = {
            "loss": result.loss.item(),
            "norm": result.gradient_norm.item(),
            "weights": digest(network.parameters()),
        }
        seen.append(given | {"mask": mask.tolist()} | came)
        return result

    def poisoned(stream, number, size):
        frames = batch(stream, number, size)
        step, rank = divmod(number, processes.count())
        if step in poison and rank == processes.count() - 1:
            frames[0, 0] = float("nan")
        return frames

    engine.train_one_step, ClipStream.batch = watched, poisoned
    return seen, (update, batch)


def meeting(init, number):
    """`init` that lets the processes meet in a room of this task: torchrun's holds the addresses of the task before."""
    house = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    room = dist.PrefixStore(f"task {number}", house)
    return partial(init, store=room, rank=processes.rank(), world_size=processes.count())


def serve(folder):
    """Do the tasks in `folder`."""
    init = dist.init_process_group
    for number, task in enumerate(json.loads((folder / "tasks.json").read_text())):
        seen, usual = watch(task.get("poison", []))
        dist.init_process_group = meeting(init, number)
        name = f"{number}.{os.environ['RANK']}"
        with (
            (folder / f"{name}.log").open("w") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            code = main(task["arguments"])
        engine.train_one_step, ClipStream.batch = usual
        (folder / f"{name}.json").write_text(json.dumps({"code": code, "seen": seen}))


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

"""The small files of a run folder: what a training says of itself while it goes on."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmark.config.protocol import RunConfig
from benchmark.system.files import append_json_line, read_json, read_json_lines, write_atomic, write_json
from benchmark.system.memory import peak_mib
from benchmark.system.signals import Interrupted
from models.counts import count_macs, count_parameters


def write_beginning(run: RunConfig, folder: Path, origin: dict[str, Any], step: int) -> None:
    """Write the files a run starts with, and cut what a former process logged past its checkpoint at `step`."""
    costs = {
        "parameters": count_parameters(run.model),
        "macs": count_macs(run.model, run.data.context, run.data.horizon),
    }
    write_atomic(folder / "run.yaml", yaml.safe_dump(run.to_dict() | costs, sort_keys=False))
    write_json(folder / "provenance.json", origin)
    for name in ("metrics.jsonl", "timing.jsonl"):
        kept = [json.dumps(line) + "\n" for line in read_json_lines(folder / name) if line["step"] <= step]
        write_atomic(folder / name, "".join(kept))
    write_status(folder, "running", step, run.training.steps)


def write_metrics(folder: Path, step: int, values: dict[str, float]) -> None:
    """Add a point of the curves, after `step` steps."""
    append_json_line(folder / "metrics.jsonl", {"step": step} | values)


def write_timing(folder: Path, step: int, elapsed_s: float, clips_per_s: float, device: str, beside: int) -> None:
    """Log how fast the last steps were, the peak memory of this process or its GPU, and how many runs shared them."""
    timing = {"step": step, "elapsed_s": elapsed_s, "clips_per_s": clips_per_s, "peak_memory_mib": peak_mib(device)}
    append_json_line(folder / "timing.jsonl", timing | ({"runs_beside": beside} if beside else {}))


def write_status(folder: Path, state: str, step: int, steps: int, **about: Any) -> None:
    """Say where the run is, for people and for tables; `about` is what else there is to say of it."""
    write_json(folder / "status.json", {"state": state, "step": step, "steps": steps} | about)


@contextlib.contextmanager
def no_run_left_running(folders: Sequence[Path]) -> Iterator[None]:
    """However the body ends, let none of the runs in `folders`, which it trains, say that it is running still.

    An error makes them `failed`; an end from outside, such as a second Ctrl-C, `interrupted`. Both go on from their
    checkpoints. At an `Interrupted` they have said where they are by themselves.
    """
    try:
        yield
    except Interrupted:
        raise
    except BaseException as error:
        for folder in folders:
            with contextlib.suppress(ValueError, OSError):  # a full disk, say, which is what `error` tells of already
                status = read_json(folder / "status.json")
                if status["state"] == "running":
                    state = "failed" if isinstance(error, Exception) else "interrupted"
                    write_json(folder / "status.json", status | {"state": state})
        raise

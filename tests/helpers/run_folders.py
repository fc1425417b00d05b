"""Run folders as trainings write them, with made-up numbers, and what MLflow stores hold of them."""

import math
from pathlib import Path

import pandas as pd
import yaml
from PIL import Image

from benchmark.system.files import append_json_line, write_json
from benchmark.system.parquet import write_parquet

STEPS = (20, 40, 60)
CONTEXT = FRAMES = 3
STAGES = {"init": 0, "step-20": 20, "trained": 60}
RESIDUAL = {"reach": 0.125, "slope": -0.1, "half_life": None}
STATES = [("X", 0, CONTEXT), ("H", 1, 6), ("H", 2, 6), ("C", 1, 6), ("Z", 1, 6)]

RUN = {
    "protocol": "quick",
    "label": "PredRNN++",
    "model": {"cell": "causal_lstm", "hidden_channels": [8, 8], "highway_slot": 1, "norm": "none"},
    "data": {"digits": "optdigits", "frame_size": 32, "num_digits": 2, "context": CONTEXT, "horizon": FRAMES},
    "training": {"steps": 60, "learning_rate": 0.001, "sampling": {"kind": "scheduled", "stop": 50}},
    "parameters": 145_000,
}
PROVENANCE = {
    "git_commit": "0123456789abcdef0123456789abcdef01234567",
    "git_dirty": False,
    "code_hash": "c0de",
    "config_hash": "c0ff1c",
    "data_hash": "d" * 64,
    "device": "cpu",
}


def begin_run(results: Path, variant: str = "predrnnpp", seed: int = 1, **changes) -> Path:
    folder = results / "quick" / "runs" / variant / f"seed={seed}"
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(RUN | {"variant": variant, "seed": seed} | changes))
    write_json(folder / "provenance.json", PROVENANCE)
    write_json(folder / "status.json", {"state": "running", "step": 0, "steps": 60})
    return folder


def train_to(folder: Path, step: int, elapsed_s: float = 2.5) -> None:
    metrics = {"step": step, "train/loss": 1 / (3 * step), "train/grad_norm": math.sqrt(step)}
    append_json_line(folder / "metrics.jsonl", metrics)
    append_json_line(folder / "metrics.jsonl", {"step": step, "validation/mse": 1000 / 7 / step})
    timing = {"step": step, "elapsed_s": elapsed_s, "clips_per_s": 75 / elapsed_s, "peak_memory_mib": 512.25}
    append_json_line(folder / "timing.jsonl", timing)
    write_json(folder / "status.json", {"state": "running", "step": step, "steps": 60})


def finish(folder: Path, state: str = "finished") -> None:
    scores = [
        (folder.parent.name, 1, clip, frame, clip * frame / 3, psnr)
        for clip, psnr in ((1, 20.5), (2, math.inf))
        for frame in range(1, FRAMES + 1)
    ]
    frames = pd.DataFrame(scores, columns=["variant", "seed", "clip", "frame", "mse", "psnr"])
    write_parquet(folder / "frames.parquet", frames)
    norms = [
        (stage, step, measure, clip, name, layer, t, clip * t / (7 if measure == "residual" else 9))
        for stage, step in STAGES.items()
        for measure in ("residual", "fixed")
        for clip in (1, 2)
        for name, layer, last in STATES
        for t in range(1, last + 1)
    ]
    columns = ["stage", "step", "measure", "clip", "state", "layer", "t", "norm"]
    write_parquet(folder / "probe.parquet", pd.DataFrame(norms, columns=columns))
    probed = {
        stage: {"step": step, "residual": RESIDUAL, "openness": [0.25, 0.75 + step / 60]}
        for stage, step in STAGES.items()
    }
    probed["trained"]["residual"] = RESIDUAL | {"half_life": 4.5}
    probed["step-20"]["residual"] = RESIDUAL | {"reach": None}
    write_json(folder / "probe.json", probed)
    for name in ("film.png", "film.gif", ".film-unfinished.png"):
        Image.new("L", (8, 8)).save(folder / name)
    write_json(folder / "status.json", {"state": state, "step": STEPS[-1], "steps": 60})


def finished_run(results: Path, variant: str = "predrnnpp", seed: int = 1) -> Path:
    folder = begin_run(results, variant, seed)
    for step in STEPS:
        train_to(folder, step)
    finish(folder)
    return folder


def client_of(store):
    from mlflow.tracking import MlflowClient

    return MlflowClient(store)


def runs_in(store, protocol="quick"):
    client = client_of(store)
    return client.search_runs([client.get_experiment_by_name(protocol).experiment_id])


def points(store, run_id):
    """Metric -> all its points (step, value) in the store, in order of steps; none is left out."""
    client = client_of(store)
    histories = {key: client.get_metric_history(run_id, key) for key in client.get_run(run_id).data.metrics}
    return {key: sorted((point.step, point.value) for point in history) for key, history in histories.items()}


def content(store, run_id):
    """All that a person sees of a run, apart from its id."""
    client = client_of(store)
    run = client.get_run(run_id)
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "times": (run.info.start_time, run.info.end_time),
        "params": run.data.params,
        "tags": run.data.tags,
        "points": points(store, run_id),
        "files": sorted(entry.path for entry in client.list_artifacts(run_id)),
        "inputs": sorted(entry.dataset.name for entry in run.inputs.dataset_inputs),
    }

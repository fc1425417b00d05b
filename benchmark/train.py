"""The training of one run: a straight line from the clip stream to the weights."""

import json
import math
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmark import engine
from benchmark.checkpoint import load_checkpoint, save_checkpoint, save_weights
from benchmark.config import RunConfig
from benchmark.cost import count_macs, count_parameters
from benchmark.curriculum import feed_mask, feed_rates
from benchmark.data.clips import fixed_stream, load_clips
from benchmark.data.occlusion import inputs_of
from benchmark.data.prepared import load_digits
from benchmark.data.stream import ClipStream, to_float
from benchmark.files import append_json_line, read_json_lines, write_atomic, write_json
from benchmark.lock import hold
from benchmark.progress import Progress
from benchmark.provenance import code_hash, provenance
from benchmark.tracking import TrackingUnavailable, mirror
from models.predictor import Predictor, build


def train(run: RunConfig, results_dir: Path, device: str, *, resume_only: bool = False) -> None:
    """Train one run in its folder, from its checkpoint if there is one.

    Args:
        run: what to train.
        results_dir: holds `<protocol>/data`, made by the verb `data`, and the run's folder.
        device: `cpu` or `cuda`.
        resume_only: a missing or stale checkpoint is an error instead of a start at step 0.

    Raises:
        UserError: the folder is in use, the data are missing or damaged, or `resume_only` cannot be kept.
    """
    folder = run.path(results_dir)
    with hold(folder):
        _train(run, folder, results_dir / run.protocol / "data", device, resume_only)


def _train(run: RunConfig, folder: Path, data_folder: Path, device: str, resume_only: bool) -> None:
    training, data = run.training, run.data
    engine.prepare_device(device, training.threads)
    bank = load_digits(data_folder)
    stream = ClipStream(
        bank.train,
        seed=run.seed,
        frame_size=data.frame_size,
        num_digits=data.num_digits,
        frames=data.context + data.horizon,
        pool=data.train_clips,
        device=device,
    )
    validation = load_clips(data_folder, data, "validation")
    # A bar lies over context frames only: what the predictions are held against stays as it is.
    validation = inputs_of(validation, torch.arange(len(validation)), fixed_stream(bank, data, "validation"), data)
    network = build(run.model, run.seed).to(device)
    optimizer = engine.make_optimizer(network, training)
    schedule = engine.make_schedule(optimizer, training)
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule}

    identity = {"config": run.identity(), "code": code_hash("train", run.model)}
    checkpoint = folder / "checkpoint.pt"
    state = load_checkpoint(checkpoint, identity, resume_only=resume_only)
    first = state.pop("step") if state else 0
    for name, values in (state or {}).items():
        parts[name].load_state_dict(values)
    begin(run, folder, provenance(run.model, identity["config"], data_folder, device), first)
    if first == 0:
        save_checkpoint(checkpoint, identity, snapshot(parts, 0))

    progress = Progress(f"{run.variant} seed={run.seed}", training.steps, first)
    since, since_step, diverged = time.monotonic(), first, False
    for step in range(first, training.steps):
        frames = stream.batch(step, training.batch_size)  # (B, T, C, H, W)
        inputs = inputs_of(frames, stream.clip_numbers(step, training.batch_size), stream, data)
        mask = feed_mask(
            training.sampling,
            seed=run.seed,
            step=step,
            batch_size=training.batch_size,
            context=data.context,
            horizon=data.horizon,
            device=device,
        )
        loss, norm = engine.update(network, optimizer, frames, mask, training, inputs)
        if training.reversed_second_step:
            reversed_loss, _ = engine.update(network, optimizer, frames.flip(1), mask, training)
            loss = (loss + reversed_loss) / 2
        rate = optimizer.param_groups[0]["lr"]
        schedule.step()

        done, last = step + 1, step + 1 == training.steps
        logs, saves = done % training.log_every == 0 or last, done % training.checkpoint_every == 0 and not last
        if (logs or saves) and not (math.isfinite(loss) and math.isfinite(norm)):
            diverged = True  # found before a checkpoint, so that the last one holds finite weights
            break
        if logs:
            point = {"step": done, "train/loss": loss.item(), "train/grad_norm": norm.item()}
            context_rate, horizon_rate = feed_rates(training.sampling, step)
            rates = {
                "train/learning_rate": rate,
                "train/feed_context": context_rate,
                "train/feed_horizon": horizon_rate,
            }
            append_json_line(folder / "metrics.jsonl", point | rates)
            now = time.monotonic()
            clips_per_s = (done - since_step) * training.batch_size / (now - since)
            write_timing(folder, done, now - since, clips_per_s, device)
            progress.show(done, point["train/loss"], clips_per_s)
            since, since_step = now, done
        paused = time.monotonic()
        if done % training.validate_every == 0 or last:
            score = validate(network, validation, run, device)
            append_json_line(folder / "metrics.jsonl", {"step": done, "validation/mse": score})
        if saves:
            save_checkpoint(checkpoint, identity, snapshot(parts, done))
            write_status(folder, "running", done, training.steps)
            mirror_or_say(folder)
        since += time.monotonic() - paused  # clips/s is the speed of training alone

    if diverged:
        state = load_checkpoint(checkpoint, identity)
        network.load_state_dict(state["network"])
        print(f"{run.variant} seed={run.seed}: diverged by step {done}; kept the weights of step {state['step']}")
    save_weights(folder / "model.safetensors", network, identity["config"], data.context)
    write_status(folder, "diverged" if diverged else "finished", done if diverged else training.steps, training.steps)
    checkpoint.unlink()
    mirror_or_say(folder)


def begin(run: RunConfig, folder: Path, origin: dict[str, Any], step: int) -> None:
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


def snapshot(parts: dict[str, Any], step: int) -> dict[str, Any]:
    """The state of network, optimiser and schedule after `step` steps."""
    return {"step": step} | {name: part.state_dict() for name, part in parts.items()}


def validate(network: Predictor, clips: torch.Tensor, run: RunConfig, device: str) -> float:
    """Mean squared error per frame, summed over pixels, of the free-running network on the validation clips."""
    total = 0.0
    for batch in clips.split(run.evaluation.batch_size):
        frames = to_float(batch.to(device))
        prediction = engine.roll_out(network, frames[:, : run.data.context], run).clamp(0, 1)
        total += (prediction - frames[:, run.data.context :]).square().sum().item()
    return total / (len(clips) * run.data.horizon)


def write_timing(folder: Path, step: int, elapsed_s: float, clips_per_s: float, device: str) -> None:
    """Log how fast the last steps were and the peak memory of this process or its GPU."""
    if device == "cuda":
        peak_mib = torch.cuda.max_memory_allocated() / 2**20
    else:
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    timing = {"step": step, "elapsed_s": elapsed_s, "clips_per_s": clips_per_s, "peak_memory_mib": peak_mib}
    append_json_line(folder / "timing.jsonl", timing)


def write_status(folder: Path, state: str, step: int, steps: int) -> None:
    """Say where the run is, for people and for tables."""
    write_json(folder / "status.json", {"state": state, "step": step, "steps": steps})


def mirror_or_say(folder: Path) -> None:
    """Send what is new to MLflow; a store that cannot be reached stops nothing."""
    try:
        mirror(folder)
    except TrackingUnavailable as error:
        print(f"not sent to MLflow, `sync` sends it later: {error}", file=sys.stderr, flush=True)

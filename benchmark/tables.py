"""The tables of a protocol, in CSV (full precision), Markdown and LaTeX, all from the files of its runs."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmark.config import Protocol
from benchmark.files import read_json, write_atomic
from benchmark.metrics import METRICS, columns
from benchmark.metrics import summarise as mean_of_frames
from benchmark.outputs import TABLE_FORMATS, tables_of
from benchmark.rendering import MISSING, Table, digits, interval, number, thousands, to_csv, to_latex, to_markdown
from benchmark.runs import FinishedRun, read_runs
from benchmark.statistics import SMALLEST_N, summarise


def write_tables(protocol: Protocol, results_dir: Path) -> None:
    """Write `tables/<name>.{csv,md,tex}` of `protocol`.

    Raises:
        UserError: a run is not finished.
    """
    folder = results_dir / protocol.name
    runs = read_runs(protocol, results_dir)
    costs = pd.read_csv(folder / "plan.csv").set_index("variant")
    lpips = read_json(folder / "lpips_backbone.json")
    made = {
        "main": main_table(protocol, runs, costs, lpips),
        "per_frame": per_frame_table(protocol, runs),
        "compute": compute_table(protocol, runs, costs),
        "probe": probe_table(protocol, runs),
    }
    if protocol.data.gaps:
        made["occlusion"] = occlusion_table(protocol, runs)
    assert tuple(made) == tables_of(protocol), tuple(made)
    render: dict[str, Callable[[Table], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
    for name, table in made.items():
        for ending in TABLE_FORMATS:
            write_atomic(folder / "tables" / f"{name}.{ending}", render[ending](table))


def main_table(protocol: Protocol, runs: list[FinishedRun], costs: pd.DataFrame, lpips: dict[str, Any]) -> Table:
    """One row a variant: cost, and mean, sd and 95 % interval of every metric over seeds."""
    measured = lpips["status"] == "found"
    names = columns(lpips["net"] if measured else None)
    values, cells = [], []
    for group in by_variant(runs):
        first, kept = group[0], [run for run in group if not run.diverged]
        row: dict[str, Any] = {"variant": first.variant, "label": first.label, "n": len(group)}
        row |= {"parameters": 0, "macs": 0, "clips_seen": 0} if first.config is None else spent(first, costs)
        cell = {
            "Model": first.label,
            "n": str(len(group)) if first.config else "",
            "Parameters": thousands(row["parameters"]),
        }
        scores = {run.seed: mean_of_frames(run.frames).set_index("metric")["mean"] for run in kept}
        for name in names:
            found = summarise([float(score[name]) for score in scores.values()])
            row |= {f"{name}_{key}": getattr(found, key) for key in ("mean", "sd", "low", "high")}
            cell[METRICS[name].head] = interval(found.mean, found.low, found.high, digits(name))
        if not measured:
            cell[METRICS[f"lpips_{lpips['net']}"].head] = lpips["status"]
        values.append(row)
        cells.append(cell)
    notes = [
        protocol.about,
        data_note(protocol, runs),
        *gap_notes(protocol),
        seed_note(protocol),
        *diverged_notes(runs),
    ]
    notes += [
        f"{METRICS[name].head}: {METRICS[name].definition}; mean over clips and predicted frames." for name in names
    ]
    if not measured:
        notes.append(f"LPIPS was {lpips['status']} ({lpips['net']}); {lpips['how']}.")
    infinite = infinite_psnr(runs)
    if infinite:
        notes.append(f"Frames with infinite PSNR (prediction identical to truth), left out of its mean: {infinite}.")
    return Table("Scores on the test clips", pd.DataFrame(values), pd.DataFrame(cells), notes)


def per_frame_table(protocol: Protocol, runs: list[FinishedRun]) -> Table:
    """One row a variant and predicted frame in the CSV; for people, MSE with one column a frame."""
    values, cells = [], []
    for group in by_variant(runs):
        kept = [run for run in group if not run.diverged]
        scored = [name for name in group[0].frames.columns if name in METRICS]
        for frame in range(1, protocol.data.horizon + 1):
            row = {"variant": group[0].variant, "label": group[0].label, "n": len(group), "frame": frame}
            scores = [
                mean_of_frames(run.frames[run.frames["frame"] == frame]).set_index("metric")["mean"] for run in kept
            ]
            row |= {f"{name}_mean": summarise([float(score[name]) for score in scores]).mean for name in scored}
            values.append(row)
        rows = values[-protocol.data.horizon :]
        cells.append({"Model": group[0].label} | {f"{row['frame']}": number(row["mse_mean"], 1) for row in rows})
    head = METRICS["mse"]
    notes = [
        f"{head.head} at predicted frame 1, 2, ...: {head.definition}; mean over clips.",
        seed_note(protocol),
    ]
    notes += [data_note(protocol, runs), *gap_notes(protocol), *diverged_notes(runs)]
    return Table("MSE by predicted frame", pd.DataFrame(values), pd.DataFrame(cells), notes)


def compute_table(protocol: Protocol, runs: list[FinishedRun], costs: pd.DataFrame) -> Table:
    """What each variant cost: counted parameters and MACs, and measured speed and memory."""
    values, cells = [], []
    for group in by_variant([run for run in runs if run.config]):
        row: dict[str, Any] = {"variant": group[0].variant, "label": group[0].label, "n": len(group)}
        row |= spent(group[0], costs)
        row["train_s"] = float(np.mean([sum(line["elapsed_s"] for line in run.timing) for run in group]))
        row["clips_per_s"] = float(
            np.median([line["clips_per_s"] for run in group for line in run.timing] or [math.nan])
        )
        row["peak_memory_mib"] = max(
            (line["peak_memory_mib"] for run in group for line in run.timing), default=math.nan
        )
        values.append(row)
        cells.append(
            {
                "Model": row["label"],
                "Parameters": thousands(row["parameters"]),
                "MACs per clip (10⁶)": number(row["macs"] / 1e6, 1),
                "Clips seen": thousands(row["clips_seen"]),
                "Training (s)": number(row["train_s"], 0),
                "Clips/s ↑": number(row["clips_per_s"], 1),
                "Peak memory (MiB)": number(row["peak_memory_mib"], 0),
            }
        )
    device = sorted({f"{run.provenance['accelerator']}" for run in runs if run.config})
    frames = protocol.data.context + protocol.data.horizon
    notes = [
        f"Measured on {', '.join(device)}, {protocol.training.threads} thread(s) a run, {protocol.training.precision}; "
        "several runs may have shared the machine, so times are no comparison of speed.",
        f"MACs: multiply-accumulates of the convolutions in one forward pass over a clip of {frames} frames.",
        "Parameters: every one of them receives gradient. Clips/s: median over the logged intervals of training.",
        "Peak memory: of the whole training process with its libraries, or on a GPU what PyTorch allocated there.",
    ]
    return Table("Cost", pd.DataFrame(values), pd.DataFrame(cells), notes)


def probe_table(protocol: Protocol, runs: list[FinishedRun]) -> Table:
    """Reach, half-life and highway openness at initialisation and after training."""
    values, cells = [], []
    for group in by_variant([run for run in runs if run.config]):
        kept = [run for run in group if not run.diverged]
        cell = {"Model": group[0].label, "n": str(len(group))}
        for stage, called in (("init", "untrained"), ("trained", "trained")):
            row: dict[str, Any] = {
                "variant": group[0].variant,
                "label": group[0].label,
                "n": len(group),
                "stage": stage,
            }
            found = [run.probe[stage]["residual"] for run in kept]
            for key in ("reach", "slope", "r2", "half_life"):
                row[key] = summarise([one[key] for one in found if one[key] is not None]).mean
            row["no_decay"] = sum(one["half_life"] is None and one["slope"] is not None for one in found)
            openness = [float(np.mean(run.probe[stage]["openness"])) for run in kept if run.probe[stage]["openness"]]
            row["openness"] = summarise(openness).mean
            values.append(row)
            cell[f"Reach, {called} ↑"] = number(row["reach"], 3, significant=True)
            cell[f"Half-life, {called} (frames) ↑"] = half_life(row["half_life"], row["no_decay"])
            cell[f"R², {called}"] = number(row["r2"], 2)
            cell[f"Openness, {called}"] = number(row["openness"], 2) if openness else MISSING
        cells.append(cell)
    notes = [
        "Gradient of the summed squared error of the last predicted frame with respect to each context frame, L2 norm"
        f" per clip, float64, on {protocol.probe.clips} test clips; the network feeds on its own predictions.",
        "Reach: geometric mean over clips of the norm at the first / at the last context frame.",
        "Half-life: from a log-linear fit of the norm over the context; `no decay` where the 95 % interval of the slope"
        " does not lie below 0 (with the number of seeds where others decay); R² is that fit's, and a low one says that"
        f" the decay is not exponential. {MISSING}: a norm is 0 or not finite.",
        "Openness: mean of 1 - S of the highway over units, steps and clips; 1 keeps the past, 0 replaces it.",
        seed_note(protocol),
        *diverged_notes(runs),
    ]
    return Table("How far back gradients reach", pd.DataFrame(values), pd.DataFrame(cells), notes)


def half_life(frames: float, no_decay: int) -> str:
    """Mean half-life of the seeds that decay, and how many do not."""
    if no_decay and math.isnan(frames):
        return "no decay"
    return number(frames, 2) + (f" ({no_decay} no decay)" if no_decay else "")


def occlusion_table(protocol: Protocol, runs: list[FinishedRun]) -> Table:
    """Error in the box of the hidden digit: one row a variant and gap in the CSV; for people, one column a gap."""
    values, cells = [], []
    for group in by_variant(runs):
        cell = {"Model": group[0].label, "n": str(len(group)) if group[0].config else ""}
        for gap in protocol.data.gaps:
            found = summarise([float(run.box_mse[gap]) for run in group if not run.diverged])
            row = {"variant": group[0].variant, "label": group[0].label, "n": len(group), "gap": gap}
            values.append(row | {f"box_mse_{key}": getattr(found, key) for key in ("mean", "sd", "low", "high")})
            cell[f"Gap {gap} ↓"] = interval(found.mean, found.low, found.high, digits("mse"))
        cells.append(cell)
    notes = [
        f"{METRICS['box_mse'].head}: {METRICS['box_mse'].definition}; mean over clips and predicted frames.",
        "Gap: last context frames in which a bar hides the digit's whole box; 0 = no bar. The truth has no bar, every"
        " test clip is scored at every gap, and each model was trained on all gaps.",
        data_note(protocol, runs),
        seed_note(protocol),
        *diverged_notes(runs),
    ]
    return Table("Error where a digit was hidden", pd.DataFrame(values), pd.DataFrame(cells), notes)


def by_variant(runs: list[FinishedRun]) -> list[list[FinishedRun]]:
    """The runs of each variant, in their order."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(run.variant, []).append(run)
    return list(groups.values())


def spent(run: FinishedRun, costs: pd.DataFrame) -> dict[str, int]:
    """Parameters, MACs per clip and clips seen in training, of a run that is no baseline."""
    training = run.config.training
    seen = training.steps * training.batch_size * (2 if training.reversed_second_step else 1)
    cost = costs.loc[run.variant]
    return {"parameters": int(cost["parameters"]), "macs": int(cost["macs"]), "clips_seen": seen}


def data_note(protocol: Protocol, runs: list[FinishedRun]) -> str:
    """What was predicted, and which clips."""
    data = protocol.data
    hashes = {run.provenance["data_hash"][:12] for run in runs if run.config}
    return (
        f"{data.num_digits} moving digits of {data.digit_size} pixels ({data.digits}) on"
        f" {data.frame_size}x{data.frame_size}, {data.context} -> {data.horizon} frames, {data.test_clips:,} test clips"
        f" (data hash {', '.join(sorted(hashes))})."
    )


def gap_notes(protocol: Protocol) -> list[str]:
    """Where a bar hides a digit: that the clips of this table have none."""
    return ["Scored at gap 0: no bar hides a digit in these clips."] if protocol.data.gaps else []


def seed_note(protocol: Protocol) -> str:
    """How many seeds there are and what that allows to be said."""
    n = len(protocol.seeds)
    if n < SMALLEST_N:
        return f"n = {n} seed{'s' * (n > 1)}: n too small; no interval, nothing is ranked."
    return f"n = {n} seeds; mean with 95 % t interval over seeds."


def diverged_notes(runs: list[FinishedRun]) -> list[str]:
    """One note a diverged run: counted in n, in no mean."""
    gone = [run for run in runs if run.diverged]
    return [f"{run.label}, seed {run.seed}: diverged at step {run.status['step']}; in n, in no mean." for run in gone]


def infinite_psnr(runs: list[FinishedRun]) -> str:
    """Variants with frames of infinite PSNR and how many, empty if there are none."""
    counts = {run.label: 0 for run in runs}
    for run in runs:
        counts[run.label] += int(np.isposinf(run.frames["psnr"]).sum())
    return ", ".join(f"{label} {count}" for label, count in counts.items() if count)

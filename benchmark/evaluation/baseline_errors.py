"""The error of the predictions without training on the validation clips, which says whether a run has learnt."""

from pathlib import Path

from benchmark.config.protocol import Protocol
from benchmark.config.variants import BASELINE_ERRORS
from benchmark.data.tensors import to_float
from benchmark.evaluation.forecasts import named_baseline
from benchmark.system.files import write_json
from benchmark.training.batches import load_batches


def write_baseline_errors(protocol: Protocol, results_dir: Path) -> str:
    """Write `baselines.json` of a protocol, from its prepared folder, and return its numbers as text.

    Raises:
        UserError: the clips are not prepared, or damaged.
    """
    found = baseline_errors(protocol, results_dir)
    write_json(results_dir / protocol.name / BASELINE_ERRORS, found)
    return "\n".join(f"{name}: validation MSE {error:.3f}" for name, error in found.items())


def baseline_errors(protocol: Protocol, results_dir: Path) -> dict[str, float]:
    """Baseline -> what a training logs as `validation/mse`: squared error summed over pixels, mean over all frames."""
    run = protocol.runs()[0]
    clips, context, horizon = load_batches(run, results_dir, "cpu").validation, run.data.context, run.data.horizon
    forecasts = {name: named_baseline(protocol, name, results_dir, "cpu")(horizon) for name in protocol.baselines}
    totals = dict.fromkeys(forecasts, 0.0)
    for first in range(0, len(clips), run.evaluation.batch_size):
        frames = to_float(clips[first : first + run.evaluation.batch_size])
        for name, forecast in forecasts.items():
            prediction = forecast(frames[:, :context])
            totals[name] += (prediction - frames[:, context:]).square().sum().item()
    return {name: total / (len(clips) * horizon) for name, total in totals.items()}

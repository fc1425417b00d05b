"""Finished runs of a protocol with made-up numbers of a known form, as tables and figures get them."""

import numpy as np
import pandas as pd

from benchmark.config.probe_stages import stages
from benchmark.config.variants import BASELINES
from benchmark.reporting.finished_runs import FinishedRun

MEASURES = ("residual", "fixed", "memory", "frames")
UNUSED = {"per_frame": pd.DataFrame(), "per_clip": pd.DataFrame(), "infinite": 0, "undefined": 0, "shown_clip": {}}
"""Fields that the figures and tables of the probe do not read."""


def made_runs(protocol, *, reach=None, half_life=None, diverged=(), baseline_mse=30.0):
    """A run for each variant and seed of `protocol`, and its baselines.

    Args:
        protocol: whose runs.
        reach: (variant, seed, stage, measure) -> reach; 0.01 times the number of the variant and the seed if not given.
        half_life: the same for the half-life in frames; the seed if not given.
        diverged: (variant, seed) of runs that did.
        baseline_mse: the MSE of all baselines.
    """
    reach = reach or (lambda variant, seed, stage, measure: 0.01 * (1 + ids.index(variant)) * seed)
    half_life = half_life or (lambda variant, seed, stage, measure: float(seed))
    ids = [entry.id for entry in protocol.variants]
    found = [one_run(protocol, run, ids, reach, half_life, diverged) for run in protocol.runs()]
    scores = pd.Series({"mse": baseline_mse})
    return found + [FinishedRun(name, BASELINES[name], 0, None, scores, **UNUSED) for name in protocol.baselines]


def one_run(protocol, run, ids, reach, half_life, diverged):
    """A run whose MSE is 10 + number of its variant + seed / 10, and whose norms fall by its reach over the context."""
    place, probe, norms = ids.index(run.variant), {}, []
    for number, stage in enumerate(stages(protocol)):
        step = dict(zip(stages(protocol), (0, *protocol.probe.steps, run.training.steps), strict=False))[stage]
        measures = MEASURES if stage in ("init", "trained") else MEASURES[:2]
        probe[stage] = {"step": step, "openness": [], "saturated": saturated(run.model, number)}
        for measure in measures:
            value, half = (of(run.variant, run.seed, stage, measure) for of in (reach, half_life))
            slope = None if half is None else -1 / half
            probe[stage][measure] = {"reach": value, "slope": slope, "slope_low": slope, "slope_high": slope}
            probe[stage][measure] |= {"r2": 0.9, "half_life": half}
            norms.append(log_norms(run, value).assign(stage=stage, measure=measure))
        if run.model.highway_slot:
            probe[stage]["openness"] = [0.5 + 0.05 * number + 0.01 * run.seed] * (protocol.data.context + 1)
    state = "diverged" if (run.variant, run.seed) in diverged else "finished"
    return FinishedRun(
        run.variant,
        run.label,
        run.seed,
        run,
        scores=pd.Series({"mse": 10.0 + place + run.seed / 10}),
        **UNUSED,
        probe=probe,
        norms=pd.concat(norms, ignore_index=True),
        validation=pd.Series({10: 50.0, 20: 40.0 + place + run.seed}),
        status={"state": state, "step": 4},
        provenance={"data_hash": "d" * 64},
    )


def saturated(spec, number):
    """Shares of saturated gates by layer: 0.01 a stage for the cell's, 0.05 for the highway's."""
    gates = {gate: [0.01 * number] * spec.layers for gate in ("i", "f", "o")}
    return gates | ({"s": [0.05 * number], "p": [0.05 * number]} if spec.highway_slot else {})


def log_norms(run, reach):
    """Norms that fall exponentially with age, by `reach` over the context, and by e^0.5 with each lower layer."""
    data, layers = run.data, range(1, run.model.layers + 1)
    last = data.context + data.horizon - 1
    decay = -np.log(reach if reach else 1e-3) / (data.context - 1)
    places = [("X", 0, data.context), *((state, layer, last) for state in "HC" for layer in layers)]
    places += [("Z", run.model.highway_slot, last)] if run.model.highway_slot else []
    rows = [
        (state, layer, t, decay * (t - data.context) + 0.5 * layer)
        for state, layer, end in places
        for t in range(1, end + 1)
    ]
    return pd.DataFrame(rows, columns=["state", "layer", "t", "log_norm"])

"""A tiny protocol and results to test with, all real: digits of scikit-learn, networks of a few hundred weights."""

import copy
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmark.config.metrics import HEADLINE, columns
from benchmark.config.protocol import load_protocol, run_path
from benchmark.config.variants import NO_SEED, PREDICTIONS
from benchmark.data.moving_digits.prepare import prepare
from benchmark.evaluation.evaluate import scored_predictions
from benchmark.evaluation.memory.table import COLUMNS, memory_rows
from benchmark.reporting.tracking.store import create_store
from benchmark.system.files import append_json_line, write_json
from benchmark.system.parquet import write_parquet
from tests.helpers.forked import Forker

TINY = {
    "about": "Tiny networks for the tests.",
    "data": {
        "digits": "optdigits",
        "digit_size": 6,
        "frame_size": 12,
        "context": 3,
        "horizon": 2,
        "validation_clips": 3,
        "test_clips": 5,
    },
    "model": {"layers": 2, "hidden_channels": 3, "kernel_size": 3, "patch_size": 4},
    "training": {
        "steps": 8,
        "batch_size": 2,
        "learning_rate": 0.01,
        "sampling": {"kind": "scheduled", "stop": 6},
        "device": "cpu",
        "log_every": 1,
        "validate_every": 4,
        "checkpoint_every": 3,
    },
    "evaluation": {"lpips_backbone": "squeeze", "batch_size": 2},
    "probe": {"clips": 5, "batch_size": 3},
    "variants": ["convlstm", "predrnn", "predrnnpp"],
    "seeds": [1, 2],
}


@pytest.fixture
def protocol_values():
    """The tiny protocol as a dictionary to spoil or to change."""
    return copy.deepcopy(TINY)


@pytest.fixture
def write_protocol(tmp_path, protocol_values):
    """Write `values`, or the tiny protocol with keywords in place of its keys, in sections key by key.

    Returns the path of `tiny.yaml`.
    """

    def write(values=None, **changes):
        values = copy.deepcopy(values or protocol_values)
        for key, value in changes.items():
            values[key] = values.get(key, {}) | value if isinstance(value, dict) else value
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


@pytest.fixture
def make_protocol(write_protocol):
    """The tiny protocol, changed by keywords as in `write_protocol` and loaded."""
    return lambda **changes: load_protocol(str(write_protocol(**changes)))


VIDEOS = {"videos": "mine", "frame_size": 12, "context": 3, "horizon": 2, "validation_clips": 2, "test_clips": None}


@pytest.fixture
def make_videos(tmp_path, write_protocol, protocol_values):
    """The tiny protocol on arrays laid into a folder, its data section changed by keywords; and its data_dir."""

    def make(arrays, probe=None, evaluation=None, training=None, **data):
        data = VIDEOS | data
        values = protocol_values | {"data": {key: value for key, value in data.items() if value is not None}}
        changes = {"probe": {"clips": 2} | (probe or {}), "evaluation": evaluation or {}, "training": training or {}}
        values |= {section: values[section] | keys for section, keys in changes.items()}
        data_dir = tmp_path / "films"
        data_dir.mkdir(exist_ok=True)
        for name, array in arrays.items():
            (data_dir / data["videos"]).mkdir(exist_ok=True)
            np.save(data_dir / data["videos"] / name, array)
        return load_protocol(str(write_protocol(values))), data_dir

    return make


@pytest.fixture(scope="session")
def prepared_data(tmp_path_factory):
    """The tiny protocol's data folder, prepared once."""
    folder = tmp_path_factory.mktemp("prepared")
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    prepare(load_protocol(str(path)).data, folder / "no-downloads", folder / "data")
    return folder / "data"


@pytest.fixture
def results(tmp_path, prepared_data, monkeypatch):
    """A results folder with the tiny protocol's data; MLflow has no store that it could use."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/no/mlflow.db")
    shutil.copytree(prepared_data, tmp_path / "results" / "tiny" / "data")
    return tmp_path / "results"


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A SQLite file of MLflow without runs, which takes MLflow seconds to create."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    create_store("other", store=f"sqlite:///{path}")
    return path


@pytest.fixture
def store(empty_database, tmp_path):
    """An empty store of the test's own."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture(scope="session")
def one_forker(tmp_path_factory):
    """What starts verbs in processes of their own, with its imports done."""
    started = Forker(tmp_path_factory.mktemp("forker"))
    yield started
    started.close()


@pytest.fixture
def forker(one_forker, empty_database, tmp_path):
    """What starts verbs in processes of their own; outputs and MLflow's store, empty, lie in the folder of the test."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    one_forker.folder = tmp_path
    return one_forker


@pytest.fixture
def write_finished(tmp_path):
    """Write the files of all runs and baselines of a protocol with made-up numbers; returns the results folder.

    The MSE of a run is drawn from its seed and variant and grows by frame; `diverged` and `silent` name runs
    (variant, seed) that diverged, or whose gradients do not decay.
    """

    def write(protocol, *, lpips=True, diverged=(), silent=(), folder="results"):
        results_dir = tmp_path / folder
        net = protocol.evaluation.lpips_backbone
        found = {"net": net, "status": "found", "file": "f", "sha256": "0"}
        absent = {"net": net, "status": "not measured: no backbone", "how": "put it there"}
        write_json(results_dir / protocol.name / "lpips_backbone.json", found if lpips else absent)
        names = columns(net if lpips else None, conventions=True)
        for run in protocol.runs():
            where = run.path(results_dir)
            write_scores(where, run.variant, run.seed, names, protocol)
            write_norms(where, run)
            if run.probe.memory:
                write_parquet(where / "memory.parquet", made_memory(run))
            state = "diverged" if (run.variant, run.seed) in diverged else "finished"
            write_json(where / "status.json", {"state": state, "step": 4, "steps": run.training.steps})
            decays = (run.variant, run.seed) not in silent
            write_json(where / "probe.json", made_probe(run, 0.5 / run.seed, 4.0 * run.seed if decays else None))
            write_json(where / "provenance.json", PROVENANCE)
            (where / "model.safetensors").write_bytes(f"{run.variant} {run.seed}".encode())
            for step in (4, 8):
                timing = {"step": step, "elapsed_s": 1.5, "clips_per_s": 40.0 + run.seed, "peak_memory_mib": 300.0}
                append_json_line(where / "timing.jsonl", timing)
                append_json_line(where / "metrics.jsonl", {"step": step, "train/loss": 1 / step})
        for name in protocol.rows_not_trained():
            where = run_path(results_dir, protocol.name, name, NO_SEED)
            write_scores(where, name, NO_SEED, names, protocol)
            if entry := protocol.predictions_of(name):
                write_json(where / PREDICTIONS, scored_predictions(entry, "c" * 64))
        plan = [(entry.id, 1000 + place, 50_000) for place, entry in enumerate(protocol.variants)]
        table = pd.DataFrame(plan, columns=["variant", "parameters", "macs"])
        table.to_csv(results_dir / protocol.name / "plan.csv", index=False)
        return results_dir

    return write


STAGES = ("init", "trained")
MEASURES = ("residual", "fixed", "memory", "frames")
PROVENANCE = {
    "git_commit": "0123456789abcdef",
    "accelerator": "a CPU",
    "device": "cpu",
    "data_hash": "d" * 64,
    "versions": {"torch": "2.15.0"},
}


def made_probe(run, reach, half_life):
    """What `probe.json` holds: `reach` and `half_life` (None = no decay) by every measure, before and after."""
    one = {"reach": reach, "slope": -0.25, "slope_low": -0.5, "slope_high": 0.0, "r2": 0.75, "half_life": half_life}
    slot, measures = run.model.highway_slot, measures_of(run)
    rest = {"openness": [0.25, 0.75] if slot else [], "saturated": {"i": [0.1, 0.3]} | ({"s": [0.6]} if slot else {})}
    steps = {"init": 0, "trained": run.training.steps}
    return {stage: {"step": step} | dict.fromkeys(measures, one) | rest for stage, step in steps.items()}


def measures_of(run):
    return (*MEASURES, "fixed8") if run.probe.memory else MEASURES


def write_norms(folder, run):
    places = [
        (stage, 0, measure, clip, "X", 0, t, float(clip * t) * (run.seed if measure == "fixed8" else 1))
        for stage in STAGES
        for measure in measures_of(run)
        for clip in (1, 2)
        for t in range(1, run.data.context + 1)
    ]
    columns = ["stage", "step", "measure", "clip", "state", "layer", "t", "norm"]
    write_parquet(folder / "probe.parquet", pd.DataFrame(places, columns=columns))


def made_memory(run):
    """`memory.parquet` of a run: every value grows with its seed, none is known of a gate but that of C."""
    tables = []
    for stage, step, size in (("init", 0, 1.0), ("trained", 8, 2.0)):
        scale = size * run.seed
        taus = [
            memory_rows("time_constant", scale * np.array([1.0, np.inf, 3.0]), ("unit",), state="C", layer=layer)
            for layer in (1, 2)
        ]
        influence = scale * np.array([[0.3, 0.6, 0.9], [0.4, 0.8, 1.2]])
        changes = memory_rows("influence", influence, ("clip", "t"), state="X")
        errors = memory_rows("error_change", influence - scale, ("clip", "t"), state="X")
        exponents = np.array([[0.1, -0.2], [0.3, -np.inf]])
        tables += [
            part.assign(stage=stage, step=step)
            for part in (*taus, changes, errors, memory_rows("lyapunov", exponents, ("clip", "unit")))
        ]
    return pd.concat(tables, ignore_index=True)[[*COLUMNS]]


def write_scores(folder, variant, seed, names, protocol):
    data, beyond = protocol.data, protocol.evaluation.beyond
    folder.mkdir(parents=True)
    for name, frames, metrics in (("frames", data.horizon, names), ("beyond", beyond, HEADLINE)):
        if frames:
            write_parquet(folder / f"{name}.parquet", made_scores(variant, seed, metrics, data.test_clips, frames))
    films = {"context": data.context, "truth": data.horizon, "prediction": data.horizon}
    films = {name: np.zeros((1, count, 2, 2, 1), np.uint8) for name, count in films.items()}
    np.savez(folder / "examples.npz", clip=[1], **films)


def made_scores(variant, seed, names, clips, frames):
    random = np.random.default_rng([seed, *variant.encode()])
    places = [(variant, seed, clip, frame) for clip in range(1, clips + 1) for frame in range(1, frames + 1)]
    table = pd.DataFrame(places, columns=["variant", "seed", "clip", "frame"])
    for name in names:
        table[name] = random.uniform(10, 20, len(table)) * table["frame"]
    return table

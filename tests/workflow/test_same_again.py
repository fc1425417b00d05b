"""The same protocol in a second folder, in another order and in other company: the same bytes, measured times aside."""

import json
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from benchmark.config import load_protocol
from benchmark.files import read_json
from benchmark.publish import MEASURED
from benchmark.record import record
from benchmark.runs import read_runs
from tests.workflow import test_workflow
from tests.workflow.test_workflow import BASELINES, DATA_DIR, RUNS, SMOKE, VARIANTS, environment, run_folder, start

checkout, smoke = test_workflow.checkout, test_workflow.smoke

BY_HAND = """
import sys
from benchmark.__main__ import main

results, data_dir, variants, baselines = sys.argv[1], sys.argv[2], sys.argv[3].split(","), sys.argv[4].split(",")
common = ["--protocol", "smoke", "--results-dir", results]

def call(verb, *arguments):
    assert main([verb, *common, *arguments]) == 0, (verb, arguments)

for verb in ("backbone", "data"):
    call(verb, "--data-dir", data_dir)
for seed in ("2", "1"):
    call("train", "--variant", ",".join(reversed(variants)), "--seed", seed)
    for variant in reversed(variants):
        call("probe", "--variant", variant, "--seed", seed)
        call("evaluate", "--variant", variant, "--seed", seed, "--data-dir", data_dir)
for baseline in reversed(baselines):
    call("evaluate", "--variant", baseline, "--seed", "0", "--data-dir", data_dir)
for verb in ("plan", "figures", "tables"):
    call(verb)
"""
OF_RUN = {"run.yaml", "status.json", "provenance.json", "metrics.jsonl", "model.safetensors", "probe.parquet",
          "probe.json", "probe.png"}  # fmt: skip
OF_ALL = {"frames.parquet", "examples.npz", "film.png", "film.gif"}


def hold_against_each_other(first, second):
    """Compare every file that the two folders of the protocol share a promise about."""
    for variant, seed in RUNS | {(name, 0) for name in BASELINES}:
        for name in OF_ALL | (OF_RUN if seed else set()):
            one, other = (run_folder(folder, variant, seed) / name for folder in (first, second))
            assert one.read_bytes() == other.read_bytes(), other
    for kind, count in (("figures", 14), ("tables", 28), ("data", 2)):
        names = [path.name for path in (first / kind).iterdir()]
        assert len(names) >= count
        for name in names:
            one, other = first / kind / name, second / kind / name
            ignored = MEASURED.get(one.stem) if kind == "tables" else None
            if ignored is None:
                assert one.read_bytes() == other.read_bytes(), other
            elif one.suffix == ".csv":
                pair = [pd.read_csv(path, dtype=str).drop(columns=[*ignored]) for path in (one, other)]
                pd.testing.assert_frame_equal(*pair)
    protocol = load_protocol("smoke")
    for one, other in zip(*(read_runs(protocol, folder.parent) for folder in (first, second)), strict=True):
        if one.config:
            pair = [
                record(run, run_folder(folder, run.variant, run.seed), read_json(folder / "lpips_backbone.json"))
                for run, folder in ((one, first), (other, second))
            ]
            assert json.dumps(pair[0], sort_keys=True) == json.dumps(pair[1], sort_keys=True)


def test_snakemake_killed_on_its_way_and_verbs_by_hand_in_reverse_order_and_side_by_side_agree(smoke, checkout):
    command = [sys.executable, "-c", BY_HAND, "by-hand", str(DATA_DIR), ",".join(VARIANTS), ",".join(BASELINES)]
    surroundings = environment() | {"PYTHONPATH": str(checkout), "MLFLOW_TRACKING_URI": "off"}
    done = subprocess.run(command, cwd=checkout, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (checkout / "by-hand" / "mlflow.db").exists()
    hold_against_each_other(smoke, checkout / "by-hand" / "smoke")


@pytest.mark.slow
def test_two_cores_and_one_core_in_another_order_and_with_cohorts_agree(smoke, checkout, tmp_path):
    values = yaml.safe_load((checkout / "workflows" / "protocols" / "smoke.yaml").read_text())
    (tmp_path / "smoke.yaml").write_text(yaml.safe_dump(values | {"cohort": 3}, sort_keys=False))
    config = ["--config", f"protocol={tmp_path / 'smoke.yaml'}", f"results_dir={tmp_path / 'results'}", *SMOKE[3:]]
    folder = tmp_path / "results" / "smoke"
    first = run_folder(folder, "predrnnpp", 2) / "probe.parquet"
    targets = [folder / "tables" / "main.csv", folder / "figures" / "film.png", first]
    process = start(checkout, "--cores", "1", *targets, "--prioritize", first, *config)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    written = {seed: (run_folder(folder, "convlstm", seed) / "model.safetensors").stat().st_mtime_ns for seed in (1, 2)}
    assert written[2] < written[1]
    hold_against_each_other(smoke, folder)

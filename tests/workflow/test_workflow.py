"""One real Snakemake run of protocol `smoke` in a copy of the checkout, killed once on the way, then held to its word.

It takes about a minute on two cores, with the second seed, in `make test-all`, two; all else are dry runs or refusals.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image, ImageSequence
from safetensors.torch import load_file

from benchmark.config.protocol import load_protocol
from benchmark.reporting.outputs import FIGURE_FORMATS, TABLE_FORMATS, figures_of, tables_of
from benchmark.system.files import read_json
from benchmark.system.locks import hold
from tests.helpers import extent
from tests.helpers.agreement import BY_HAND, hold_against_each_other
from tests.helpers.checkout import commit, copy_checkout
from tests.helpers.forked import snakemake_forker
from tests.helpers.opened_report import went_through

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT.parent / "shared" / "data"
DATA_DIR = PUBLISHED if PUBLISHED.is_dir() else Path("data")
PROTOCOLS = sorted(path.stem for path in (ROOT / "workflows" / "protocols").glob("*.yaml"))
PROTOCOL = load_protocol("smoke")
SMOKE = ["all", "--config", "protocol=smoke", f"data_dir={DATA_DIR}"]
VARIANTS, BASELINES = ("convlstm", "predrnn", "predrnnpp"), ("last-frame", "context-mean", "black")
SEEDS = extent.of((1,), (1, 2))
RUNS = {(variant, seed) for variant in VARIANTS for seed in SEEDS}


def environment():
    """What a person in a new terminal has: no tracking address, no path that finds the project by chance."""
    names = ("MLFLOW_TRACKING_URI", "PYTHONPATH", "SNAKEMAKE_PROFILE")
    return {name: value for name, value in os.environ.items() if name not in names}


def start(checkout, *arguments):
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=checkout,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def snakemake(checkout, *arguments):
    """Exit status and output of Snakemake in `checkout`, in a process that does not wait for its imports."""
    return snakemake_forker().run(checkout, environment(), "--cores", "2", *arguments)


def planned(checkout, *arguments):
    """The jobs (rule, variant, seed) that a dry run plans, apart from the target `all`."""
    status, output = snakemake(checkout, "--dry-run", *(arguments or SMOKE))
    assert status == 0, output
    jobs = set()
    for block in re.split(r"\n(?=(?:local)?rule \w+:\n)", output)[1:]:
        rule = re.match(r"(?:local)?rule (\w+):", block)[1]
        wildcards = re.search(r"^    wildcards: variant=(\S+), seed=(\d+)$", block, re.MULTILINE)
        jobs.add((rule, wildcards[1], int(wildcards[2])) if wildcards else (rule, None, None))
    if not jobs:
        assert "Nothing to be done" in output
    return jobs - {("all", None, None)}


def of_protocol(*rules):
    return {(rule, None, None) for rule in rules}


def of_variant(variant, *rules):
    return {(rule, variant, seed) for rule in rules for seed in SEEDS}


@contextlib.contextmanager
def changed(path, change):
    """Replace the text of `path` by `change` of it for the body, then bring it back as it was, time included."""
    text, times = path.read_text(), path.stat()
    assert change(text) != text
    path.write_text(change(text))
    try:
        yield
    finally:
        path.write_text(text)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of this checkout, in which Snakemake may run."""
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def with_seeds(checkout):
    """The checkout, whose protocol `smoke` has the seeds `SEEDS`, as committed."""
    protocol = checkout / "workflows" / "protocols" / "smoke.yaml"
    text = protocol.read_text()
    assert "\nseeds: [1, 2]\n" in text
    protocol.write_text(text.replace("\nseeds: [1, 2]\n", f"\nseeds: {[*SEEDS]}\n"))
    if protocol.read_text() != text:
        commit(checkout)
    return checkout


@pytest.fixture(scope="module")
def second_beside(with_seeds):
    """What a second Snakemake says beside a first, whose pid is given; then the first is killed with all its jobs.

    Last, the runs whose training had ended by then.
    """
    checkout = with_seeds
    folder = checkout / "results" / "smoke"
    process = start(checkout, *SMOKE)
    while not any("finished" in path.read_text() for path in folder.glob("runs/*/seed=*/status.json")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    status, output = snakemake(checkout, *SMOKE)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    trained = {run for run in RUNS if (run_folder(folder, *run) / ".trained.pt").exists()}
    return process.pid, status, output, trained


@pytest.fixture(scope="module")
def said(checkout, second_beside):
    """What is said of the protocol, whose first Snakemake was killed on its way; nothing had to be unlocked."""
    status, output = snakemake(checkout, *SMOKE)
    assert status == 0, output
    return output.splitlines()


@pytest.fixture(scope="module")
def smoke(checkout, said):
    """The folder of the finished protocol."""
    return checkout / "results" / "smoke"


def run_folder(smoke, variant, seed):
    return smoke / "runs" / variant / f"seed={seed}"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    "name",
    [name if name in ("smoke", "study-init") else pytest.param(name, marks=pytest.mark.slow) for name in PROTOCOLS],
)
def test_dry_run_plans_a_training_for_every_variant_and_seed(checkout, name):
    values = yaml.safe_load((checkout / "workflows" / "protocols" / f"{name}.yaml").read_text())
    jobs = planned(checkout, "all", "--config", f"protocol={name}")
    wanted = [
        ("train", entry["id"], seed) for entry in values["variants"] for seed in entry.get("seeds", values["seeds"])
    ]
    if values["training"]["steps"]:
        assert sorted(job for job in jobs if job[0] == "train") == sorted(wanted)
    else:  # a job for all seeds of a variant
        assert {job[0] for job in jobs} & {"train", "probe"} == set()
        assert sum(job[0].startswith("measure_") for job in jobs) == len(values["variants"])
        assert sum(job[0] == "sync" for job in jobs) == len(wanted)


def test_the_floor_is_estimated_from_the_data_alone_and_only_where_a_protocol_asks(checkout):
    asked = planned(checkout, "results/study-main/floor.csv", "--config", "protocol=study-main")
    assert asked == of_protocol("data", "floor")
    status, output = snakemake(checkout, "--dry-run", "results/smoke/floor.csv", "--config", "protocol=smoke")
    assert status != 0
    assert "results/smoke/floor.csv" in output


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (["protocol=smok"], "unknown protocol 'smok'; did you mean 'smoke'?"),
        (["protocl=smoke"], "--config: protocl: unknown key 'protocl'; did you mean 'protocol'?"),
        (["protocol=smoke", "download=maybe"], "--config: download: 'maybe': input should be a valid boolean"),
        (["protocol=missing.yaml"], "missing.yaml: cannot be read"),
    ],
)
def test_mistake_in_the_configuration_is_one_message_and_leaves_nothing(checkout, config, told):
    before = sorted(checkout.glob("results/*"))
    status, output = snakemake(checkout, "all", "--config", *config)
    assert status != 0
    assert "Traceback" not in output
    (message,) = (line for line in output.splitlines() if line.startswith("error: "))
    assert told in message
    assert sorted(checkout.glob("results/*")) == before


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"variants": ["predrn"]}, "bad.yaml: variants.0: unknown variant 'predrn'; did you mean 'predrnn'?"),
        ({"training": {"lerning_rate": 1}}, "bad.yaml: training.lerning_rate: unknown key"),
        ({"variants": [{"id": "../x", "base": "predrnn"}]}, "bad.yaml: variants.0.id: '../x'"),
        ({"training": {"device": "cuda"}}, "training.device: cuda was asked for, but no CUDA device"),
    ],
)
def test_mistake_in_a_protocol_is_one_message_and_leaves_nothing(checkout, tmp_path, monkeypatch, changes, told):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    values = yaml.safe_load((checkout / "workflows" / "protocols" / "smoke.yaml").read_text())
    for key, value in changes.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(values))
    results = tmp_path / "results"
    config = ["--config", f"protocol={tmp_path / 'bad.yaml'}", f"results_dir={results}"]
    status, output = snakemake(checkout, "all", *config)
    assert status != 0
    assert "Traceback" not in output
    (message,) = (line for line in output.splitlines() if line.startswith("error: "))
    assert told in message
    assert not results.exists()


def test_target_of_an_unknown_variant_is_one_message(checkout):
    target = "results/smoke/runs/predrn/seed=1/model.safetensors"
    status, output = snakemake(checkout, target, "--config", "protocol=smoke")
    assert status != 0
    assert "unknown variant 'predrn'; did you mean 'predrnn'?" in output


def test_missing_digits_end_the_run_with_the_message_of_the_verb(checkout, tmp_path):
    config = ["protocol=study-main", f"data_dir={tmp_path}", f"results_dir={tmp_path / 'results'}"]
    status, output = snakemake(checkout, tmp_path / "results/study-main/data/data.json", "--config", *config)
    assert status != 0
    assert f"error: data_dir: {tmp_path}/mnist/t10k-images-idx3-ubyte.gz not found" in output
    assert "Traceback" not in output
    assert list((tmp_path / "results").rglob("data/*")) == []


def test_whole_protocol_is_said_in_few_lines_and_ends_with_its_table_and_its_places(said, smoke):
    assert len(said) < 40
    assert re.search(r"^smoke: \d+ jobs \(", "\n".join(said), re.MULTILINE)
    assert not [line for line in said if line.startswith(("rule ", "localrule ", "Job stats", "[")) or "jobid:" in line]
    jobs = [line for line in said if line.startswith("train ")]
    assert len(RUNS) - 2 <= len(jobs) <= len(RUNS)
    assert all(re.search(r" \d+:\d\d( .*)?  \| \d+ of \d+ jobs", line) for line in jobs)
    table = [line.partition("|")[0].strip() for line in said if "|" in line and "jobs" not in line]
    assert table[:4] == ["Model", "ConvLSTM", "PredRNN", "PredRNN++"]
    last = {line.partition(" ")[0]: line for line in said[-5:]}
    assert list(last) == ["Results", "MLflow", "Log", "Report", "Next"]
    assert re.search(r"/#/experiments/\d+/runs\?workflowType=machine_learning", last["MLflow"])
    assert "Finished jobid:" in (smoke.parents[1] / last["Log"].split()[1]).read_text()


def test_every_run_left_whole_files(smoke):
    for variant, seed in RUNS:
        folder = run_folder(smoke, variant, seed)
        assert read_json(folder / "status.json") == {"state": "finished", "step": 12, "steps": 12}
        losses = [line["train/loss"] for line in lines(folder / "metrics.jsonl") if "train/loss" in line]
        assert len(losses) == 6
        assert np.isfinite(losses).all()
        run = yaml.safe_load((folder / "run.yaml").read_text())
        weights = load_file(folder / "model.safetensors")
        assert sum(tensor.numel() for tensor in weights.values()) == run["parameters"]
        norms = pd.read_parquet(folder / "probe.parquet")
        assert set(norms["stage"]) == {"init", "trained"}
        assert np.isfinite(norms["norm"]).all()
        assert (folder / "probe.json").read_text().count(
            '"reach"'
        ) == 2 * 5  # stages and measures, with the one of probe.memory
        kept = pd.read_parquet(folder / "memory.parquet")
        assert set(kept["measure"]) == {"time_constant", "influence", "error_change", "lyapunov"}
    assert not list(smoke.rglob("*.stale"))
    assert not list(smoke.rglob("checkpoint.pt"))


def test_every_run_and_baseline_is_scored_and_filmed(smoke):
    lpips = json.loads((smoke / "lpips_backbone.json").read_text())
    metrics = ["mse", "mae", "psnr", "ssim"] + (["lpips_squeeze"] if lpips["status"] == "found" else [])
    assert (lpips["status"] == "found") == (DATA_DIR / "lpips").is_dir() or DATA_DIR != PUBLISHED
    for variant, seed in RUNS | {(name, 0) for name in BASELINES}:
        folder = run_folder(smoke, variant, seed)
        frames = pd.read_parquet(folder / "frames.parquet")
        assert list(frames.columns[:4]) == ["variant", "seed", "clip", "frame"]
        assert set(metrics) <= set(frames.columns)
        assert len(frames) == 24 * 3
        assert np.isfinite(frames[metrics]).all(axis=None)
        with Image.open(folder / "film.gif") as film:
            assert sum(1 for _ in ImageSequence.Iterator(film)) == 4 + 3
        with Image.open(folder / "film.png") as strip:
            assert strip.width > strip.height


def test_tables_and_figures_hold_every_variant(smoke):
    of_pairs = {"comparison", "reach_effects", "reach_definitions", "reach_error", "paper"}
    for name in (name for name in tables_of(PROTOCOL) if name not in of_pairs):
        table = pd.read_csv(smoke / "tables" / f"{name}.csv")
        expected = VARIANTS + (BASELINES if name in ("main", "per_frame", "conventions") else ())
        assert tuple(table["variant"].unique()) == expected
        for ending in TABLE_FORMATS:
            assert (smoke / "tables" / f"{name}.{ending}").stat().st_size > 0
    main = pd.read_csv(smoke / "tables" / "main.csv").set_index("variant")
    for variant in VARIANTS:
        means = [pd.read_parquet(run_folder(smoke, variant, seed) / "frames.parquet")["mse"].mean() for seed in SEEDS]
        assert main.loc[variant, "mse_mean"] == pytest.approx(np.mean(means), rel=1e-12)
        assert main.loc[variant, "clips_seen"] == 12 * 4
    for name in figures_of(PROTOCOL):
        for ending in FIGURE_FORMATS:
            start = (smoke / "figures" / f"{name}.{ending}").read_bytes()[:4]
            assert start == {"png": b"\x89PNG", "pdf": b"%PDF"}[ending]


def test_every_job_left_a_log_and_its_cost(smoke, second_beside):
    scored = RUNS | {(name, 0) for name in BASELINES}
    stages = {"train": RUNS, "probe": RUNS, "sync": RUNS, "evaluate": scored, "record": scored}
    jobs = [f"{stage}/{variant}.seed={seed}" for stage, runs in stages.items() for variant, seed in runs]
    for job in [*jobs, "init-store", "plan", "data", "backbone", "tables", "figures"]:
        assert (smoke / "logs" / f"{job}.log").is_file()
        assert pd.read_csv(smoke / "benchmarks" / f"{job}.tsv", sep="\t")["s"][0] > 0
    trained_before = second_beside[3]
    for variant, seed in RUNS:
        log = (smoke / "logs" / "train" / f"{variant}.seed={seed}.log").read_text()
        # Snakemake removes the log of a job that it begins again, such as one that was through when it was killed.
        left_alone = log.endswith("trained before by this config and code; left alone\n")
        assert (left_alone and (variant, seed) in trained_before) or "| step 12/12 | loss " in log


def test_provenance_names_the_commit_and_one_data_hash(smoke, checkout):
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True)
    records = [json.loads((run_folder(smoke, *run) / "provenance.json").read_text()) for run in RUNS]
    assert {record["git_commit"] for record in records} == {head.stdout.strip()}
    assert {record["git_dirty"] for record in records} == {False}
    data = json.loads((smoke / "data" / "data.json").read_text())
    assert {record["data_hash"] for record in records} == {data["data_hash"]}
    assert not [path for path in smoke.rglob("*.json") if str(checkout) in path.read_text()]


def test_store_holds_every_run_with_its_numbers_tags_and_artifacts(smoke, checkout):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{checkout / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("smoke").experiment_id])
    assert {(run.data.tags["variant"], int(run.data.tags["seed"])) for run in runs} == RUNS
    assert len(runs) == len(RUNS)
    for run in runs:
        folder = run_folder(smoke, run.data.tags["variant"], run.data.tags["seed"])
        assert run.info.status == "FINISHED"
        assert run.data.tags.keys() >= {"cell", "highway", "layers", "git_commit", "data_hash", "label"}
        assert run.data.params["training.steps"] == "12"
        frames = pd.read_parquet(folder / "frames.parquet")
        assert run.data.metrics["test/mse"] == pytest.approx(frames["mse"].mean(), rel=1e-12)
        history = client.get_metric_history(run.info.run_id, "train/loss")
        logged = {line["step"]: line["train/loss"] for line in lines(folder / "metrics.jsonl") if "train/loss" in line}
        assert {point.step: point.value for point in history} == logged
        artifacts = {entry.path for entry in client.list_artifacts(run.info.run_id)}
        assert artifacts >= {"run.yaml", "film.gif", "film.png", "probe.png", "frames.parquet", "probe.parquet"}
        assert {data.dataset.digest for data in run.inputs.dataset_inputs} == {run.data.tags["data_hash"][:36]}


def test_report_is_made_and_holds_every_figure_table_and_film(smoke, checkout):
    status, output = snakemake(checkout, "--report", smoke / "report.html", *SMOKE[1:])
    assert status == 0, output
    written = (smoke / "report.html").read_text()
    parts = {"tables": tables_of(PROTOCOL), "figures": figures_of(PROTOCOL), "films": VARIANTS}
    pages = [f"results/smoke/{part}/{name}." for part, names in parts.items() for name in names]
    assert [page for page in pages if page not in written] == []
    assert planned(checkout) == set()


@pytest.mark.slow
def test_report_opens_in_a_browser_and_shows_every_figure_table_and_film(smoke, checkout):
    status, output = snakemake(checkout, "--report", smoke / "report.html", *SMOKE[1:])
    assert status == 0, output
    seen = {Path(path).relative_to("results/smoke"): rows for path, rows in went_through(smoke / "report.html").items()}
    assert {path.stem for path in seen if path.parent.name == "figures"} == set(figures_of(PROTOCOL))
    assert {path.stem for path in seen if path.parent.name == "films"} == set(VARIANTS)
    tables = {path.stem: rows for path, rows in seen.items() if path.parent.name == "tables"}
    assert set(tables) == set(tables_of(PROTOCOL))
    assert tables["main"][0].strip() == "ConvLSTM"
    assert all(rows or name == "comparison" for name, rows in tables.items())


def test_second_run_has_nothing_to_do(smoke, checkout):
    status, output = snakemake(checkout, *SMOKE)
    assert status == 0
    assert "Nothing to be done" in output


def test_results_copied_into_another_checkout_are_not_trained_again(smoke, tmp_path):
    other = copy_checkout(tmp_path)
    (other / "results").mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", smoke, other / "results"], check=True)
    before = (run_folder(smoke, "predrnn", 1) / "model.safetensors").read_bytes()
    status, output = snakemake(other, "results/smoke/runs/predrnn/seed=1/model.safetensors", *SMOKE[1:])
    assert status == 0, output
    copied = run_folder(other / "results" / "smoke", "predrnn", 1)
    assert (copied / "model.safetensors").read_bytes() == before
    assert (copied / "timing.jsonl").read_text() == (run_folder(smoke, "predrnn", 1) / "timing.jsonl").read_text()
    (training,) = [line for line in output.splitlines() if line.startswith("train ")]
    assert training.startswith("train predrnn seed=1 ")
    assert "trained before, left alone" in training


def test_change_of_a_cell_reruns_its_variants_and_what_hangs_on_them(smoke, checkout):
    with changed(checkout / "models" / "st_lstm.py", lambda text: text.replace("g = torch.tanh(g)", "g = 2 * g")):
        jobs = planned(checkout)
    assert jobs == of_variant("predrnn", "train", "evaluate", "probe", "record", "sync") | of_protocol(
        "plan", "tables", "figures"
    )
    assert planned(checkout) == set()


def test_change_of_one_variant_trains_it_again_and_no_other(smoke, checkout):
    protocol = checkout / "workflows" / "protocols" / "smoke.yaml"
    with changed(protocol, lambda text: re.sub(r"(id: predrnn, hidden_channels:) \d+", r"\1 7", text)):
        jobs = planned(checkout)
    assert jobs == of_variant("predrnn", "train", "evaluate", "probe", "record", "sync") | of_protocol(
        "plan", "tables", "figures"
    )


def test_added_variant_adds_its_jobs_and_touches_no_other(smoke, checkout):
    protocol = checkout / "workflows" / "protocols" / "smoke.yaml"
    entry = "variants:\n  - {id: convlstm-ghu, hidden_channels: 8}\n"
    with changed(protocol, lambda text: text.replace("variants:\n", entry)):
        jobs = planned(checkout)
    new = of_variant("convlstm-ghu", "train", "evaluate", "probe", "record", "sync")
    assert jobs == new | of_protocol("plan", "tables", "figures")


def test_what_does_not_change_results_plans_nothing(smoke, checkout):
    protocol = checkout / "workflows" / "protocols" / "smoke.yaml"
    with changed(protocol, lambda text: text.replace("log_every: 2", "log_every: 3\n  threads: 2")):
        assert planned(checkout) == set()
    with changed(checkout / "benchmark" / "system" / "console.py", lambda text: text + "# a word\n"):
        assert planned(checkout) == set()


def test_other_data_dir_looks_for_lpips_again_and_trains_nothing(smoke, checkout, tmp_path):
    jobs = planned(checkout, *SMOKE[:-1], f"data_dir={tmp_path}", "download=true")
    assert {rule for rule, *_ in jobs} <= {"backbone", "evaluate", "record", "sync", "tables", "figures"}


def test_second_snakemake_beside_a_living_first_is_refused_and_names_it(second_beside):
    pid, status, output, _ = second_beside
    assert status != 0
    assert f"error: results/smoke: in use by pid {pid} (snakemake); wait for it or end it" in output
    assert "Traceback" not in output


def test_second_snakemake_in_a_folder_in_use_changes_nothing(smoke, checkout):
    before = {path: path.stat().st_mtime_ns for path in smoke.rglob("*") if path.is_file()}
    with hold(smoke):
        held = (smoke / ".lock").stat().st_mtime_ns
        status, output = snakemake(checkout, "all", "--forcerun", "tables", *SMOKE[1:])
    assert status != 0
    assert f"results/smoke: in use by pid {os.getpid()} (" in output
    assert "Traceback" not in output
    after = {path: path.stat().st_mtime_ns for path in smoke.rglob("*") if path.is_file()}
    assert after == before | {smoke / ".lock": held}


def test_published_results_are_small_and_equal_to_the_fresh_ones(smoke, checkout):
    for verb, told in (("publish", f"{len(RUNS)} records of protocol smoke"), ("compare", "main: equal")):
        command = [sys.executable, "-m", "benchmark", verb, "--protocol", "smoke"]
        done = subprocess.run(command, cwd=checkout, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert told in done.stdout
    records = list((checkout / "results" / "reference" / "smoke" / "records").iterdir())
    assert len(records) == len(RUNS)
    assert max(path.stat().st_size for path in records) < 100_000
    assert planned(checkout) == set()


def test_snakemake_killed_on_its_way_and_verbs_by_hand_in_reverse_order_and_side_by_side_agree(smoke, checkout):
    names = (",".join(map(str, each)) for each in (VARIANTS, BASELINES, SEEDS))
    command = [sys.executable, "-c", BY_HAND, "by-hand", str(DATA_DIR), *names]
    surroundings = environment() | {"PYTHONPATH": str(checkout), "MLFLOW_TRACKING_URI": "off"}
    done = subprocess.run(command, cwd=checkout, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (checkout / "by-hand" / "mlflow.db").exists()
    hold_against_each_other(smoke, checkout / "by-hand" / "smoke", RUNS, BASELINES)


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
    hold_against_each_other(smoke, folder, RUNS, BASELINES)

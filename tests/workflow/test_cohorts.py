"""Real Snakemake runs of a protocol whose variants are trained two a job; in `make test-all` killed and broken, too."""

import json
import os
import signal
import time

import pytest
import yaml

from benchmark.system.files import read_json
from tests.helpers import extent
from tests.workflow import test_workflow
from tests.workflow.test_workflow import changed, lines, planned, snakemake, start

checkout = test_workflow.checkout
VARIANTS = ("convlstm", "predrnn", "predrnnpp")
WEIGHTS = [f"results/cohorts/runs/{variant}/seed=1/model.safetensors" for variant in VARIANTS]
CALL = [*WEIGHTS, "--config", "protocol=cohorts"]
LEFT_ALONE = "seed=1: trained before by this config and code; left alone"


def folder_of(checkout, variant):
    return checkout / "results" / "cohorts" / "runs" / variant / "seed=1"


def log_of(checkout, number):
    return (checkout / "results" / "cohorts" / "logs" / "train" / f"cohort-{number}.log").read_text()


def timings(checkout):
    """The wall times of each run: other ones if any step was trained again."""
    return {variant: (folder_of(checkout, variant) / "timing.jsonl").read_text() for variant in VARIANTS}


@pytest.fixture(scope="module")
def trained(checkout):
    """A checkout with all runs trained, in full after a kill; and the lines of times that the first cohort had then."""
    values = yaml.safe_load((checkout / "workflows" / "protocols" / "smoke.yaml").read_text())
    values |= {"cohort": 2, "seeds": [1], "training": values["training"] | {"steps": 60}}
    (checkout / "workflows" / "protocols" / "cohorts.yaml").write_text(yaml.safe_dump(values))
    before = killed_on_its_way(checkout) if extent.full else {}
    code, output = snakemake(checkout, *CALL)
    assert code == 0, output
    return checkout, before


def killed_on_its_way(checkout):
    """Kill Snakemake with all its jobs while the first cohort trains; the lines of times of its runs by then."""
    process = start(checkout, *CALL)
    status = folder_of(checkout, "predrnn") / "status.json"
    while not status.exists() or json.loads(status.read_text())["step"] < 8:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = {variant: lines(folder_of(checkout, variant) / "timing.jsonl") for variant in ("convlstm", "predrnn")}
    assert not (folder_of(checkout, "predrnn") / "model.safetensors").exists()
    return before


@pytest.mark.slow
def test_killed_cohort_goes_on_from_the_checkpoints_of_its_runs(trained):
    checkout, before = trained
    for variant, known in before.items():
        assert lines(folder_of(checkout, variant) / "timing.jsonl")[:4] == known[:4]  # of the steps 2 to 8


def test_every_cohort_trained_its_runs_and_left_a_log_and_its_cost(trained):
    checkout, _ = trained
    for variant in VARIANTS:
        status = read_json(folder_of(checkout, variant) / "status.json")
        assert status == {"state": "finished", "step": 60, "steps": 60}
    assert "predrnn seed=1 | step 60/60" in log_of(checkout, 1)
    assert "predrnnpp seed=1 | step 60/60" in log_of(checkout, 2)
    costs = checkout / "results" / "cohorts" / "benchmarks" / "train"
    assert {path.name for path in costs.iterdir()} == {"cohort-1.tsv", "cohort-2.tsv"}


def test_second_call_has_nothing_to_do(trained):
    checkout, _ = trained
    assert planned(checkout, *CALL) == set()


def test_variants_with_seeds_of_their_own_are_in_cohorts_of_their_own(trained):
    checkout, _ = trained
    protocol = checkout / "workflows" / "protocols" / "cohorts.yaml"
    values = yaml.safe_load(protocol.read_text())
    values["variants"][2] |= {"seeds": [7]}
    own = checkout / "workflows" / "protocols" / "own-seeds.yaml"
    own.write_text(yaml.safe_dump(values))
    wanted = [f"results/own-seeds/runs/{name}/model.safetensors" for name in ("predrnn/seed=1", "predrnnpp/seed=7")]
    trainings = {job[0] for job in planned(checkout, *wanted, "--config", "protocol=own-seeds") if "train" in job[0]}
    assert trainings == {"train_cohort_1", "train_cohort_2"}


def test_seeds_of_a_variant_are_trained_by_as_few_jobs_as_stack_allows(trained):
    checkout, _ = trained
    protocols = checkout / "workflows" / "protocols"
    values = yaml.safe_load((protocols / "cohorts.yaml").read_text()) | {"cohort": 1, "stack": 2, "seeds": [1, 2, 3]}
    (protocols / "stacked.yaml").write_text(yaml.safe_dump(values))
    wanted = [f"results/stacked/runs/convlstm/seed={seed}/model.safetensors" for seed in (1, 2, 3)]
    jobs = planned(checkout, *wanted, "--config", "protocol=stacked")
    assert {job[0] for job in jobs if "train" in job[0]} == {"train_cohort_1", "train_cohort_2"}


@pytest.mark.slow
def test_cohort_that_fails_loses_nothing_and_trains_its_stale_run_alone(trained):
    checkout, _ = trained
    before = timings(checkout)
    line = "        g = torch.tanh(g)"
    with changed(
        checkout / "models" / "st_lstm.py",
        lambda text: text.replace(line, f"        torch.empty(2**55)\n{line}"),
    ):
        assert planned(checkout, *CALL) == {("train_cohort_1", None, None)}
        code, output = snakemake(checkout, *CALL)
    assert code != 0
    assert "predrnn seed=1, step 1: out of memory with batches of 4 clips (peak " in output
    assert "Traceback" not in output
    assert not (checkout / WEIGHTS[0]).exists()  # removed by Snakemake, as any output of a job that failed
    code, output = snakemake(checkout, *CALL)
    assert code == 0, output
    said = log_of(checkout, 1).splitlines()
    assert [line for line in said if "left alone" in line] == [f"convlstm {LEFT_ALONE}"]
    after = timings(checkout)
    assert {variant for variant in VARIANTS if after[variant] != before[variant]} == {"predrnn"}
    assert planned(checkout, *CALL) == set()


def test_changed_size_of_the_cohorts_trains_nothing_again(trained):
    checkout, _ = trained
    before = timings(checkout)
    protocol = checkout / "workflows" / "protocols" / "cohorts.yaml"
    with changed(protocol, lambda text: text.replace("cohort: 2", "cohort: 3")):
        code, output = snakemake(checkout, *CALL)
        assert code == 0, output
        assert timings(checkout) == before
        assert [line.partition(" ")[2] for line in log_of(checkout, 1).splitlines()] == [LEFT_ALONE] * 3
        assert all((checkout / name).exists() for name in WEIGHTS)
        assert planned(checkout, *CALL) == set()

"""docs/adding_a_cell.md, _metric.md and _model.md lead to rows and a column of a table, in a copy of the checkout."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmark.system.files import read_json
from tests.helpers.checkout import copy_checkout
from tests.helpers.documented import SHELL, blocks, change, lines

pytestmark = pytest.mark.slow


def follow(page: str, folder: Path) -> dict[str, str]:
    """Do what `page` says in `folder`, block by block; returns command -> what it printed."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": programs, "PYTHONPATH": str(folder)}
    for name in ("MLFLOW_TRACKING_URI", "SNAKEMAKE_PROFILE"):
        environment.pop(name, None)
    said = {}
    for block in blocks(page):
        if block.language == "diff":
            change(block, folder)
        for command in lines(block.text) if block.language in SHELL else ():
            done = subprocess.run(
                command,
                shell=True,
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert done.returncode == 0, f"{block.place}: {command}\n{done.stdout}"
            said[command] = done.stdout
    return said


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return copy_checkout(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def with_cell(checkout):
    """What the commands of the page on cells printed."""
    return follow("docs/adding_a_cell.md", checkout)


@pytest.fixture(scope="module")
def with_metric(checkout, with_cell):
    """When runs were trained before the metric was added, and what the commands of its page printed."""
    trained = {path: path.stat().st_mtime_ns for path in weights(checkout)}
    return trained, follow("docs/adding_a_metric.md", checkout)


@pytest.fixture(scope="module")
def with_model(checkout):
    """What the commands of the page on models printed."""
    return follow("docs/adding_a_model.md", checkout)


def weights(checkout):
    return sorted(checkout.glob("results/tiny/runs/*/seed=*/model.safetensors"))


def shown(said, command):
    (text,) = (text for words, text in said.items() if words.startswith(command))
    return text


def test_contract_tests_run_on_the_new_cell_by_themselves(with_cell):
    passed = int(re.search(r"(\d+) passed", shown(with_cell, "pytest"))[1])
    assert passed > 100
    assert not re.search("failed|error|skipped", shown(with_cell, "pytest").splitlines()[-1])


def test_the_new_cell_has_a_row_in_the_tables_and_no_false_vanishing_of_a_state_it_lacks(with_cell, checkout):
    table = shown(with_cell, "cat")
    assert re.search(r"^\| ConvMGU +\| 1 +\|", table, re.MULTILINE)
    values = pd.read_csv(checkout / "results" / "tiny" / "tables" / "main.csv").set_index("variant")
    assert values["mse_mean"].between(1, 100).all()
    assert values.loc["conv-mgu", "parameters"] < values.loc["convlstm", "parameters"]
    states = {}
    for variant in ("convlstm", "conv-mgu"):
        norms = pd.read_parquet(checkout / "results" / "tiny" / "runs" / variant / "seed=1" / "probe.parquet")
        states[variant] = set(norms["state"])
        assert (norms[norms["t"] == 1]["norm"] > 0).all()
    assert states == {"convlstm": {"X", "H", "C"}, "conv-mgu": {"X", "H"}}


def test_a_new_metric_is_a_column_with_head_and_definition_and_trains_nothing_again(with_metric, checkout):
    trained, said = with_metric
    table = shown(said, "cat")
    assert "| Gradient difference (per frame) ↓" in table.splitlines()[2]
    assert "* Gradient difference (per frame) ↓: difference of the absolute steps between" in table
    values = pd.read_csv(checkout / "results" / "tiny" / "tables" / "main.csv").set_index("variant")
    scores = pd.read_parquet(checkout / "results" / "tiny" / "runs" / "conv-mgu" / "seed=1" / "frames.parquet")
    found = values.loc["conv-mgu", "gradient_difference_mean"]
    assert found == pytest.approx(scores["gradient_difference"].mean())
    assert f"{found:.1f}" in table
    assert trained == {path: path.stat().st_mtime_ns for path in weights(checkout)}
    assert len(trained) == 2
    assert "gradient_difference" in read_json(checkout / "results/tiny/runs/convlstm/seed=1/record.json")["per_clip"]


def test_the_metrics_tests_run_on_the_new_metric(with_metric):
    assert re.search(r"\d+ passed", shown(with_metric[1], "pytest").splitlines()[-1])
    assert "failed" not in shown(with_metric[1], "pytest").splitlines()[-1]


def test_a_model_of_ones_own_has_a_row_with_scores_counts_and_reach(with_model, checkout):
    assert shown(with_model, "python -m benchmark check").count("pass  ") == 8
    table = shown(with_model, "cat results/mine/tables/main.md")
    assert re.search(r"^\| My net +\| 1 +\| +28,564 ", table, re.MULTILINE)
    gradients = pd.read_csv(checkout / "results" / "mine" / "tables" / "probe.csv").set_index(["variant", "stage"])
    assert math.isfinite(gradients.loc[("my-net", "trained"), "reach"])
    record = read_json(checkout / "results/mine/runs/my-net/seed=1/record.json")
    assert record["config"]["model"]["model"] == "my_net:SimVPLike"
    norms = pd.read_parquet(checkout / "results/mine/runs/my-net/seed=1/probe.parquet")
    assert set(norms["state"]) == {"X"}

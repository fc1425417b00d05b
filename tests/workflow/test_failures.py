"""A command that fails is told as the error of its rule, with its own message last: real faults, real Snakemake runs."""

import re

import pytest
import yaml

from tests.helpers.made_films import moving_square, write_film
from tests.workflow import test_workflow
from tests.workflow.test_workflow import snakemake

checkout = test_workflow.checkout
RUN = "runs/convlstm/seed=1"
SHORT = {"about": "Two steps of one network.", "variants": [{"id": "convlstm", "hidden_channels": 4}], "seeds": [1]}


def write_protocol(checkout, name, **changes):
    """A protocol of one short run; sections are merged into those of smoke."""
    values = yaml.safe_load((checkout / "workflows" / "protocols" / "smoke.yaml").read_text()) | SHORT
    values |= {"primary": {"pairs": {}}, "baselines": ["black"], "target_parameters": None}
    values["training"] |= {"steps": 2}
    for key, value in changes.items():
        values[key] = values[key] | value if isinstance(value, dict) and key in values else value
    (checkout / "workflows" / "protocols" / f"{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def told_errors(checkout, *arguments):
    """Rule -> the lines of its error, of a Snakemake run that has to fail."""
    status, output = snakemake(checkout, *arguments)
    assert status != 0, output
    assert "Traceback" not in output
    assert "completed successfully, but" not in output
    found = {}
    for block in re.findall(r"^error in rule .*\n(?:  .*\n)+", output, re.MULTILINE):
        head, *lines = block.splitlines()
        found[re.match(r"error in rule (\w+)", head)[1]] = [line.strip() for line in lines]
    assert found, output
    return found


def assert_told(checkout, errors, rule, message):
    """The error of `rule` is the last thing its log says, and the log is named."""
    *said, where = errors[rule]
    log = checkout / where.removeprefix("log: ")
    assert message in said[0]
    assert log.read_text().splitlines()[-len(said) :] == said


@pytest.fixture(scope="module")
def short(checkout):
    """The folder of a finished protocol of one short run."""
    write_protocol(checkout, "short")
    status, output = snakemake(checkout, "all", "--config", "protocol=short")
    assert status == 0, output
    return checkout / "results" / "short"


def test_films_that_are_not_square_and_other_faults_of_set_up_are_errors_of_their_rules(checkout, monkeypatch):
    for number, part in enumerate(("train", "validation", "test")):
        write_film(checkout / "films" / "own" / part / "one.avi", moving_square(12, height=48, width=64, seed=number))
    (checkout / "films" / "lpips").mkdir()
    (checkout / "films" / "lpips" / "squeezenet1_1_features.pth").write_bytes(b"no network")
    write_protocol(checkout, "oblong", target_parameters=1000)
    path = checkout / "workflows" / "protocols" / "oblong.yaml"
    data = {"videos": "own", "frame_size": 16, "context": 3, "horizon": 3, "validation_clips": 1, "test_clips": 3}
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"data": data}))
    surroundings = test_workflow.environment() | {"MLFLOW_TRACKING_URI": "sqlite:////dev/null/mlflow.db"}
    monkeypatch.setattr(test_workflow, "environment", lambda: surroundings)
    targets = [f"results/oblong/{name}" for name in ("data/data.json", "plan.csv", "lpips_backbone.json", ".store")]
    errors = told_errors(checkout, *targets, "--config", "protocol=oblong", "data_dir=films")
    assert set(errors) == {"data", "plan", "backbone", "init_store"}
    assert_told(checkout, errors, "data", "64x48")
    assert_told(checkout, errors, "plan", "1,000")
    assert_told(checkout, errors, "backbone", "squeezenet1_1_features.pth")
    assert_told(checkout, errors, "init_store", "/dev/null")
    assert [path for path in targets if (checkout / path).exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damaged", "targets", "rules"),
    [
        ("data/digits.npz", [f"{RUN}/model.safetensors"], ["train"]),
        (f"{RUN}/model.safetensors", [f"{RUN}/frames.parquet", f"{RUN}/probe.json"], ["evaluate", "probe"]),
        (f"{RUN}/frames.parquet", [f"{RUN}/record.json"], ["record"]),
        (f"{RUN}/record.json", ["tables/main.csv", "figures/film.png"], ["tables", "figures"]),
        ("lpips_backbone.json", [f"{RUN}/frames.parquet"], ["evaluate"]),
    ],
)
def test_damaged_file_is_the_error_of_the_rule_that_reads_it(checkout, short, damaged, targets, rules):
    path = short / damaged
    whole, times = path.read_bytes(), path.stat()
    path.write_bytes(whole[: len(whole) // 2])
    try:
        errors = told_errors(
            checkout, *(f"results/short/{name}" for name in targets), "--forcerun", *rules, "--config", "protocol=short"
        )
    finally:
        path.write_bytes(whole)
    assert set(errors) == {*rules}
    for rule in rules:
        assert_told(checkout, errors, rule, path.name)

"""A command that fails is told as the error of its rule, its own message last: real faults, real runs of Snakemake."""

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


def test_films_that_are_not_square_and_other_faults_of_set_up_are_errors_of_their_rules(checkout):
    for number, part in enumerate(("train", "validation", "test")):
        write_film(checkout / "films" / "own" / part / "one.avi", moving_square(12, height=48, width=64, seed=number))
    (checkout / "films" / "lpips").mkdir()
    (checkout / "films" / "lpips" / "squeezenet1_1_features.pth").write_bytes(b"no network")
    write_protocol(checkout, "oblong", target_parameters=1000, probe={"clips": 2})
    path = checkout / "workflows" / "protocols" / "oblong.yaml"
    data = {"videos": "own", "frame_size": 16, "context": 3, "horizon": 3, "validation_clips": 1, "test_clips": 3}
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"data": data}))
    targets = [f"results/oblong/{name}" for name in ("data/data.json", "plan.csv", "lpips_backbone.json")]
    errors = told_errors(checkout, *targets, "--config", "protocol=oblong", "data_dir=films")
    assert set(errors) == {"data", "plan", "backbone"}
    assert_told(checkout, errors, "data", "64x48")
    assert_told(checkout, errors, "plan", "1,000")
    assert_told(checkout, errors, "backbone", "squeezenet1_1_features.pth")
    assert [path for path in targets if (checkout / path).exists()] == []


TWO = [{"id": name, "hidden_channels": 4} for name in ("convlstm", "predrnn")]
DAMAGED = [
    ("lpips_backbone.json", [f"{RUN}/frames.parquet"], ["evaluate"]),
    (f"{RUN}/record.json", ["tables/main.csv", "figures/film.png"], ["tables", "figures"]),
    (f"{RUN}/frames.parquet", [f"{RUN}/record.json"], ["record"]),
    (f"{RUN}/model.safetensors", [f"{RUN}/frames.parquet", f"{RUN}/probe.json"], ["evaluate", "probe"]),
    ("data/digits.npz", [f"{RUN}/model.safetensors"], ["train"]),
]


def told_of_damage(checkout, name, damaged, targets, rules):
    """The errors where half of a file is gone; afterwards it is whole again."""
    path = checkout / "results" / name / damaged
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    wanted = [f"results/{name}/{target}" for target in targets]
    try:
        return told_errors(checkout, *wanted, "--forcerun", *rules, "--config", f"protocol={name}")
    finally:
        path.write_bytes(whole)


@pytest.mark.slow
def test_damaged_file_is_the_error_of_each_rule_that_reads_it(checkout, monkeypatch):
    write_protocol(checkout, "short")
    for damaged, targets, rules in DAMAGED:
        # Makes again what Snakemake took away from the rule that failed before.
        status, output = snakemake(checkout, "all", "--config", "protocol=short")
        assert status == 0, output
        errors = told_of_damage(checkout, "short", damaged, targets, rules)
        assert set(errors) == {*rules}
        for rule in rules:
            assert_told(checkout, errors, rule, damaged.rpartition("/")[2])
    surroundings = test_workflow.environment() | {"MLFLOW_TRACKING_URI": "sqlite:////dev/null/mlflow.db"}
    monkeypatch.setattr(test_workflow, "environment", lambda: surroundings)
    call = [f"results/short/{RUN}/.mirrored", "--forcerun", "sync", "--config", "protocol=short"]
    assert_told(checkout, told_errors(checkout, *call), "sync", "/dev/null")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rule", "changes"),
    [
        (
            "pair",
            "train_cohort_1",
            {"cohort": 2, "variants": TWO},
        ),
        ("untrained", "measure_1", {"training": {"steps": 0}}),
    ],
)
def test_damaged_digits_are_the_error_of_the_rule_of_several_runs(checkout, name, rule, changes):
    write_protocol(checkout, name, **changes)
    status, output = snakemake(checkout, f"results/{name}/data/data.json", "--config", f"protocol={name}")
    assert status == 0, output
    errors = told_of_damage(checkout, name, "data/digits.npz", [f"{RUN}/model.safetensors"], [rule])
    assert_told(checkout, errors, rule, "digits.npz")

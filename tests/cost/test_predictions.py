"""What was predicted for a GPU stands once, on the page as in the table, and is held against what was measured."""

import re
from pathlib import Path

import pytest

from benchmark.__main__ import main
from benchmark.cost import measured_speeds
from benchmark.cost.predictions import Prediction, predictions, rows_of_page, table
from benchmark.system.errors import UserError
from benchmark.system.files import write_json

ROOT = Path(__file__).parents[2]
ONE = Prediction("a step", "cuda-step", "step_s", "ms", 10, 20, "as counted", scale=1000, goal_most=15)
CONDITIONS = {"accelerator": "NVIDIA H100", "torch": "2.11", "stages": "in fused stages"}


def test_the_page_has_the_predictions_of_the_file():
    page = (ROOT / "docs" / "speed.md").read_text()
    rows = page.partition("| what | predicted | goal | arithmetic |")[2].partition("\n\n")[0].splitlines()[2:]
    assert rows == rows_of_page()


def test_every_file_that_is_predicted_is_one_that_gpu_check_measures():
    makefile = (ROOT / "Makefile").read_text()
    names = re.search(r"GPU_SPEED := \$\(foreach name,(.*?),", makefile, re.DOTALL)[1].replace("\\", "").split()
    assert {one.file.removeprefix("cuda-") for one in predictions()} <= set(names)


@pytest.mark.parametrize("one", predictions(), ids=lambda one: one.about)
def test_a_prediction_is_a_range_with_its_arithmetic(one):
    assert 0 <= one.low <= one.high
    assert one.why
    assert None in (one.goal_least, one.goal_most)


@pytest.mark.parametrize(
    ("step_s", "said"),
    [
        (0.009, "lower; goal met"),
        (0.012, "as predicted; goal met"),
        (0.018, "as predicted; goal missed"),
        (0.021, "higher; goal missed"),
    ],
)
def test_what_is_measured_is_held_against_range_and_goal(tmp_path, step_s, said):
    write_json(tmp_path / "cuda-step.json", {"step_s": step_s})
    assert ONE.verdict(ONE.measured(tmp_path)) == said


def test_a_quotient_of_two_numbers(tmp_path):
    write_json(tmp_path / "cuda-step.json", {"together": 6.0, "apart": 4.0})
    one = Prediction("runs", "cuda-step", "together / apart", "times", 1, 2, "", goal_least=2)
    assert (one.measured(tmp_path), one.predicted, one.goal) == (1.5, "1 to 2 times", "at least 2 times")
    assert one.verdict(1.5) == "as predicted; goal missed"


def test_a_file_without_the_number_is_told(tmp_path):
    write_json(tmp_path / "cuda-step.json", {"other": 1})
    with pytest.raises(UserError, match=r"cuda-step\.json: has no number step_s"):
        ONE.measured(tmp_path)


def test_the_table_says_what_was_measured_on_what_and_what_was_not(tmp_path, monkeypatch, capsys):
    assert all("not measured" in line for line in table(tmp_path)[1:-1])
    assert table(tmp_path)[-1] == "predicted for one NVIDIA H100; measured on nothing yet"
    write_json(tmp_path / "cuda-128-64-bf16-batch64.json", CONDITIONS | {"step_s": 0.1, "fraction_of_matmul": 0.6})
    unfused = {"stages": "not in fused stages: recompute: true computes step by step", "share_of_step": 0.02}
    write_json(tmp_path / "cuda-data.json", CONDITIONS | unfused)
    monkeypatch.setattr(measured_speeds, "SPEEDS", tmp_path)
    assert main(["speed", "--predicted"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (step,) = (line for line in lines if line.startswith("training step, batch 64"))
    assert re.split(r"  +", step) == ["training step, batch 64", "62 to 78 ms", "100 ms", "higher"]
    assert lines[-2:] == [
        "predicted for one NVIDIA H100; measured on NVIDIA H100, torch 2.11",
        "cuda-data: not in fused stages: recompute: true computes step by step",
    ]

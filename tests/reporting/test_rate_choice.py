"""A learning rate is chosen by a rule, said with all that it was chosen from, and read by other protocols."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from benchmark.__main__ import main
from benchmark.config.protocol import load_protocol
from benchmark.config.rates import CHOICES, read_choice
from benchmark.reporting.finished_runs import of_run, read_record
from benchmark.reporting.published_records import record_of
from benchmark.reporting.rate_choice import as_yaml, choose_rates, write_choice
from benchmark.system.errors import UserError
from benchmark.system.files import append_json_line
from tests.helpers.made_runs import made_runs
from tests.helpers.recorded import table_of, write_records

GRID = [0.003, 0.01, 0.03]
SEEDS = [101, 102, 103]


@pytest.fixture
def tried(make_protocol):
    """A protocol of one network at the rates of a grid, and its runs with the validation MSE of each rate and seed.

    None is a run that diverged, a score above 30 one that has not learnt.
    """

    def make(scores, further=()):
        entry = {"id": "convlstm", "further_rates": [*further]}
        protocol = make_protocol(variants=[entry], rate_grid=GRID, seeds=SEEDS)
        runs = []
        for run in made_runs(protocol)[: len(protocol.runs())]:
            score = scores[run.config.training.learning_rate][SEEDS.index(run.seed)]
            status = {"state": "finished" if score is not None else "diverged", "step": 4}
            shown = math.nan if score is None else score
            runs.append(replace(run, validation=pd.Series({4: 1.0, 8: shown}), status=status, learnt=shown < 30))
        return protocol, runs

    return make


def chosen(protocol, runs):
    return choose_rates(protocol, runs, 30.0).networks["convlstm"]


def test_the_least_mean_at_the_last_step_wins(tried):
    found = chosen(*tried({0.003: [22, 23, 24], 0.01: [20, 21, 25], 0.03: [19, 21, 29]}))
    assert (found.learning_rate, found.at_edge) == (0.01, False)
    assert [one.validation_mse for one in found.tried] == [23, 22, 23]
    assert found.tried[0].by_seed == (22, 23, 24)


@pytest.mark.parametrize(
    ("scores", "asked"),
    [
        ({0.003: [20] * 3, 0.01: [21] * 3, 0.03: [22] * 3}, "convlstm is best at 0.003: further_rates: [0.001]"),
        ({0.003: [22] * 3, 0.01: [21] * 3, 0.03: [20] * 3}, "convlstm is best at 0.03: further_rates: [0.1]"),
    ],
)
def test_a_best_rate_at_the_edge_is_not_chosen_before_one_more_is_tried(tried, scores, asked):
    with pytest.raises(UserError, match="1 of 1 networks lies at the edge of rate_grid") as raised:
        chosen(*tried(scores))
    assert asked in str(raised.value)


def test_one_more_rate_settles_an_edge_whichever_is_best(tried):
    edge = {0.003: [20] * 3, 0.01: [21] * 3, 0.03: [22] * 3}
    inside = chosen(*tried(edge | {0.001: [25] * 3}, further=[0.001]))
    assert (inside.learning_rate, inside.at_edge) == (0.003, False)
    outside = chosen(*tried(edge | {0.001: [19] * 3}, further=[0.001]))
    assert (outside.learning_rate, outside.at_edge) == (0.001, True)


def test_fewest_diverged_seeds_go_before_the_least_mean_and_both_are_said(tried, tmp_path):
    protocol, runs = tried({0.003: [19, 19, None], 0.01: [22, 22, 40], 0.03: [18, None, None]})
    assert chosen(protocol, runs).learning_rate == 0.01
    said = write_choice(protocol, runs, tmp_path, tmp_path / "choice.yaml")
    assert "convlstm: 0.01 (" in said
    assert "0.003: 19.00 (1 of 3 diverged); 0.01: 28.00; 0.03: 18.00 (2 of 3 diverged); n = 3" in said.replace(
        " (1 of 3 not learnt)", ""
    )
    assert "0.01: 28.00 (1 of 3 not learnt)" in said


def test_where_most_seeds_fail_at_every_rate_the_best_is_still_chosen_and_marked(tried, tmp_path):
    protocol, runs = tried({0.003: [50, 51, 20], 0.01: [40, 40, 20], 0.03: [None] * 3})
    found = chosen(protocol, runs)
    assert (found.learning_rate, found.fails, found.at_edge) == (0.01, True, False)
    said = write_choice(protocol, runs, tmp_path, tmp_path / "choice.yaml")
    assert "convlstm: 0.01, MOST SEEDS FAIL AT EVERY RATE (" in said
    assert "0.03: no score (3 of 3 diverged)" in said


def test_a_rate_at_which_most_seeds_learn_goes_before_a_lower_mean_of_those_that_do_not(tried):
    found = chosen(*tried({0.003: [31, 32, 10], 0.01: [29, 29, 29], 0.03: [34, 34, 34]}))
    assert (found.learning_rate, found.fails) == (0.01, False)


def test_seeds_that_all_diverge_at_every_rate_leave_none(tried):
    found = chosen(*tried(dict.fromkeys(GRID, [None] * 3)))
    assert (found.learning_rate, found.fails) == (None, True)


def test_a_protocol_without_a_grid_has_nothing_to_choose(make_protocol):
    protocol = make_protocol()
    with pytest.raises(UserError, match="protocol tiny: has no rate_grid"):
        choose_rates(protocol, made_runs(protocol), math.inf)


def test_what_is_written_is_what_a_protocol_reads(tried, make_protocol, tmp_path):
    protocol, runs = tried({0.003: [22, 23, 24], 0.01: [20, 21, 25 + 1 / 3], 0.03: [None, 21, 29]})
    path = tmp_path / "choice.yaml"
    write_choice(protocol, runs, tmp_path, path)
    choice = read_choice(str(path))
    assert choice == choose_rates(protocol, runs, math.inf)
    assert as_yaml(choice) == path.read_text()
    assert make_protocol(variants=["convlstm"], rates=str(path)).first_run("convlstm").training.learning_rate == 0.01


def test_the_table_marks_the_rate_that_the_command_chooses_and_what_failed(tried):
    protocol, runs = tried({0.003: [19, 19, None], 0.01: [22, 22, 40], 0.03: [18, None, None]})
    table = table_of("learning_rates", protocol, runs)
    assert table.values.set_index("learning_rate")["best"].to_dict() == {0.003: False, 0.01: True, 0.03: False}
    assert table.values[["diverged", "not_learnt"]].to_numpy().tolist() == [[1, 0], [0, 1], [2, 0]]
    assert "(1 of 3 not learnt)" in table.cells["Rate 0.01 ↓"][0]


def test_the_command_chooses_from_records(make_protocol, write_protocol, write_finished, tmp_path, capsys):
    changes = {"variants": ["convlstm"], "rate_grid": GRID, "seeds": [101]}
    protocol, path = make_protocol(**changes), write_protocol(**changes)
    results_dir = write_finished(protocol)
    for run in protocol.runs():
        error = abs(run.training.learning_rate - 0.01)
        append_json_line(run.path(results_dir) / "metrics.jsonl", {"step": 8, "validation/mse": 20 + error})
    write_records(protocol, results_dir)
    output = tmp_path / "rates.yaml"
    words = ["choose-rates", "--protocol", str(path), "--results-dir", str(results_dir), "--output", str(output)]
    assert main(words) == 0
    assert "convlstm: 0.01 (validation MSE at 0.003: 20.01" in capsys.readouterr().out
    assert read_choice(str(output)).networks["convlstm"].tried[1].by_seed == (20.0,)


def test_rates_by_one_seed_that_lie_at_the_edge_are_refused_by_the_rule():
    """The first edition's: the ConvLSTM was best at the largest rate."""
    protocol = load_protocol("study-rates")
    runs = [of_run(read_record(record_of(run)), run, reused=True) for run in protocol.runs()]
    with pytest.raises(UserError, match=r"convlstm is best at 0.03: further_rates: \[0.1\]"):
        choose_rates(protocol, runs, math.inf)


@pytest.mark.parametrize("path", sorted(CHOICES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_committed_choice_is_what_its_published_records_say(path):
    protocol, choice = load_protocol(path.stem), read_choice(str(path))
    limit = math.inf if choice.learnt_below is None else choice.learnt_below
    runs = [of_run(read_record(record_of(run)), run, reused=True, limit=limit) for run in protocol.runs()]
    assert as_yaml(choose_rates(protocol, runs, limit)) == path.read_text()

"""Runs that have not learnt are counted, marked and kept in means of scores; reach stands beside the others alone."""

from dataclasses import replace

import numpy as np
import pytest

from benchmark.reporting.finished_runs import learnt_below, read_runs
from benchmark.reporting.reach_and_error import reach_and_error
from benchmark.system.files import append_json_line, write_json
from tests.helpers.made_runs import made_runs
from tests.helpers.recorded import table_of, write_records

VARIANTS = ["causal-lstm", "predrnnpp"]
SEEDS = [1, 2, 3, 4]
FAILED = ("predrnnpp", 4)


@pytest.fixture
def found(make_protocol, tmp_path):
    """A protocol with the rule, and its runs, of which one has not learnt and reaches a million times as far."""
    protocol = make_protocol(variants=VARIANTS, seeds=SEEDS, learnt={"margin": 0.5}, probe={"steps": [2]})
    write_json(tmp_path / "baselines.json", dict.fromkeys(protocol.baselines, 100.0))

    def reach(variant, seed, stage, measure):
        return 1e6 if (variant, seed) == FAILED and stage != "init" else 0.01 * seed

    runs = made_runs(protocol, reach=reach)
    return protocol, [replace(run, learnt=(run.variant, run.seed) != FAILED) for run in runs], tmp_path


def test_the_probe_table_counts_them_and_leaves_them_out_of_reach_once_training_has_begun(found):
    table = table_of("probe", *found)
    assert table.cells["Learnt"].tolist() == ["4 of 4", "3 of 4"]
    rows = table.values.set_index(["variant", "stage"])
    assert rows.loc["predrnnpp", "learnt"].tolist() == [4, 3, 3]
    for stage in ("step-2", "trained"):
        assert rows.loc[("predrnnpp", stage), "reach"] == pytest.approx(0.01 * 6 ** (1 / 3))
    assert rows.loc[("predrnnpp", "init"), "reach"] == pytest.approx(0.01 * 24 ** (1 / 4))
    notes = " ".join(table.notes)
    assert "below 50.0, more than 50 % below that of the best prediction without training" in notes
    assert "PredRNN++, seed 4: has not learnt (validation MSE 45.0)" in notes


def test_effects_on_reach_are_of_pairs_that_have_both_learnt(found):
    table = table_of("reach_effects", *found)
    rows = table.values.set_index(["variant", "stage", "measure", "quantity"])
    assert rows.loc[("predrnnpp", "trained", "residual", "reach"), ["n", "ratio"]].tolist() == [3, pytest.approx(1)]
    assert rows.loc[("predrnnpp", "init", "residual", "reach"), "n"] == 4
    assert "3 (1 left out, a run has not learnt)" in table.cells["Pairs"].tolist()


def test_reach_against_error_has_no_dot_of_them(found):
    points = reach_and_error(found[1])
    assert len(points) == 2 * 7
    assert points["reach"].max() < 1


def test_without_a_rule_no_table_speaks_of_it(make_protocol):
    protocol = make_protocol(variants=VARIANTS, seeds=SEEDS)
    for name in ("probe", "reach_effects"):
        table = table_of(name, protocol, made_runs(protocol))
        assert "Learnt" not in table.cells
        assert "learnt" not in " ".join(table.notes)


def test_the_rule_is_applied_to_the_last_validation_and_scores_keep_all_runs(make_protocol, write_finished):
    protocol = make_protocol(variants=VARIANTS, seeds=SEEDS, learnt={"margin": 0.25})
    results_dir = write_finished(protocol, diverged={("causal-lstm", 1)})
    folder = results_dir / protocol.name
    write_json(folder / "baselines.json", {"last-frame": 70.0, "context-mean": 40.0, "black": 44.0})
    assert learnt_below(protocol, folder) == 30
    for run in protocol.runs():
        before, last = (10, 31) if (run.variant, run.seed) == FAILED else (31, 29.9)
        for step, error in ((4, before), (8, last)):
            append_json_line(run.path(results_dir) / "metrics.jsonl", {"step": step, "validation/mse": error})
    write_records(protocol, results_dir)
    runs = read_runs(protocol, results_dir)
    failed = {(run.variant, run.seed) for run in runs if run.config and not run.learnt}
    assert failed == {FAILED, ("causal-lstm", 1)}
    main = table_of("main", protocol, runs, folder)
    assert main.cells["Learnt"].tolist()[:2] == ["3 of 4", "3 of 4"]
    assert main.values.set_index("variant")["learnt"].to_dict()["predrnnpp"] == 3
    everyone = np.mean([run.scores["mse"] for run in runs if run.variant == "predrnnpp"])
    assert main.values.set_index("variant")["mse_mean"]["predrnnpp"] == pytest.approx(everyone)
    comparison = table_of("comparison", protocol, runs, folder)
    assert comparison.cells["Pairs"][0] == "3 (1 lost to divergence, 1 with a run that has not learnt)"

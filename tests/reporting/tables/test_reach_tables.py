"""Tables of the probe by stage, of effects on reach and of learning rates: their numbers are those of scipy."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmark.reporting.reach_and_error import correlation
from benchmark.reporting.tables.reach_effects import DEFINITIONS, DIFFERENCES, RATIOS
from benchmark.reporting.tables.rendering import BOLD, MISSING
from tests.helpers.made_runs import MEASURES, made_runs
from tests.helpers.recorded import table_of

VARIANTS = ["causal-lstm", "predrnnpp", "convlstm"]
SEEDS = [1, 2, 3]
NOISE = {1: 0.9, 2: 1.3, 3: 1.1}


def reach(variant, seed, stage, measure):
    """Thrice as far with the highway, save for noise; twice of it once trained."""
    return 0.01 * seed * (3 * NOISE[seed] if variant == "predrnnpp" else 1) * (2 if stage == "trained" else 1)


def rates(*learning_rates, base="convlstm", label="ConvLSTM"):
    return [
        {"id": f"{base}-{n}", "base": base, "label": f"{label}, rate {rate}", "training": {"learning_rate": rate}}
        for n, rate in enumerate(learning_rates)
    ]


def test_effects_on_reach_are_exponentials_of_paired_t_intervals(make_protocol):
    protocol = make_protocol(variants=VARIANTS, seeds=SEEDS, probe={"steps": [2]})
    table = table_of("reach_effects", protocol, made_runs(protocol, reach=reach))
    found = table.values.set_index(["variant", "stage", "measure", "quantity"])
    logs = np.log([3 * NOISE[seed] for seed in SEEDS])
    low, high = np.exp(stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs)))
    for stage in ("init", "step-2", "trained"):
        for measure in ("residual", "fixed"):
            row = found.loc["predrnnpp", stage, measure, "reach"]
            assert [row["ratio"], row["low"], row["high"]] == pytest.approx([np.exp(logs.mean()), low, high])
            assert (row["n"], row["reference"], row["adds_highway"]) == (3, "causal-lstm", True)
    assert set(found.loc["predrnnpp", "step-2"]["step"]) == {2}
    assert set(found.loc["predrnnpp", "step-2"].index.get_level_values("measure")) == {"residual", "fixed"}
    assert set(found.loc["predrnnpp", "init"].index.get_level_values("measure")) == {*MEASURES}
    (cells,) = table.cells.to_dict("records")
    assert cells["X1 / XK ×, trained"] == f"{np.exp(logs.mean()):.3g} [{low:.3g}, {high:.3g}]"
    assert "Δ slope, untrained, memory" in cells
    assert not any("*" in cell for cell in cells.values())


def test_slopes_are_compared_by_differences_and_ratios_of_norms_by_ratios(make_protocol):
    protocol = make_protocol(variants=VARIANTS, seeds=SEEDS, data={"context": 10})
    runs = made_runs(protocol, reach=reach)
    logs = np.log([3 * NOISE[seed] for seed in SEEDS])
    low, high = stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs))
    table = table_of("reach_effects", protocol, runs)
    found = table.values.set_index(["variant", "stage", "measure", "quantity"]).loc["predrnnpp", "trained"]
    for measure in MEASURES:
        of_frames = found.loc[measure]
        slope = np.array([logs.mean(), low, high]) / 9 / np.log(2)  # norms fall by `reach` over nine frames
        assert of_frames.loc["inner_slope", ["difference", "low", "high"]].tolist() == pytest.approx(slope)
        second = np.exp(np.array([logs.mean(), low, high]) * 8 / 9)
        assert of_frames.loc["second_over_last", ["ratio", "low", "high"]].tolist() == pytest.approx(second)
        assert of_frames.loc["next_three_over_last", "ratio"] == pytest.approx(np.exp(logs.mean() * 6 / 9))
        assert of_frames.loc["first_three_over_last", "ratio"] == pytest.approx(np.exp(logs.mean() * 7 / 9))
        assert of_frames.loc["share_of_older_half", "difference"] > 0
        assert of_frames["difference"].notna().to_dict() == {name: name in DIFFERENCES for name in DEFINITIONS}
        assert of_frames["ratio"].notna().to_dict() == {name: name in RATIOS for name in DEFINITIONS}
    assert table.cells["Δ slope, trained"][0].startswith(f"+{slope[0]:.3f} [")


def test_the_definitions_of_reach_stand_side_by_side_after_training(make_protocol):
    protocol = make_protocol(variants=VARIANTS, seeds=SEEDS, data={"context": 10})
    table = table_of("reach_definitions", protocol, made_runs(protocol, reach=reach))
    assert set(table.values["stage"]) == {"trained"}
    assert set(table.values["measure"]) == {"residual"}
    assert table.values["quantity"].tolist() == [*DEFINITIONS]
    assert [*table.cells.columns[3:]] == [(DIFFERENCES | RATIOS)[name] for name in DEFINITIONS]


def test_two_variants_of_a_cell_are_compared_as_with_minus_without_highway(make_protocol):
    turned = [{"id": "causal-lstm", "reference": "predrnnpp"}, {"id": "predrnnpp", "reference": "causal-lstm"}]
    for entry in turned:
        other = {"causal-lstm": "predrnnpp", "predrnnpp": "causal-lstm"}[entry["id"]]
        protocol = make_protocol(variants=[entry, {"id": other, "base": other}], seeds=SEEDS)
        assert ("predrnnpp", "causal-lstm") in protocol.comparisons()
        assert ("causal-lstm", "predrnnpp") not in protocol.comparisons()
        table = table_of("reach_effects", protocol, made_runs(protocol, reach=reach))
        rows = table.values[(table.values["variant"] == "predrnnpp") & (table.values["quantity"] == "reach")]
        assert (rows["ratio"] > 1).all()
        assert rows["adds_highway"].all()


def test_a_definition_that_needs_more_frames_than_there_are_is_missing(make_protocol):
    protocol = make_protocol(variants=VARIANTS, seeds=SEEDS)  # three context frames
    (cells,) = table_of("reach_definitions", protocol, made_runs(protocol, reach=reach)).cells.to_dict("records")
    missing = {head for head, cell in cells.items() if cell == MISSING}
    assert missing == {"Δ slope", "X1..3 / last three ×", "X2..4 / last three ×"}


def test_effects_leave_out_diverged_pairs_and_count_them(make_protocol):
    protocol = make_protocol(variants=VARIANTS, seeds=SEEDS)
    table = table_of("reach_effects", protocol, made_runs(protocol, reach=reach, diverged={("causal-lstm", 3)}))
    assert set(table.values["n"]) == {2}
    assert table.values["low"].isna().all()
    assert table.cells["Pairs"][0] == "2 (1 lost to divergence)"


def test_without_references_there_is_no_effect_and_the_table_says_so(make_protocol):
    protocol = make_protocol(variants=["convlstm"], seeds=SEEDS)
    table = table_of("reach_effects", protocol, made_runs(protocol))
    assert len(table.values) == 0
    assert "variant" in table.values.columns
    assert "No variant" in table.cells.iloc[0, 0]


def test_an_untrained_protocol_has_untrained_columns_alone(make_protocol):
    protocol = make_protocol(variants=VARIANTS, training={"steps": 0, "sampling": {"kind": "none"}})
    for table in (
        table_of("probe", protocol, made_runs(protocol)),
        table_of("reach_effects", protocol, made_runs(protocol)),
    ):
        assert set(table.values["stage"]) == {"init"}
        assert not [head for head in table.cells.columns if ", trained" in head]
        assert [head for head in table.cells.columns if "untrained" in head]


def test_the_probe_table_has_a_row_a_variant_and_stage_with_every_measure(make_protocol):
    protocol = make_protocol(variants=VARIANTS, seeds=SEEDS, probe={"steps": [2, 4]})
    by = {"residual": 1.0, "fixed": 2.0, "memory": 3.0, "frames": 4.0}
    runs = made_runs(protocol, reach=lambda variant, seed, stage, measure: by[measure] * 0.01**seed)
    found = table_of("probe", protocol, runs).values.set_index(["variant", "stage"])
    assert list(found.loc["predrnnpp"].index) == ["init", "step-2", "step-4", "trained"]
    assert list(found.loc["predrnnpp", "step"]) == [0, 2, 4, 8]
    trained, between = found.loc["predrnnpp", "trained"], found.loc["predrnnpp", "step-2"]
    names = ("reach", "reach_fixed", "reach_memory", "reach_frames")
    assert [trained[name] for name in names] == pytest.approx([1e-4, 2e-4, 3e-4, 4e-4])
    assert [between[name] for name in names[:2]] == pytest.approx([1e-4, 2e-4])
    assert between[["reach_memory", "reach_frames"]].isna().all()
    low, high = stats.t.interval(0.95, 2, np.mean([0.66, 0.67, 0.68]), stats.sem([0.66, 0.67, 0.68]))
    assert trained[["openness", "openness_low", "openness_high"]].tolist() == pytest.approx([0.67, low, high])
    assert trained[["slope", "slope_fit_low"]].tolist() == pytest.approx([-(1 + 1 / 2 + 1 / 3) / 3] * 2)


def test_saturation_is_the_mean_over_gates_and_the_csv_has_every_gate(make_protocol):
    protocol = make_protocol(variants=VARIANTS, seeds=SEEDS)
    table = table_of("probe", protocol, made_runs(protocol))
    trained = table.values.set_index(["variant", "stage"]).xs("trained", level="stage")
    assert trained.loc["predrnnpp", ["saturated_f", "saturated_s"]].tolist() == pytest.approx([0.01, 0.05])
    assert trained["saturated"].tolist() == pytest.approx([0.01, (3 * 0.01 + 2 * 0.05) / 5, 0.01])
    assert math.isnan(trained.loc["convlstm", "saturated_s"])
    assert table.cells["Saturated, trained"].tolist() == ["0.010", "0.026", "0.010"]
    assert table.cells["Openness, trained"][0] == MISSING


def test_learning_rates_stand_in_a_row_a_network_with_the_best_in_bold(make_protocol):
    variants = [*rates(0.03, 0.003, 0.01), *rates(0.003, 0.01, base="predrnn", label="PredRNN"), "causal-lstm"]
    protocol = make_protocol(variants=variants, seeds=[1])
    table = table_of("learning_rates", protocol, made_runs(protocol))
    assert table.cells["Model"].tolist() == ["ConvLSTM", "PredRNN"]
    # made-up errors on validation clips grow with the place of the variant, and so does the seed's part of 1
    assert table.cells.iloc[0, 2:].tolist() == ["42.0", "43.0", f"{BOLD}41.0{BOLD}"]
    assert table.cells.iloc[1, 2:].tolist() == [f"{BOLD}44.0{BOLD}", "45.0", MISSING]
    assert list(table.cells.columns[2:]) == ["Rate 0.003 ↓", "Rate 0.01 ↓", "Rate 0.03 ↓"]
    assert table.values[table.values["best"]]["variant"].tolist() == ["convlstm-0", "predrnn-0"]
    assert "chosen on validation clips" in " ".join(table.notes)


def test_a_rate_at_which_a_seed_diverged_is_never_the_best_and_its_cell_says_so(make_protocol):
    protocol = make_protocol(variants=rates(0.003, 0.01, 0.03), seeds=[1, 2])
    runs = made_runs(protocol, diverged={("convlstm-0", 1), ("convlstm-2", 1), ("convlstm-2", 2)})
    (cells,) = table_of("learning_rates", protocol, runs).cells.to_dict("records")
    assert cells["Rate 0.003 ↓"] == "42.0 (1 of 2 diverged at step 4)"
    assert cells["Rate 0.01 ↓"] == f"{BOLD}42.5{BOLD}"
    assert cells["Rate 0.03 ↓"] == "diverged at step 4"


def test_reach_against_error_is_ranked_between_variants_and_within_them(make_protocol):
    protocol = make_protocol(variants=[*VARIANTS, "predrnn", "predrnn-ghu"], seeds=SEEDS)

    def by_place(variant, seed, stage, measure):
        """Further with each later variant, who errs more, and less far with each later seed, who errs more too."""
        return 10.0 ** [entry.id for entry in protocol.variants].index(variant) / seed

    table = table_of("reach_error", protocol, made_runs(protocol, reach=by_place))
    found = table.values.set_index(["scope", "measure"])
    assert found.loc[("between", "residual"), ["n", "spearman"]].to_list() == [5, 1]
    assert found.loc[("within", "fixed"), "n"] == 15
    assert found.loc[("within", "fixed"), "spearman"] < -0.9  # equal deviations of two variants differ by rounding
    assert (found["low"] <= found["spearman"]).all()
    assert (found["spearman"] <= found["high"]).all()


def test_correlation_is_spearmans_and_its_interval_holds_the_truth_as_often_as_it_says():
    draw, truth, hits = np.random.default_rng(5), 0.6, 0
    for _ in range(200):
        points = draw.multivariate_normal([0, 0], [[1, truth], [truth, 1]], size=40)
        found = correlation(pd.DataFrame(points, columns=["log_reach", "mse"]))
        assert found["spearman"] == pytest.approx(stats.spearmanr(*points.T).statistic)
        hits += found["low"] <= 6 / math.pi * math.asin(truth / 2) <= found["high"]
    assert 180 <= hits <= 200
    ties = pd.DataFrame({"log_reach": [1, 1, 2, 3, 3], "mse": [5, 4, 4, 1, 2]})
    assert correlation(ties)["spearman"] == pytest.approx(stats.spearmanr(ties["log_reach"], ties["mse"]).statistic)


def test_few_or_constant_points_have_no_correlation(make_protocol):
    protocol = make_protocol(variants=VARIANTS, seeds=[1])
    table = table_of("reach_error", protocol, made_runs(protocol))
    assert table.values["spearman"].isna().all()
    assert set(table.cells["Rank correlation"]) == {MISSING}
    constant = pd.DataFrame({"log_reach": np.zeros(6), "mse": np.arange(6.0)})
    assert math.isnan(correlation(constant)["spearman"])


def test_the_error_of_a_hidden_digit_is_compared_with_the_reference_gap_by_gap(make_protocol):
    protocol = make_protocol(variants=VARIANTS, seeds=SEEDS, data={"gaps": [2, 0, 1]})

    def box_mse(run):
        highway = run.config is not None and bool(run.config.model.highway_slot)
        return pd.Series({gap: 10.0 + gap * run.seed - highway * gap * NOISE[run.seed] for gap in (2, 0, 1)})

    runs = [replace(run, box_mse=box_mse(run)) if run.config else run for run in made_runs(protocol)]
    table = table_of("occlusion", protocol, [run for run in runs if run.config])
    found = table.values.set_index(["variant", "gap"])
    for gap in (0, 1, 2):
        row, noise = found.loc["predrnnpp", gap], np.array(list(NOISE.values()))
        assert row["reference"] == "causal-lstm"
        assert row["difference_mean"] == pytest.approx(-gap * noise.mean())
        assert row["difference_sd"] == pytest.approx(gap * noise.std(ddof=1))
        assert row["rise_mean"] == pytest.approx(gap * (2 - noise.mean()))
        assert row["rise_difference_mean"] == pytest.approx(-gap * noise.mean())  # nothing at the shortest gap
    limits = found.loc[("predrnnpp", 2), ["difference_low", "difference_high"]].to_list()
    assert limits == pytest.approx(stats.t.interval(0.95, 2, -2 * noise.mean(), stats.sem(2 * noise)))
    assert found.loc["convlstm", "difference_mean"].isna().all()
    cells = table.cells.set_index("Model")
    assert cells.loc["PredRNN++", "Δ at 2 ↓"].startswith("\N{MINUS SIGN}2.2 [")
    assert cells.loc["ConvLSTM", "Δ at 2 ↓"] == MISSING


def test_early_slope_is_correlated_by_ranks_with_the_final_score_of_all_runs(make_protocol):
    noise = dict(zip(range(1, 7), [0.3, 1.9, 0.7, 1.1, 2.5, 0.2], strict=True))

    def reach(variant, seed, stage, measure):
        return noise[seed] * {"init": 1, "step-2": seed**2, "trained": -seed + 8}[stage]

    protocol = make_protocol(variants=VARIANTS, seeds=list(noise), probe={"steps": [2]}, data={"context": 5})
    runs = made_runs(protocol, reach=reach, diverged={("convlstm", 3)})
    runs = [replace(run, learnt=run.seed != 2) for run in runs]  # counts all the same
    table = table_of("early_reach", protocol, runs)
    found = table.values.set_index(["stage", "scope"])
    kept = [run for run in runs if run.config and not run.diverged]
    for stage in ("init", "step-2", "trained"):
        points = pd.DataFrame(
            [(run.variant, math.log(reach(run.variant, run.seed, stage, "")), run.scores["mse"]) for run in kept]
        )
        # The norms fall by the reach in equal steps, so that the slope is minus its logarithm by a constant.
        own = points[[1, 2]] - points.groupby(0)[[1, 2]].transform("mean")
        row = found.loc[(stage, "within")]
        assert (row["n"], row["metric"]) == (17, "mse")
        assert abs(row["spearman"]) == pytest.approx(abs(stats.spearmanr(own[1], own[2]).statistic))
        assert math.isnan(found.loc[(stage, "between"), "spearman"])  # three points are too few
    first = table.cells.to_dict("records")[1]
    assert first["Slope measured"] == "after 2 steps"
    assert "below 0: runs whose gradient falls less steeply with age end better" in " ".join(table.notes)

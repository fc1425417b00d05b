"""Paired differences read back from their table: the same seeds, the named tests, and no star without a right to it."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmark.reporting.tables.rendering import MINUS, MISSING
from benchmark.system.parquet import write_parquet
from tests.helpers.recorded import write_tables

PRIMARY = {"pairs": {"predrnnpp": "predrnn", "predrnn": "convlstm"}}
SEEDS = list(range(1, 9))


@pytest.fixture
def write(make_protocol, write_finished):
    """Write the tables of the tiny protocol with the MSE of each run given as variant -> one value a seed.

    Returns its CSV and cells.
    """

    def made(mse, seeds=SEEDS, diverged=(), **changes):
        protocol = make_protocol(seeds=seeds, **({"primary": PRIMARY} | changes))
        results_dir = write_finished(protocol, diverged=diverged)
        for variant, values in mse.items():
            for seed, value in zip(seeds, values, strict=True):
                path = results_dir / "tiny" / "runs" / variant / f"seed={seed}" / "frames.parquet"
                frames = pd.read_parquet(path)
                noise = np.linspace(-0.1, 0.1, len(frames))
                write_parquet(path, frames.assign(mse=value + noise))
        write_tables(protocol, results_dir)
        folder = results_dir / "tiny" / "tables"
        table = pd.read_csv(folder / "comparison.csv")
        lines = [line for line in (folder / "comparison.md").read_text().splitlines() if line.startswith("|")]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        cells = pd.DataFrame(rows[2:], columns=rows[0]).set_index("Variant")
        return table.set_index(["variant", "metric"]), cells, (folder / "comparison.md").read_text()

    return made


def eight(base, effect, seed=0):
    return (base + effect + np.random.default_rng(seed).normal(0, 0.1, 8)).tolist()


def test_difference_interval_and_p_are_those_of_scipy(write):
    one, other = eight(10, -1, 1), eight(10, 0, 2)
    table, cells, _ = write({"predrnnpp": one, "predrnn": other})
    row = table.loc[("predrnnpp", "mse")]
    difference = np.subtract(one, other)
    expected = stats.ttest_rel(one, other).confidence_interval()
    assert row["difference"] == pytest.approx(difference.mean())
    assert row["sd"] == pytest.approx(difference.std(ddof=1))
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
    assert (row["n"], row["p"], row["floor"]) == (8, pytest.approx(2 / 2**8), 2 / 2**8)
    assert row["p_holm"] == pytest.approx(2 * 2 / 2**8)
    assert cells.loc["PredRNN++", "p, Holm"] == "0.0156*"
    assert cells.loc["PredRNN++", "Δ MSE (per frame) ↓"].startswith(f"{MINUS}1.0 [")


def test_only_the_named_pairs_under_the_named_metric_are_tested(write):
    table, cells, text = write({}, primary={"metric": "ssim", "pairs": {"predrnnpp": "predrnn"}})
    assert table.index[table["primary"]].tolist() == [("predrnnpp", "ssim")]
    assert table["p_holm"].notna().sum() == 1
    assert cells["Test"].to_dict() == {"PredRNN++": "primary", "PredRNN": "exploratory"}
    assert cells.loc["PredRNN", "p, Holm"] == MISSING
    assert "Primary, named in the protocol: SSIM of PredRNN++ against PredRNN." in text


def test_no_effect_gets_no_star(write):
    same = eight(10, 0)
    _, cells, _ = write({"predrnnpp": same, "predrnn": same, "convlstm": same})
    assert set(cells["p, Holm"]) == {"1.0000"}


@pytest.mark.parametrize("n", [1, 3, 5])
def test_few_pairs_are_too_few_to_test_however_large_the_effect(write, n):
    values = {"predrnnpp": [1.0] * n, "predrnn": [50.0] * n, "convlstm": [70.0] * n}
    table, cells, text = write(values, seeds=SEEDS[:n])
    assert set(cells["p, Holm"]) == {"n too small"}
    assert "*" not in "".join(line for line in text.splitlines() if line.startswith("|"))
    row = table.loc[("predrnnpp", "mse")]
    assert row["floor"] == 2 / 2**n
    assert math.isnan(row["low"]) == (n < 3)


def test_pair_of_a_diverged_run_is_lost_by_name(write):
    table, cells, text = write({}, diverged={("predrnn", 2)})
    assert table.loc[("predrnnpp", "mse"), "n"] == 7
    assert cells.loc["PredRNN++", "Pairs"] == "7 (1 lost to divergence)"
    assert "PredRNN, seed 2: diverged at step 4; in n, in no mean." in text


def test_reference_of_which_all_runs_diverged_leaves_no_difference(write):
    table, cells, _ = write({}, diverged={("convlstm", seed) for seed in SEEDS})
    assert table.loc[("predrnn", "mse")].drop(["reference", "primary", "n", "floor"]).isna().all()
    assert cells.loc["PredRNN", "Pairs"] == "0 (8 lost to divergence)"
    assert cells.loc["PredRNN", "p, Holm"] == "n too small"


def test_interval_over_clips_is_reported_as_given_these_seeds(write):
    table, _, text = write({}, seeds=[1])
    row = table.loc[("predrnn", "mse")]
    assert row["clips_low"] < row["difference"] < row["clips_high"]
    assert "given these seeds" in text
    assert "n = 1 seed: n too small; no interval, nothing is ranked." in text


def test_protocol_without_pairs_says_that_all_is_exploratory(write):
    _, cells, text = write({}, primary={})
    assert "The protocol names no primary pair: all is exploratory." in text
    assert set(cells["Test"]) == {"exploratory"}


def test_protocol_without_any_reference_says_so(write):
    table, cells, _ = write({}, variants=["convlstm"], primary={})
    assert table.empty
    assert cells.index.tolist() == ["No variant of this protocol has its reference here."]


def test_a_margin_is_tested_against_for_primary_pairs_alone_and_the_finding_says_what_follows(write):
    same, worse = eight(10, 0, 1), eight(10, 2, 2)
    primary = PRIMARY | {"margin": 0.5}
    table, cells, text = write({"predrnnpp": same, "predrnn": eight(10, 0, 3), "convlstm": worse}, primary=primary)
    assert table.loc[("predrnnpp", "mse"), "p_not_equivalent"] == pytest.approx(1 / 2**8)
    assert table.loc[("predrnnpp", "mse"), "p_not_equivalent_holm"] == pytest.approx(2 / 2**8)
    assert table.loc[("predrnn", "mse"), "p_not_equivalent"] == 1
    assert table["p_not_equivalent"].notna().sum() == 2
    assert set(table["margin"].dropna().index) == {("predrnnpp", "mse"), ("predrnn", "mse")}
    assert cells.loc["PredRNN++", "p (Δ beyond ±0.5), Holm"] == "0.0078*"
    assert cells["Finding"].to_dict() == {"PredRNN++": "equivalent", "PredRNN": "differs"}
    assert "two exact one-sided sign-flip tests" in text


@pytest.mark.parametrize(("margin", "found"), [(0.5, "equivalent"), (0.01, "not settled")])
def test_of_pairs_that_are_not_primary_the_interval_says_what_follows(write, margin, found):
    mse = {"predrnnpp": eight(10, 0, 1), "predrnn": eight(10, 0, 3), "convlstm": eight(10, 2, 2)}
    variants = ["convlstm", "predrnn", {"id": "predrnnpp", "reference": "predrnn"}]
    _, cells, _ = write(mse, primary={"margin": margin}, variants=variants)
    expected = {"PredRNN++": f"{found}, by its interval", "PredRNN": "differs, by its interval"}
    assert cells["Finding"].to_dict() == expected


def test_without_a_margin_nothing_is_said_of_equivalence(write):
    table, cells, text = write({})
    assert table["p_not_equivalent"].isna().all()
    assert "Finding" not in cells
    assert "equivalent" not in text


def test_interaction_is_one_effect_less_another_tested_with_the_pairs(write, tmp_path):
    primary = {"pairs": {"predrnn": "convlstm"}, "interactions": {"predrnnpp": "predrnn"}, "margin": 0.5}
    variants = ["convlstm", "predrnn", {"id": "predrnnpp", "reference": "convlstm"}]
    mse = {"predrnnpp": eight(10, -3, 1), "predrnn": eight(10, -1, 2), "convlstm": eight(10, 0, 3)}
    pairs, _, text = write(mse, primary=primary, variants=variants)
    (folder,) = tmp_path.rglob("tables")
    (row,) = pd.read_csv(folder / "interactions.csv").to_dict("records")
    names = [row[key] for key in ("variant", "reference", "other_variant", "other_reference")]
    assert names == ["predrnnpp", "convlstm", "predrnn", "convlstm"]
    expected = np.subtract(mse["predrnnpp"], mse["convlstm"]) - np.subtract(mse["predrnn"], mse["convlstm"])
    assert (row["n"], row["difference"]) == (8, pytest.approx(expected.mean()))
    low, high = stats.ttest_1samp(expected, 0).confidence_interval()
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    assert row["p"] == pytest.approx(2 / 2**8)
    assert row["p_holm"] == pytest.approx(2 * 2 / 2**8)  # the pair is of the same family
    assert pairs.loc[("predrnn", "mse"), "p_holm"] == pytest.approx(2 * 2 / 2**8)
    assert row["p_not_equivalent"] > 0.9
    shown = " ".join((folder / "interactions.md").read_text().split())
    assert f"| PredRNN++ {MINUS} ConvLSTM | PredRNN {MINUS} ConvLSTM | 8 |" in shown
    assert "differs" in shown
    assert "interactions, in a table" not in text


def test_protocol_without_interactions_has_no_such_table(write, tmp_path):
    write({})
    (folder,) = tmp_path.rglob("tables")
    assert not list(folder.glob("interactions.*"))

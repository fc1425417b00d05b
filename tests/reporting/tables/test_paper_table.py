"""Published numbers stand beside ours where clips, model and convention are the same, and else it says why not."""

import csv
import io
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmark.config.metrics import METRICS
from benchmark.config.protocol import load_protocol
from benchmark.reporting.finished_runs import FinishedRun, VariantRuns
from benchmark.reporting.tables import published as paper_table
from benchmark.reporting.tables.rendering import DIGIT_WIDE, MINUS, MISSING, POINT_WIDE, to_csv, to_markdown
from benchmark.system.files import write_json
from benchmark.system.parquet import write_parquet
from tests.helpers.recorded import read_runs, table_of, write_tables

PAPER, REPOSITORY, OPENSTL = "PredRNN++ paper (ICML 2018)", "PredRNN-V2 repository", "OpenSTL 200 epochs"
METRIC_NAMES = ("mse", "mae", "ssim", "psnr", "lpips")
SAME_CLIPS = {"digits": "mnist", "digit_size": 28, "frame_size": 64, "context": 10, "horizon": 10}
ALEX = {"lpips_backbone": "alex"}
SEEDS = (1, 2, 3)


@pytest.fixture
def write(make_protocol, write_finished):
    """Make the table of a protocol on the published clips, changed by `data` and `protocol`, from made-up scores.

    Returns the CSV, the Markdown's cells and its notes.
    """

    def made(seeds=(1,), data=None, protocol=None, **finished):
        values = {"seeds": list(seeds), "data": SAME_CLIPS | (data or {}), "evaluation": ALEX} | (protocol or {})
        loaded = make_protocol(**values)
        return parsed(loaded, write_finished(loaded, **finished))

    return made


def parsed(protocol, results_dir):
    folder = results_dir / "tiny"
    table = table_of("paper", protocol, read_runs(protocol, results_dir), folder)
    body, _, notes = to_markdown(table).partition("\n\n")[2].partition("\n\n")
    body = re.sub(f"[{DIGIT_WIDE}{POINT_WIDE}]", "", body)
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in body.splitlines()]
    return pd.read_csv(io.StringIO(to_csv(table))), pd.DataFrame(rows[2:], columns=rows[0]), notes


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Put one published row of PredRNN, with changes, in place of the file."""

    def replace(**changes):
        row = dict.fromkeys(file_rows()[0], "") | {"dataset": "moving-mnist-2", "setting": "10->10"}
        row |= {"model": "PredRNN", "source": "a paper", "confirmed": "confirmed", "clips_trained": "2M"} | changes
        path = tmp_path / "published.csv"
        pd.DataFrame([row]).to_csv(path, index=False)
        monkeypatch.setattr(paper_table, "PUBLISHED", path)

    return replace


def file_rows():
    with paper_table.PUBLISHED.open(newline="") as file:
        return list(csv.DictReader(file))


def means(tmp_path, variant, column, seeds=(1,)):
    folder = tmp_path / "results" / "tiny" / "runs" / variant
    return [pd.read_parquet(folder / f"seed={seed}" / "frames.parquet")[column].mean() for seed in seeds]


def find(table, model, source, metric):
    chosen = (table["model"] == model) & (table["source"] == source) & (table["metric"] == metric)
    return table[chosen & (table["dataset"] == "moving-mnist-2")].squeeze()


def test_every_value_of_the_file_is_known_to_the_table():
    rows = file_rows()
    assert len({tuple(row.values()) for row in rows}) == len(rows) == 26
    for row in rows:
        assert row["confirmed"] in paper_table.MARKS
        assert re.fullmatch(r"\d+->\d+", row["setting"])
        assert re.fullmatch(r"(\d+(\.\d+)?M)?", row["clips_trained"])
        assert math.isfinite(float(row["params_m"] or 0))
        given = [metric for metric in METRIC_NAMES if row[metric]]
        assert given
        for metric in given:
            assert math.isfinite(float(row[metric]))
            convention = row[f"{metric}_convention"]
            assert convention in ("", "unknown") or (metric, convention) in paper_table.COLUMN_OF
    assert set(paper_table.COLUMN_OF.values()) <= METRICS.keys()


def test_ours_is_under_the_convention_of_the_row(write, tmp_path):
    table, _, _ = write(seeds=SEEDS)
    for model, source, metric, variant, column in [
        ("ConvLSTM", PAPER, "mse", "convlstm", "mse"),
        ("PredRNN++", PAPER, "mae", "predrnnpp", "mae_unclipped"),
        ("PredRNN", PAPER, "ssim", "predrnn", "ssim"),
        ("PredRNN", REPOSITORY, "lpips", "predrnn", "lpips_alex_unit_input"),
        ("ConvLSTM-S", OPENSTL, "mse", "convlstm", "mse_unclipped"),
        ("PredRNN++", OPENSTL, "ssim", "predrnnpp", "ssim_range2"),
        ("PredRNN", OPENSTL, "psnr", "predrnn", "psnr_unit_range"),
    ]:
        row = find(table, model, source, metric)
        wanted = (model, source, "moving-mnist-2")
        (published,) = (
            float(one[metric]) for one in file_rows() if (one["model"], one["source"], one["dataset"]) == wanted
        )
        ours = means(tmp_path, variant, column, SEEDS)
        low, high = stats.t.interval(0.95, 2, np.mean(ours), stats.sem(ours))
        assert (row["variant"], row["column"], row["n"], row["data_matches"]) == (variant, column, 3, "yes")
        expected = [published, np.mean(ours), low, high, np.mean(ours) - published]
        np.testing.assert_allclose(list(row[["published", "ours", "low", "high", "difference"]]), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("metric", "convention", "column"),
    [("mae", "clipped", "mae"), ("psnr", "uint8", "psnr"), ("lpips", "alex [-1 1]", "lpips_alex")],
)
def test_a_convention_that_only_other_data_sets_have_is_followed_too(
    write, publish, tmp_path, metric, convention, column
):
    publish(**{metric: "2.50", f"{metric}_convention": convention})
    table, _, _ = write()
    assert table["difference"].item() == pytest.approx(np.mean(means(tmp_path, "predrnn", column)) - 2.5)


@pytest.mark.parametrize(("convention", "said"), [("unknown", "unknown"), ("", "not given")])
def test_unknown_convention_is_not_compared(write, publish, convention, said):
    publish(mse="50.0", mse_convention=convention, mae="90.0", mae_convention="clipped")
    table, cells, notes = write()
    assert table["difference"].notna().tolist() == [False, True]
    assert table["why_not_compared"][0] == f"MSE convention {said}"
    assert cells["Compared"][0] == f"yes; MSE convention {said}"
    assert cells[METRICS["mse"].head].tolist() == ["50.0 (a)", "", ""]
    assert f"(a) MSE, convention {said}: not compared.\n" in notes


def test_every_published_number_stands_once_in_the_order_of_the_file(write):
    table, cells, _ = write()
    wanted = [
        (row["dataset"], row["setting"], row["model"], row["source"], metric, float(row[metric]))
        for row in file_rows()
        for metric in ("mse", "mae", "psnr", "ssim", "lpips")
        if row[metric]
    ]
    keys = ["dataset", "setting", "model", "source", "metric", "published"]
    assert list(table[keys].itertuples(index=False, name=None)) == wanted
    assert [model for model in cells["Model"] if model] == [row["model"] for row in file_rows()]


@pytest.mark.parametrize("data", [{}, {"frame_size": 32, "digit_size": 14, "digits": "optdigits"}])
def test_each_number_in_a_published_line_is_in_its_row_of_the_file(write, data):
    _, cells, _ = write(data=data)
    lines = cells[cells["Model"] != ""]
    heads = [head for head in cells.columns if head not in ("Model", "From", "Clips", "Compared")]
    for line, row in zip(lines.to_dict("records"), file_rows(), strict=True):
        shown = [re.sub(r"†? \([a-z]\)$", "", line[head]) for head in heads if line[head] != MISSING]
        given = [row[key] for key in ("clips_trained", "params_m", "mse", "mae", "psnr", "ssim", "lpips") if row[key]]
        assert shown == given
        assert row["source"] in line["From"]


def test_ours_is_shown_with_the_published_digits(write):
    table, cells, _ = write(seeds=SEEDS)
    found, place = find(table, "PredRNN", OPENSTL, "mse"), cells[cells["From"] == OPENSTL].index[0]
    shown = cells[METRICS["mse"].head][place : place + 3].tolist()
    assert shown[0].startswith("23.97 (")
    assert shown[1] == f"{found['ours']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
    assert shown[2] == f"{found['difference']:+.2f}‡".replace("-", MINUS)
    assert cells["From"][place + 1 : place + 3].tolist() == ["ours, n = 3", f"ours {MINUS} published"]
    assert cells["Parameters (10⁶)"][place : place + 3].tolist() == ["23.8", "0.001", ""]


def test_two_seeds_give_a_difference_and_no_interval(write):
    table, cells, notes = write(seeds=[1, 2])
    assert table["difference"].notna().any()
    assert table[["low", "high"]].isna().all(axis=None)
    assert "n = 2 seeds: n too small" in notes
    assert not cells[METRICS["mse"].head].str.contains("[", regex=False).any()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"digits": "mnist-t10k"}, r"2 digits \(mnist-t10k\) of 28 pixels on 64x64, 10 -> 10 frames$"),
        ({"digits": "optdigits", "digit_size": 14, "frame_size": 32}, r"\(optdigits\) of 14 pixels on 32x32"),
        ({"digit_size": 20}, r"of 20 pixels on 64x64"),
        ({"num_digits": 3}, r"3 digits \(mnist\) of 28"),
        ({"context": 9}, r"9 -> 10 frames"),
        ({"horizon": 20}, r"10 -> 20 frames"),
    ],
)
def test_other_clips_give_no_difference_and_say_what_is_other(write, data, said):
    table, cells, notes = write(data=data)
    assert table[["ours", "low", "high", "difference"]].isna().all(axis=None)
    assert (table["data_matches"] == "no").all()
    mnist = table[table["dataset"] == "moving-mnist-2"]
    wanted = "other clips: moving-mnist-2 is 2 digits (mnist) of 28 pixels on 64x64, 10 -> 10 frames; here "
    reasons = mnist[mnist["model"] == "PredRNN"]["why_not_compared"]
    assert all(why.startswith(wanted) and re.search(said, why) for why in reasons)
    assert reasons.iloc[0] in notes
    assert cells["Compared"].str.startswith("no: ").all()
    assert "0 of 79 published numbers are compared" in notes


@pytest.mark.parametrize(
    ("row", "data"),
    [
        ({"dataset": "moving-mnist-3"}, {"num_digits": 3}),
        ({"setting": "10->30"}, {"horizon": 30}),
        ({"dataset": "moving-mnist-3", "setting": "10->30"}, {"num_digits": 3, "horizon": 30}),
    ],
)
def test_rows_of_three_digits_and_of_longer_clips_are_compared_with_a_protocol_on_such_clips(
    write, publish, tmp_path, row, data
):
    publish(**row, mse="50.0", mse_convention="clipped")
    table, cells, notes = write(data=data)
    (ours,) = means(tmp_path, "predrnn", "mse")
    assert table["difference"].tolist() == [pytest.approx(ours - 50)]
    assert table["data_matches"].tolist() == ["yes"]
    assert cells["Compared"][0] == "yes"
    assert "rolled out" not in notes


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"dataset": "moving-mnist-3"}, "moving-mnist-3 is 3 digits (mnist) of 28 pixels on 64x64, 10 -> 10 frames"),
        ({"setting": "10->30"}, "moving-mnist-2 is 2 digits (mnist) of 28 pixels on 64x64, 10 -> 30 frames"),
    ],
)
def test_rows_of_three_digits_and_of_longer_clips_say_why_other_protocols_are_not_compared(write, publish, row, said):
    publish(**row, mse="50.0", mse_convention="clipped")
    table, _, notes = write()
    here = "here 2 digits (mnist) of 28 pixels on 64x64, 10 -> 10 frames"
    assert table["why_not_compared"].tolist() == [f"other clips: {said}; {here}"]
    assert f"other clips: {said}; {here}." in notes


def test_row_of_longer_clips_is_compared_with_a_roll_out_beyond_the_horizon(write, publish, tmp_path):
    publish(setting="10->30", mse="50.0", mse_convention="clipped", mae="90.0", mae_convention="unclipped")
    table, cells, notes = write(seeds=SEEDS, protocol={"evaluation": ALEX | {"beyond": 30}}, diverged={("predrnn", 2)})
    folder = tmp_path / "results" / "tiny" / "runs" / "predrnn"
    ours = [pd.read_parquet(folder / f"seed={seed}" / "beyond.parquet")["mse"].mean() for seed in (1, 3)]
    assert table["ours"].tolist() == [pytest.approx(np.mean(ours)), pytest.approx(math.nan, nan_ok=True)]
    assert np.mean(ours) != pytest.approx(np.mean(means(tmp_path, "predrnn", "mse", (1, 3))))
    assert table["why_not_compared"][1] == "our runs were scored without mae_unclipped"
    assert cells["Compared"][0] == "yes; our runs were scored without mae_unclipped"
    assert (
        "10->30: ours are the networks trained to predict 10 frames, rolled out to 30 on the same test clips" in notes
    )


def test_row_of_the_horizon_is_compared_as_ever_where_there_is_a_longer_roll_out(write, publish, tmp_path):
    publish(mse="50.0", mse_convention="clipped")
    table, _, notes = write(protocol={"evaluation": ALEX | {"beyond": 30}})
    assert table["ours"].tolist() == [pytest.approx(*means(tmp_path, "predrnn", "mse"))]
    assert "rolled out" not in notes


def test_clips_with_a_bar_are_other_clips(publish, make_protocol):
    publish(mse="50.0", mse_convention="clipped")
    (row,) = paper_table.published_rows()
    plain, barred = (make_protocol(data=SAME_CLIPS | {"gaps": gaps}) for gaps in ([], [0, 2]))
    assert paper_table.data_reasons(row, plain) == []
    assert paper_table.data_reasons(row, barred)[0].full.endswith("10 -> 10 frames, a bar hides one in training")


def test_what_is_not_in_this_benchmark_says_so(write):
    table, _, notes = write()
    kth, others = table[table["dataset"] == "kth"], table[table["model"].isin(["MIM", "PredRNN-V2"])]
    assert kth["why_not_compared"].str.startswith("other clips: kth is kth on 128x128, 10 -> ").all()
    assert (others["why_not_compared"] == "model not in this benchmark").all()
    assert others["variant"].isna().all()
    assert others["budget_matches"].unique().tolist() == ["no runs of ours"]
    assert table["why_not_compared"].isna().equals(table["difference"].notna())
    assert "other clips: kth is kth on 128x128, 10 -> 20 frames; here 2 digits (mnist) of 28 pixels on 64x64" in notes


KTH = {"videos": "kth", "frame_size": 128, "square": "stretch", "horizon": 20, "validation_clips": 3, "test_clips": 5}


def test_clips_of_kth_are_compared_with_those_of_kth(publish, write_protocol, protocol_values, write_finished):
    publish(dataset="kth", setting="10->20", psnr="27.5", psnr_convention="uint8")
    protocol = load_protocol(str(write_protocol(protocol_values | {"data": KTH, "seeds": [1]})))
    table, _, notes = parsed(protocol, write_finished(protocol))
    (row,) = table.to_dict("records")
    assert (row["data_matches"], row["n"]) == ("yes", 1)
    assert row["difference"] == pytest.approx(row["ours"] - 27.5)
    assert "Same kind: kth on 128x128, 10 -> 20 frames." in notes
    others = KTH | {"videos": "mine"}
    protocol = load_protocol(str(write_protocol(protocol_values | {"data": others, "seeds": [1]})))
    (reason,) = paper_table.data_reasons(paper_table.published_rows()[0], protocol)
    assert reason.full.endswith("kth is kth on 128x128, 10 -> 20 frames; here mine on 128x128, 10 -> 20 frames")


def test_published_horizon_past_ours_is_held_against_the_longer_roll_out(publish, write_protocol, protocol_values):
    publish(dataset="kth", setting="10->40", psnr="24.0", psnr_convention="uint8")
    values = protocol_values | {"data": KTH, "seeds": [1]}
    values["evaluation"] = values["evaluation"] | {"beyond": 40}
    protocol = load_protocol(str(write_protocol(values)))
    (row,) = paper_table.published_rows()
    assert paper_table.data_reasons(row, protocol) == []
    frames = pd.DataFrame({"psnr": np.arange(40.0)}, index=range(1, 41))
    run = FinishedRun("predrnn", "PredRNN", 1, None, pd.Series({"psnr": 5.0}), frames[:20], frames[:5], 0, 0)
    longer = VariantRuns("predrnn", "PredRNN", [replace(run, beyond=frames)])
    assert paper_table.scores_of(longer, "psnr", 40, protocol) == {1: 19.5}
    assert paper_table.scores_of(longer, "psnr", 20, protocol) == {1: 5.0}
    assert paper_table.scores_of(longer, "lpips_alex", 40, protocol) == {}


def test_variant_that_the_protocol_lacks_or_that_diverged_is_not_compared(write):
    gone = {("predrnn", seed) for seed in SEEDS}
    table, _, notes = write(
        seeds=SEEDS, protocol={"variants": ["convlstm", "predrnn"]}, diverged=gone | {("convlstm", 2)}
    )
    mnist = table[table["dataset"] == "moving-mnist-2"]
    why = {model: mnist[mnist["model"] == model]["why_not_compared"].unique().tolist() for model in mnist["model"]}
    assert why["PredRNN"] == ["ours diverged at step 4"]
    assert why["PredRNN++"] == ["predrnnpp not in protocol tiny"]
    assert np.isnan(why["ConvLSTM"]).all()
    assert "ConvLSTM, seed 2: diverged at step 4; in n, in no mean." in notes


def test_diverged_run_is_counted_and_in_no_mean(write, tmp_path):
    table, _, _ = write(seeds=SEEDS, diverged={("convlstm", 2)})
    row = find(table, "ConvLSTM", PAPER, "mse")
    assert row["ours"] == pytest.approx(np.mean(means(tmp_path, "convlstm", "mse", (1, 3))), rel=1e-12)
    assert row["n"] == 3
    assert math.isnan(row["low"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"protocol": {"evaluation": {"lpips_backbone": "squeeze"}}}, "our LPIPS is of squeeze, not alex"),
        ({"lpips": False}, "LPIPS was not measured: no backbone (alex); put it there"),
    ],
)
def test_lpips_of_another_backbone_or_of_none_is_not_compared(write, changes, said):
    table, _, _ = write(**changes)
    row = find(table, "PredRNN", REPOSITORY, "lpips")
    assert math.isnan(row["difference"])
    assert row["why_not_compared"] == said
    assert math.isfinite(find(table, "PredRNN", PAPER, "mse")["difference"])


def test_score_that_is_missing_or_not_finite_is_not_compared(write, tmp_path, make_protocol):
    write()
    frames = tmp_path / "results" / "tiny" / "runs" / "predrnn" / "seed=1" / "frames.parquet"
    scores = pd.read_parquet(frames).drop(columns="mse_unclipped")
    scores.loc[0, "ssim"] = math.nan
    write_parquet(frames, scores)
    protocol = make_protocol(seeds=[1], data=SAME_CLIPS, evaluation=ALEX)
    table, _, _ = parsed(protocol, tmp_path / "results")
    why = [find(table, "PredRNN", *where)["why_not_compared"] for where in ((PAPER, "ssim"), (OPENSTL, "mse"))]
    assert why == ["our ssim is not finite", "our runs were scored without mse_unclipped"]


@pytest.mark.parametrize(
    ("training", "seen", "same"),
    [
        ({"steps": 160_000, "batch_size": 8}, 1_280_000, {PAPER}),
        ({"steps": 80_000, "batch_size": 8, "reversed_second_step": True}, 1_280_000, {PAPER}),
        ({"steps": 125_000, "batch_size": 16}, 2_000_000, {OPENSTL}),
        ({"steps": 100, "batch_size": 16}, 1_600, set()),
    ],
)
def test_budget_is_held_against_theirs_and_another_one_marks_the_difference(write, training, seen, same):
    table, cells, _ = write(protocol={"training": training})
    for source, theirs in {PAPER: 1_280_000, OPENSTL: 2_000_000}.items():
        row = find(table, "PredRNN", source, "mse")
        assert (row["clips_published"], row["clips_seen"]) == (theirs, seen)
        assert row["budget_matches"] == ("yes" if source in same else "no")
        assert row["budget_ratio"] == pytest.approx(seen / theirs)
        place = cells[(cells["Model"] == "PredRNN") & cells["From"].str.startswith(source)].index[0]
        assert cells["Clips trained on"][place + 2] == ("same" if source in same else f"{seen / theirs:.2g} of theirs")
        assert ("‡" in cells[METRICS["mse"].head][place + 2]) == (source not in same)


def test_budget_that_is_not_given_marks_the_difference(write, publish):
    publish(mse="50.0", mse_convention="clipped", clips_trained="")
    table, cells, _ = write()
    assert table["budget_matches"].tolist() == ["not given"]
    assert cells["Clips trained on"].tolist() == [MISSING, "16", ""]
    assert cells[METRICS["mse"].head][2].endswith("‡")


def test_second_hand_numbers_and_only_they_carry_the_mark(write):
    _, cells, notes = write()
    lines = cells[cells["Model"] != ""]
    for line, row in zip(lines.to_dict("records"), file_rows(), strict=True):
        numbers = [cell for cell in line.values() if re.search(r"\([a-z]\)$", cell)]
        assert numbers
        assert {"†" in number for number in numbers} == {row["confirmed"] == "second-hand"}
    assert "† = second-hand, read where others quote the source" in notes


def test_notes_of_the_file_stand_below_and_their_rows_point_to_them(write):
    _, cells, notes = write()
    lines = cells[cells["Model"] != ""]
    for line, row in zip(lines.to_dict("records"), file_rows(), strict=True):
        place = re.search(r" \[(\d+)\]$", line["From"])
        assert bool(place) == bool(row["note"])
        assert place is None or f"* [{place[1]}] {row['note']}.\n" in notes
    faulty = lines[lines["Model"].eq("ConvLSTM-S") & lines["Clips"].str.startswith("moving")].iloc[0]
    assert faulty["Compared"] == "yes"


def test_letters_lead_to_the_convention_and_to_what_ours_is(write):
    _, cells, notes = write()
    place = cells[cells["From"] == OPENSTL].index[0]
    (sign,) = re.findall(r"\([a-z]\)", cells[METRICS["ssim"].head][place])
    assert f"* {sign} SSIM, float range2: {METRICS['ssim_range2'].definition}.\n" in notes


@pytest.mark.parametrize(("public", "said"), [(True, "public mnist_test_seq.npy"), (False, "generated")])
def test_written_table_says_which_test_clips_are_ours(make_protocol, write_finished, public, said):
    protocol = make_protocol(seeds=[1], data=SAME_CLIPS | {"public_test": public, "horizon": 2}, variants=["predrnn"])
    results_dir = write_finished(protocol)
    if public:
        write_json(results_dir / "tiny" / "data" / "data.json", {"test_set": said})
    write_tables(protocol, results_dir)
    assert pd.read_csv(results_dir / "tiny" / "tables" / "paper.csv")["test_set"].unique().tolist() == [said]


def test_table_stays_short_where_a_reason_goes_for_all_numbers_of_a_row(write):
    table, cells, _ = write()
    chosen = (table["source"] == "Conv-TT-LSTM repository") & (table["dataset"] == "moving-mnist-2")
    assert table[chosen]["why_not_compared"].tolist() == [
        "model not in this benchmark; MSE convention unknown",
        "model not in this benchmark; SSIM convention not given",
    ]
    line = cells[cells["From"].str.startswith("Conv-TT-LSTM repository")].iloc[0]
    assert line["Compared"] == "no: model not in this benchmark"

"""What is published is what was measured, small, and a fresh result is held against it number by number."""

import json
import math

import pandas as pd
import pytest
from PIL import Image

from benchmark.__main__ import main
from benchmark.errors import UserError
from benchmark.files import read_json
from benchmark.outputs import FIGURES, TABLE_FORMATS, TABLES
from benchmark.parquet import write_parquet
from benchmark.publish import compare, difference, publish
from benchmark.tables import write_tables


@pytest.fixture
def reference(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmark.publish.REFERENCE", tmp_path / "reference")
    return tmp_path / "reference"


@pytest.fixture
def finished(make_protocol, write_finished):
    """Make a protocol with results, tables and figures; returns both."""

    def make(seeds=(1, 2), folder="results", **data):
        protocol = make_protocol(seeds=list(seeds), data=data)
        results_dir = write_finished(protocol, diverged={("convlstm", 2)}, folder=folder)
        write_tables(protocol, results_dir)
        (results_dir / "tiny" / "figures").mkdir()
        for name in FIGURES:
            Image.new("L", (4, 4)).save(results_dir / "tiny" / "figures" / f"{name}.png")
        return protocol, results_dir

    return make


def test_published_folder_holds_tables_figures_records_and_a_page(finished, reference):
    protocol, results_dir = finished()
    files = len(TABLES) * len(TABLE_FORMATS) + len(FIGURES)
    assert publish(protocol, results_dir) == f"published {files} files and 6 records of protocol tiny"
    folder = reference / "tiny"
    for name in TABLES:
        for ending in ("csv", "md", "tex"):
            path = f"tables/{name}.{ending}"
            assert (folder / path).read_bytes() == (results_dir / "tiny" / path).read_bytes()
    page = (folder / "README.md").read_text()
    assert page.startswith("# tiny\n\nTiny networks for the tests.\n")
    assert "Commit 0123456789ab; a CPU (cpu); torch 2.15.0." in page
    linked = [line.partition("](")[2].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert linked == [f"figures/{name}.png" for name in FIGURES]
    assert all((folder / path).is_file() for path in linked)
    assert all((folder / "tables" / f"{name}.md").read_text() in page for name in TABLES)


def test_record_holds_what_its_run_scored(finished, reference):
    protocol, results_dir = finished()
    publish(protocol, results_dir)
    record = read_json(reference / "tiny" / "records" / "predrnnpp.seed=2.json")
    folder = results_dir / "tiny" / "runs" / "predrnnpp" / "seed=2"
    frames = pd.read_parquet(folder / "frames.parquet")
    assert record["mean"]["mse"] == pytest.approx(frames["mse"].mean(), rel=1e-7)
    assert record["per_frame"]["ssim"] == pytest.approx(list(frames.groupby("frame")["ssim"].mean()), rel=1e-7)
    assert record["per_clip"]["mse"] == pytest.approx(list(frames.groupby("clip")["mse"].mean()), rel=1e-7)
    assert record["probe"] == read_json(folder / "probe.json")
    assert record["config"] == json.loads(json.dumps(protocol.run("predrnnpp", 2).to_dict()))
    assert record["provenance"]["git_commit"] == "0123456789abcdef"
    diverged = read_json(reference / "tiny" / "records" / "convlstm.seed=2.json")
    assert diverged["status"]["state"] == "diverged"


def test_record_of_a_protocol_of_the_size_of_quick_is_below_100_kb(finished, reference):
    publish(*finished(seeds=[1], test_clips=200, horizon=10))
    sizes = [path.stat().st_size for path in (reference / "tiny" / "records").iterdir()]
    assert max(sizes) < 100_000


def test_infinite_and_missing_values_are_null_in_a_record(finished, reference):
    protocol, results_dir = finished()
    path = results_dir / "tiny" / "runs" / "predrnn" / "seed=1" / "frames.parquet"
    frames = pd.read_parquet(path)
    frames["psnr"] = math.inf
    write_parquet(path, frames)
    publish(protocol, results_dir)
    text = (reference / "tiny" / "records" / "predrnn.seed=1.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["mean"]["psnr"] is None


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("tables/main.csv", r"tables/main.csv: is missing; run the workflow first"),
        ("figures/film.png", r"figures/film.png: is missing; run the workflow first"),
        ("runs/predrnn/seed=1/frames.parquet", r"predrnn/seed=1: not finished \(frames.parquet is missing\)"),
    ],
)
def test_unfinished_protocol_is_not_published(finished, reference, file, told):
    protocol, results_dir = finished()
    (results_dir / "tiny" / file).unlink()
    with pytest.raises(UserError, match=told):
        publish(protocol, results_dir)
    assert not reference.exists()


def test_same_results_compare_as_equal_whatever_their_times(finished, reference):
    protocol, results_dir = finished()
    publish(protocol, results_dir)
    path = results_dir / "tiny" / "tables" / "compute.csv"
    table = pd.read_csv(path)
    table.assign(train_s=table["train_s"] * 2, clips_per_s=1.0, peak_memory_mib=5.0).to_csv(path, index=False)
    assert compare(protocol, results_dir) == ("\n".join(f"{name}: equal" for name in TABLES), True)


def test_one_other_number_is_found_and_named(finished, reference, write_protocol, capsys):
    protocol, results_dir = finished()
    publish(protocol, results_dir)
    path = results_dir / "tiny" / "tables" / "main.csv"
    table = pd.read_csv(path)
    old = table.loc[1, "ssim_mean"]
    table.loc[1, "ssim_mean"] *= 1.5
    table.to_csv(path, index=False)
    report, equal = compare(protocol, results_dir)
    assert not equal
    assert f"main: differ by up to 0.5 (predrnn, ssim_mean: {old:.6g} published, {1.5 * old:.6g} fresh)" in report
    assert "per_frame: equal" in report
    file = str(write_protocol(seeds=[1, 2]))
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--protocol", file, "--results-dir", str(results_dir)])
    assert ended.value.code == 1
    assert "differ by up to 0.5" in capsys.readouterr().out


def test_nothing_published_is_an_error_that_says_what_to_do(finished, reference):
    with pytest.raises(UserError, match=r"tables/main.csv: nothing to compare; the verb `publish` makes it"):
        compare(*finished())


TABLE = pd.DataFrame({"variant": ["a", "b"], "label": ["A", "B"], "mse": [1.0, 2.0], "time": [1.0, 1.0]})


@pytest.mark.parametrize(
    ("fresh", "told"),
    [
        (TABLE, None),
        (TABLE.assign(time=5.0), None),
        (TABLE.assign(mse=[1.0, 2.5]), "differ by up to 0.25 (b, mse: 2 published, 2.5 fresh)"),
        (TABLE.assign(mse=[1.0, math.nan]), "differ in words or in missing values"),
        (TABLE.assign(label=["A", "C"]), "differ in words or in missing values"),
        (TABLE.rename(columns={"mse": "mae"}), "columns differ: mae, mse"),
        (TABLE[:1], "rows differ"),
        (TABLE[::-1].reset_index(drop=True), "rows differ"),
    ],
)
def test_difference_of_two_tables_is_put_in_words(fresh, told):
    assert difference(TABLE, fresh, ("time",)) == told

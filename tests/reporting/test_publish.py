"""What is published is what was measured, small, and a fresh result is held against it number by number."""

import json
import math
import shutil

import pandas as pd
import pytest
from PIL import Image

from benchmark.__main__ import main
from benchmark.reporting.outputs import TABLE_FORMATS, figures_of, tables_of
from benchmark.reporting.publish import compare, difference, publish
from benchmark.reporting.tables import write_tables as tables
from benchmark.system.errors import UserError
from benchmark.system.files import read_json, write_json
from benchmark.system.parquet import write_parquet
from tests.helpers.recorded import write_records, write_tables


@pytest.fixture
def reference(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmark.reporting.published_records.FOLDER", tmp_path / "reference")
    return tmp_path / "reference"


@pytest.fixture
def finished(make_protocol, write_finished):
    """Make a protocol with results, tables and figures; returns both."""

    def make(seeds=(1, 2), folder="results", **data):
        protocol = make_protocol(seeds=list(seeds), data=data)
        results_dir = write_finished(protocol, diverged={("convlstm", 2)}, folder=folder)
        write_tables(protocol, results_dir)
        (results_dir / "tiny" / "figures").mkdir()
        for name in figures_of(protocol):
            Image.new("L", (4, 4)).save(results_dir / "tiny" / "figures" / f"{name}.png")
        return protocol, results_dir

    return make


def test_published_folder_holds_tables_figures_records_and_a_page(finished, reference):
    protocol, results_dir = finished()
    files = len(tables_of(protocol)) * len(TABLE_FORMATS) + len(figures_of(protocol))
    assert publish(protocol, results_dir) == f"published {files} files and 6 records of protocol tiny"
    folder = reference / "tiny"
    for name in tables_of(protocol):
        for ending in ("csv", "md", "tex"):
            path = f"tables/{name}.{ending}"
            assert (folder / path).read_bytes() == (results_dir / "tiny" / path).read_bytes()
    page = (folder / "README.md").read_text()
    assert page.startswith("# tiny\n\nTiny networks for the tests.\n")
    assert "Commit 0123456789ab; a CPU (cpu); torch 2.15.0." in page
    linked = [line.partition("](")[2].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert linked == [f"figures/{name}.png" for name in figures_of(protocol)]
    assert all((folder / path).is_file() for path in linked)
    assert all((folder / "tables" / f"{name}.md").read_text() in page for name in tables_of(protocol))


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


def test_infinite_values_are_words_and_missing_ones_null_in_a_record(finished, reference):
    protocol, results_dir = finished()
    path = results_dir / "tiny" / "runs" / "predrnn" / "seed=1" / "frames.parquet"
    frames = pd.read_parquet(path)
    frames["psnr"] = math.inf
    frames.loc[0, "ssim"] = math.nan
    write_parquet(path, frames)
    write_records(protocol, results_dir)
    publish(protocol, results_dir)
    text = (reference / "tiny" / "records" / "predrnn.seed=1.json").read_text()
    mean = json.loads(text, parse_constant=pytest.fail)["mean"]
    assert (mean["psnr"], mean["ssim"]) == ("inf", None)


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("tables/main.csv", r"tables/main.csv: is missing; run the workflow first"),
        ("figures/film.png", r"figures/film.png: is missing; run the workflow first"),
        ("runs/predrnn/seed=1/record.json", r"predrnn/seed=1: not finished \(record.json is missing\)"),
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
    assert compare(protocol, results_dir) == ("\n".join(f"{name}: equal" for name in tables_of(protocol)), True)


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
    assert main(["compare", "--protocol", file, "--results-dir", str(results_dir)]) == 1
    assert "differ by up to 0.5" in capsys.readouterr().out


def test_nothing_published_is_an_error_that_says_what_to_do(finished, reference):
    with pytest.raises(UserError, match=r"tables/main.csv: nothing to compare; the command `publish` makes it"):
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


def test_records_of_finished_runs_are_published_before_all_are(finished, reference, write_protocol, capsys):
    results_dir = finished()[1]
    (results_dir / "tiny" / "runs" / "predrnn" / "seed=1" / "record.json").unlink()
    arguments = ["publish", "--protocol", str(write_protocol(seeds=[1, 2])), "--results-dir", str(results_dir)]
    assert main([*arguments, "--records-only"]) == 0
    assert "published 5 records of protocol tiny" in capsys.readouterr().out
    assert len(list((reference / "tiny" / "records").iterdir())) == 5


def test_runs_are_taken_from_published_records_of_their_config_and_the_tables_say_so(
    finished, reference, make_protocol
):
    protocol, results_dir = finished(seeds=[1, 2, 3])
    publish(protocol, results_dir)
    fresh = (results_dir / "tiny" / "tables" / "main.csv").read_text()
    path = reference / "tiny" / "records" / "predrnn.seed=1.json"
    write_json(path, read_json(path) | {"code": {"train": "other", "evaluate": "other", "probe": "other"}})
    shutil.rmtree(results_dir / "tiny" / "runs" / "predrnn")
    with pytest.raises(UserError, match=r"predrnn/seed=1: not finished \(record.json is missing\)"):
        tables.write_tables(protocol, results_dir)
    tables.write_tables(protocol, results_dir, reuse=True)
    assert (results_dir / "tiny" / "tables" / "main.csv").read_text() == fresh
    notes = (results_dir / "tiny" / "tables" / "main.md").read_text()
    assert "9 of 9 runs come from records published before (commit 0123456789ab), 1 of them made by code" in notes

    changed = make_protocol(seeds=[1, 2, 3], training={"learning_rate": 0.02})
    with pytest.raises(UserError, match="predrnn/seed=1: not finished"):
        tables.write_tables(changed, results_dir, reuse=True)


def test_records_of_other_clips_another_backbone_or_other_metrics_are_refused(finished, reference):
    protocol, results_dir = finished()
    path = results_dir / "tiny" / "runs" / "predrnn" / "seed=2" / "record.json"
    recorded = read_json(path)
    write_json(path, recorded | {"provenance": recorded["provenance"] | {"data_hash": "e" * 64}})
    with pytest.raises(UserError, match="predrnn seed=2 was scored on other clips than convlstm seed=1"):
        tables.write_tables(protocol, results_dir)
    write_json(path, recorded | {"lpips_backbone": {"net": "squeeze", "status": "found", "sha256": "1"}})
    with pytest.raises(UserError, match="predrnn seed=2: its record has LPIPS by"):
        tables.write_tables(protocol, results_dir)
    write_json(path, recorded | {"mean": {name: mean for name, mean in recorded["mean"].items() if name != "mae"}})
    with pytest.raises(UserError, match="predrnn seed=2: its record is older than the metric mae; run the workflow"):
        tables.write_tables(protocol, results_dir)

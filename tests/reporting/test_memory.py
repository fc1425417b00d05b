"""What networks keep of their past, from the probe's file to record, table and figure."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from benchmark.evaluation.memory.table import memory_rows, summarise_memory
from benchmark.reporting.figures.figure_data import figure_data
from benchmark.reporting.figures.influence import spread
from benchmark.reporting.figures.write_figures import draw_figure
from benchmark.reporting.outputs import figures_of, tables_of
from benchmark.reporting.record import make_record
from benchmark.reporting.tables.rendering import MISSING
from benchmark.system.errors import UserError
from tests.helpers.recorded import read_runs, table_of

ASKED = {"probe": {"clips": 2, "memory": True}, "seeds": [1, 2, 3]}


@pytest.fixture
def asked(make_protocol, write_finished):
    """A protocol that asks for what networks keep, and its results."""
    protocol = make_protocol(**ASKED)
    return protocol, write_finished(protocol)


def test_rows_count_along_their_axes_and_are_nowhere_else():
    rows = memory_rows("influence", np.array([[1.0, 2.0], [3.0, 4.0]]), ("clip", "t"), state="X")
    assert rows[["clip", "t", "value"]].to_numpy().tolist() == [[1, 1, 1], [1, 2, 2], [2, 1, 3], [2, 2, 4]]
    assert set(rows["measure"]) == {"influence"}
    assert (set(rows["state"]), set(rows["unit"]), set(rows["layer"])) == ({"X"}, {0}, {0})


def test_summary_of_what_was_not_measured_is_left_out():
    rows = memory_rows("time_constant", np.array([2.0, 1.0]), ("unit",), state="Z", layer=1)
    assert summarise_memory(rows) == {"time_constants": {"Z1": [1.0, 2.0, 2.0]}}


def test_an_exponent_that_is_no_number_in_one_clip_is_none_over_clips():
    found = summarise_memory(memory_rows("lyapunov", np.array([[1.0, np.nan], [3.0, 2.0]]), ("clip", "unit")))
    assert found["lyapunov"][0] == 2
    assert math.isnan(found["lyapunov"][1])


def test_record_gives_back_what_was_measured(asked):
    run = next(run for run in read_runs(*asked) if (run.variant, run.seed) == ("predrnnpp", 2))
    assert run.memory.keys() == {"init", "trained"}
    found = run.memory["trained"]
    assert found["time_constants"] == {layer: [12.0, np.inf, np.inf] for layer in ("C1", "C2")}
    assert found["influence"] == pytest.approx([4 * 0.125**0.5, 4 * 0.5**0.5, 4 * 1.125**0.5], rel=1e-5)
    assert found["error_change"] == pytest.approx([-2.6, -1.2, 0.2])
    assert found["lyapunov"] == [0.2, -np.inf]


def test_a_run_without_the_file_is_not_finished_where_the_protocol_asks(asked):
    protocol, results_dir = asked
    (protocol.run("predrnnpp", 2).path(results_dir) / "memory.parquet").unlink()
    with pytest.raises(UserError, match=r"not finished \(memory.parquet is missing\)"):
        make_record(protocol, "predrnnpp", 2, results_dir)


def test_a_protocol_that_does_not_ask_has_nothing_of_it(make_protocol, write_finished):
    protocol = make_protocol()
    results_dir = write_finished(protocol)
    assert "memory" not in make_record(protocol, "predrnnpp", 2, results_dir)
    assert all(run.memory == {} for run in read_runs(protocol, results_dir))
    assert "memory" not in tables_of(protocol)
    assert "influence" not in figures_of(protocol)
    assert protocol.run("predrnnpp", 1).to_dict()["probe"].keys() == {"clips", "batch_size"}


def test_table_has_a_row_a_layer_and_the_whole_network_in_the_first(asked):
    protocol, results_dir = asked
    table = table_of("memory", protocol, read_runs(protocol, results_dir), results_dir / "tiny")
    values = table.values.query("variant == 'predrnnpp' and stage == 'trained'")
    assert values["layer"].tolist() == [1, 2]
    row = values.iloc[0]
    mean = 2 * 6 ** (1 / 3)  # geometric, of the seeds 1, 2, 3
    assert row["tau_C_50"] == pytest.approx(3 * mean, rel=1e-5)
    assert row["tau_C_50_low"] < row["tau_C_50"] < row["tau_C_50_high"]
    assert row["tau_C_90"] == np.inf
    assert math.isnan(row["tau_Z_50"])
    assert row["influence_first"] == pytest.approx(mean * 0.125**0.5, rel=1e-5)
    assert row["influence_last"] == pytest.approx(mean * 1.125**0.5, rel=1e-5)
    assert row["error_change_first"] == pytest.approx(4 * (0.35 - 1))
    assert row["lyapunov_1"] == pytest.approx(0.2)
    assert (row["lyapunov_2"], math.isnan(row["lyapunov_3"])) == (-np.inf, True)
    assert row["norm_first"] == pytest.approx(2**0.5 * 6 ** (1 / 3), rel=1e-4)  # of the clips 1 and 2
    cells = table.cells[table.cells["Model"] == "PredRNN++"].to_dict("records")
    assert [cell["Layer"] for cell in cells] == ["1", "2"]
    assert cells[0]["τ of C, 50 / 90 / 99 %"] == "10.9 / inf / inf"
    assert cells[0]["Lyapunov exponent 1, trained"].startswith("+0.200")
    assert cells[1]["Influence of frame 1, trained"] == ""
    assert not any("τ of M" in head for head in table.cells)


def test_table_of_runs_without_any_of_it_has_dashes(asked):
    protocol, results_dir = asked
    runs = read_runs(protocol, results_dir)
    for run in runs:
        run.memory.clear()
    cells = table_of("memory", protocol, runs, results_dir / "tiny").cells
    assert set(cells[cells["Layer"] == "1"]["Influence of frame 1, trained"]) == {MISSING}


def test_figure_names_each_line_beside_its_end(asked, monkeypatch, tmp_path):
    protocol, results_dir = asked
    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: saved.append(figure))
    draw_figure("influence", figure_data(protocol, read_runs(protocol, results_dir)), [tmp_path / "influence.png"])
    (figure,) = saved
    labels = [run.label for run in map(protocol.first_run, (entry.id for entry in protocol.variants))]
    assert sorted(text.get_text() for text in figure.findobj(Annotation)) == sorted(2 * labels)
    panel = figure.axes[0]
    means = [value * 6 ** (1 / 3) for value in (0.125**0.5, 0.5**0.5, 1.125**0.5)]
    assert panel.lines[0].get_ydata() == pytest.approx(means, rel=1e-5)
    assert panel.get_ylabel().startswith("at initialisation")


@pytest.mark.parametrize("places", [[0.1, 0.5, 0.9], [0.5, 0.5, 0.5, 0.5], [0.1, 0.11, 0.3, 0.31, 0.9], [0.2]])
def test_names_are_moved_apart_and_no_further(places):
    found = spread(places, 0.1)
    gaps = np.diff(found)
    assert (gaps > 0.1 - 1e-9).all()
    assert sum(found) == pytest.approx(sum(places))
    assert all(abs(one - was) < 0.1 * len(places) for one, was in zip(found, places, strict=True))
    if len(places) == 1 or np.diff(places).min() > 0.1:
        assert found == pytest.approx(places)

"""What memory is worth, as people see it: the table, and lines and rows in the figures of errors."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

from benchmark.evaluation.ideal_line import line_weights
from benchmark.reporting.figures.figure_data import figure_data
from benchmark.reporting.figures.write_figures import draw_figure
from benchmark.reporting.outputs import tables_of
from benchmark.reporting.protocol_results import read_floor
from benchmark.reporting.tables.rendering import MISSING
from benchmark.system.errors import UserError
from tests.helpers.recorded import read_runs, table_of

ASKED = {"evaluation": {"floor": [1, 3]}, "seeds": [1, 2, 3]}


def made_floor(low, high):
    """`floor.csv` of two predicted frames: the best error from one frame is `high`, from three `low`."""
    rows = []
    for seen, mse in (("1", high), ("3", low), ("all", 0.0)):
        row = {"frames_seen": seen, "clips": 50}
        for images, value in (("known", mse), ("unseen", mse + 1)):
            row |= {f"{images}_mse": value, f"{images}_error": 0.25 if value else 0.0}
            for frame, change in ((1, -0.5), (2, 0.5)):
                row |= {f"{images}_mse_{frame}": value + change, f"{images}_error_{frame}": 0.5 if value else 0.0}
        rows.append(row)
    return pd.DataFrame(rows)


@pytest.fixture
def asked(make_protocol, write_finished):
    """A protocol that asks for the floor, its finished runs and its folder."""
    protocol = make_protocol(**ASKED)
    results_dir = write_finished(protocol)
    return protocol, read_runs(protocol, results_dir), results_dir / protocol.name


@pytest.fixture
def drawn(asked, tmp_path, monkeypatch):
    """Draw a figure of `asked` with a floor, and return it."""
    saved = []

    def draw(name, floor):
        protocol, runs, _ = asked
        with monkeypatch.context() as patch:
            patch.setattr(Figure, "savefig", lambda figure, path, **_: saved.append(figure))
            draw_figure(name, figure_data(protocol, runs, floor), [tmp_path / "figure.png"])
        return saved[-1]

    return draw


def mean_errors(runs):
    return pd.Series({(run.variant, run.seed): run.scores["mse"] for run in runs if run.config}).groupby(level=0).mean()


def test_only_a_protocol_that_asks_has_the_table(make_protocol):
    assert "floor" in tables_of(make_protocol(**ASKED))
    assert "floor" not in tables_of(make_protocol())


def test_the_table_counts_the_variants_below_each_error(asked):
    protocol, runs, folder = asked
    errors = sorted(mean_errors(runs))
    between = (errors[0] + errors[1]) / 2
    made_floor(between, errors[-1] + 1).to_csv(folder / "floor.csv", index=False)
    table = table_of("floor", protocol, runs, folder)
    assert table.cells["Context frames seen"].tolist() == ["1", "3", "all"]
    assert table.cells["Variants that err less"].tolist() == [
        f"{len(errors)} of {len(errors)}",
        f"1 of {len(errors)}",
        MISSING,
    ]
    assert table.values["variants_below"].tolist() == [len(errors), 1, 0]
    assert table.cells["Best MSE, digits known ↓"][0] == f"{errors[-1] + 1:.1f} ± 0.2"


def test_a_missing_estimate_names_the_command(tmp_path):
    with pytest.raises(UserError, match=r"floor\.csv: is missing; the command `floor` makes it"):
        read_floor(tmp_path)


def test_lines_of_the_best_predictors_carry_their_number_and_leave_the_axis_alone(drawn, asked):
    low = mean_errors(asked[1]).min()
    with_floor, without = (drawn("mse_per_frame", floor) for floor in (made_floor(0.2, low), None))
    for ours, other in zip(with_floor.axes, without.axes, strict=True):
        assert ours.get_ylim() == other.get_ylim()
        assert len(ours.lines) == len(other.lines) + 2
    assert [text.get_text() for text in with_floor.axes[0].texts] == ["1", "3"]
    line = with_floor.axes[0].lines[-2]
    assert list(line.get_ydata()) == pytest.approx([low - 0.5, low + 0.5])


def test_scores_have_a_row_for_each_best_predictor_with_an_mse_alone(drawn, asked):
    errors = mean_errors(asked[1])
    figure = drawn("scores", made_floor(0.2, errors.mean()))
    labels = [" ".join(label.get_text().split()) for label in figure.axes[0].get_yticklabels()]
    assert labels[-2:] == ["Best from the last frame", "Best from the last 3 frames"]
    bottom = figure.axes[0].get_yticks()[-2:]
    for place, axes in enumerate(figure.axes):
        dots = [y for line in axes.lines for y in line.get_ydata() if line.get_marker() == "o"]
        assert (bottom[0] in dots) == (place == 0)
    assert "0.2" in " ".join(text.get_text() for text in figure.axes[0].texts)


def test_the_ideal_line_stands_beside_the_gradients_of_frames_alone(drawn, asked):
    figure = drawn("gradient_norm", None)
    data = asked[0].data
    weights = abs(line_weights(data.context, data.horizon))
    for axes in figure.axes:
        dotted = [line for line in axes.lines if line.get_label() == "ideal line (see caption)"]
        row, column = axes.get_subplotspec().rowspan.start, axes.get_subplotspec().colspan.start
        assert len(dotted) == (column == 0), row
        for line in dotted:
            assert list(line.get_ydata()) == pytest.approx(list(weights / weights[-1]))

"""Dot plots and ablation figures: what is drawn, read back from their artists, is what the runs scored."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from benchmark.config.metrics import METRICS
from benchmark.config.protocol import PROTOCOLS, load_protocol
from benchmark.config.variant_groups import depth_series, slot_series
from benchmark.reporting.figures.ablations import width_note
from benchmark.reporting.figures.figure_data import figure_data
from benchmark.reporting.figures.scores import BELOW, Row, span
from benchmark.reporting.figures.write_figures import draw_figure
from benchmark.reporting.finished_runs import by_variant
from benchmark.reporting.outputs import figures_of
from benchmark.reporting.statistics import paired, summarise_seeds
from benchmark.reporting.tables.rendering import MINUS
from benchmark.system.files import read_json, write_json
from benchmark.system.parquet import write_parquet
from tests.helpers.recorded import read_runs

SLOTS = {
    "model": {"layers": 4},
    "variants": ["convlstm", "causal-lstm", "predrnnpp", "predrnnpp-middle", "predrnnpp-top"],
}
DEPTHS = {
    "model": {"layers": None},
    "variants": [
        {"id": f"{base}-l{layers}", "base": base, "label": f"{label}, {layers} layers", "layers": layers}
        for base, label in (("causal-lstm", "Causal LSTM"), ("predrnnpp", "PredRNN++"))
        for layers in (2, 4)
    ],
}
PRIMARY = {"metric": "mae", "pairs": {"predrnnpp": "predrnn"}}


@pytest.fixture
def draw(tmp_path, make_protocol, write_finished, monkeypatch):
    """Draw one figure of made-up results; returns protocol, runs and the figure object, whose layout takes time."""
    saved = []

    def made(figure, *, lpips=True, diverged=(), laid_out=False, change=lambda results_dir: None, **changes):
        protocol = make_protocol(**changes)
        results_dir = write_finished(protocol, lpips=lpips, diverged=diverged, folder=f"results-{len(saved)}")
        change(results_dir)
        runs = read_runs(protocol, results_dir)
        with monkeypatch.context() as patch:
            if not laid_out:
                patch.setattr(Figure, "draw_without_rendering", lambda figure: None)
            patch.setattr(Figure, "savefig", lambda figure, path, **_: saved.append(figure))
            draw_figure(figure, figure_data(protocol, runs), [tmp_path / "figure.png"])
        return protocol, runs, saved[-1]

    return made


def words(figure: Figure) -> str:
    return " ".join(" ".join(text.get_text() for text in figure.findobj(Text)).split())


def rows(figure: Figure) -> dict[str, float]:
    """Label -> place of every row of a dot plot."""
    axes = figure.axes[0]
    labels = [" ".join(label.get_text().split()) for label in axes.get_yticklabels()]
    return dict(zip(labels, axes.get_yticks(), strict=True))


def in_row(axes, y: float) -> tuple[list[float], list[float], list[float]]:
    """Mean, interval and seeds that are drawn in the row at `y`."""
    mean, interval, seeds = [], [], []
    for line in axes.lines:
        x, heights = list(line.get_xdata()), np.asarray(line.get_ydata(), float)
        if np.allclose(heights, y) and len(x) == 1:
            mean += x
        elif np.allclose(heights, y) and line.get_linestyle() == "-" and x != [0, 1]:  # which a line across has
            interval += x
        elif np.allclose(heights, y + BELOW):
            seeds += x
    return mean, interval, seeds


def unreadable(figure: Figure) -> list[str]:
    """Texts that stand on another text or are cut off by the border of the figure."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    found = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        found += [*axes.texts, axes.xaxis.label, axes.yaxis.label]
        for axis, place, limits in ((axes.xaxis, 0, axes.get_xlim()), (axes.yaxis, 1, axes.get_ylim())):
            labels = [
                label
                for label in axis.get_majorticklabels()
                if axis.get_tick_params()["labelleft" if place else "labelbottom"]
            ]
            found += [label for label in labels if min(limits) <= label.get_position()[place] <= max(limits)]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in found if text.get_text().strip()]
    width, height = figure.bbox.size
    cut = [text for text, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height]
    return cut + [f"{a} on {b}" for i, (a, one) in enumerate(boxes) for b, other in boxes[:i] if one.overlaps(other)]


def test_a_dot_is_the_mean_its_line_the_interval_and_small_dots_the_seeds(draw):
    protocol, runs, figure = draw("scores", seeds=[1, 2, 3])
    places = rows(figure)
    names = ["mse", "mae", "psnr", "ssim", "lpips_squeeze"]
    assert ["".join(axes.get_xlabel().split()) for axes in figure.axes] == [
        "".join(METRICS[name].head.split()) for name in names
    ]
    for axes, name in zip(figure.axes, names, strict=True):
        for group in by_variant(runs)[: len(protocol.variants)]:
            values = list(group.scores(name).values())
            found = summarise_seeds(values)
            mean, interval, seeds = in_row(axes, places[group.label])
            assert mean == pytest.approx([found.mean])
            assert interval == pytest.approx([found.low, found.high])
            assert seeds == pytest.approx(values)
    assert "line: 95 % t interval over seeds." in words(figure)


def test_one_seed_has_a_dot_and_no_interval_and_ranks_nothing(draw):
    for figure_of in ("scores", "differences"):
        _, _, figure = draw(figure_of, seeds=[1])
        assert "n = 1: ranks nothing." in words(figure)
        places = [y for label, y in rows(figure).items() if label.startswith("PredRNN")]
        assert all(in_row(axes, y)[1:] == ([], []) for axes in figure.axes for y in places)
        assert len(in_row(figure.axes[0], places[0])[0]) == 1


def test_two_seeds_are_drawn_without_an_interval(draw):
    _, _, figure = draw("scores")
    mean, interval, seeds = in_row(figure.axes[0], rows(figure)["PredRNN"])
    assert (len(mean), len(interval), len(seeds)) == (1, 0, 2)
    assert "too few for an interval, ranks nothing" in words(figure)


def test_runs_that_diverged_are_named_in_their_row_and_drawn_nowhere(draw):
    gone = {("convlstm", 1), ("convlstm", 2), ("predrnn", 2)}
    _, runs, figure = draw("scores", diverged=gone)
    places = rows(figure)
    assert in_row(figure.axes[0], places["ConvLSTM diverged at step 4"]) == ([], [], [])
    (mean,), _, _ = in_row(figure.axes[0], places["PredRNN 1 of 2 diverged at step 4"])
    assert mean == pytest.approx(next(run.scores["mse"] for run in runs if (run.variant, run.seed) == ("predrnn", 1)))
    assert "Diverged and left out: ConvLSTM (seed 1), ConvLSTM (seed 2), PredRNN (seed 2)." in words(figure)
    _, _, figure = draw("differences", diverged=gone)
    assert in_row(figure.axes[0], rows(figure)[f"PredRNN {MINUS} ConvLSTM 2 of 2 lost to divergence"]) == ([], [], [])


def test_every_run_may_diverge(draw):
    everything = {(variant, seed) for variant in ("convlstm", "predrnn", "predrnnpp") for seed in (1, 2)}
    for figure_of in ("scores", "differences"):
        _, _, figure = draw(figure_of, diverged=everything, laid_out=True)
        assert "Diverged and left out" in words(figure)
        assert unreadable(figure) == []
    everything = {(variant, seed) for variant in SLOTS["variants"] for seed in (1, 2)}
    _, _, figure = draw("slots", diverged=everything, **SLOTS)
    assert "Diverged and left out: Causal LSTM (seed 1)" in words(figure)


def test_without_lpips_there_is_no_panel_for_it_and_a_sentence(draw):
    for figure_of in ("scores", "differences"):
        _, _, figure = draw(figure_of, lpips=False)
        assert len(figure.axes) == 4
        assert "LPIPS (squeeze) was not measured." in words(figure)


def test_a_baseline_far_off_is_an_arrow_with_its_value(draw):
    def worsen(results_dir):
        path = results_dir / "tiny" / "runs" / "black" / "seed=0" / "frames.parquet"
        frames = pd.read_parquet(path).assign(mse=1234.5)
        write_parquet(path, frames)

    _, _, figure = draw("scores", seeds=[1, 2, 3], change=worsen)
    assert "1,234.5 →" in [text.get_text() for text in figure.axes[0].texts]
    assert figure.axes[0].get_xlim()[1] < 100
    assert in_row(figure.axes[0], rows(figure)["Black"])[0] == []


def test_an_axis_takes_in_what_lies_near_and_no_more():
    row = Row("row", values={"mse": [10.0, 20.0]}, found={"mse": summarise_seeds([10.0, 20.0])})
    assert span([row], "mse") == pytest.approx((9.4, 20.6))
    assert span([row], "mse", also=[24.0, 26.0]) == pytest.approx((10 - 0.84, 24 + 0.84))
    assert span([], "mse", also=[5.0, 5.0]) == (4.5, 5.5)


def test_a_score_that_is_not_finite_is_a_word(draw):
    def spoil(results_dir):
        path = results_dir / "tiny" / "runs" / "predrnn" / "seed=2" / "frames.parquet"
        frames = pd.read_parquet(path)
        frames.loc[0, "mse"] = np.nan
        write_parquet(path, frames)

    for figure_of in ("scores", "differences"):
        _, _, figure = draw(figure_of, change=spoil)
        assert [text.get_text() for text in figure.axes[0].texts].count("not finite") == 1


def test_differences_are_the_paired_ones_with_the_primary_pairs_on_top_and_their_test_filled(draw):
    protocol, runs, figure = draw("differences", seeds=[1, 2, 3], primary=PRIMARY)
    groups = {group.variant: group for group in by_variant(runs)}
    places = rows(figure)
    assert list(places) == ["Primary", f"PredRNN++ {MINUS} PredRNN", "Exploratory", f"PredRNN {MINUS} ConvLSTM"]
    for axes, name in zip(figure.axes, ("mse", "mae", "psnr", "ssim", "lpips_squeeze"), strict=True):
        for one, other in protocol.references().items():
            y = places[f"{groups[one].label} {MINUS} {groups[other].label}"]
            of_one, of_other = groups[one].scores(name), groups[other].scores(name)
            found = paired(of_one, of_other)
            mean, interval, seeds = in_row(axes, y)
            assert mean == pytest.approx([found.mean])
            assert interval == pytest.approx([found.low, found.high])
            assert seeds == pytest.approx([of_one[seed] - of_other[seed] for seed in (1, 2, 3)])
            (dot,) = [line for line in axes.lines if len(line.get_xdata()) == 1 and line.get_ydata()[0] == y]
            assert (dot.get_markerfacecolor() != "white") == (name == "mae" and one == "predrnnpp")
    assert "Filled: MAE of the primary pairs" in words(figure)


def test_the_grey_side_is_the_better_one(draw):
    _, _, figure = draw("differences", seeds=[1, 2, 3])
    for axes, name in zip(figure.axes, ("mse", "mae", "psnr", "ssim", "lpips_squeeze"), strict=True):
        (grey,) = axes.patches
        middle = grey.get_window_extent().x0 + grey.get_window_extent().width / 2
        side = axes.transData.inverted().transform((middle, 0))[0]
        assert (side < 0) == (METRICS[name].better == "lower")


def test_without_references_the_figure_of_differences_says_so(draw):
    _, _, figure = draw("differences", variants=["predrnnpp"])
    assert "No variant of this protocol has a reference." in words(figure)


def ablations_of(protocol):
    return {"slots", "depth"} & {*figures_of(protocol)}


def test_ablations_are_drawn_where_the_protocol_has_them(make_protocol):
    assert ablations_of(make_protocol()) == set()
    assert ablations_of(make_protocol(**SLOTS)) == {"slots"}
    assert ablations_of(make_protocol(**DEPTHS)) == {"depth"}
    two = [{"id": "predrnnpp", "layers": 4}, {"id": "predrnnpp-top", "layers": 6}]  # another depth
    assert ablations_of(make_protocol(variants=two)) == set()
    two = ["predrnnpp", {"id": "open", "base": "predrnnpp-top", "highway_gate_bias": -2.0}]  # another bias
    assert ablations_of(make_protocol(model={"layers": 4}, variants=two)) == set()
    one = [{"id": "a", "base": "convlstm"}, {"id": "b", "base": "convlstm", "hidden_channels": 4}]
    assert ablations_of(make_protocol(variants=one)) == set()


def test_two_widths_are_two_lines_with_labels_of_their_own(make_protocol):
    entries = [
        {"id": f"c{width}-l{layers}", "base": "convlstm", "layers": layers, "hidden_channels": width}
        for width in (3, 4)
        for layers in (1, 2)
    ]
    found = depth_series(make_protocol(model={"layers": None}, variants=entries))
    assert [one.members for one in found] == [((1, "c3-l1"), (2, "c3-l2")), ((1, "c4-l1"), (2, "c4-l2"))]
    assert [one.label for one in found] == ["ConvLSTM (c3-l1)", "ConvLSTM (c4-l1)"]


def test_the_protocols_of_the_studies_have_their_ablations():
    found = {path.stem: load_protocol(str(path)) for path in PROTOCOLS.glob("*.yaml")}
    assert [one.label for one in slot_series(found["study-main"])] == ["Causal LSTM, rate 0.01"]  # as the others
    assert [one.numbers for one in slot_series(found["study-main"])] == [[0, 1, 2, 3]]
    assert slot_series(found["study-depth"]) == []
    lines = {one.label: one.numbers for one in depth_series(found["study-depth"])}
    assert lines == {label: [2, 4, 6, 8] for label in ("Causal LSTM", "PredRNN++", "ConvLSTM", "ConvLSTM + GHU")}
    assert depth_series(found["study-main"]) == []


def reach_by_seed(results_dir):
    """Reach 0.5 / seed for every run, but none for the first of the top slot."""
    path = results_dir / "tiny" / "runs" / "predrnnpp-top" / "seed=1" / "probe.json"
    probe = read_json(path)
    probe["trained"]["residual"]["reach"] = None
    write_json(path, probe)


def test_the_slot_figure_shows_error_reach_and_openness_of_the_cell_with_several_slots(draw):
    _, runs, figure = draw("slots", seeds=[1, 2, 3], change=reach_by_seed, **SLOTS)
    groups = {group.variant: group for group in by_variant(runs)}
    order = ["causal-lstm", "predrnnpp", "predrnnpp-middle", "predrnnpp-top"]
    error, reach, openness = (axes.lines[-1].get_ydata() for axes in figure.axes)
    assert error == pytest.approx([summarise_seeds(list(groups[one].scores("mse").values())).mean for one in order])
    geometric = (0.5 * 0.25 * 0.5 / 3) ** (1 / 3)
    assert reach == pytest.approx([geometric] * 3 + [(0.25 * 0.5 / 3) ** 0.5])
    assert openness == pytest.approx([np.nan, 0.5, 0.5, 0.5], nan_ok=True)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [
        "none",
        "1\nbottom",
        "2\nmiddle",
        "3\ntop",
    ]
    assert figure.axes[1].get_yscale() == "log"
    said = words(figure)
    assert "Causal LSTM (no highway), PredRNN++ (highway)" in said
    assert "No reach, since a gradient is 0 or not finite: PredRNN++, GHU top (seed 1)." in said
    assert "ConvLSTM" not in said


def test_an_interval_of_reach_is_that_of_its_logarithm(draw):
    _, _, figure = draw("slots", seeds=[1, 2, 3], **SLOTS)
    found = summarise_seeds(list(np.log([0.5, 0.25, 0.5 / 3])))
    ends = [list(line.get_ydata()) for line in figure.axes[1].lines if len(line.get_ydata()) == 2]
    assert ends == [pytest.approx([np.exp(found.low), np.exp(found.high)])] * 4


def test_the_depth_figure_has_a_line_with_and_one_without_highway_and_a_gap_where_all_diverged(draw):
    gone = {("predrnnpp-l4", seed) for seed in (1, 2)}
    _, runs, figure = draw("depth", diverged=gone, **DEPTHS)
    groups = {group.variant: group for group in by_variant(runs)}
    error = figure.axes[0]
    lines = [line.get_ydata() for line in error.lines if line.get_linestyle() != "None" and len(line.get_ydata()) == 2]
    mean = {
        variant: np.mean(list(groups[variant].scores("mse").values()))
        for variant in groups
        if "-l" in variant and groups[variant].kept
    }
    assert lines[0] == pytest.approx([mean["causal-lstm-l2"], mean["causal-lstm-l4"]])
    assert lines[1] == pytest.approx([mean["predrnnpp-l2"], np.nan], nan_ok=True)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Causal LSTM", "PredRNN++"]
    said = words(figure)
    assert "Diverged and left out: PredRNN++, 4 layers (seed 1), PredRNN++, 4 layers (seed 2)." in said
    assert "The width of layers differs" not in said


def test_the_depth_figure_names_the_lines_along_which_widths_differ(make_protocol):
    entries = [
        {"id": f"{base}-{layers}", "base": base, "label": base, "layers": layers, "hidden_channels": width}
        for base, widths in (("convlstm", (4, 3)), ("predrnn", (3, 3)))
        for layers, width in zip((1, 2), widths, strict=True)
    ]
    protocol = make_protocol(model={"layers": None}, variants=entries)
    said = width_note(protocol, depth_series(protocol))
    assert said == "The width of layers differs with depth in convlstm."


@pytest.mark.parametrize(
    ("figure_of", "changes"),
    [
        ("scores", SLOTS),
        ("differences", SLOTS),
        ("differences", {"primary": PRIMARY}),
        ("slots", SLOTS),
        ("depth", DEPTHS),
    ],
)
def test_drawn_twice_it_has_equal_bytes_and_no_text_on_another(draw, tmp_path, figure_of, changes):
    protocol, runs, figure = draw(figure_of, seeds=[1, 2, 3], laid_out=True, **changes)
    assert unreadable(figure) == []
    for ending in ("pdf", "png"):
        paths = [tmp_path / f"{name}.{ending}" for name in ("one", "two")]
        for path in paths:
            draw_figure(figure_of, figure_data(protocol, runs), [path])
        assert paths[0].read_bytes() == paths[1].read_bytes()

"""Figures of reach, gates and gradient maps: what is drawn, read back from their artists, is what the runs hold."""

import contextlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.collections import QuadMesh
from matplotlib.colors import rgb_to_hsv
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import stats

from benchmark.config.probe_stages import stages
from benchmark.config.protocol import load_protocol
from benchmark.config.variant_groups import MOST_VARIANTS, highway_pairs, questions, readable_variants
from benchmark.reporting.figures import style as drawing
from benchmark.reporting.figures.figure_data import figure_data, norms_of
from benchmark.reporting.figures.gradient_maps import DECADES, PATHS, color_scale, end_note, layer_map
from benchmark.reporting.figures.reach import turning_points
from benchmark.reporting.figures.write_figures import draw_figure
from benchmark.reporting.outputs import figures_of, tables_of
from benchmark.training.step import make_schedule
from tests.helpers.made_runs import made_runs

STAGED = {"probe": {"steps": [2, 4]}, "seeds": [1, 2, 3]}
HIGHWAYS = ["convlstm", "convlstm-ghu", "causal-lstm", "predrnnpp", "predrnn"]
UNTRAINED = {"training": {"steps": 0, "sampling": {"kind": "none"}}}


@pytest.fixture
def draw(tmp_path, make_protocol, monkeypatch):
    """Draw one figure of made-up runs of the tiny protocol; returns protocol, runs and the figure object."""
    saved = []
    monkeypatch.setattr(drawing, "atomic_buffer", contextlib.nullcontext)
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: saved.append(figure))

    def made(name, runs_of=made_runs, laid_out=False, **changes):
        if not laid_out:
            monkeypatch.setattr(Figure, "draw_without_rendering", lambda figure: None)
        protocol = make_protocol(**changes)
        runs = runs_of(protocol)
        draw_figure(name, figure_data(protocol, runs), [tmp_path / f"{name}.png"])
        return protocol, runs, saved[-1]

    return made


def words(figure):
    return " ".join(" ".join(text.get_text() for text in figure.findobj(Text)).split())


def lines_of(axes, points):
    return [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == points]


def test_reach_over_training_is_the_geometric_mean_over_seeds_at_every_stage(draw):
    def runs_of(protocol):
        places = stages(protocol)
        return made_runs(protocol, reach=lambda variant, seed, stage, measure: 0.1**seed * (1 + places.index(stage)))

    _, _, figure = draw("reach_over_training", runs_of, variants=HIGHWAYS, **STAGED)
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == ["ConvLSTM", "Causal LSTM", "PredRNN"]
    assert [len(lines_of(axes, 4)) for axes in figure.axes] == [2, 2, 1] * 2  # a column a cell, a row a cotangent
    for axes in figure.axes:
        assert axes.get_yscale() == "log"
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert labels == (["0", "2", "4", "8"] if axes in figure.axes[3:] else [])
        for line in lines_of(axes, 4):
            np.testing.assert_allclose(line, [0.01, 0.02, 0.03, 0.04])
    assert "n = 3 seeds" in words(figure)


def test_highway_effect_has_a_panel_a_cell_with_and_without_its_highway_after_training(draw):
    _, runs, figure = draw("highway_effect", variants=HIGHWAYS, **STAGED)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["ConvLSTM", "Causal LSTM"]  # no PredRNN + GHU here
    for axes, pair in zip(figure.axes, [("convlstm", "convlstm-ghu"), ("causal-lstm", "predrnnpp")], strict=True):
        lines = [line for line in axes.lines if line.get_label() != "ideal line (see caption)"]
        for line, variant in zip(lines, pair, strict=True):
            norms = norms_of([run for run in runs if run.variant == variant], "residual")
            norms = norms[(norms["state"] == "X") & (norms["stage"] == "trained")]
            logs = norms.pivot_table(index="seed", columns="t", values="log_norm")
            expected = np.exp(logs.sub(logs[logs.columns[-1]], axis=0).mean())
            np.testing.assert_allclose(line.get_ydata(), expected)
        assert [text.get_text() for text in axes.get_legend().get_texts()] == [
            "without: rate 0.01, n = 3",
            "with highway: rate 0.01, n = 3",
        ]


def test_pair_at_equal_learning_rates_goes_before_the_first(make_protocol):
    usual = [{"id": "convlstm", "training": {"learning_rate": 0.03}}, "convlstm-ghu"]
    assert highway_pairs(make_protocol(variants=usual)) == [("convlstm-ghu", "convlstm")]
    equal = {"id": "slow", "base": "convlstm", "reference": "convlstm-ghu"}
    assert highway_pairs(make_protocol(variants=[*usual, equal])) == [("convlstm-ghu", "slow")]
    other = {"id": "slow", "base": "convlstm", "reference": "convlstm-ghu", "forget_bias": 3.0}
    assert highway_pairs(make_protocol(variants=[*usual, other])) == [("convlstm-ghu", "convlstm")]


def test_gates_over_training_show_openness_of_highways_and_saturation_of_all(draw):
    _, _, figure = draw("openness_over_training", variants=HIGHWAYS, **STAGED)
    opened, saturated = figure.axes[:3], figure.axes[3:]  # a column a cell
    assert [len(lines_of(axes, 4)) for axes in opened] == [1, 1, 0]  # of convlstm-ghu and predrnnpp
    assert [len(lines_of(axes, 4)) for axes in saturated] == [2, 2, 1]
    np.testing.assert_allclose(lines_of(opened[0], 4)[0], [0.52, 0.57, 0.62, 0.67])
    plain, highway = lines_of(saturated[0], 4)
    np.testing.assert_allclose(plain, [0.0, 0.01, 0.02, 0.03])
    np.testing.assert_allclose(highway, np.arange(4) * (3 * 0.01 + 2 * 0.05) / 5)


def test_reach_against_error_has_a_dot_a_run_and_correlates_means_only(draw):
    _, runs, figure = draw("reach_against_error", variants=HIGHWAYS, seeds=[1, 2, 3])
    left = figure.axes[0]
    assert left.get_xscale() == "log"
    small, large = lines_of(left, 3), lines_of(left, 1)
    assert sum(map(len, small)) == 15
    trained = [run for run in runs if run.config]
    assert [y for dots in small for y in dots] == [run.scores["mse"] for run in trained]
    reaches = [run.probe["trained"]["residual"]["reach"] for run in trained[:3]]
    assert left.lines[1].get_xdata() == pytest.approx([stats.gmean(reaches)])
    assert len(large) == len(HIGHWAYS)
    said = "Rank correlation (Spearman) of the 5 variants' means: +1.00 [+1.00, +1.00] (the squared error), +1.00"
    assert said in words(figure)


def test_few_variants_get_no_rank_correlation_and_far_baselines_stand_below(draw):
    _, _, figure = draw("reach_against_error", variants=HIGHWAYS[:4], seeds=[1])
    assert "Rank correlation" not in words(figure)
    assert "Off the axis: Last frame repeated 30.0" in words(figure)


def test_a_near_baseline_is_a_line(draw):
    _, _, figure = draw("reach_against_error", lambda protocol: made_runs(protocol, baseline_mse=13.0), seeds=[1])
    assert "Off the axis" not in words(figure)
    assert {"Last frame repeated", "Black"} <= {text.get_text() for text in figure.legends[0].get_texts()}


def test_a_run_without_reach_is_counted_and_not_drawn(draw):
    def runs_of(protocol):
        return made_runs(
            protocol, reach=lambda variant, seed, stage, measure: None if (variant, seed) == ("predrnn", 1) else 0.5
        )

    _, _, figure = draw("reach_against_error", runs_of, seeds=[1, 2])
    assert "Not drawn, since a norm is 0 or an error not finite: 2 dots." in words(figure)
    assert np.concatenate([line.get_ydata() for line in figure.axes[0].lines if line.get_markersize() < 4]).size == 4


def test_the_map_is_relative_to_all_hidden_states_at_the_last_context_frame(make_protocol):
    protocol = make_protocol(variants=["predrnnpp"], seeds=[1, 2])
    norms = norms_of([run for run in made_runs(protocol) if run.config], "residual")
    found = layer_map(norms[(norms["stage"] == "trained") & norms["state"].isin(["H", "Z"])], protocol.data.context)
    assert list(found.index) == [(1, "H"), (1, "Z"), (2, "H")]  # bottom first, the highway above its layer
    hidden = 10 ** found.xs("H", level="state")[protocol.data.context]
    assert math.sqrt((hidden**2).sum()) == pytest.approx(1)
    assert found.loc[(2, "H"), 1] - found.loc[(2, "H"), 3] == pytest.approx(np.log10([0.01, 0.02]).mean())


def test_every_panel_of_the_heat_map_shares_one_scale_and_grows_lighter(draw):
    _, _, figure = draw("gradient_heatmap", variants=HIGHWAYS, seeds=[1])
    panels = [axes.findobj(QuadMesh) for axes in figure.axes[: len(HIGHWAYS)]]
    assert [len(rows) for rows in panels] == [2, 3, 2, 3, 2]  # a row a layer, and the highway's between
    meshes = [mesh for rows in panels for mesh in rows]
    assert {mesh.get_array().shape for mesh in meshes} == {(1, 4)}
    bottoms = [[mesh.get_coordinates()[0, 0, 1] for mesh in rows] for rows in panels]
    assert bottoms[0] == [0, 1.75]  # layers of all panels are aligned, with or without a highway
    assert bottoms[1] == [0, 1, 1.75]
    assert len({id(mesh.norm) for mesh in meshes}) == 1
    _, colors, _ = color_scale(np.array([-2.0, 0.0]))
    weights = colors(np.linspace(0, 1, 12))[:, :3] @ [0.299, 0.587, 0.114]
    assert (np.diff(weights) > 0).all()
    assert rgb_to_hsv(colors(0.5)[:3])[1] > 0.3


def test_the_colour_scale_holds_all_values_or_says_that_some_lie_below():
    scale, _, below = color_scale(np.array([-1.2, 0.7, -np.inf]))
    assert not below
    assert scale.boundaries[0] <= -1.2
    assert scale.boundaries[-1] >= 0.7
    scale, _, below = color_scale(np.array([-30.0, 0.0]))
    assert below
    assert (scale.boundaries[0], scale.boundaries[-1]) == (-DECADES, 0)


def test_paths_of_the_gradient_are_relative_to_all_of_it(draw):
    def runs_of(protocol):
        by = {"residual": 0.1, "fixed": 1.0, "memory": 0.04, "frames": 0.01}
        return made_runs(protocol, reach=lambda variant, seed, stage, measure: by[measure])

    _, _, figure = draw("gradient_paths", runs_of, variants=["predrnnpp"], seeds=[1, 2, 3])
    found = [line.get_ydata() for line in figure.axes[0].lines]
    assert len(found) == len(PATHS)
    assert [line[0] for line in found] == pytest.approx([0.1, 0.04, 0.01])
    assert [line[-1] for line in found] == pytest.approx([1, 1, 1])
    styles = {(str(line.get_linestyle()), line.get_marker()) for line in figure.axes[0].lines}
    assert len(styles) == len(PATHS)


def test_one_wild_seed_does_not_squash_the_paths_and_the_axis_says_that_it_ends(draw):
    def runs_of(protocol):
        return made_runs(protocol, reach=lambda variant, seed, stage, measure: 1e-30 if measure == "frames" else 0.1)

    _, _, figure = draw("gradient_paths", runs_of, variants=["predrnnpp"], seeds=[1, 2, 3])
    assert figure.axes[0].get_ylim()[0] == pytest.approx(0.5 * 10.0**-DECADES)
    assert "The axis ends at 5e-07, above some of the lines." in words(figure)


def test_a_measure_that_lies_below_the_axis_everywhere_is_named():
    drawn = {"residual": [1.0, 0.5], "memory": [0.1, 1e-5], "frames": [1e-5, 1e-6]}
    assert end_note(1e-3, drawn) == "The axis ends at 1e-03, above 'through generated frames alone'."
    assert end_note(None, drawn) == ""


def test_untrained_protocols_show_nothing_of_scores_and_never_say_after_training(draw, make_protocol):
    protocol = make_protocol(**UNTRAINED, variants=HIGHWAYS)
    assert tables_of(protocol) == ("compute", "probe", "reach_effects", "reach_definitions")
    names = figures_of(protocol)
    assert not {"scores", "differences", "mse_per_frame", "film", "reach_against_error"} & set(names)
    for name in names:
        _, _, figure = draw(name, **UNTRAINED, variants=HIGHWAYS, seeds=[1, 2, 3])
        said = words(figure)
        assert "after training" not in said, name
        assert "nitialisation" in said, name


def test_reach_at_initialisation_stands_by_question_beside_what_is_usual(draw):
    deep = {"id": "deep", "base": "predrnnpp", "label": "Deep", "layers": 3}
    open_ = {"id": "open", "base": "predrnnpp", "label": "Open", "highway_gate_bias": -2.0}
    variants = ["causal-lstm", "predrnnpp", "convlstm", deep, open_]
    _, _, figure = draw("reach_at_init", **UNTRAINED, variants=variants, seeds=[1, 2, 3])
    left = figure.axes[0]
    labels = [label.get_text() for label in left.get_yticklabels()]
    asked = {"Cell and highway": ["Causal LSTM", "PredRNN++", "ConvLSTM"], "Depth": ["Deep"]}
    asked |= {"Gate bias of the highway": ["Open"]}
    assert labels == [label for title, rows in asked.items() for label in (title, *rows)]
    usual = stats.gmean([0.02, 0.04, 0.06])  # of predrnnpp, the second variant
    bars = [line for line in left.lines if line.get_color() == "#999999"]
    assert [bar.get_xdata()[0] for bar in bars] == pytest.approx([usual, usual])
    means = [line.get_xdata()[0] for line in left.lines if line.get_markersize() == 4.2]
    assert means == pytest.approx([stats.gmean([0.01 * place * seed for seed in (1, 2, 3)]) for place in range(1, 6)])


def test_questions_of_study_init_hold_every_variant_once_with_its_partner():
    protocol = load_protocol("study-init")
    asked = {one.title: one for one in questions(protocol)}
    assert sorted(variant for one in asked.values() for variant in one.variants) == sorted(
        entry.id for entry in protocol.variants
    )
    assert asked["Depth"].usual["predrnnpp-l8"] == "predrnnpp"
    assert asked["Forget bias"].usual == {"convlstm-fb0": "convlstm"}
    assert len(asked["Cell and highway"].variants) == 9
    assert readable_variants(protocol) == asked["Cell and highway"].variants


def test_more_variants_than_can_be_read_get_no_figure_with_a_line_each(make_protocol):
    many = [{"id": f"v{n}", "base": "convlstm", "training": {"learning_rate": 0.001 * n}} for n in range(1, 20)]
    assert len(many) > MOST_VARIANTS
    protocol = make_protocol(variants=many)
    assert figures_of(protocol) == ("scores", "differences")
    assert tables_of(protocol) == (*tables_of(make_protocol()), "learning_rates")
    staged = ("reach_over_training", "openness_over_training")
    assert figures_of(make_protocol(**STAGED)) == (*figures_of(make_protocol()), *staged)


@pytest.mark.parametrize(
    "name",
    ["reach_against_error", "reach_over_training", "openness_over_training", "gradient_heatmap", "gradient_paths"],
)
def test_a_variant_of_which_all_diverged_is_drawn_nowhere_and_named(draw, name):
    def runs_of(protocol):
        return made_runs(protocol, diverged={("predrnn", seed) for seed in (1, 2, 3)})

    _, _, figure = draw(name, runs_of, variants=HIGHWAYS, **STAGED)
    said = words(figure)
    assert "Diverged and left out: PredRNN (seed 1)" in said
    assert "PredRNN " not in said.replace("PredRNN (seed", "")


@pytest.mark.parametrize("name", ["gradient_heatmap", "gradient_paths", "reach_over_training", "reach_against_error"])
def test_if_every_run_diverged_the_figure_says_so(draw, name):
    def runs_of(protocol):
        return made_runs(protocol, diverged={("predrnn", 1)})

    _, _, figure = draw(name, runs_of, variants=["predrnn"], seeds=[1], probe={"steps": [2, 4]})
    assert "Every run diverged." in words(figure) or "No run has both" in words(figure)


def test_figures_that_show_some_variants_only_say_which(draw):
    deep = [{"id": f"v{n}", "base": "convlstm", "label": f"Deep {n}", "layers": n} for n in range(3, 18)]
    usual = ["convlstm", "predrnn", "causal-lstm", "predrnnpp"]
    many = [*deep, *({"id": f"{base}-b", "base": base, "label": f"{base} again"} for base in usual), *usual]
    protocol, _, figure = draw("gradient_paths", variants=many, seeds=[1])
    shown = readable_variants(protocol)
    assert len(shown) == 8
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.lines]
    assert len(titles) == 8
    assert not any(title.startswith("Deep") for title in titles)
    assert "Shown: the 8 of 23 variants that ask for cell and highway alone." in words(figure)


def test_the_peak_of_the_learning_rate_is_marked_where_the_schedule_of_a_training_has_it(make_protocol):
    training = {"steps": 40, "schedule": "one-cycle", "sampling": {"kind": "scheduled", "stop": 24}}
    protocol = make_protocol(training=training, probe={"steps": [10]})
    keys = protocol.first_run("convlstm").training
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=keys.learning_rate)
    schedule, rates = make_schedule(optimizer, keys), []
    for _ in range(keys.steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    marked = {words: step for words, (step, _) in turning_points(protocol).items()}
    assert abs(marked["peak of the learning rate"] - int(np.argmax(rates))) <= 1
    assert marked["end of sampling"] == 24
    assert turning_points(make_protocol(training={"sampling": {"kind": "none"}})) == {}


@pytest.mark.parametrize(
    "name",
    ["gradient_norm", "gradient_norm_layers", "gradient_heatmap", "gradient_paths", "openness", "reach_over_training"],
)
def test_a_variant_of_which_no_run_has_learnt_is_named_in_place_of_its_gradients(draw, name):
    def failed(protocol):
        return [replace(run, learnt=run.variant != "predrnnpp") for run in made_runs(protocol)]

    _, _, figure = draw(name, failed, **STAGED, variants=HIGHWAYS)
    drawn = [text.get_text() for text in figure.findobj(Text)]
    if name != "reach_over_training":
        assert any("No run has learnt: PredRNN++." in text for text in drawn)
    lines = {line.get_label() for axes in figure.axes for line in axes.get_lines() if len(line.get_xdata()) > 2}
    assert "PredRNN++" not in lines

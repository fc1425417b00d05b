"""Films, gradient curves and the figures of a protocol, made from tiny real files and read back."""

import base64
import contextlib

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from benchmark.config.protocol import PROTOCOLS, load_protocol, run_path
from benchmark.config.variants import NO_SEED
from benchmark.evaluation.clip_images import film_animation, film_strip
from benchmark.reporting.figures import style as drawing
from benchmark.reporting.figures.gradient_norms import probe_figure
from benchmark.reporting.figures.style import finish, looks, page
from benchmark.reporting.outputs import FIGURE_FORMATS, figures_of
from benchmark.reporting.registry import FIGURES, SETS
from benchmark.system.files import write_json
from benchmark.system.parquet import write_parquet
from tests.helpers.fixtures import made_probe
from tests.helpers.pixels import enlarged, places
from tests.helpers.recorded import write_figures

CONTEXT, HORIZON, SIDE = 3, 2, 12
FRAMES = CONTEXT + HORIZON


def clips(seed: int = 0) -> dict[str, np.ndarray]:
    """Two clips of noise in black and white, predicted as grey noise."""
    random = np.random.default_rng(seed)
    frames = 255 * random.integers(0, 2, (2, FRAMES, SIDE, SIDE, 1), dtype=np.uint8)
    prediction = random.integers(0, 256, (2, HORIZON, SIDE, SIDE, 1), dtype=np.uint8)
    return {
        "clip": np.array([1, 2]),
        "context": frames[:, :CONTEXT],
        "truth": frames[:, CONTEXT:],
        "prediction": prediction,
    }


def gradient_norms(states: dict[str, int], half_life: float, measure: str = "residual") -> pd.DataFrame:
    """Norms of a probe that halve every `half_life` frames of age, on a scale of each layer's and clip's own."""
    rows = [
        (stage, step, measure, clip, state, layer, t, clip * 10**layer * 2 ** ((t - FRAMES) / half_life))
        for stage, step in (("init", 0), ("trained", 8))
        for state, layers in states.items()
        for layer in range(1, layers + 1)
        for clip in (1, 2, 3)
        for t in range(1, CONTEXT + 1 if state == "X" else FRAMES)
    ]
    return pd.DataFrame(rows, columns=["stage", "step", "measure", "clip", "state", "layer", "t", "norm"])


def write_scores(folder, variant: str, seed: int, mse: float) -> None:
    folder.mkdir(parents=True)
    rows = [(variant, seed, clip, frame, mse * frame) for clip in (1, 2) for frame in range(1, HORIZON + 1)]
    frames = pd.DataFrame(rows, columns=["variant", "seed", "clip", "frame", "mse"]).assign(psnr=20.0)
    write_parquet(folder / "frames.parquet", frames)
    np.savez(folder / "examples.npz", **clips())


def write_results(results_dir, protocol, diverged=()) -> None:
    """The files of all runs: the MSE of seed s is 10 s times the frame, the openness of a highway 0.1 s."""
    write_json(results_dir / protocol.name / "lpips_backbone.json", {"net": "squeeze", "status": "not measured"})
    for run in protocol.runs():
        folder, slot = run.path(results_dir), run.model.highway_slot
        write_scores(folder, run.variant, run.seed, 10.0 * run.seed)
        states = (
            {"X": 1, "H": 2, "C": 2} | ({"M": 2} if run.model.cell != "convlstm" else {}) | ({"Z": 1} if slot else {})
        )
        half_lives = {"residual": 2, "fixed": 5, "memory": 3, "frames": 1}
        measures = [gradient_norms(states, half_life, measure) for measure, half_life in half_lives.items()]
        write_parquet(folder / "probe.parquet", pd.concat(measures))
        openness = {"openness": [0.1 * run.seed] * (FRAMES - 1) if slot else []}
        probe = made_probe(run, reach=0.5, half_life=2.0)
        write_json(folder / "probe.json", {stage: found | openness for stage, found in probe.items()})
        state = "diverged" if (run.variant, run.seed) in diverged else "finished"
        write_json(folder / "status.json", {"state": state, "step": 8, "steps": 8})
        write_json(folder / "provenance.json", {"data_hash": "d"})
        (folder / "model.safetensors").write_bytes(b"weights")
    for name in protocol.baselines:
        write_scores(run_path(results_dir, protocol.name, name, NO_SEED), name, NO_SEED, 100.0)


@pytest.fixture
def drawn(tmp_path, make_protocol, monkeypatch):
    """Draw the figures of the tiny protocol and return, by name, the figure objects that would be saved."""
    saved = {}

    def draw(diverged=(), **changes):
        protocol = make_protocol(**changes)
        write_results(tmp_path, protocol, diverged)
        monkeypatch.setattr(Figure, "draw_without_rendering", lambda figure: None)
        monkeypatch.setattr(drawing, "atomic_buffer", contextlib.nullcontext)  # gives savefig the path itself
        monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: saved.update({path.stem: figure}))
        write_figures(protocol, tmp_path)
        return saved

    return draw


def words(figure: Figure) -> str:
    return " ".join(" ".join(text.get_text() for text in figure.findobj(Text)).split())


def bands(figure: Figure) -> int:
    """Number of bands that cover an area."""
    found = [path for band in figure.findobj(PolyCollection) for path in band.get_paths()]
    return sum(bool(len(path.vertices)) for path in found)


def test_every_figure_is_written_in_every_format_at_the_width_of_a_page(tmp_path, make_protocol):
    protocol = make_protocol(variants=["predrnnpp"], seeds=[1])
    write_results(tmp_path, protocol)
    write_figures(protocol, tmp_path)
    folder = tmp_path / "tiny" / "figures"
    names = figures_of(protocol)
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{n}.{e}" for n in names for e in FIGURE_FORMATS)
    for name in names:
        assert b"/MediaBox [ 0 0 504 " in (folder / f"{name}.pdf").read_bytes()
        with Image.open(folder / f"{name}.png") as image:
            assert image.width == 7 * 220
            assert np.asarray(image).std() > 0


def test_a_protocol_with_slots_and_depths_has_their_figures_too(tmp_path, make_protocol):
    deep = {"id": "deep", "base": "causal-lstm", "layers": 3}
    variants = ["causal-lstm", "predrnnpp", {"id": "two", "base": "predrnnpp", "layers": 3}, deep]
    variants += [{"id": "top", "base": "predrnnpp-top", "layers": 3}]
    protocol = make_protocol(variants=variants, seeds=[1])
    write_results(tmp_path, protocol)
    write_figures(protocol, tmp_path)
    names = {path.stem for path in (tmp_path / "tiny" / "figures").iterdir()}
    captions = {path.stem: path.read_text() for path in (tmp_path / "tiny" / "captions").iterdir()}
    assert captions == {name: f"{(FIGURES | SETS)[name].caption}\n" for name in (*names, *SETS)}
    assert names == set(figures_of(protocol)) == {*figures_of(make_protocol()), "slots", "depth", "highway_effect"}


def test_page_of_a_film_plays_its_gif_under_the_label_as_it_was_written(tmp_path, make_protocol):
    protocol = make_protocol(variants=[{"id": "odd", "base": "predrnnpp", "label": 'A <b> & "c"'}], seeds=[1])
    write_results(tmp_path, protocol)
    write_figures(protocol, tmp_path)
    page, film = ((tmp_path / "tiny" / "films" / f"odd.{ending}") for ending in ("html", "gif"))
    assert "<h1>A &lt;b&gt; &amp; &#34;c&#34;, seed 1</h1>" in page.read_text()
    assert base64.b64encode(film.read_bytes()).decode() in page.read_text()
    with Image.open(film) as frames:
        assert frames.n_frames == FRAMES
    assert not (tmp_path / "tiny" / "states").exists()


def test_equal_figures_have_equal_bytes_on_another_day(tmp_path, monkeypatch):
    for day in (1, 2):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(day * 86400))  # what matplotlib takes for today
        with page([tmp_path / f"{day}.{ending}" for ending in FIGURE_FORMATS], height=1.0) as figure:
            figure.subplots().plot([1, 2], [3, 4])
            finish(figure, "Title", ["Note."])
    for ending in FIGURE_FORMATS:
        assert (tmp_path / f"1.{ending}").read_bytes() == (tmp_path / f"2.{ending}").read_bytes()


def test_with_one_seed_every_figure_says_that_it_ranks_nothing_and_has_no_band(drawn, make_protocol):
    figures = drawn(seeds=[1])
    assert sorted(figures) == sorted(
        [*figures_of(make_protocol()), *(f"{state}-{half}" for state in "XHCM" for half in ("with", "without"))]
    )
    for name, figure in figures.items():
        assert "n = 1: ranks nothing" in words(figure), name
        assert bands(figure) == 0, name


def test_two_seeds_have_no_band(drawn):
    figures = drawn(seeds=[1, 2], variants=["predrnnpp"])
    assert "n = 2 seeds" in words(figures["openness"])
    assert bands(figures["openness"]) == 0


def test_a_band_is_the_t_interval_over_three_seeds(drawn):
    figures = drawn(seeds=[1, 2, 3], variants=["predrnnpp"])
    assert "n = 3 seeds, mean; band: 95 % t interval over seeds." in words(figures["openness"])
    (band,) = figures["openness"].axes[0].findobj(PolyCollection)
    low, high = band.get_paths()[0].get_extents().intervaly
    margin = 4.302653 * 0.1 / np.sqrt(3)  # t of 2 degrees of freedom, sd 0.1
    assert (low, high) == pytest.approx((0.2 - margin, 0.2 + margin))


def test_a_diverged_run_is_named_in_every_figure_and_drawn_in_none(drawn):
    figures = drawn(diverged={("predrnn", 1), ("predrnn", 2), ("convlstm", 2)})
    for name, figure in figures.items():
        said = words(figure)
        assert "Diverged and left out: ConvLSTM (seed 2), PredRNN (seed 1), PredRNN (seed 2)." in said, name
        if name not in ("scores", "differences"):  # which say so in its row
            assert "PredRNN " not in said.replace("PredRNN (seed", ""), name
    assert {line.get_ydata()[0] for line in figures["mse_per_frame"].axes[1].lines} == {10.0, 15.0}


def test_relative_norms_are_one_at_the_last_context_frame_and_fall_with_age(drawn):
    figures = drawn(seeds=[1], variants=["predrnnpp"])
    axes = figures["gradient_norm"].axes
    assert [one.get_title(loc="left") for one in axes[:5]] == [
        "frame X",
        "hidden H",
        "memory C",
        "zigzag M",
        "highway Z",
    ]
    for one in axes:
        times = one.lines[0].get_xdata()
        expected = 2 ** ((times - CONTEXT) / 2)
        np.testing.assert_allclose(one.lines[0].get_ydata(), expected, rtol=2e-5)  # records keep five digits


def test_error_curves_are_the_means_over_clips_and_seeds_with_the_baselines(drawn):
    figures = drawn(seeds=[1, 2])
    every, alone = figures["mse_per_frame"].axes
    ends = sorted(line.get_ydata()[-1] for line in every.lines)
    assert ends == [30.0, 30.0, 30.0, 200.0, 200.0, 200.0]
    assert [line.get_ydata()[-1] for line in alone.lines] == [30.0, 30.0, 30.0]
    assert list(alone.lines[0].get_xdata()) == [CONTEXT + 1, CONTEXT + 2]
    assert "squared error summed over pixels" in every.get_ylabel()


def test_without_a_highway_the_openness_figure_says_so(drawn):
    figures = drawn(seeds=[1], variants=["convlstm", "predrnn"])
    assert "No variant shown here has a highway." in words(figures["openness"])
    assert "highway Z" not in words(figures["gradient_norm"])


def test_the_film_has_a_row_for_every_variant_and_baseline_with_its_error(drawn):
    said = words(drawn(seeds=[2])["film"])
    for label in ("Truth", "ConvLSTM", "PredRNN", "PredRNN++", "Last frame repeated", "Mean of the context", "Black"):
        assert label in said
    assert "30.0" in said
    assert "150.0" in said


@pytest.mark.parametrize("path", sorted(PROTOCOLS.glob("*.yaml")), ids=lambda path: path.stem)
def test_no_two_variants_of_a_protocol_look_alike_even_printed_grey(path):
    found = looks(load_protocol(str(path))).values()
    if len(found) <= 24:
        assert len({(look.marker, look.filled) for look in found}) == len(found)
    assert len({(look.color, str(look.line), look.marker, look.filled) for look in found}) == len(found)


def test_the_line_says_where_the_highway_sits():
    found = looks(load_protocol("quick"))
    assert found["convlstm"].line == found["causal-lstm"].line == "-"
    assert (
        len({str(found[variant].line) for variant in ("predrnn", "predrnnpp", "predrnnpp-middle", "predrnnpp-top")})
        == 4
    )


def test_the_probe_figure_shows_the_residual_measure_before_and_after_training_only(tmp_path):
    norms = gradient_norms({"X": 1, "H": 2}, half_life=2)
    other = gradient_norms({"X": 1, "H": 2, "Z": 1}, half_life=0.1, measure="fixed")
    between = gradient_norms({"X": 1, "H": 2}, half_life=0.1).assign(stage="step-10", step=10)
    for name, table in (("residual", norms), ("all", pd.concat([norms, other, between]))):
        probe_figure(table, "PredRNN++, seed 1", tmp_path / f"{name}.png", CONTEXT)
    assert (tmp_path / "all.png").read_bytes() == (tmp_path / "residual.png").read_bytes()


def test_a_strip_shows_the_pixels_of_every_frame_aligned_in_time(tmp_path):
    examples = clips()
    film_strip(examples, "PredRNN++, seed 1", tmp_path / "film.png")
    with Image.open(tmp_path / "film.png") as image:
        grey = np.asarray(image.convert("L"))
    scale = 128 // SIDE
    for clip in range(2):
        true = np.concatenate([examples["context"][clip], examples["truth"][clip]])
        found = [places(grey, enlarged(frame, scale)) for frame in true]
        assert all(len(place) == 1 for place in found)
        (columns, rows) = zip(*(place[0] for place in found), strict=True)
        assert len(set(rows)) == 1
        assert list(columns) == sorted(columns)
        predicted = [places(grey, enlarged(frame, scale)) for frame in examples["prediction"][clip]]
        assert [[x for x, _ in place] for place in predicted] == [[x] for x in columns[CONTEXT:]]
        assert all(place[0][1] > rows[0] for place in predicted)


def test_errors_are_blue_where_too_dark_and_red_where_too_bright(tmp_path):
    examples = clips() | {"truth": np.full((2, HORIZON, SIDE, SIDE, 1), 128, np.uint8)}
    examples["prediction"] = np.full_like(examples["truth"], 128)
    examples["prediction"][..., :2, 0] = 28
    examples["prediction"][..., 5:, 0] = 228
    film_strip(examples, "PredRNN++, seed 1", tmp_path / "film.png")
    with Image.open(tmp_path / "film.png") as image:
        red, _, blue = np.asarray(image).astype(int).transpose(2, 0, 1)
    column = 2 * HORIZON * SIDE * (128 // SIDE) ** 2  # pixels of one column of a frame, in all errors of both clips
    legend = 8 * 24 * 24
    assert 2 * column <= (blue > red + 60).sum() <= 2 * column + legend
    assert 7 * column <= (red > blue + 60).sum() <= 7 * column + legend + 3 * 1000  # and the mark of the horizon


def test_an_animation_plays_the_context_then_truth_beside_prediction_and_rests_at_the_end(tmp_path):
    examples = clips()
    film_animation(examples, tmp_path / "film.gif")
    true = np.concatenate([examples["context"], examples["truth"]], axis=1)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == FRAMES
        assert film.info["loop"] == 0
        durations = []
        for t in range(FRAMES):
            film.seek(t)
            durations.append(film.info["duration"])
            grey = np.asarray(film.convert("L"))
            scale = round(128 / SIDE)
            assert [len(places(grey, enlarged(clip[t], scale))) for clip in true] == [1, 1]
            x, y = places(grey, enlarged(true[0, t], scale))[0]
            beside = grey[y : y + scale * SIDE, x + scale * SIDE + 10 :][:, : scale * SIDE]
            if t < CONTEXT:
                assert np.ptp(beside) == 0
            else:
                shown = beside[scale // 2 :: scale, scale // 2 :: scale].astype(int)
                assert np.abs(shown - examples["prediction"][0, t - CONTEXT, ..., 0]).max() <= 1
    assert durations[:-1] == [200] * (FRAMES - 1)
    assert durations[-1] >= 1000


def test_equal_clips_give_equal_films(tmp_path):
    for name in ("one", "two"):
        film_strip(clips(), "PredRNN++", tmp_path / f"{name}.png")
        film_animation(clips(), tmp_path / f"{name}.gif")
    for ending in ("png", "gif"):
        assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()
    film_strip(clips(seed=1), "PredRNN++", tmp_path / "other.png")
    assert (tmp_path / "other.png").read_bytes() != (tmp_path / "one.png").read_bytes()

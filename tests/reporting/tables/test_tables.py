"""Tables parsed back from their files: what they say is what the runs hold."""

import hashlib
import math
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmark.config.metrics import METRICS
from benchmark.config.protocol import load_protocol
from benchmark.reporting import registry
from benchmark.reporting.outputs import TABLE_FORMATS, tables_of
from benchmark.reporting.tables.rendering import DIGIT_WIDE, MINUS, MISSING, POINT_WIDE
from benchmark.system.errors import UserError
from benchmark.system.files import read_json, write_json
from benchmark.system.parquet import write_parquet
from tests.helpers.recorded import write_tables

SEEDS = [1, 2, 3]
TABLES = tables_of(load_protocol("smoke"))
"""Of every protocol that trains, and the one of `probe.memory`."""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder for what several tests write alike."""
    return tmp_path_factory.mktemp("written")


@pytest.fixture
def write(make_protocol, write_finished, written, tmp_path):
    """Write the tables of the tiny protocol with made-up scores, alike once and then a copy; returns its folder."""

    def made(seeds=SEEDS, primary=None, **changes):
        known = written / hashlib.sha256(repr((seeds, primary, sorted(changes.items()))).encode()).hexdigest()
        if known.exists():
            shutil.copytree(known, tmp_path / "results")
            return tmp_path / "results" / "tiny"
        protocol = make_protocol(seeds=seeds, primary=primary or {}, probe={"memory": True})
        results_dir = write_finished(protocol, **changes)
        write_tables(protocol, results_dir)
        shutil.copytree(results_dir, known)
        return results_dir / "tiny"

    return made


def csv_of(folder, name):
    return pd.read_csv(folder / "tables" / f"{name}.csv")


def parse_markdown(text):
    """Title, cells and notes."""
    title, _, rest = text.removeprefix("### ").partition("\n\n")
    body, _, notes = rest.partition("\n\n")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()]
    assert all(re.fullmatch(r":?-+:?", cell) for cell in rows[1])
    return title, pd.DataFrame(rows[2:], columns=rows[0]), notes


SIGNS = {
    r"$\downarrow$": "↓",
    r"$\uparrow$": "↑",
    r"$\to$": "->",
    r"\textsuperscript{\dag}": "†",
    r"\textsuperscript{\ddag}": "‡",
    r"$\Delta$": "Δ",
    r"$\times$": "×",
    "$-$": MINUS,
    r"$\tau$": "τ",
    "$^2$": "²",
    "$^6$": "⁶",
    r"\phantom{0}": DIGIT_WIDE,
    r"\phantom{,}": POINT_WIDE,
    "--": MISSING,
}


def parse_latex(text):
    """The cells, with their signs as in Markdown."""
    text = re.sub(r"\\shortstack\[l\]\{([^}]*)\}", lambda head: head[1].replace(r" \\ ", " "), text)
    inner = text.partition("\\toprule")[2].partition("\\bottomrule")[0].replace("\\midrule", "")
    for latex, sign in SIGNS.items():
        inner = inner.replace(latex, sign)
    inner = re.sub(r"\\textbf\{([^}]*)\}", r"**\1**", inner)
    rows = [re.split(r"(?<!\\)&", line) for line in re.split(r"\\\\\s*", inner) if line.strip()]
    cells = [[re.sub(r"\\([&%_#$])", r"\1", cell).strip() for cell in row] for row in rows]
    return pd.DataFrame(cells[1:], columns=cells[0])


def scores(folder, variant, seeds=SEEDS):
    """The frames of a variant, seed by seed."""
    return [pd.read_parquet(folder / "runs" / variant / f"seed={seed}" / "frames.parquet") for seed in seeds]


def test_every_table_stands_there_in_every_format(write):
    folder = write()
    assert {path.name for path in (folder / "tables").iterdir()} == {
        f"{name}.{ending}" for name in TABLES for ending in TABLE_FORMATS
    }
    captions = {path.stem: path.read_text() for path in (folder / "captions").iterdir()}
    assert captions == {name: f"{registry.TABLES[name].caption}\n" for name in TABLES}


@pytest.mark.parametrize("lpips", [True, False])
def test_markdown_and_latex_hold_the_same_cells(write, lpips):
    folder = write(lpips=lpips, diverged={("predrnn", 2)}, silent={("convlstm", 1)})
    for name in TABLES:
        _, markdown, notes = parse_markdown((folder / "tables" / f"{name}.md").read_text())
        latex = (folder / "tables" / f"{name}.tex").read_text()
        assert latex.isascii()
        pd.testing.assert_frame_equal(markdown, parse_latex(latex))
        assert latex.count("\n\n") >= notes.count("* ") - 1


NO_ROW_A_VARIANT = ("comparison", "reach_effects", "reach_definitions", "reach_error", "paper")


def test_every_variant_stands_in_every_table_in_the_order_of_the_protocol(write):
    folder = write()
    for name in (name for name in TABLES if name not in NO_ROW_A_VARIANT):
        variants = ["convlstm", "predrnn", "predrnnpp"]
        if name in ("main", "per_frame", "conventions"):
            variants += ["last-frame", "context-mean", "black"]
        assert list(csv_of(folder, name)["variant"].unique()) == variants
        _, cells, _ = parse_markdown((folder / "tables" / f"{name}.md").read_text())
        assert list(cells["Model"].unique())[:3] == ["ConvLSTM", "PredRNN", "PredRNN++"]
        assert len(cells) == len(variants) * (2 if name == "memory" else 1)  # a row a layer


def test_means_and_intervals_are_those_of_scipy_over_seeds(write):
    folder = write()
    main = csv_of(folder, "main").set_index("variant")
    for variant in ("convlstm", "predrnn", "predrnnpp"):
        for metric in ("mse", "mae", "psnr", "ssim", "lpips_squeeze"):
            means = [float(frames[metric].mean()) for frames in scores(folder, variant)]
            low, high = stats.t.interval(0.95, 2, np.mean(means), stats.sem(means))
            expected = [np.mean(means), np.std(means, ddof=1), low, high]
            found = main.loc[variant, [f"{metric}_{key}" for key in ("mean", "sd", "low", "high")]]
            np.testing.assert_allclose(found.astype(float), expected, rtol=1e-12)
        assert main.loc[variant, "n"] == 3
        assert main.loc[variant, "clips_seen"] == 8 * 2


def test_cells_are_the_rounded_values_of_the_csv(write):
    folder = write()
    values = csv_of(folder, "main")
    _, cells, _ = parse_markdown((folder / "tables" / "main.md").read_text())
    for metric, decimals in {"mse": 1, "mae": 1, "psnr": 2, "ssim": 3, "lpips_squeeze": 3}.items():
        for text, row in zip(cells[METRICS[metric].head], values.itertuples(), strict=True):
            numbers = [float(part.replace(",", "")) for part in re.findall(r"-?[\d,]+\.\d+", text)]
            wanted = [getattr(row, f"{metric}_{key}") for key in ("mean", "low", "high")]
            assert numbers == [round(value, decimals) for value in wanted if not math.isnan(value)]
    assert list(cells["Parameters"][:3]) == [f"{count:,}" for count in values["parameters"][:3]]


def test_per_frame_table_is_the_mean_of_that_frame(write):
    folder = write()
    table = csv_of(folder, "per_frame").set_index(["variant", "frame"])
    assert len(table) == 6 * 2
    for frame in (1, 2):
        means = [frames[frames["frame"] == frame]["mse"].mean() for frames in scores(folder, "predrnn")]
        assert table.loc[("predrnn", frame), "mse_mean"] == pytest.approx(np.mean(means), rel=1e-12)
    _, cells, _ = parse_markdown((folder / "tables" / "per_frame.md").read_text())
    assert list(cells.columns) == ["Model", "n", "1", "2"]
    assert float(cells.set_index("Model").loc["PredRNN", "2"]) == round(table.loc[("predrnn", 2), "mse_mean"], 1)


@pytest.mark.parametrize(("seeds", "sd"), [([1], False), ([1, 2], True)])
def test_fewer_than_three_seeds_get_no_interval_and_no_rank(write, seeds, sd):
    folder = write(seeds=seeds)
    main = csv_of(folder, "main")
    assert main.filter(regex="_(low|high)$").isna().all(axis=None)
    assert main.loc[:2, "mse_sd"].notna().all() == sd
    text = (folder / "tables" / "main.md").read_text()
    assert f"n = {len(seeds)} seed{'s' * sd}: n too small; no interval, nothing is ranked." in text
    assert "**" not in text
    assert "[" not in text.split("\n\n")[1]


def test_baselines_have_scores_and_neither_cost_nor_interval(write):
    main = csv_of(write(), "main").set_index("variant")
    for name in ("last-frame", "context-mean", "black"):
        assert (main.loc[name, "parameters"], main.loc[name, "clips_seen"], main.loc[name, "n"]) == (0, 0, 1)
        assert math.isfinite(main.loc[name, "mse_mean"])
        assert math.isnan(main.loc[name, "mse_low"])


def test_lpips_without_a_backbone_is_said_to_be_not_measured(write):
    folder = write(lpips=False)
    assert csv_of(folder, "main").filter(like="lpips").empty
    _, cells, notes = parse_markdown((folder / "tables" / "main.md").read_text())
    assert METRICS["lpips_squeeze"].head not in cells
    assert "LPIPS was not measured: no backbone (squeeze); put it there." in notes


def test_diverged_run_is_counted_named_and_in_no_mean(write):
    folder = write(diverged={("predrnn", 2)})
    main = csv_of(folder, "main").set_index("variant")
    assert main.loc["predrnn", "n"] == 3
    _, cells, _ = parse_markdown((folder / "tables" / "main.md").read_text())
    assert cells.set_index("Model").loc["PredRNN", "n"] == "3 (1 of 3 diverged at step 4)"
    means = [frames["mse"].mean() for frames in scores(folder, "predrnn", [1, 3])]
    assert main.loc["predrnn", "mse_mean"] == pytest.approx(np.mean(means), rel=1e-12)
    assert math.isnan(main.loc["predrnn", "mse_low"])
    for name in ("main", "per_frame", "probe"):
        assert (
            "PredRNN, seed 2: diverged at step 4; in n, in no mean." in (folder / "tables" / f"{name}.md").read_text()
        )


def test_updates_left_out_are_counted_under_scores_and_costs(write_finished, make_protocol):
    variants = ["convlstm", {"id": "predrnn", "training": {"on_divergence": "lower_lr"}}]
    protocol = make_protocol(variants=variants, seeds=[1])
    results_dir = write_finished(protocol)
    status = {"state": "finished", "step": 8, "steps": 8, "skipped": 3}
    write_json(protocol.run("predrnn", 1).path(results_dir) / "status.json", status)
    write_tables(protocol, results_dir)
    told = (
        "PredRNN, seed 1: 3 updates left out, loss or gradient not finite, learning rate 0.125 of the protocol's after"
    )
    for name in ("main", "compute"):
        text = (results_dir / "tiny" / "tables" / f"{name}.md").read_text()
        assert told in text
        assert text.count("left out, loss") == 1


@pytest.mark.parametrize("state", ["running", "interrupted", "failed"])
def test_run_whose_training_is_not_over_is_named_and_not_read(write_finished, make_protocol, state):
    protocol = make_protocol(seeds=[1])
    results_dir = write_finished(protocol)
    folder = protocol.run("predrnn", 1).path(results_dir)
    write_json(folder / "status.json", {"state": state, "step": 4, "steps": 8})
    with pytest.raises(UserError, match=f"predrnn/seed=1: not finished .its training is {state}.; run the workflow"):
        write_tables(protocol, results_dir)


def test_variant_of_which_all_runs_diverged_has_no_numbers(write):
    folder = write(diverged={("predrnn", seed) for seed in SEEDS})
    main = csv_of(folder, "main").set_index("variant")
    assert main.loc["predrnn"].filter(regex="mse|ssim").isna().all()
    _, cells, _ = parse_markdown((folder / "tables" / "main.md").read_text())
    assert cells.set_index("Model").loc["PredRNN", METRICS["mse"].head] == "diverged at step 4"


def test_infinite_psnr_is_left_out_and_counted_by_name(make_protocol, write_finished):
    protocol = make_protocol(seeds=[1])
    results_dir = write_finished(protocol)
    path = results_dir / "tiny" / "runs" / "convlstm" / "seed=1" / "frames.parquet"
    frames = pd.read_parquet(path)
    frames.loc[:2, "psnr"] = math.inf
    write_parquet(path, frames)
    write_tables(protocol, results_dir)
    main = csv_of(results_dir / "tiny", "main").set_index("variant")
    assert main.loc["convlstm", "psnr_mean"] == pytest.approx(frames["psnr"][3:].mean())
    assert "left out of its mean: ConvLSTM 3." in (results_dir / "tiny" / "tables" / "main.md").read_text()


def test_probe_table_tells_no_decay_from_decay_seed_by_seed(write):
    folder = write(silent={("convlstm", seed) for seed in SEEDS} | {("predrnn", 2)})
    _, cells, _ = parse_markdown((folder / "tables" / "probe.md").read_text())
    table = csv_of(folder, "probe").set_index(["variant", "stage"])
    trained = table.xs("trained", level="stage")
    assert trained["no_decay"].to_dict() == {"convlstm": 3, "predrnn": 1, "predrnnpp": 0}
    assert trained["half_life"].isna().to_dict() == {"convlstm": True, "predrnn": False, "predrnnpp": False}
    halves = [4.0, 8.0, 12.0]
    limits = stats.t.interval(0.95, 2, np.mean(halves), stats.sem(halves))
    names = ["half_life", "half_life_low", "half_life_high"]
    assert trained.loc["predrnnpp", names].tolist() == pytest.approx([8, *limits])
    assert trained.loc["predrnn", "half_life"] == 8
    assert not [head for head in cells if "Half-life" in head]
    assert table.loc[("predrnn", "init"), "no_decay"] == 1
    reaches = [0.5, 0.25, 0.5 / 3]
    assert table.loc[("predrnn", "init"), "reach"] == pytest.approx(stats.gmean(reaches))
    limits = stats.t.interval(0.95, 2, np.mean(np.log(reaches)), stats.sem(np.log(reaches)))
    assert table.loc[("predrnn", "init"), ["reach_low", "reach_high"]].tolist() == pytest.approx(np.exp(limits))
    assert table.loc[("predrnnpp", "trained"), "openness"] == 0.5
    assert list(cells["Openness, trained"]) == [MISSING, MISSING, "0.50"]


def test_vanished_gradient_is_not_called_no_decay(make_protocol, write_finished):
    protocol = make_protocol(seeds=[1])
    results_dir = write_finished(protocol)
    path = results_dir / "tiny" / "runs" / "convlstm" / "seed=1" / "probe.json"
    vanished = dict.fromkeys(("reach", "slope", "slope_low", "slope_high", "r2", "half_life"))
    write_json(path, {stage: record | {"residual": vanished} for stage, record in read_json(path).items()})
    write_tables(protocol, results_dir)
    _, cells, _ = parse_markdown((results_dir / "tiny" / "tables" / "probe.md").read_text())
    assert cells.set_index("Model").loc["ConvLSTM", "X1 / XK, trained ↑"] == MISSING
    table = csv_of(results_dir / "tiny", "probe").set_index(["variant", "stage"])
    assert table.loc[("convlstm", "trained"), "no_decay"] == 0
    assert math.isnan(table.loc[("convlstm", "trained"), "half_life"])


def test_compute_table_sums_times_and_takes_the_median_speed(write):
    table = csv_of(write(), "compute").set_index("variant")
    assert table.loc["predrnn", ["train_s", "clips_per_s", "peak_memory_mib"]].tolist() == [3.0, 42.0, 300.0]
    assert (table["macs"] > table["parameters"]).all()


def test_heads_carry_units_and_arrows_and_each_metric_its_definition(write):
    folder = write()
    _, cells, notes = parse_markdown((folder / "tables" / "main.md").read_text())
    for metric in ("mse", "mae", "psnr", "ssim", "lpips_squeeze"):
        head = METRICS[metric].head
        assert head in cells.columns
        assert ("↓" in head) == (METRICS[metric].better == "lower")
        assert f"* {head}: {METRICS[metric].definition}; mean over clips and predicted frames." in notes


def test_unfinished_run_is_named(make_protocol, write_finished):
    protocol = make_protocol()
    results_dir = write_finished(protocol)
    (results_dir / "tiny" / "runs" / "predrnn" / "seed=2" / "probe.json").unlink()
    with pytest.raises(UserError, match=r"predrnn/seed=2: not finished \(probe.json is missing\); run the workflow"):
        write_tables(protocol, results_dir)
    assert not (results_dir / "tiny" / "tables").exists()


def test_label_with_signs_of_latex_comes_through(make_protocol, write_finished):
    label = r"A_b 50% #1 & {x} $y$ \z ^ ~"
    protocol = make_protocol(variants=[{"id": "convlstm", "label": label}], seeds=[1])
    results_dir = write_finished(protocol)
    write_tables(protocol, results_dir)
    text = (results_dir / "tiny" / "tables" / "main.tex").read_text()
    escaped = r"A\_b 50\% \#1 \& \{x\} \$y\$ \textbackslash{}z \textasciicircum{} \textasciitilde{}"
    assert f"{escaped} &" in text
    assert f"\n| {label} " in (results_dir / "tiny" / "tables" / "main.md").read_text()


def test_undefined_predictions_are_named_and_never_averaged(make_protocol, write_finished):
    protocol = make_protocol(seeds=SEEDS)
    results_dir = write_finished(protocol)
    path = results_dir / "tiny" / "runs" / "predrnn" / "seed=2" / "frames.parquet"
    frames = pd.read_parquet(path)
    frames.loc[:1, "mse"] = math.nan
    write_parquet(path, frames)
    write_tables(protocol, results_dir)
    main = csv_of(results_dir / "tiny", "main").set_index("variant")
    assert main.loc["predrnn", ["mse_mean", "mse_low"]].isna().all()
    _, cells, notes = parse_markdown((results_dir / "tiny" / "tables" / "main.md").read_text())
    assert cells.set_index("Model").loc["PredRNN", METRICS["mse"].head] == "not finite"
    assert "PredRNN, seed 2: 2 predicted frames hold pixels that are not finite" in notes


def shift(folder, variant, seeds, amount):
    """Make the MSE of every frame of `variant` `amount` and a little more by seed."""
    for seed in seeds:
        path = folder / "runs" / variant / f"seed={seed}" / "frames.parquet"
        frames = pd.read_parquet(path)
        write_parquet(path, frames.assign(mse=amount + 0.01 * seed))


@pytest.mark.parametrize(("seeds", "wanted"), [(SEEDS, {"ConvLSTM", "PredRNN"}), ([1, 2], set())])
def test_best_is_bold_with_what_cannot_be_told_from_it_and_nothing_below_three_seeds(
    make_protocol, write_finished, seeds, wanted
):
    protocol = make_protocol(seeds=seeds)
    results_dir = write_finished(protocol)
    for variant, amount in {"convlstm": 1.0, "predrnnpp": 5.0}.items():
        shift(results_dir / "tiny", variant, seeds, amount)
    for seed, mse in zip(seeds, (0.4, 1.2, 2.3), strict=False):
        shift(results_dir / "tiny", "predrnn", [seed], mse)
    write_tables(protocol, results_dir)
    _, cells, notes = parse_markdown((results_dir / "tiny" / "tables" / "main.md").read_text())
    shown = cells.set_index("Model")[METRICS["mse"].head]
    assert {label for label, cell in shown.items() if cell.startswith("**")} == wanted
    assert ("Bold: the best mean and all that cannot be told from it" in notes) == bool(wanted)


def test_conventions_stand_beside_each_other_with_their_words(write):
    folder = write()
    table = csv_of(folder, "conventions").set_index("variant")
    _, cells, notes = parse_markdown((folder / "tables" / "conventions.md").read_text())
    for metric in ("mse", "mse_unclipped", "mae_unclipped", "psnr_unit_range", "ssim_unit_range", "ssim_range2"):
        means = [float(frames[metric].mean()) for frames in scores(folder, "predrnn")]
        assert table.loc["predrnn", f"{metric}_mean"] == pytest.approx(np.mean(means), rel=1e-12)
        assert METRICS[metric].head in cells.columns
        assert METRICS[metric].definition in notes
    assert table["lpips_squeeze_unit_input_mean"].notna().all()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex (Debian: texlive-latex-recommended)")
def test_every_table_compiles_and_keeps_inside_the_page(write, tmp_path):
    folder = write(seeds=list(range(1, 9)), primary={"pairs": {"predrnn": "convlstm"}}, diverged={("predrnnpp", 2)})
    inputs = "\n".join(f"\\input{{{folder / 'tables' / name}.tex}}\n\\clearpage" for name in TABLES)
    preamble = "\\documentclass{article}\n\\usepackage{booktabs,graphicx,rotating}\n\\begin{document}\n"
    (tmp_path / "sheet.tex").write_text(f"{preamble}{inputs}\n\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "sheet.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert f"({len(TABLES)} pages" in done.stdout


def test_counts_that_are_missing_or_older_than_the_protocol_are_named(make_protocol, write_finished):
    protocol = make_protocol(seeds=SEEDS)
    results_dir = write_finished(protocol)
    file = results_dir / "tiny" / "plan.csv"
    last = protocol.variants[-1].id
    file.write_text("".join(line for line in file.open() if not line.startswith(f"{last},")))
    with pytest.raises(
        UserError, match=rf"plan.csv: lacks variant {last}, .*: python -m benchmark plan --protocol tiny"
    ):
        write_tables(protocol, results_dir)

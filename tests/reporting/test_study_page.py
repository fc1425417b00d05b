"""The page of the study: each of its numbers is in a committed CSV or protocol, and its learning rates are the best."""

from pathlib import Path

import pandas as pd
import pytest

from benchmark.config.protocol import load_protocol
from tests.helpers.study_page import IMAGE, faults, targets

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "results" / "reference" / "study"
PAGES = sorted(STUDY.glob("*.md"))
TRAINED = ("study-main", "study-depth", "study-occlusion")
CSV = "variant,stage,reach_mean,reach_low\nconvlstm,init,0.8380333,0.75\nconvlstm,trained,0.0253053,-1.5\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_number_of_the_page_is_in_its_file(page):
    assert faults(page) == []


def test_the_pages_show_figures_and_cite_every_study_that_is_published():
    texts = [page.read_text() for page in PAGES]
    assert all(IMAGE.findall(text) for text in texts)
    published = {path.parent.name for path in STUDY.parent.glob("study-*/tables")}
    cited = {name.split("/")[1] for text in texts for name in targets(text) if name.endswith(".csv")}
    assert cited == published


@pytest.mark.parametrize("protocol", TRAINED)
def test_each_variant_is_trained_at_the_best_rate_of_its_cell_or_at_that_of_its_highway(protocol):
    rates = pd.read_csv(ROOT / "results" / "reference" / "study-rates" / "tables" / "learning_rates.csv")
    best = rates[rates["best"]].set_index("variant")["learning_rate"]
    of_cell = {entry.base: best[entry.id] for entry in load_protocol("study-rates").variants if entry.id in best}
    studied = load_protocol(protocol)
    for entry in studied.variants:
        rate = studied.first_run(entry.id).training.learning_rate
        assert rate == of_cell.get(entry.reference, of_cell[entry.base or entry.id]), entry.id


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ('[0.838](t.csv "variant=convlstm, stage=init: reach_mean")', None),
        ('[0.84 [0.8]](t.csv "variant=convlstm, stage=init: reach_mean reach_low")', None),
        ('[0.02531 [\N{MINUS SIGN}1.5]](t.csv "variant=convlstm, stage=trained: reach_mean reach_low")', None),
        ('[two of 300](p.yaml "training.steps"), `20`, a 95 % interval, the L2 norm', None),
        ('seeds 1 to [3](p.yaml "seeds")', "1 in"),
        ('[0.839](t.csv "variant=convlstm, stage=init: reach_mean")', "0.839 is written, 0.8380333 is there"),
        ('[\N{MINUS SIGN}0.838](t.csv "variant=convlstm, stage=init: reach_mean")', "is written"),
        ('[0.8](t.csv "variant=convlstm: reach_mean")', "2 rows have"),
        ('[0.8](t.csv "variant=predrnn: reach_mean")', "0 rows have"),
        ('[0.8](t.csv "variant=convlstm, stage=init: reach")', "reach"),
        ('[0.8 and 0.8](t.csv "variant=convlstm, stage=init: reach_mean")', "2 numbers, 1 cells"),
        ("[0.8](other.csv)", "no such file"),
        ("![](figure.png)", "no such file"),
        ("[12 runs](notes.md)", "numbers are linked to a CSV or a protocol"),
        ("about 12 runs", "12 in"),
        ('[200](p.yaml "training.steps")', "200 is written, 300 is there"),
    ],
)
def test_a_number_that_is_not_in_its_file_is_found(words, fault, tmp_path):
    (tmp_path / "t.csv").write_text(CSV)
    (tmp_path / "p.yaml").write_text("training: {steps: 300}\nseeds: [1, 2, 3]\n")
    (tmp_path / "notes.md").write_text("")
    (tmp_path / "page.md").write_text(f"# Page 1\n\n{words}\n")
    found = faults(tmp_path / "page.md")
    assert (found == []) if fault is None else (len(found) == 1 and fault in found[0]), found

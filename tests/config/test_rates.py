"""Learning rates by a rule: a grid becomes variants, and a choice becomes the rate of each variant, never by hand."""

import pytest

from benchmark.config.protocol import load_protocol
from benchmark.config.rates import SERIES, check_chosen, network_hash, next_rate, suffix
from benchmark.system.errors import UserError

CHOICE = """
protocol: tiny-rates
metric: validation/mse
seeds: [101, 102, 103]
learnt_below: 30.0
networks:
  convlstm:
    learning_rate: {rate}
    network: {network}
    fails: false
    at_edge: false
    tried:
      - {{learning_rate: 0.01, validation_mse: 20.0, by_seed: [19.0, null, 21.0], not_learnt: 0}}
"""


@pytest.fixture
def chosen(tmp_path, make_protocol):
    """Write a choice for the tiny ConvLSTM with a rate; returns its path."""

    def write(rate="0.03", network=None):
        path = tmp_path / "choice.yaml"
        model = make_protocol(variants=["convlstm"]).first_run("convlstm").model
        path.write_text(CHOICE.format(rate=rate, network=network or network_hash(model)))
        return str(path)

    return write


def test_each_variant_of_a_grid_is_one_at_every_rate_and_its_further_ones(make_protocol):
    wide = {"id": "wide", "base": "convlstm", "label": "Wide", "hidden_channels": 5, "further_rates": [0.1]}
    protocol = make_protocol(rate_grid=[0.01, 0.03], variants=["predrnn", wide, {"id": "mine", "cell": "convlstm"}])
    found = {run.variant: (run.label, run.training.learning_rate) for run in protocol.runs() if run.seed == 1}
    assert found == {
        "predrnn-lr010": ("PredRNN, rate 0.01", 0.01),
        "predrnn-lr030": ("PredRNN, rate 0.03", 0.03),
        "wide-lr010": ("Wide, rate 0.01", 0.01),
        "wide-lr030": ("Wide, rate 0.03", 0.03),
        "wide-lr100": ("Wide, rate 0.1", 0.1),
        "mine-lr010": ("mine, rate 0.01", 0.01),
        "mine-lr030": ("mine, rate 0.03", 0.03),
    }
    assert protocol.first_run("wide-lr100").model.hidden_channels == (5, 5)


def test_suffixes_of_rates_differ_and_the_next_rate_is_about_three_times_away():
    assert len({suffix(rate) for rate in SERIES}) == len(SERIES)
    assert [suffix(rate) for rate in (0.0003, 0.003, 0.01, 0.1)] == ["-lr0003", "-lr003", "-lr010", "-lr100"]
    assert (next_rate(0.003, up=False), next_rate(0.03, up=True), next_rate(0.01, up=True)) == (0.001, 0.1, 0.03)
    assert next_rate(SERIES[-1], up=True) is None
    assert next_rate(SERIES[0], up=False) is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rate_grid": [0.01, 0.02]}, "0.02 is not one of 0.000001, 0.000003"),
        ({"rate_grid": [0.01, 0.01]}, "names one twice"),
        ({"rate_grid": [0.01, 0.03], "variants": [{"id": "convlstm", "further_rates": [0.01]}]}, "one twice"),
        (
            {"rate_grid": [0.01, 0.03], "variants": [{"id": "convlstm", "training": {"learning_rate": 0.1}}]},
            "convlstm: training.learning_rate: does not go with rate_grid",
        ),
        ({"variants": [{"id": "convlstm", "further_rates": [0.01]}]}, "further_rates: goes with rate_grid"),
        ({"variants": [{"id": "convlstm", "rate_of": "predrnn"}]}, "rate_of: goes with rates"),
        ({"rates": "other", "rate_grid": [0.01]}, "rates: does not go with rate_grid"),
        (
            {"rates": "other", "variants": [{"id": "convlstm", "training": {"learning_rate": 0.1}}]},
            "convlstm: training.learning_rate: rates: other sets it",
        ),
        ({"learnt": {"margin": 1.0}}, "learnt.margin: 1.0"),
        ({"learnt": {"margin": 0.1}, "baselines": []}, "learnt: needs a prediction without training"),
    ],
)
def test_what_contradicts_a_rule_of_rates_is_named(make_protocol, changes, told):
    with pytest.raises(UserError, match=told.replace("[", r"\[").replace(".", r"\.")):
        make_protocol(**changes)


def test_a_choice_decides_the_rates_and_so_what_a_run_is(make_protocol, chosen):
    by_hand = make_protocol(variants=[{"id": "convlstm", "training": {"learning_rate": 0.03}}]).runs()
    plain = make_protocol(variants=["convlstm"], rates="not-chosen-yet").runs()
    by_rule = make_protocol(variants=["convlstm"], rates=chosen()).runs()
    assert [run.training.learning_rate for run in (*by_hand, *by_rule, *plain)] == [0.03] * 4 + [0.01] * 2
    assert [run.identity() for run in by_rule] == [run.identity() for run in by_hand]


def test_rules_decide_nothing_of_a_run_but_by_its_rate(make_protocol):
    plain, ruled = make_protocol(), make_protocol(learnt={"margin": 0.05})
    assert [run.to_dict() for run in ruled.runs()] == [run.to_dict() for run in plain.runs()]


def test_another_network_takes_the_rate_only_where_it_is_named(make_protocol, chosen):
    wide = {"id": "convlstm", "hidden_channels": 5}
    with pytest.raises(UserError, match="convlstm: rates: tiny-rates tried another network under this name"):
        make_protocol(variants=[wide], rates=chosen())
    with pytest.raises(UserError, match="tiny-rates tried no 'predrnn' but convlstm; name one in rate_of"):
        make_protocol(variants=["predrnn"], rates=chosen())
    named = make_protocol(variants=["convlstm", {"id": "predrnn", "rate_of": "convlstm"}], rates=chosen())
    assert named.first_run("predrnn").training.learning_rate == 0.03


def test_a_network_that_diverged_at_every_rate_cannot_be_trained_and_the_message_says_so(make_protocol, chosen):
    with pytest.raises(UserError, match="every seed of convlstm diverged at every rate of tiny-rates: report that"):
        make_protocol(variants=["convlstm"], rates=chosen(rate="null"))


def test_a_damaged_choice_is_named_with_its_place(make_protocol, chosen):
    with pytest.raises(UserError, match=r"choice\.yaml: networks\.convlstm.* 0\.5 is not one of"):
        make_protocol(variants=["convlstm"], rates=chosen(rate="0.5"))


def test_nothing_is_trained_before_rates_are_chosen(chosen):
    check_chosen("tiny", None)
    check_chosen("tiny", chosen())
    with pytest.raises(UserError, match=r"tiny: rates: .*not-yet\.yaml is missing: no rate .* --protocol not-yet"):
        check_chosen("tiny", "not-yet")


def test_the_shipped_grid_names_its_variants_as_its_published_records_are_named():
    protocol = load_protocol("study-rates")
    assert len(protocol.variants) == 9 * len(protocol.rate_grid)
    assert {entry.id for entry in protocol.variants} >= {"convlstm-lr003", "predrnnpp-top-lr030"}

"""A variant in another spelling is answered with the one that is meant, never with another that is near."""

import pytest

from benchmark.config.protocol import load_protocol
from benchmark.config.variants import VARIANTS, unknown_variant
from benchmark.system.errors import UserError, spelling, unknown

SPELLINGS = {
    "predrnn++": "predrnnpp",
    "predrnnplusplus": "predrnnpp",
    "predrnn-plus-plus": "predrnnpp",
    "PredRNN++": "predrnnpp",
    "PredRNN++-top": "predrnnpp-top",
    "PredRNN": "predrnn",
    "causal_lstm": "causal-lstm",
    "Causal LSTM": "causal-lstm",
    "ConvLSTM": "convlstm",
}


def test_no_two_variants_have_one_spelling():
    assert len({spelling(name) for name in VARIANTS}) == len(VARIANTS)


@pytest.mark.parametrize(("word", "meant"), SPELLINGS.items())
def test_another_spelling_is_answered_with_the_name(word, meant):
    assert unknown_variant(word, VARIANTS).startswith(f"unknown variant {word!r}; did you mean {meant!r}? (allowed: ")


@pytest.mark.parametrize("word", ["predrnn++", "PredRNN++", "predrnn-plus-plus"])
def test_where_what_is_meant_is_not_allowed_no_other_is_suggested(word):
    said = unknown_variant(word, ["convlstm", "predrnn"])
    assert said == (
        f"unknown variant {word!r}; did you mean 'predrnnpp', which is not allowed here (allowed: convlstm, predrnn)"
    )


def test_a_name_of_the_registry_that_a_protocol_lacks_is_no_slip_of_another():
    assert unknown_variant("predrnn-ghu", ["predrnn"]) == "unknown variant 'predrnn-ghu' (allowed: predrnn)"


def test_a_slip_is_answered_with_the_nearest_name_of_any_kind():
    assert "did you mean 'predrnn'?" in unknown_variant("predrn", VARIANTS)
    assert "did you mean" not in unknown("seed", 9, [1, 2])
    assert "did you mean 'causal_lstm'?" in unknown("cell", "Causal-LSTM", ["convlstm", "causal_lstm"])


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("variants", ["PredRNN++"], "variants.0"),
        ("variants", ["predrnn-plus-plus"], "variants.0"),
        ("variants", [{"id": "predrnn++"}], "variants.0"),
        ("variants", [{"id": "mine", "base": "predrnn++"}], "variants.0"),
        ("variants", ["predrnnpp", {"id": "convlstm", "reference": "PredRNN++"}], "variants.1"),
        ("primary", {"pairs": {"predrnn++": "predrnn"}}, "primary.pairs"),
        ("primary", {"pairs": {"predrnn": "predrnn++"}}, "primary.pairs"),
    ],
)
def test_a_protocol_is_told_the_name_too(write_protocol, protocol_values, key, value, where):
    with pytest.raises(UserError) as error:
        load_protocol(str(write_protocol(protocol_values | {key: value})))
    assert f": {where}" in str(error.value)
    assert "did you mean 'predrnnpp'?" in str(error.value)

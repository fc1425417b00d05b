"""Whatever stands in a protocol, loading it gives a protocol or one clear message, soon, and runs nothing."""

import copy
import re
import time

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark.config.protocol import PROTOCOLS, Protocol, load_protocol
from benchmark.system.errors import UserError
from tests.helpers import extent

TEXTS = {path.stem: path.read_bytes() for path in sorted(PROTOCOLS.glob("*.yaml"))}
VALUES = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
FUZZED = settings(
    derandomize=True,
    database=None,
    deadline=5000,
    suppress_health_check=list(HealthCheck),
    max_examples=extent.of(100, 1000),
)
"""The same examples every time; none may take longer than 5 s."""

NAMES = ["../x", "/etc", "a b", "a;b", "a\nb", "$(touch pwned)", "", "a" * 10_000, "\u0430bc", "a\u200b", "-rf", "."]
NUMBERS = [0, -1, 1.5, -0.0, 2**31, 2**63, 10**400, 1e308, float("nan"), float("inf"), True, False, "7", "1e3", None]
PLAIN = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(NUMBERS),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(-3, 3), max_size=4),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Writes the bytes of a protocol; returns its path as a string."""
    path = tmp_path_factory.mktemp("protocols") / "mutant.yaml"

    def write(content):
        path.write_bytes(content)
        return str(path)

    return write


def loaded_or_told(path):
    """The protocol at `path`, or the message that says why it is none."""
    try:
        protocol = load_protocol(path)
    except UserError as error:
        text = str(error)
        assert text.startswith(path)
        assert "\n" not in text.removeprefix(path)
        assert len(text) < 1500, text
        return text
    assert isinstance(protocol, Protocol)
    for run in protocol.runs():
        assert re.fullmatch(r"[a-z0-9-]{1,60}/runs/[a-z0-9-]{1,60}/seed=[0-9]{1,10}", str(run.path(type(PROTOCOLS)())))
    return protocol


def places(values, path=()):
    """The path of every value in nested dictionaries and lists."""
    yield path
    entries = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in entries:
        yield from places(value, (*path, key))


def mutate(values, draw):
    """Change one place of `values`: its value, its key, its place, or what stands beside it."""
    *path, last = draw(st.sampled_from([place for place in places(values) if place]))
    inner = values
    for key in path:
        inner = inner[key]
    others = [place for place in places(values) if place]
    kind = draw(st.sampled_from(["value", "value", "remove", "wrap", "copy", "key", "more"]))
    if kind == "value":
        inner[last] = draw(PLAIN)
    elif kind == "remove":
        del inner[last]
    elif kind == "wrap":
        inner[last] = draw(st.sampled_from([[inner[last]], {"id": inner[last]}, str(inner[last])]))
    elif kind == "copy":
        value = values
        for key in draw(st.sampled_from(others)):
            value = value[key]
        inner[last] = copy.deepcopy(value)
    elif kind == "key" and isinstance(inner, dict):
        inner[draw(st.one_of(st.sampled_from(NAMES), st.text(max_size=8)))] = inner.pop(last)
    elif isinstance(inner, list):
        inner.append(copy.deepcopy(inner[last]))
    else:
        inner[draw(st.sampled_from(["seeds", "training", "base", "cohort", "gaps", "label"]))] = draw(PLAIN)


@FUZZED
@given(data=st.data())
def test_mutated_keys_values_and_structures_load_or_are_explained(written, data):
    values = copy.deepcopy(VALUES[data.draw(st.sampled_from(sorted(VALUES)))])
    for _ in range(data.draw(st.integers(1, 3))):
        mutate(values, data.draw)
    loaded_or_told(written(yaml.safe_dump(values, allow_unicode=True).encode("utf-8", "surrogatepass")))


@FUZZED
@given(data=st.data())
def test_mutated_bytes_of_the_text_load_or_are_explained(written, data):
    text = bytearray(TEXTS[data.draw(st.sampled_from(sorted(TEXTS)))])
    for _ in range(data.draw(st.integers(1, 4))):
        first = data.draw(st.integers(0, len(text) - 1))
        last = data.draw(st.integers(first, min(first + 40, len(text))))
        noise = st.binary(max_size=4) | st.sampled_from(list(map(bytes, b"&*!|>{}[]:,%@`\"'\t\0#?-~")))
        put = st.sampled_from(
            [b"&a ", b"*a", b"!!int ", b"<<: ", b"? ", b"1e999", b"\xff\xfe", b"\xe2\x80\xa8", b'"\\U7fffffff"']
        )
        text[first:last] = data.draw(noise | put | st.just(bytes(text[first:last]) * 2))
    loaded_or_told(written(bytes(text)))


def test_every_seed_example_is_valid(written):
    for name, text in TEXTS.items():
        assert isinstance(loaded_or_told(written(text)), Protocol), name


def laughs(levels):
    """YAML of a few hundred bytes that stands for 9**levels values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("about: x\ndata: {digits: mnist,\n  digits: optdigits}\n", "line 3: key 'digits' stands on line 2 already"),
        ("about: x\nseeds: [1]\nabout: y\n", "line 3: key 'about' stands on line 1 already"),
        (
            "about: !!python/object/apply:os.system ['touch PWNED']",
            "line 1: tag 'tag:yaml.org,2002:python/object/apply",
        ),
        ("about: !!python/object/new:os.system ['touch PWNED']", "is refused"),
        ("!!python/module:os", "is refused"),
        ("about: !!binary aGVsbG8=", "is refused"),
        ("about: !mine 5", "tag '!mine' is refused"),
        ("seeds: !!int maybe", "line 1: 'maybe' cannot be read as int"),
        ("1: 2", "line 1: key 1 is not text"),
        ("? [a]\n: 2", "line 1: key ['a'] is not text"),
        (laughs(9), "stands for more than 50,000 values"),
        ("about: &a [*a]", "nested more than 20 deep, or in itself by an alias"),
        ("about: " + "[" * 50_000, "nested more than 20 deep"),
        ("about: " + "x" * 2**18, "is larger than 256 KiB"),
        ("seeds: [" + "9" * 5000 + "]", "cannot be read as int"),
        ('about: "\\U7fffffff"', "is no YAML"),
    ],
    ids=lambda text: text[:30],
)
def test_trap_in_yaml_is_one_message_at_once_and_runs_nothing(tmp_path, monkeypatch, text, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trap.yaml").write_text(text)
    begun = time.monotonic()
    found = loaded_or_told("trap.yaml")
    assert told in found
    assert time.monotonic() - begun < 20  # a hang, whatever the machine
    assert [path.name for path in tmp_path.iterdir()] == ["trap.yaml"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("steps: 12", "steps: true", "training.steps: True: input should be a valid integer"),
        ("steps: 12", 'steps: "12"', "training.steps: '12': input should be a valid integer"),
        ("steps: 12", "steps: 012", "training.steps: '012': input should be a valid integer"),
        ("steps: 12", "steps: 1:30", "training.steps: '1:30': input should be a valid integer"),
        ("steps: 12", "steps: 12.0", "training.steps: 12.0: input should be a valid integer"),
        ("steps: 12", "steps: -1", "training.steps: -1: input should be greater than or equal to 0"),
        ("steps: 12", "steps: 1000000000000", "less than or equal to 1000000000"),
        ("0.003", ".nan", "training.learning_rate: nan: input should be a finite number"),
        ("0.003", "-.inf", "training.learning_rate: -inf: input should be a finite number"),
        ("0.003", "1e999", "training.learning_rate: inf: input should be a finite number"),
        ("0.003", "true", "training.learning_rate: True: input should be a valid number"),
        ("layers: 2", "layers: 1000000000", "model.layers: 1000000000: input should be less than or equal to 256"),
        ("seeds: [1, 2]", "seeds: [true, 2]", "seeds.0: True: input should be a valid integer"),
        ("device: cpu", "reversed_second_step: yes", "reversed_second_step: 'yes': input should be a valid boolean"),
        ("layers: 2", "layers: 2\n  forget_bias: 1e308", "forget_bias: 1e+308 is not between -1000 and 1000"),
        ("hidden_channels: 9", "hidden_channels: 99999", "hidden_channels: (99999, 99999) is above 16384"),
    ],
)
def test_value_of_another_type_or_size_is_refused(written, old, new, told):
    text = TEXTS["smoke"].decode()
    assert old in text
    assert told in loaded_or_told(written(text.replace(old, new, 1).encode()))


def test_number_with_an_exponent_alone_is_a_number(written):
    text = TEXTS["smoke"].replace(b"0.003", b"3e-3")
    assert loaded_or_told(written(text)).training.learning_rate == 0.003

"""Protocols: what is wrong is said in a line, what decides a result is in its identity, what is shipped is valid."""

import json
from pathlib import Path

import jsonschema
import pytest
import torch
import yaml
from pydantic import ValidationError

from benchmark.config.protocol import PROTOCOLS, Protocol, load_protocol
from benchmark.config.variants import VARIANTS
from benchmark.config.workflow import WorkflowConfig
from benchmark.cost.plan import TOLERANCE
from benchmark.system.errors import UserError, explain
from models.counts import count_parameters
from models.predictor import Predictor

SHIPPED = sorted(path.stem for path in PROTOCOLS.glob("*.yaml"))
SCHEMA = PROTOCOLS.parent / "schemas" / "protocol.schema.json"
REGENERATE = (
    "python -c 'import json; from benchmark.config.protocol import Protocol; "
    "print(json.dumps(Protocol.model_json_schema(), indent=2))' > workflows/schemas/protocol.schema.json"
)


def spoil(values, key, value):
    """Set the dotted `key` of `values`; list places are numbers; ... removes it."""
    *path, last = (int(part) if part.isdigit() else part for part in key.split("."))
    for part in path:
        values = values[part]
    if value is ...:
        del values[last]
    else:
        values[last] = value


def message(path):
    """What the user is told about the protocol at `path`, without the path."""
    with pytest.raises(UserError) as raised:
        load_protocol(str(path))
    text = str(raised.value)
    assert text.count("\n") < 2
    assert text.startswith(str(path))
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("trainig", {}, ["trainig", "did you mean 'training'?", "allowed: name, about, data"]),
        ("data.digit", 1, ["data.digit: unknown key 'digit'; did you mean 'digits'?", "allowed: digits, digit_size"]),
        ("model.kernelsize", 3, ["model.kernelsize", "'kernel_size'?"]),
        ("training.lerning_rate", 1, ["training.lerning_rate", "'learning_rate'?", "allowed: steps,"]),
        ("training.sampling.stopp", 1, ["training.sampling.stopp", "'stop'?", "allowed: kind, stop"]),
        ("evaluation.backbone", "alex", ["evaluation.backbone", "'lpips_backbone'?"]),
        ("model.highway_slot", 1, ["model.highway_slot: unknown key", "allowed: layers,"]),
        ("probe.clip", 3, ["probe.clip", "'clips'?", "allowed: clips, batch_size"]),
        ("variants.0", {"id": "convlstm", "layer": 2}, ["variants.0.layer", "'layers'?", "allowed: layers,"]),
        ("variants.0", {"id": "convlstm", "training": {"step": 1}}, ["convlstm: step", "'steps'?", "allowed: steps"]),
        (
            "variants.0",
            {"id": "convlstm", "training": {"sampling": {"kid": 1}}},
            ["variants: convlstm: sampling.kid", "'kind'?"],
        ),
    ],
)
def test_unknown_key_is_named_with_the_nearest_and_the_allowed(write_protocol, protocol_values, key, value, told):
    spoil(protocol_values, key, value)
    text = message(write_protocol(protocol_values))
    assert [part for part in told if part not in text] == []


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("data", None, ["data: None is not a mapping"]),
        ("data", [1], ["data: [1] is not a mapping"]),
        ("data.digits", "emnist", ["data.digits: 'emnist'", "'mnist', 'mnist-t10k' or 'optdigits'"]),
        ("data.context", 0, ["data.context: 0", "greater than or equal to 1"]),
        ("data.horizon", 0, ["data.horizon: 0", "greater than or equal to 1"]),
        ("data.num_digits", 4, ["data.num_digits: 4", "less than or equal to 3"]),
        ("data.digit_size", 12, ["digit_size 12 does not fit into frame_size 12"]),
        ("data.public_test", True, ["public_test needs frame_size 64 and num_digits 2"]),
        ("model.norm", "chanel", ["model.norm: 'chanel'", "'none', 'channel' or 'element'"]),
        ("model.patch_size", 5, ["patch_size: 5 does not divide frame_size 12"]),
        ("model.kernel_size", 4, ["kernel_size: 4 is even"]),
        ("model.hidden_channels", "wide", ["model.hidden_channels: 'wide'", "integer", "tuple"]),
        ("model.hidden_channels", [3, 3, 3], ["hidden_channels: [3, 3, 3] has 3 entries for 2 layers"]),
        ("model.hidden_channels", [3, 4], ["predrnn", "hidden_channels: [3, 4] are unequal", "st_lstm", "one width"]),
        (
            "variants.2",
            {"id": "predrnnpp", "highway_slot": "botom"},
            ["variants.2.highway_slot: 'botom'", "'bottom', 'm"],
        ),
        ("variants.2", {"id": "predrnnpp", "highway_slot": 2}, ["2 with 2 layers; allowed: 1 to 1, or 0 for none"]),
        ("model.layers", 1, ["predrnnpp: highway_slot: 1 with 1 layers", "a highway needs two layers"]),
        ("model.forget_bias", float("nan"), ["model.forget_bias: nan", "finite"]),
        ("training", "fast", ["training: 'fast' is not a mapping"]),
        ("training.steps", "many", ["training.steps: 'many'", "valid integer"]),
        ("training.steps", -1, ["training.steps: -1", "greater than or equal to 0"]),
        ("training.learning_rate", 0, ["training.learning_rate: 0", "greater than 0"]),
        ("training.clip_norm", float("inf"), ["training.clip_norm: inf", "finite"]),
        ("training.schedule", "cosine", ["training.schedule: 'cosine'", "'constant' or 'one-cycle'"]),
        ("training.device", "gpu", ["training.device: 'gpu'", "'auto', 'cpu' or 'cuda'"]),
        (
            "training.sampling",
            {"kind": "reverse", "stop": 2, "reverse_start": 2},
            ["training.sampling: reverse_start 2 must lie below stop 2"],
        ),
        ("evaluation.film_clips", [1, 6], ["evaluation.film_clips: 6 is more than data.test_clips 5"]),
        ("evaluation.beyond", 2, ["evaluation.beyond: 2 must lie above data.horizon 2", "null = none"]),
        ("evaluation.beyond", 1, ["evaluation.beyond: 1", "greater than or equal to 2"]),
        ("evaluation.floor", [1, 4], ["evaluation.floor: 4 is more than data.context 3"]),
        ("evaluation.floor", [0], ["evaluation.floor.0: 0", "greater than or equal to 1"]),
        ("evaluation.floor", [2, 2], ["evaluation.floor: [2, 2] names one twice"]),
        ("evaluation.film_clips", [0], ["evaluation.film_clips.0: 0", "greater than or equal to 1"]),
        ("probe.clips", 6, ["probe.clips: 6 is more than data.test_clips 5"]),
        ("variants", [], ["variants: []", "at least 1"]),
        ("variants", "convlstm", ["variants: 'convlstm'", "tuple"]),
        ("variants", [5], ["variants.0: 5 is not a mapping"]),
        ("variants", ["convlstm", "convlstm"], ["variants: ['convlstm', 'convlstm'] names one twice"]),
        ("variants", ["convlsmt"], ["unknown variant 'convlsmt'; did you mean 'convlstm'?", "causal-lstm-s2t"]),
        ("variants", [{"id": "mine", "base": "predrn"}], ["unknown variant 'predrn'; did you mean 'predrnn'?"]),
        ("variants", ["mine"], ["unknown variant 'mine'", "a new id needs a base, a cell or a model"]),
        ("variants", [{"id": "mine", "cell": "lstm"}], ["variants.0.cell: 'lstm'", "'convlstm'"]),
        (
            "variants",
            [{"id": "mine", "base": "predrnn", "cell": "convlstm"}],
            ["does not go with base predrnn"],
        ),
        ("variants", [{"id": "predrnn", "cell": "convlstm"}], ["does not go with predrnn of the registry"]),
        ("variants", [{"id": "black", "base": "convlstm"}], ["['black'] are names of baselines"]),
        ("variants", [{"id": "convlstm", "training": 5}], ["variants.0.training: 5 is not a mapping"]),
        ("variants", [{"id": "convlstm", "training": {"sampling": 5}}], ["sampling: 5 is not a mapping"]),
        (
            "variants",
            [{"id": "convlstm", "training": {"device": "cuda"}}],
            ["training.device", "same for all variants"],
        ),
        ("variants", [{"id": "convlstm", "label": "two\nlines"}], ["variants.0.label: 'two\\nlines'"]),
        ("variants", [{"id": "convlstm", "label": "a | b"}], ["variants.0.label: 'a | b'"]),
        (
            "variants",
            [{"id": "convlstm", "memory_order": "spatial_to_temporal"}],
            ["causal_lstm only, not for convlstm"],
        ),
        ("baselines", ["mean-digit"], ["baselines: mean-digit does not go with data.digits"]),
        ("primary", {"metric": "skill"}, ["primary.metric: skill is none of data.digits"]),
        ("training.loss_frames", 3, ["training.loss_frames: 3 is more than the 2 that are predicted in training"]),
        (
            "training",
            {"steps": 8, "batch_size": 2, "learning_rate": 0.01, "reversed_second_step": True, "loss_frames": 1},
            ["training.reversed_second_step does not go with training.loss_frames"],
        ),
        ("model.chrono_frames", 2, ["chrono_frames: 2 is below 3"]),
        ("model", {"layers": 2, "hidden_channels": 3, "chrono_frames": 5, "norm": "channel"}, ["norm: channel takes"]),
        ("baselines", ["last"], ["baselines.0: 'last'", "'last-frame', 'context-mean', 'black' or 'mean-digit'"]),
        ("seeds", [1, 1], ["seeds: [1, 1] names one twice"]),
        ("seeds", [-1], ["seeds.0: -1", "greater than or equal to 0"]),
        ("seeds", [], ["seeds: []", "at least 1 item"]),
        ("variants.0", {"id": "convlstm", "seeds": [3, 3]}, ["variants.0.seeds: [3, 3]", "names one twice"]),
        (
            "primary",
            {"metric": "lpips"},
            ["primary.metric: 'lpips'", "'mse', 'mae', 'psnr', 'ssim',"],
        ),
        ("primary", {"interactions": {"predrnn": "prednn"}}, ["primary.interactions: ", "did you mean 'predrnn'?"]),
        (
            "primary",
            {"interactions": {"predrnn": "convlstm"}},
            ["primary.interactions: convlstm has no reference here"],
        ),
        ("primary", {"interactions": {"predrnn": "predrnn"}}, ["primary.interactions: predrnn stands against itself"]),
        ("primary", {"pairs": {"predrnn": "prednn"}}, ["primary.pairs: ", "'prednn'", "did you mean 'predrnn'?"]),
        ("primary", {"pairs": {"prednn": "convlstm"}}, ["primary.pairs: ", "'prednn'", "did you mean 'predrnn'?"]),
        ("primary", {"pairs": {"predrnn": "predrnn"}}, ["predrnn is compared with itself"]),
        ("variants.0", {"id": "convlstm", "reference": "convlst"}, ["variants: convlstm: reference: ", "'convlst'"]),
        ("about", ..., ["about: is missing"]),
        ("data", ..., ["data: is missing"]),
        ("data.digits", ..., ["data: digits, videos or recall is missing: one of them says which kind"]),
        ("training.learning_rate", ..., ["training.learning_rate: is missing"]),
        ("model.hidden_channels", ..., ["convlstm: layers and hidden_channels are needed"]),
    ],
)
def test_impossible_value_is_named_with_its_key_and_what_is_allowed(write_protocol, protocol_values, key, value, told):
    spoil(protocol_values, key, value)
    text = message(write_protocol(protocol_values))
    assert [part for part in told if part not in text] == []


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"gaps": [0, 1]}, "does not go with data.gaps, whose clips are not continued"),
        (
            {"frame_size": 64, "public_test": True},
            "does not go with data.public_test, whose clips end with their horizon",
        ),
    ],
)
def test_clips_that_cannot_be_continued_refuse_the_key_beyond(write_protocol, data, told):
    assert f"evaluation.beyond: 3 {told}" in message(write_protocol(data=data, evaluation={"beyond": 3}))


@pytest.mark.parametrize("name", ["../x", "a b", "a;b", "a\n", "a\nb", "/tmp/a", "", "-a", "A", "a/b", "a" * 61])
@pytest.mark.parametrize("kind", ["protocol", "variant"])
def test_name_that_could_leave_its_folder_or_be_a_command_is_refused(write_protocol, kind, name):
    changes = {"name": name} if kind == "protocol" else {"variants": [{"id": name, "base": "convlstm"}]}
    assert "name: " in (text := message(write_protocol(**changes))) or "variants.0.id: " in text
    assert repr(name) in text


def test_several_mistakes_are_counted(write_protocol):
    assert message(write_protocol(probe={"clip": 1}, seeds=[-1])).endswith("(and 1 more)")


@pytest.mark.parametrize("text", ["", "[1]", "hello", "a: [1,", "a:\n\t- b", "\x00", "a: 1\n---\nb: 2"])
def test_what_is_no_mapping_in_yaml_is_refused(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert "is no YAML" in (told := message(path)) or "not the keys of a protocol" in told


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "is no YAML" in message(path)


def test_missing_file_and_folder_are_said_with_the_protocols_there_are(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    assert "No such file" in message(tmp_path / "missing.yaml")
    assert "smoke" in message(tmp_path / "folder.yaml")


@pytest.mark.parametrize("name", ["smok", "../smoke", "/etc/passwd", "", "a\nb"])
def test_unknown_name_of_a_protocol_lists_the_protocols(name):
    with pytest.raises(UserError) as raised:
        load_protocol(name)
    assert f"unknown protocol {name!r}" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "study-main" in str(raised.value)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"protocl": "smoke"}, "protocl: unknown key 'protocl'; did you mean 'protocol'? (allowed: protocol, data_dir"),
        ({"download": "maybe"}, "download: 'maybe': input should be a valid boolean"),
        ({"protocol": True}, "protocol: is read as True, not as a name; put ./ before it (./NAME)"),
        ({"results_dir": 1e3}, "results_dir: is read as 1000.0, not as a name; put ./ before it (./NAME)"),
        ({"data_dir": None}, "data_dir: is read as nothing, not as a name; put ./ before it (./NAME)"),
        ({"results_dir": {"a": 1}}, "results_dir: is read as {'a': 1}, not as a name"),
    ],
)
def test_mistake_in_the_workflow_configuration_is_explained(values, told):
    with pytest.raises(ValidationError) as raised:
        WorkflowConfig.model_validate(values)
    assert explain(raised.value, WorkflowConfig).startswith(told)


def test_short_and_long_forms_of_a_variant_are_one(make_protocol):
    short = make_protocol(variants=["predrnn"])
    long = make_protocol(variants=[{"id": "predrnn", "base": "predrnn", "layers": 2, "hidden_channels": [3, 3]}])
    assert short.run("predrnn", 1) == long.run("predrnn", 1)


def test_variant_overrides_the_protocol_key_by_key(make_protocol):
    entry = {
        "id": "deep",
        "base": "predrnnpp",
        "label": "Deep",
        "layers": 6,
        "highway_slot": "top",
        "training": {"sampling": {"stop": 3}, "loss": "l1+l2"},
    }
    run = make_protocol(variants=[entry]).run("deep", 2)
    assert (run.label, run.seed, run.model.layers, run.model.highway_slot) == ("Deep", 2, 6, 5)
    assert (run.training.sampling.kind, run.training.sampling.stop) == ("scheduled", 3)
    assert (run.training.loss, run.training.steps) == ("l1+l2", 8)


def test_run_that_is_not_in_the_protocol_is_refused(make_protocol):
    with pytest.raises(ValueError, match="unknown variant 'predrnn-ghu'"):
        make_protocol().run("predrnn-ghu", 1)
    with pytest.raises(ValueError, match="seed 3 is not one of 1, 2"):
        make_protocol().run("predrnn", 3)


BASE = {"id": "predrnnpp"}


def identity(make_protocol, section=None, changes=None, parts=(), seed=1):
    if section == "variant":
        protocol = make_protocol(variants=[BASE | changes])
    else:
        protocol = make_protocol(variants=[BASE], **({section: changes} if section else {}))
    return protocol.run("predrnnpp", seed).identity(*parts)


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("training", {"device": "auto"}),
        ("training", {"threads": 2}),
        ("training", {"log_every": 2}),
        ("training", {"validate_every": 2}),
        ("training", {"checkpoint_every": 2}),
        ("data", {"test_clips": 7}),
        ("evaluation", {"batch_size": 3}),
        ("evaluation", {"floor": [1, 2]}),
        ("probe", {"batch_size": 2}),
        ("variant", {"label": "Another name"}),
        ("name", "another"),
        ("about", "Another sentence."),
        ("seeds", [1, 2, 3]),
        ("baselines", []),
        ("target_parameters", 1),
    ],
)
def test_what_does_not_change_the_weights_keeps_the_identity(make_protocol, section, changes):
    assert identity(make_protocol, section, changes) == identity(make_protocol)


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("data", {"digits": "mnist"}),
        ("data", {"digit_size": 7}),
        ("data", {"frame_size": 16}),
        ("data", {"num_digits": 3}),
        ("data", {"context": 4}),
        ("data", {"horizon": 3}),
        ("data", {"train_clips": 10}),
        ("model", {"hidden_channels": 4}),
        ("model", {"layers": 3}),
        ("model", {"kernel_size": 5}),
        ("model", {"patch_size": 2}),
        ("model", {"norm": "channel"}),
        ("model", {"equations": "paper"}),
        ("model", {"init": "uniform(0.001)"}),
        ("model", {"forget_bias": 0.5}),
        ("model", {"chrono_frames": 5}),
        ("training", {"loss_frames": 1}),
        ("training", {"detach_every": 2}),
        ("model", {"conv_bias": False}),
        ("variant", {"memory_order": "spatial_to_temporal"}),
        ("variant", {"first_gates_see_c": False}),
        ("variant", {"o_sees_h": False}),
        ("variant", {"g2_sees_m": True}),
        ("variant", {"w3_kernel": 1}),
        ("variant", {"highway_slot": 0}),
        ("variant", {"highway_channels": 4}),
        ("variant", {"highway_gate_bias": -1}),
        ("variant", {"base": "convlstm-ghu"}),
        ("training", {"steps": 9}),
        ("training", {"batch_size": 3}),
        ("training", {"learning_rate": 0.02}),
        ("training", {"schedule": "one-cycle"}),
        ("training", {"loss": "l1+l2"}),
        ("training", {"loss_reduction": "half-sum"}),
        ("training", {"sampling": {"kind": "scheduled", "stop": 5}}),
        ("training", {"sampling": {"kind": "none", "stop": 6}}),
        ("training", {"reversed_second_step": True}),
        ("training", {"clip_norm": 1.0}),
        ("training", {"precision": "bf16"}),
    ],
)
def test_what_changes_the_weights_changes_the_identity(make_protocol, section, changes):
    assert identity(make_protocol, section, changes) != identity(make_protocol)


def test_seeds_have_identities_of_their_own(make_protocol):
    assert identity(make_protocol, seed=1) != identity(make_protocol, seed=2)


@pytest.mark.parametrize("parts", [["evaluation"], ["evaluation", "probe"]])
def test_the_floor_decides_nothing_of_a_run(make_protocol, parts):
    asked = make_protocol(evaluation={"floor": [1, 2]})
    assert asked.evaluation.floor == (1, 2)
    assert asked.runs()[0].to_dict() == make_protocol().runs()[0].to_dict()
    assert identity(make_protocol, "evaluation", {"floor": [1, 2]}, parts) == identity(make_protocol, parts=parts)


@pytest.mark.parametrize(
    ("part", "section", "changes"),
    [
        ("evaluation", "evaluation", {"film_clips": [1]}),
        ("evaluation", "data", {"test_clips": 7}),
        ("probe", "probe", {"clips": 4}),
        ("probe", "data", {"test_clips": 7}),
    ],
)
def test_identity_of_a_later_stage_knows_its_section_and_the_test_clips(make_protocol, part, section, changes):
    assert identity(make_protocol, section, changes, [part]) != identity(make_protocol, parts=[part])


FILMS = {"videos": "mine", "frame_size": 12, "context": 3, "horizon": 2, "validation_clips": 3, "test_clips": 5}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"digits": "optdigits"}, ["data: digits and videos: both are given", "keep one"]),
        ({"digit_size": 6}, ["data: digit_size: goes with digits, not with videos: 'mine'"]),
        ({"gaps": [0, 1]}, ["data: gaps: goes with digits, not with videos: 'mine'"]),
        ({"public_test": True}, ["data: public_test: goes with digits"]),
        (
            {"squares": "crop"},
            ["data.squares: unknown key 'squares'; did you mean 'square'?", "allowed: videos, layout,"],
        ),
        ({"videos": "../elsewhere"}, ["data.videos: '../elsewhere'", "pattern"]),
        ({"videos": "/etc"}, ["data.videos: '/etc'"]),
        ({"square": "pad"}, ["data.square: 'pad'", "'stretch' or 'crop'"]),
        ({"layout": "HWT"}, ["data.layout: 'HWT'", "'THWC'"]),
        ({"train_windows": "some"}, ["data.train_windows: 'some'", "'every', 'apart' or 'authors'"]),
        ({"test_windows": "authors"}, ["authors: is how the authors step through kth; mine has every and apart"]),
        ({"videos": "kth", "layout": "THW"}, ["layout: goes with arrays of your own; kth has videos"]),
        ({"test_clips": 1}, ["evaluation.film_clips: 2 is more than data.test_clips 1"]),
        ({"validation_clips": ...}, ["data.validation_clips: is missing"]),
        ({"frame_size": 10}, ["patch_size: 4 does not divide frame_size 10"]),
    ],
)
def test_mistake_in_a_section_of_videos_is_named(write_protocol, protocol_values, changes, told):
    data = {key: value for key, value in (FILMS | changes).items() if value is not ...}
    text = message(write_protocol(protocol_values | {"data": data}))
    assert [part for part in told if part not in text] == []


def test_keys_of_videos_are_refused_for_digits_by_name(write_protocol):
    for key, value in {"square": "crop", "train_windows": "every", "train_horizon": 1, "layout": "THW"}.items():
        text = message(write_protocol(data={key: value}))
        assert f"data: {key}: goes with videos, not with digits: 'optdigits'" in text


def test_videos_decide_the_weights_by_what_is_trained_on_alone(write_protocol, protocol_values):
    def found(*parts, **changes):
        values = protocol_values | {"data": FILMS | changes}
        return load_protocol(str(write_protocol(values))).run("predrnn", 1).identity(*parts)

    assert found() == found(test_clips=None)
    assert found("evaluation") != found("evaluation", test_clips=None)
    for changes in ({"videos": "others"}, {"square": "crop"}, {"train_horizon": 1}, {"train_windows": "apart"}):
        assert found() != found(**changes)
    assert found() == found(layout=None)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_protocol_is_valid_builds_and_is_matched(name):
    protocol = load_protocol(name)
    assert protocol.name == name
    for entry in protocol.variants:
        spec = protocol.run(entry.id, protocol.seeds[0]).model
        with torch.device("meta"):
            Predictor(spec)
        if protocol.target_parameters:
            assert count_parameters(spec) == pytest.approx(protocol.target_parameters, rel=TOLERANCE), entry.id


def test_protocols_of_the_design_are_there():
    planned = {"study-recall", "study-recall-blank", "study-recall-rates"}
    planned |= {"smoke", "quick", "study-main", "study-depth", "study-occlusion", "study-init", "gpu", "paper"}
    assert planned - set(SHIPPED) == set()


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("paper-3digits", {"data.num_digits": (2, 3), "data.public_test": (True, False)}),
        (
            "paper-30",
            {"data.horizon": (10, 30), "data.public_test": (True, False), "probe.batch_size": (20, 10)},
        ),
    ],
)
def test_rows_of_the_paper_differ_from_protocol_paper_in_what_they_name_alone(name, other):
    def flat(values, key=""):
        if not isinstance(values, dict):
            return {key: values}
        parts = (flat(value, f"{key}.{part}".lstrip(".")) for part, value in values.items())
        return {inner: value for part in parts for inner, value in part.items()}

    ours, theirs = (flat(load_protocol(one).model_dump(exclude={"name", "about"})) for one in (name, "paper"))
    assert ours.keys() == theirs.keys()
    assert {key: (theirs[key], ours[key]) for key in ours if ours[key] != theirs[key]} == other


MAIN_TABLE = {
    "convlstm",
    "convlstm-ghu",
    "predrnn",
    "predrnn-ghu",
    "causal-lstm",
    "causal-lstm-s2t",
    "predrnnpp",
    "predrnnpp-middle",
    "predrnnpp-top",
}


@pytest.mark.parametrize("name", ["quick", "study-main", "gpu"])
def test_main_table_is_whole_with_distinct_highway_slots(name):
    protocol = load_protocol(name)
    specs = {entry.id: protocol.run(entry.id, protocol.seeds[0]).model for entry in protocol.variants}
    assert specs.keys() >= MAIN_TABLE
    assert [specs[f"predrnnpp{slot}"].highway_slot for slot in ("", "-middle", "-top")] == [1, 2, 3]
    assert set(protocol.baselines) == {"last-frame", "context-mean", "black"}
    assert {spec.forget_bias for spec in specs.values()} == {1.0}


def test_schema_for_editors_is_up_to_date():
    schema = json.dumps(Protocol.model_json_schema(), indent=2) + "\n"
    assert SCHEMA.read_text() == schema, f"made anew by: {REGENERATE}"


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_protocol_satisfies_the_schema_it_names(name):
    path = PROTOCOLS / f"{name}.yaml"
    first = path.read_text().partition("\n")[0]
    assert first == "# yaml-language-server: $schema=../schemas/protocol.schema.json"
    assert (path.parent / first.partition("=")[2]).resolve() == SCHEMA.resolve()
    jsonschema.validate(yaml.safe_load(path.read_text()), json.loads(SCHEMA.read_text()))


def test_schema_refuses_an_unknown_key_and_takes_the_short_form(protocol_values):
    schema = json.loads(SCHEMA.read_text())
    jsonschema.validate(protocol_values, schema)
    with pytest.raises(jsonschema.ValidationError, match="trainig"):
        jsonschema.validate(protocol_values | {"trainig": {}}, schema)


def test_every_registered_variant_has_a_label_of_its_own():
    assert len({variant.label for variant in VARIANTS.values()}) == len(VARIANTS)


def test_a_cell_by_itself_is_a_variant_and_equals_the_one_of_the_registry(make_protocol):
    entries = [
        {"id": "mine", "cell": "causal_lstm"},
        {"id": "mine-ghu", "cell": "causal_lstm", "highway_slot": "bottom"},
    ]
    protocol = make_protocol(variants=["causal-lstm", "predrnnpp", *entries])
    for cell, registered in (("mine", "causal-lstm"), ("mine-ghu", "predrnnpp")):
        assert protocol.run(cell, 1).label == cell
        assert protocol.run(cell, 1).identity() == protocol.run(registered, 1).identity()
    assert "mine" not in protocol.references()


def test_paths_of_runs_stay_below_the_results(make_protocol):
    assert make_protocol().run("predrnn", 1).path(Path("r")) == Path("r/tiny/runs/predrnn/seed=1")


def test_what_a_job_asks_a_cluster_for_is_no_part_of_a_run(make_protocol):
    plain, asking = make_protocol(), make_protocol(job={"memory_mb": 12, "minutes": 34})
    assert plain.run("predrnn", 1) == asking.run("predrnn", 1)
    assert plain.job != asking.job


def test_variant_may_have_seeds_of_its_own(make_protocol):
    variants = ["convlstm", {"id": "predrnn", "seeds": [7]}]
    protocol = make_protocol(seeds=[1, 2], variants=variants)
    assert [(run.variant, run.seed) for run in protocol.runs()] == [("convlstm", 1), ("convlstm", 2), ("predrnn", 7)]
    assert protocol.seed_counts() == [2, 1]
    with pytest.raises(ValueError, match="seed 1 is not one of 7"):
        protocol.run("predrnn", 1)


def test_reference_is_that_of_the_primary_pair_the_entry_the_base_or_the_registry(make_protocol):
    variants = [
        "convlstm",
        "predrnn",
        "predrnnpp",
        "causal-lstm",
        {"id": "wide", "base": "convlstm", "hidden_channels": 4},
        {"id": "other", "base": "convlstm", "reference": "predrnn"},
        {"id": "lonely", "base": "causal-lstm-s2t"},
    ]
    protocol = make_protocol(variants=variants, primary={"pairs": {"predrnnpp": "convlstm"}})
    assert list(protocol.references().items()) == [
        ("predrnnpp", "convlstm"),
        ("predrnn", "convlstm"),
        ("causal-lstm", "predrnn"),
        ("wide", "convlstm"),
        ("other", "predrnn"),
        ("lonely", "causal-lstm"),
    ]


def test_what_is_compared_changes_no_run(make_protocol):
    plain = make_protocol().run("predrnn", 1).identity("evaluation", "probe")
    variants = ["convlstm", {"id": "predrnn", "reference": "convlstm", "seeds": [1]}, "predrnnpp"]
    changed = make_protocol(variants=variants, primary={"metric": "ssim", "pairs": {"predrnnpp": "predrnn"}})
    assert changed.run("predrnn", 1).identity("evaluation", "probe") == plain


def test_variants_of_a_cohort_have_the_same_seeds(make_protocol):
    variants = ["convlstm", {"id": "predrnn", "seeds": [1]}, "predrnnpp", {"id": "causal-lstm", "seeds": [1]}]
    protocol = make_protocol(variants=variants, cohort=3)
    assert protocol.cohorts() == [["convlstm", "predrnnpp"], ["predrnn", "causal-lstm"]]

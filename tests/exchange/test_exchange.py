"""Weights come from files of other code bases and go back, from the command line, and are scored."""

import argparse
import dataclasses
import os
import pickle
import re
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save as safetensors_save

from benchmark.__main__ import main
from benchmark.cli.options import CODE_BASES
from benchmark.config.protocol import load_protocol
from benchmark.data.clips import load_clips
from benchmark.data.tensors import to_float
from benchmark.evaluation.lpips_backbone import prepare
from benchmark.exchange.state_dicts import SECTIONS, WRAPPERS, read_state_dict, unwrapped
from benchmark.system.errors import UserError
from benchmark.training.weight_files import load_weights, save_weights, trained_context
from models import foreign_weights as interop
from models.predictor import build
from models.spec import ModelSpec

GOLDEN = Path(__file__).parents[1] / "golden"
SPEC = ModelSpec(cell="st_lstm", hidden_channels=(3, 3), frame_size=12, patch_size=4, kernel_size=3, conv_bias=False)


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "predrnnpp_network.npz") as arrays:
        names = [name for name in arrays if name.startswith("param.")]
        return {name.removeprefix("param."): torch.from_numpy(arrays[name]).float() for name in names}


@pytest.fixture
def bring_in(tmp_path):
    """Save `stored` with torch, run `import-weights` on it and return the exit status and the file it made."""

    def run(stored, code_base="openstl", *options) -> tuple[int, Path]:
        torch.save(stored, tmp_path / "theirs.pt")
        ours = tmp_path / "ours.safetensors"
        files = ["--input", str(tmp_path / "theirs.pt"), "--output", str(ours)]
        return main(["import-weights", "--from", code_base, *files, *options]), ours

    return run


def test_the_command_line_knows_the_code_bases():
    assert tuple(interop.CODE_BASES) == CODE_BASES


@pytest.mark.parametrize("form", ["plain", "net_param", "lightning"])
def test_every_form_of_file_gives_the_same_network(bring_in, weights, form, capsys):
    stored = {
        "plain": weights,
        "net_param": {"net_param": weights},
        "lightning": {"state_dict": {f"model.{name}": w for name, w in weights.items()}, "epoch": 3},
    }[form]
    status, path = bring_in(stored, "openstl", "--patch-size", "2", "--context", "4")
    assert status == 0
    network = load_weights(path)
    assert (network.spec.cell, network.spec.patch_size, network.spec.channels) == ("causal_lstm", 2, 1)
    assert trained_context(path) == 4
    assert interop.to_reference(network.state_dict()).keys() < weights.keys()
    assert torch.equal(network.to_frame.weight, weights["conv_last.weight"])
    said = capsys.readouterr().out
    assert "causal_lstm of 4, 4, 4 hidden channels, highway above layer 1, kernel 3, patches of 2x2x1" in said
    assert "never uses them: cell_list.0.conv_o.0.weight, cell_list.1.conv_o.0.weight, cell_list.2" in said


@pytest.mark.parametrize("code_base", CODE_BASES)
def test_exported_weights_come_back_as_they_were_in_the_form_of_their_code_base(tmp_path, bring_in, code_base):
    network = build(SPEC, seed=1)
    save_weights(tmp_path / "mine.safetensors", network)
    files = ["--input", str(tmp_path / "mine.safetensors"), "--output", str(tmp_path / "out.pt")]
    assert main(["export-weights", "--to", code_base, *files]) == 0
    stored = torch.load(tmp_path / "out.pt", weights_only=True)
    name = {"openstl": "model.conv_last.weight", "predrnn-pytorch": "conv_last.weight"}[code_base]
    assert name in stored[{"openstl": "state_dict", "predrnn-pytorch": "net_param"}[code_base]]
    status, path = bring_in(stored, code_base, "--frame-size", "12")
    assert status == 0
    again, context = load_weights(path), torch.rand(2, 3, 1, 12, 12)
    assert again.spec == SPEC
    assert torch.equal(again.predict(context, horizon=2), network.predict(context, horizon=2))


def test_the_same_weights_give_the_same_file(tmp_path):
    network = build(SPEC, seed=1)
    for number in range(8):
        save_weights(tmp_path / f"{number}.safetensors", network, "c0ff1c", context=4)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path, bring_in, capsys):
    status, path = bring_in({"net_param": Trap(tmp_path / "trapped")})
    assert status == 2
    assert (
        "theirs.pt: refused, since it holds more than tensors, which could run code (posix.mkdir)"
        in capsys.readouterr().err
    )
    assert not path.exists()
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("stored", [torch.zeros(2), {"weights": 1}, {"net_param": 3}, {1: torch.zeros(1)}])
def test_a_file_without_a_state_dict_is_named(bring_in, stored, capsys):
    assert bring_in(stored)[0] == 2
    assert "theirs.pt: holds no state dict" in capsys.readouterr().err


def test_missing_and_damaged_files_are_named(tmp_path, capsys):
    files = ["--input", str(tmp_path / "theirs.pt"), "--output", str(tmp_path / "ours.safetensors")]
    assert main(["import-weights", "--from", "openstl", *files]) == 2
    (tmp_path / "theirs.pt").write_bytes(b"no weights")
    assert main(["import-weights", "--from", "openstl", *files]) == 2
    said = capsys.readouterr().err
    assert "theirs.pt: no such file" in said
    assert "theirs.pt: cannot be read safely as a file of torch.save" in said


def test_what_does_not_fit_is_the_users_mistake(bring_in, weights, capsys):
    del weights["conv_last.weight"]
    assert bring_in(weights)[0] == 2
    assert "theirs.pt: missing keys: conv_last.weight" in capsys.readouterr().err


def test_a_prefix_is_taken_off_only_where_all_names_have_it(tmp_path):
    torch.save({"model.a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "mixed.pt")
    assert read_state_dict(tmp_path / "mixed.pt").keys() == {"model.a", "b"}


@pytest.fixture
def score(results, write_protocol, tmp_path, monkeypatch):
    """Run `evaluate --weights` on a network with the tiny protocol: clips of 12 pixels, 3 frames given."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    prepare("squeeze", None, results / "tiny" / "lpips_backbone.json", download=False)

    def run(network, context=None) -> int:
        save_weights(tmp_path / "ours.safetensors", network, context=context)
        places = ["--results-dir", str(results), "--data-dir", str(tmp_path)]
        weights = ["--weights", str(tmp_path / "ours.safetensors")]
        return main(["evaluate", *weights, "--protocol", str(write_protocol()), *places])

    return run


def test_imported_weights_are_scored_on_the_test_clips(score, results, write_protocol, capsys):
    network = build(SPEC, seed=1)
    with torch.no_grad():
        network.to_frame.weight.zero_()  # a black prediction, whose score is known
    assert score(network, context=7) == 0
    said = capsys.readouterr().out
    clips = to_float(load_clips(results / "tiny" / "data", load_protocol(str(write_protocol())).data, "test"))
    mse = clips[:, 3:].square().sum((2, 3, 4)).mean().item()
    assert re.search(rf"\| MSE \(per frame\) ↓\s+\|\s+{mse:.1f}\s+\|", said)
    assert "5 test clips of protocol tiny." in said
    assert "3 frames given, 2 predicted." in said
    assert "trained with 7 frames given" in said


def test_evaluate_asks_for_a_run_or_weights(write_protocol, capsys):
    assert main(["evaluate", "--protocol", str(write_protocol())]) == 2
    assert "--variant and --seed, or which weights with --weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"channels": 2}, "have 1 channel(s), the network takes 2"),
        ({"patch_size": 5, "frame_size": 10}, "have frames of 12x12 pixels, which patches of 5 do not divide"),
        ({"norm": "element", "frame_size": 16}, "have frames of 12x12 pixels, the norms of the network are for 16x16"),
    ],
)
def test_a_network_for_other_frames_is_refused(score, capsys, fields, fault):
    assert score(build(dataclasses.replace(SPEC, **fields), seed=1)) == 2
    assert f"the clips of protocol tiny {fault}" in capsys.readouterr().err


def composed(weights, prefix):
    return {prefix + name: tensor for name, tensor in weights.items()}


PREFIXES = ["module.", "_orig_mod.", "model._orig_mod.", "model.module.", "module.model.", "network.", "net."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_wrappers_put_before_every_name_is_taken_off_and_said(bring_in, weights, prefix, capsys):
    status, path = bring_in(composed(weights, prefix), "openstl", "--patch-size", "2")
    assert status == 0
    assert torch.equal(load_weights(path).to_frame.weight, weights["conv_last.weight"])
    assert f"taken off every name: {prefix}\n" in capsys.readouterr().out


@pytest.mark.parametrize("section", ["model_state_dict", "model", "module", "ema_state_dict"])
def test_a_state_dict_is_found_under_the_keys_that_trainings_use(bring_in, weights, section):
    status, path = bring_in({section: weights, "optimizer": {"state": {}}, "epoch": 3}, "openstl", "--patch-size", "2")
    assert status == 0
    assert torch.equal(load_weights(path).to_frame.weight, weights["conv_last.weight"])


def test_averaged_weights_are_taken_without_their_counter(bring_in, weights):
    stored = {"n_averaged": torch.tensor(5)} | composed(weights, "module.")
    assert bring_in(stored, "openstl", "--patch-size", "2")[0] == 0


@given(st.lists(st.sampled_from(WRAPPERS), max_size=4), st.lists(st.sampled_from(SECTIONS), max_size=2), st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_wrappers_around_each_other_are_taken_off(prefixes, sections, averaged):
    tensors = {f"cell_list.0.{name}": torch.ones(1) for name in "ab"}
    stored = composed(tensors, "".join(prefixes)) | ({"n_averaged": torch.tensor(1)} if averaged else {})
    for section in sections:
        stored = {section: stored, "step": 3}
    with tempfile.TemporaryDirectory() as folder:
        torch.save(stored, Path(folder) / "w.pt")
        found, taken = unwrapped(read_state_dict(Path(folder) / "w.pt"))
    assert found.keys() == tensors.keys()
    assert taken == "".join(prefixes)


def test_keys_of_another_network_are_shown(bring_in, capsys):
    assert bring_in({"module.encoder.0.weight": torch.zeros(1), "module.head": torch.zeros(1)})[0] == 2
    assert (
        "no key begins with cell_list.0, as those of OpenSTL and predrnn-pytorch do: they are encoder.0.weight, head"
        in (capsys.readouterr().err)
    )


def test_weights_of_predrnn_v2_come_with_the_adapter_of_its_loss(bring_in, capsys):
    with np.load(GOLDEN / "predrnn_network.npz") as arrays:
        names = [name for name in arrays if name.startswith("param.")]
        v1 = {name.removeprefix("param."): torch.from_numpy(arrays[name]).float() for name in names}
    stored = {"net_param": v1 | {"adapter.weight": torch.ones(4, 4, 1, 1)}}
    status, path = bring_in(stored, "predrnn-pytorch", "--patch-size", "2")
    assert status == 0
    assert torch.equal(load_weights(path).to_frame.weight, v1["conv_last.weight"])
    assert torch.equal(load_weights(path).adapter.weight, torch.ones(4, 4, 1, 1))
    said = capsys.readouterr().out
    assert "with the adapter of the decoupling loss" in said
    assert "dropped" not in said


@pytest.mark.parametrize(
    ("spoilt", "told"),
    [
        (lambda tensor: (tensor * 127).to(torch.int8), "holds torch.int8, not floating-point weights"),
        (lambda tensor: torch.full_like(tensor, float("nan")), "values that are NaN, infinite or too large"),
        (lambda tensor: torch.full_like(tensor, float("inf")), "values that are NaN, infinite or too large"),
        (lambda tensor: tensor.to(torch.float8_e4m3fn), "holds torch.float8_e4m3fn, not floating-point weights"),
        (lambda tensor: tensor.double() + 1e200, "values that are NaN, infinite or too large for float32"),
        (lambda tensor: tensor.to_sparse(), "is a tensor of layout torch.sparse_coo, not an array of numbers"),
        (lambda tensor: tensor.to("meta"), "is a tensor without values (meta), not an array of numbers"),
        (lambda tensor: torch.ones(1).expand(10**10), "is (10000000000,) by repeating fewer numbers"),
    ],
    ids=["int8", "nan", "inf", "float8", "too large", "sparse", "meta", "repeated"],
)
def test_weights_that_are_no_numbers_of_a_network_are_refused_by_name(bring_in, weights, spoilt, told, capsys):
    status, path = bring_in(weights | {"conv_last.weight": spoilt(weights["conv_last.weight"])}, "openstl")
    assert (status, path.exists()) == (2, False)
    assert f"theirs.pt: conv_last.weight {told}" in capsys.readouterr().err.replace("has 64 ", "").replace(
        "has 16 ", ""
    )


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_alone_are_read_of_a_file_that_holds_other_things_and_nothing_is_run(tmp_path, weights, zipped):
    others = {"hyper_parameters": argparse.Namespace(lr=1), "folder": Path("x"), "mean": np.ones(3), "set": {1, 2}}
    stored = {"state_dict": composed(weights, "model."), "trap": Trap(tmp_path / "trapped")} | others
    torch.save(stored, tmp_path / "theirs.ckpt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"refused, since it holds more than tensors.*--tensors-only reads"):
        read_state_dict(tmp_path / "theirs.ckpt")
    found, _ = unwrapped(read_state_dict(tmp_path / "theirs.ckpt", tensors_only=True))
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_given_to_predict_is_told_of_import_weights_and_never_to_be_removed(tmp_path, zipped):
    torch.save({"state_dict": {"w": torch.ones(1)}}, tmp_path / "best.ckpt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"best.ckpt: is a file of torch.save.*`import-weights`") as told:
        load_weights(tmp_path / "best.ckpt")
    assert "remove" not in str(told.value)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_come_in_as_float32(bring_in, weights, tmp_path, zipped, dtype):
    stored = {name: tensor.to(dtype) for name, tensor in weights.items()}
    torch.save(stored, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    for tensors_only in (True, False):
        found = read_state_dict(tmp_path / "w.pt", tensors_only=tensors_only)
        assert all(torch.equal(found[name], tensor) for name, tensor in stored.items())
    status, path = bring_in(stored, "openstl", "--patch-size", "2")
    assert status == 0
    assert torch.equal(load_weights(path).to_frame.weight, stored["conv_last.weight"].float())


def test_the_option_reads_the_tensors_of_a_file_that_is_else_refused(bring_in, weights, tmp_path, capsys):
    stored = {"state_dict": weights, "hyper_parameters": argparse.Namespace(lr=1), "trap": Trap(tmp_path / "trapped")}
    assert bring_in(stored, "openstl", "--patch-size", "2")[0] == 2
    status, path = bring_in(stored, "openstl", "--patch-size", "2", "--tensors-only")
    assert status == 0, capsys.readouterr().err
    assert torch.equal(load_weights(path).to_frame.weight, weights["conv_last.weight"])
    assert not (tmp_path / "trapped").exists()


OLD_FORM = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "protocol_version": 1001, "type_sizes": {}})
"""The three objects before what is stored, in a file of torch.save that is no zip archive."""


@pytest.mark.parametrize("place", range(5))
def test_no_part_of_a_file_of_the_old_form_is_run(tmp_path, place):
    parts = [*OLD_FORM, {"w": torch.Size([1])}, []]
    parts[place] = Trap(tmp_path / "trapped")
    (tmp_path / "old.pt").write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    with pytest.raises(UserError):
        read_state_dict(tmp_path / "old.pt", tensors_only=True)
    assert not (tmp_path / "trapped").exists()


def test_a_tar_archive_as_torch_once_wrote_them_is_refused_and_not_run(tmp_path):
    with tarfile.open(tmp_path / "old.pt", "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            (tmp_path / name).write_bytes(pickle.dumps(Trap(tmp_path / "trapped")))
            archive.add(tmp_path / name, name)
    for tensors_only in (True, False):
        with pytest.raises(UserError, match="is a tar archive"):
            read_state_dict(tmp_path / "old.pt", tensors_only=tensors_only)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_compiled_network_is_refused_before_torch_loads_it(tmp_path, monkeypatch):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("torch.jit.load was called"))
    for tensors_only in (True, False):
        with pytest.raises(UserError, match=r"script.pt: is a network compiled by torch.jit"):
            read_state_dict(tmp_path / "script.pt", tensors_only=tensors_only)


def test_a_compressed_archive_which_could_fill_the_memory_is_refused_unread(tmp_path):
    torch.save({"w": torch.zeros(2**20)}, tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as whole, zipfile.ZipFile(tmp_path / "small.pt", "w") as small:
        for part in whole.infolist():
            small.writestr(part.filename, whole.read(part), zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="is a compressed archive"):
        read_state_dict(tmp_path / "small.pt")


def test_a_file_cannot_change_what_builds_tensors(tmp_path):
    before = torch._utils._rebuild_tensor_v2.__defaults__
    # BUILD on the function itself: GLOBAL, state, BUILD.
    program = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__K\x01\x85s\x86b."
    (tmp_path / "old.pt").write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in OLD_FORM) + program)
    with pytest.raises(UserError):
        read_state_dict(tmp_path / "old.pt", tensors_only=True)
    assert torch._utils._rebuild_tensor_v2.__defaults__ is before


def test_a_dictionary_that_holds_itself_is_no_state_dict(tmp_path):
    stored: dict = {"epoch": 1}
    stored["state_dict"] = {"model": stored}
    torch.save(stored, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"holds no state dict.*; its keys are epoch, state_dict"):
        read_state_dict(tmp_path / "w.pt")


def test_a_layer_far_out_is_refused_without_counting_up_to_it(bring_in, weights, capsys):
    assert bring_in(weights | {"cell_list.99999999999.conv_x.0.weight": torch.ones(1)})[0] == 2
    assert "keys of layer 99999999999" in capsys.readouterr().err


def test_shapes_of_a_network_that_no_memory_holds_are_refused_before_it_is_made(bring_in, weights, capsys):
    weights["cell_list.0.conv_h.0.weight"] = torch.ones(0, 2**14, 3, 3)
    weights |= {f"cell_list.{layer}.conv_h.0.weight": torch.ones(0, 2**14, 3, 3) for layer in range(3)}
    assert bring_in(weights)[0] == 2
    assert "shapes that do not fit one causal_lstm network" in capsys.readouterr().err


def test_a_file_is_never_written_over_the_one_that_is_read(bring_in, weights, tmp_path, capsys):
    assert bring_in(weights, "openstl", "--output", str(tmp_path / "theirs.pt"))[0] == 2
    assert "theirs.pt would lie in what is read; name another" in capsys.readouterr().err
    assert read_state_dict(tmp_path / "theirs.pt").keys() == weights.keys()


@pytest.mark.parametrize(
    ("fields", "entry"),
    [
        ({}, "- {id: predrnn-openstl, base: predrnn, conv_bias: false}"),
        ({"cell": "convlstm"}, "- {id: convlstm-openstl, base: convlstm, conv_bias: false, forget_bias: 0.0}"),
        (
            {"cell": "causal_lstm", "o_sees_h": False, "w3_kernel": 1, "norm": "channel", "hidden_channels": (3, 2)},
            "conv_bias: false, o_sees_h: true, w3_kernel: 3, highway_channels: 3, norm: none, hidden_channels: [3, 3]}",
        ),
    ],
)
def test_a_network_that_cannot_be_exported_comes_with_the_variant_that_can(
    tmp_path, write_protocol, capsys, fields, entry
):
    save_weights(tmp_path / "mine.safetensors", build(dataclasses.replace(SPEC, conv_bias=True, **fields), seed=1))
    files = ["--input", str(tmp_path / "mine.safetensors"), "--output", str(tmp_path / "out.pt")]
    assert main(["export-weights", "--to", "openstl", *files]) == 2
    told, pasted = capsys.readouterr().err.rstrip("\n").split("\n")
    assert "conv_bias True (there False)" in told
    assert pasted.endswith(entry)
    (variant,) = yaml.safe_load(pasted)
    protocol = load_protocol(str(write_protocol(variants=[variant])))
    network = build(protocol.first_run(variant["id"]).model, seed=1)
    save_weights(tmp_path / "mine.safetensors", network)
    assert main(["export-weights", "--to", "openstl", *files]) == 0


def test_weights_of_ours_whose_header_begins_like_a_pickle_are_still_ours(tmp_path):
    """The first eight bytes of a file of ours are a length: 640 begins as an old file of torch.save does."""
    tensors = {"w": torch.ones(1)}
    for padding in range(400, 700):
        content = safetensors_save(tensors, {"note": "x" * padding})
        if content.startswith(b"\x80\x02"):
            break
    (tmp_path / "w.safetensors").write_bytes(content)
    assert content.startswith(b"\x80\x02")
    with pytest.raises(UserError, match="was not written by this benchmark"):
        load_weights(tmp_path / "w.safetensors")


def test_names_in_a_file_cannot_steer_the_terminal(bring_in, capsys):
    assert bring_in({"\x1b[2J\x1b]0;title\x07head": torch.zeros(1)})[0] == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert r"\x1b[2J\x1b]0;title\x07head" in said


def test_an_adapter_belongs_to_predrnn_alone(bring_in, capsys):
    with np.load(GOLDEN / "convlstm_network.npz") as arrays:
        names = [name for name in arrays if name.startswith("param.")]
        stored = {name.removeprefix("param."): torch.from_numpy(arrays[name]).float() for name in names}
    assert bring_in(stored | {"adapter.weight": torch.ones(4, 4, 1, 1)}, "openstl", "--patch-size", "2")[0] == 2
    assert "surplus keys: adapter.weight" in capsys.readouterr().err

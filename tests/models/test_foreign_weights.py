"""Weights of other code bases come in and go out unchanged, or are refused by name."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.foreign_weights import export_network, import_network, read_spec, to_reference, unused
from models.predictor import build
from models.spec import ModelSpec

GOLDEN = Path(__file__).parents[1] / "golden"
NETWORKS = {
    "convlstm_network": ("openstl", "convlstm"),
    "predrnn_network": ("predrnn-pytorch", "st_lstm"),
    "predrnn_network_ln": ("openstl", "st_lstm"),
    "predrnnpp_network": ("openstl", "causal_lstm"),
}


def golden_weights(case: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / f"{case}.npz") as arrays:
        names = [name for name in arrays if name.startswith("param.")]
        return {name.removeprefix("param."): torch.from_numpy(arrays[name]).float() for name in names}


def ported_spec(cell: str, **fields) -> ModelSpec:
    """A network that OpenSTL can express, of uncommon sizes."""
    fixed = {"conv_bias": False, "forget_bias": 0.0 if cell == "convlstm" else 1.0}
    fixed |= {"highway_slot": 1} if cell == "causal_lstm" else {}
    sizes = {"hidden_channels": (5, 5), "frame_size": 12, "patch_size": 3, "kernel_size": 7}
    return ModelSpec(cell=cell, **sizes | fixed | fields)


@pytest.mark.parametrize("case", NETWORKS)
def test_the_spec_is_read_off_keys_and_shapes(case):
    code_base, cell = NETWORKS[case]
    network, _ = import_network(golden_weights(case), code_base, frame_size=12)
    norm = "element" if case.endswith("_ln") else "none"
    sizes = {"hidden_channels": (4, 4, 4), "frame_size": 12, "patch_size": 2, "kernel_size": 3, "norm": norm}
    assert network.spec == ported_spec(cell, **sizes)


@pytest.mark.parametrize("case", NETWORKS)
def test_the_way_in_and_out_gives_the_same_weights_and_zeros_for_unused_ones(case):
    code_base, _ = NETWORKS[case]
    weights = golden_weights(case)
    network, reasons = import_network(weights, code_base, frame_size=12)
    dropped = [name for names in reasons.values() for name in names]
    back = export_network(network, code_base)
    assert back.keys() == weights.keys()
    for name, tensor in back.items():
        assert torch.equal(tensor, torch.zeros_like(weights[name]) if name in dropped else weights[name]), name


@pytest.mark.parametrize(
    "spec",
    [
        ported_spec("convlstm", hidden_channels=(3, 7, 2)),
        ported_spec("convlstm", norm="element"),
        ported_spec("st_lstm", channels=3),
        ported_spec("st_lstm", hidden_channels=(2,), norm="element", patch_size=4, channels=2),
        ported_spec("causal_lstm", hidden_channels=(3, 3, 3, 3)),
    ],
    ids=lambda spec: f"{spec.cell}-{spec.layers}-{spec.norm}",
)
def test_the_way_out_and_in_gives_equal_outputs(spec):
    network = build(spec, seed=1)
    sizes = {"patch_size": spec.patch_size, "channels": spec.channels, "frame_size": spec.frame_size}
    again, _ = import_network(export_network(network, "openstl"), "openstl", **sizes)
    context = torch.rand((2, 3, spec.channels, 12, 12), generator=torch.Generator().manual_seed(0))
    assert again.spec == spec
    assert torch.equal(again.predict(context, horizon=2), network.predict(context, horizon=2))


def test_weights_that_no_step_uses_are_named():
    _, dropped = import_network(golden_weights("convlstm_network"), "openstl")
    assert dropped.pop("as openstl never uses them") == [
        f"cell_list.{layer}.{name}.weight" for layer in range(3) for name in ("conv_last", "conv_o.0")
    ]
    assert dropped == {}
    _, dropped = import_network(golden_weights("predrnnpp_network"), "openstl")
    assert dropped.pop("as openstl never uses them") == [f"cell_list.{layer}.conv_o.0.weight" for layer in range(3)]


@pytest.mark.parametrize("norm", ["none", "element"])
def test_unused_weights_have_the_shapes_of_the_code_bases(norm):
    spec = ported_spec("convlstm", hidden_channels=(3, 2), norm=norm)
    expected = {"cell_list.1.conv_o.0.weight": (2, 4, 7, 7), "cell_list.1.conv_last.weight": (2, 4, 1, 1)}
    if norm == "element":
        expected |= {"cell_list.1.conv_o.1.weight": (2, 4, 4), "cell_list.1.conv_o.1.bias": (2, 4, 4)}
    assert {name: shape for name, shape in unused(spec).items() if ".1.conv" in name} == expected


def test_filters_of_c_are_ordered_i_g_f_o_there():
    ours = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(4, 1, 1, 1)  # i f g o
    theirs = to_reference({"cells.2.conv_first_memory.conv.weight": ours})
    assert list(theirs) == ["cell_list.2.conv_c2m.0.weight"]
    assert theirs["cell_list.2.conv_c2m.0.weight"].flatten().tolist() == [1.0, 3.0, 2.0, 4.0]


def test_all_missing_and_surplus_keys_are_listed():
    weights = golden_weights("predrnnpp_network")
    del weights["conv_last.weight"], weights["cell_list.1.conv_om.0.weight"]
    weights["encoder.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"^missing keys: cell_list.1.conv_om.0.weight, conv_last.weight; ") as error:
        import_network(weights, "openstl")
    assert str(error.value).endswith("surplus keys: encoder.weight")


def test_a_layer_that_is_missing_whole_is_listed():
    weights = {name: w for name, w in golden_weights("predrnn_network").items() if "cell_list.1." not in name}
    with pytest.raises(ValueError, match=r"missing keys: cell_list\.1\.conv_h\.0\.weight, .*cell_list\.1\.conv_x"):
        import_network(weights, "openstl")


def test_weights_of_another_kind_of_network_are_refused():
    with pytest.raises(ValueError, match=r"no key begins with cell_list\.0"):
        import_network({"features.0.weight": torch.zeros(1, 1, 3, 3)}, "openstl")


def test_shapes_that_do_not_fit_one_another_are_listed():
    weights = golden_weights("convlstm_network")
    weights["cell_list.2.conv_h.0.weight"] = torch.zeros(16, 5, 3, 3)
    with pytest.raises(
        ValueError, match=r"cell_list\.2\.conv_x\.0\.weight \(16, 4, 3, 3\) in place of \(20, 4, 3, 3\)"
    ):
        import_network(weights, "openstl")
    weights["cell_list.2.conv_h.0.weight"] = torch.zeros(16)
    with pytest.raises(ValueError, match=r"neither weights of .*: cell_list\.2\.conv_h\.0\.weight"):
        import_network(weights, "openstl")


def test_a_cell_that_the_code_base_lacks_is_named():
    with pytest.raises(ValueError, match="those of convlstm; predrnn-pytorch has only st_lstm"):
        import_network(golden_weights("convlstm_network"), "predrnn-pytorch")


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, (3, 1)), ({"patch_size": 1}, (1, 9)), ({"channels": 9}, (1, 9)), ({"patch_size": 3, "channels": 1}, (3, 1))],
)
def test_what_is_not_given_of_a_patch_follows_from_the_rest(given, expected):
    spec = read_spec(export_network(build(ported_spec("st_lstm"), seed=1), "openstl"), frame_size=12, **given)
    assert (spec.patch_size, spec.channels) == expected


@pytest.mark.parametrize(
    "given", [{"patch_size": 2}, {"channels": 2}, {"patch_size": 3, "channels": 2}, {"channels": 10}]
)
def test_patches_that_the_weights_do_not_have_are_refused(given):
    weights = export_network(build(ported_spec("st_lstm"), seed=1), "openstl")
    with pytest.raises(ValueError, match=r"a patch has 9 values .* not patch_size² times channels"):
        read_spec(weights, frame_size=12, **given)


def test_a_frame_size_that_is_not_that_of_the_norms_is_refused():
    with pytest.raises(ValueError, match=r"frame_size 64: the norms are of frames of 12"):
        import_network(golden_weights("predrnn_network_ln"), "openstl", frame_size=64)


def test_a_norm_on_1x1_convolutions_is_refused():
    weights = golden_weights("predrnn_network_ln")
    weights |= {name: w[:, :, :1, :1] for name, w in weights.items() if w.ndim == 4}
    with pytest.raises(ValueError, match="kernel_size 1 with a norm"):
        import_network(weights, "openstl")


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        (ported_spec("st_lstm", conv_bias=True), r"conv_bias True \(there False\)"),
        (ported_spec("convlstm", forget_bias=1.0), r"forget_bias 1.0 \(there 0.0\)"),
        (ported_spec("st_lstm", highway_slot=1), r"highway_slot 1 \(there 0\)"),
        (ported_spec("causal_lstm", highway_slot=0), r"highway_slot 0 \(there 1\)"),
        (ported_spec("causal_lstm", o_sees_h=False, w3_kernel=1), r"o_sees_h False .*; w3_kernel 1 \(there 7\)"),
        (ported_spec("causal_lstm", norm="element"), r"norm element \(there none\)"),
        (ported_spec("convlstm", norm="channel"), r"norm channel \(there none or element\)"),
        (ported_spec("causal_lstm", hidden_channels=(5, 3)), r"hidden_channels \[5, 3\] \(there .* of one width\)"),
        (ported_spec("causal_lstm", hidden_channels=(5,), highway_slot=0), r"hidden_channels \[5\] \(there two layers"),
    ],
)
def test_what_a_code_base_cannot_express_is_not_written_for_it(spec, fault):
    with pytest.raises(ValueError, match=f"^openstl cannot express .*{fault}"):
        export_network(build(spec, seed=1), "openstl")

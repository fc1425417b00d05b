"""An impossible network is refused with what was wrong and what is allowed; a possible one is fully resolved."""

import dataclasses
import json
import subprocess
import sys

import pytest

from models.predictor import Predictor
from models.spec import CELLS, EQUATIONS, MEMORY_ORDERS, ModelSpec

POSSIBLE = {"cell": "causal_lstm", "hidden_channels": (2, 3, 4), "frame_size": 16}


IMPOSSIBLE = [
    ({"cell": "lstm"}, "cell: 'lstm' is not one of convlstm, st_lstm, causal_lstm"),
    ({"norm": "batch"}, "norm: 'batch' is not one of none, channel, element"),
    ({"equations": "text"}, "equations: 'text' is not one of code, paper"),
    ({"memory_order": "both"}, "memory_order: 'both' is not one of temporal_to_spatial, spatial_to_temporal"),
    ({"init": "zeros"}, "init: 'zeros' is not one of default, uniform(0.001)"),
    (
        {"cell": "convlstm", "memory_order": "spatial_to_temporal"},
        "memory_order: spatial_to_temporal exists for causal_lstm only, not for convlstm",
    ),
    *(
        (
            {"cell": "st_lstm", "hidden_channels": (2, 2), field: value},
            f"{field}: {value} exists for causal_lstm only, not",
        )
        for field, value in {"o_sees_h": False, "g2_sees_m": True, "w3_kernel": 3, "first_gates_see_c": False}.items()
    ),
    ({"highway_gate_bias": -2}, "highway_gate_bias: -2 given without a highway_slot"),
    ({"frame_size": True}, "frame_size: True is no int"),
    ({"kernel_size": 3.0}, "kernel_size: 3.0 is no int"),
    ({"conv_bias": 1}, "conv_bias: 1 is no bool"),
    ({"forget_bias": "1"}, "forget_bias: '1' is no float"),
    ({"forget_bias": -1e9}, "forget_bias: -1000000000.0 is not between -1000 and 1000"),
    ({"cell": None}, "cell: None is no str"),
    ({"hidden_channels": (3, True)}, "hidden_channels: [3, True] is no list of whole numbers"),
    ({"hidden_channels": (3,) * 257}, "hidden_channels: 257 layers are more than 256"),
    ({"frame_size": 8192}, "frame_size: 8192 is above 4096"),
    ({"hidden_channels": ()}, "hidden_channels: () is below 1"),
    ({"hidden_channels": (4, 0)}, "hidden_channels: (4, 0) is below 1"),
    ({"channels": 0}, "channels: 0 is below 1"),
    ({"patch_size": 0}, "patch_size: 0 is below 1"),
    ({"frame_size": 0}, "frame_size: 0 is below 1"),
    ({"kernel_size": -1}, "kernel_size: -1 is below 1"),
    ({"kernel_size": 4}, "kernel_size: 4 is even; an odd number is needed"),
    ({"w3_kernel": -1}, "w3_kernel: -1 is below 1"),
    ({"w3_kernel": 2}, "w3_kernel: 2 is even; an odd number is needed"),
    ({"patch_size": 5}, "patch_size: 5 does not divide frame_size 16"),
    (
        {"cell": "st_lstm"},
        "hidden_channels: [2, 3, 4] are unequal; st_lstm uses M elementwise, so all its layers need one width",
    ),
    ({"highway_slot": 3}, "highway_slot: 3 with 3 layers; allowed: 1 to 2, or 0 for none"),
    ({"highway_slot": -1}, "highway_slot: -1 with 3 layers; allowed: 1 to 2, or 0 for none"),
    (
        {"hidden_channels": (4,), "highway_slot": 1},
        "highway_slot: 1 with 1 layers; allowed: 0 (a highway needs two layers)",
    ),
    ({"highway_channels": 4}, "highway_channels: 4 given without a highway_slot"),
    ({"highway_slot": 1, "highway_channels": 0}, "highway_channels: 0 is below 1"),
]

IN_A_PROGRAM = """
import json, sys
from models.spec import ModelSpec
for fields in json.load(sys.stdin):
    try:
        print(json.dumps(ModelSpec(**fields).to_dict()))
    except ValueError as error:
        print(json.dumps(str(error)))
print(json.dumps("torch" in sys.modules))
"""


def in_a_program(specs: list[dict]) -> list:
    """What a program finds, without the type checks that only tests have: each spec or its error; torch imported?"""
    process = subprocess.run(
        [sys.executable, "-c", IN_A_PROGRAM], input=json.dumps(specs), capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in process.stdout.splitlines()]


@pytest.fixture(scope="module")
def messages() -> list[str]:
    return in_a_program([POSSIBLE | fields for fields, _ in IMPOSSIBLE])


@pytest.mark.parametrize("number", range(len(IMPOSSIBLE)), ids=[str(fields) for fields, _ in IMPOSSIBLE])
def test_an_impossible_spec_is_refused(number, messages):
    assert messages[number].startswith(IMPOSSIBLE[number][1])


@pytest.mark.parametrize("memory_order", MEMORY_ORDERS)
@pytest.mark.parametrize("equations", EQUATIONS)
def test_a_field_that_is_given_wins_over_equations(equations, memory_order):
    spec = ModelSpec(**POSSIBLE, equations=equations, memory_order=memory_order)
    given = {"o_sees_h": not spec.o_sees_h, "g2_sees_m": not spec.g2_sees_m, "w3_kernel": 7, "forget_bias": 0.25}
    for field, value in given.items():
        changed = ModelSpec(**POSSIBLE, equations=equations, memory_order=memory_order, **{field: value})
        assert changed == dataclasses.replace(spec, **{field: value})
        assert getattr(changed, field) == value != getattr(spec, field)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("equations", EQUATIONS)
def test_a_field_that_a_cell_does_not_read_may_stand_at_its_default(cell, equations):
    spec = ModelSpec(cell=cell, hidden_channels=(2, 2), frame_size=8, equations=equations)
    assert ModelSpec(**spec.to_dict() | {"hidden_channels": (2, 2)}) == spec


def test_a_spec_survives_json_resolved_and_costs_no_import_of_torch():
    spec = ModelSpec(**POSSIBLE, highway_slot=2, equations="paper")
    assert None not in spec.to_dict().values()
    assert in_a_program([spec.to_dict()]) == [spec.to_dict(), False]


def test_the_highway_has_the_width_of_the_layer_below_unless_given():
    assert ModelSpec(**POSSIBLE, highway_slot=2).highway_channels == 3
    assert ModelSpec(**POSSIBLE, highway_slot=2, highway_channels=5).highway_channels == 5


def test_m_has_the_width_of_the_layer_that_made_it():
    network = Predictor(ModelSpec(**POSSIBLE))
    assert [cell.conv_m.conv.in_channels for cell in network.cells] == [4, 2, 3]


def test_c_is_read_by_the_first_gates_under_both_equations():
    for equations in EQUATIONS:
        network = Predictor(ModelSpec(**POSSIBLE, equations=equations))
        assert [cell.conv_c.conv.in_channels for cell in network.cells] == [2, 3, 4]


def test_conv_bias_false_leaves_no_bias():
    for cell in CELLS:
        spec = ModelSpec(
            cell=cell, hidden_channels=(2, 2), frame_size=8, highway_slot=1, conv_bias=False, equations="paper"
        )
        assert [name for name, _ in Predictor(spec).named_parameters() if "bias" in name] == []

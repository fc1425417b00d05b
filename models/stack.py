"""Networks of one form side by side in one: weights and states have a leading run axis, the equations are the same."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.predictor import Predictor
from models.spec import GivenSpec, ModelSpec

OWN = {"forget_bias": "forget_bias", "gate_bias": "highway_gate_bias"}
"""Attribute of a cell or highway that each run may have a value of its own of -> its field of the spec."""


def can_stack(specs: Sequence[ModelSpec]) -> bool:
    """Whether networks of these specs fit into one stack: they are equal but for what `OWN` lists."""
    return len({common_spec(spec) for spec in specs}) == 1


def common_spec(spec: ModelSpec) -> tuple:
    """What a spec has in common with those that fit into its stack."""
    return tuple((name, value) for name, value in spec.to_dict().items() if name not in OWN.values())

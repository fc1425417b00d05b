"""Networks of one form side by side in one: weights and states have a leading run axis, the equations are the same."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor

from models.predictor import Predictor
from models.spec import ModelSpec

OWN = {"forget_bias": "forget_bias", "gate_bias": "highway_gate_bias"}
"""Attribute of a cell or highway that may differ between the networks of a stack -> its field of the spec."""
VECTOR = 32
"""Numbers that PyTorch's loops take at a time on any CPU: two vectors of at most 16."""


def common_form(spec: ModelSpec) -> str:
    """What a spec has in common with all that fit into one stack with it: all but what `OWN` lists."""
    return repr([(name, value) for name, value in spec.to_dict().items() if name not in OWN.values()])


def whole_vectors(spec: ModelSpec, batch_size: int) -> bool:
    """Whether the states of a batch fill whole vectors of a CPU, so that a stack has the bits of each network alone.

    PyTorch computes tanh and its like in vectors and what is left over number by number, which rounds otherwise; of a
    stack another part is left over. A product of matrices is the same in both.
    """
    widths = {*spec.hidden_channels, spec.highway_width}
    return all(spec.patches**2 * batch_size * width % VECTOR == 0 for width in widths)


class Stack:
    """Networks of one form, rolled out and differentiated together.

    Args:
        networks: of one `common_form`, on one device; they keep their weights, which are read at each roll-out.

    Attributes:
        joint: the network whose weights (R, ...) are those of `networks` R; its `forward` takes a run axis.

    Raises:
        ValueError: the networks do not have one form.
    """

    def __init__(self, networks: Sequence[Predictor]) -> None:
        if len({common_form(network.spec) for network in networks}) != 1:
            raise ValueError("networks of several forms do not fit into one stack")
        self.networks = tuple(networks)
        self.joint = deepcopy(networks[0])
        owners = {
            f"{path}.{name}": part for path, part in self.joint.named_modules() for name in dict(part._parameters)
        }
        for name, weights in self._weights().items():
            part = owners[name]
            part.register_parameter(name.rpartition(".")[2], torch.nn.Parameter(torch.stack(weights)))
        self._give_own_biases()

    def read_weights(self) -> None:
        """Take over the weights that the networks have now."""
        with torch.no_grad():
            for name, weights in self._weights().items():
                torch.stack(weights, out=self.joint.get_parameter(name))

    def _weights(self) -> dict[str, list[Tensor]]:
        """Name of a weight -> that of each network, detached."""
        names = [name for name, _ in self.networks[0].named_parameters()]
        return {name: [network.get_parameter(name).detach() for network in self.networks] for name in names}

    def _give_own_biases(self) -> None:
        """Where networks add different constants to a gate, let the cells of `joint` add (R, 1, 1, 1, 1)."""
        for attribute, field in OWN.items():
            values = [getattr(network.spec, field) for network in self.networks]
            if len(set(values)) == 1:
                continue
            weight = next(self.joint.parameters())
            own = torch.tensor(values, dtype=weight.dtype, device=weight.device).view(-1, 1, 1, 1, 1)
            for part in self.joint.modules():
                if hasattr(part, attribute):
                    setattr(part, attribute, own)

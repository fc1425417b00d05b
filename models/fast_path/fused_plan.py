"""The stages of a whole network: their kernels, and who reads what each of them makes."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from models.fast_path.joined_weights import Form, JoinedWeights, Part, form, padded, parts_of
from models.fast_path.stage_plans import PLANS, SIGMOID_OUTPUT, Stage, stages_of_highway


class Reader(NamedTuple):
    """Where a convolution reads a state."""

    buffer: int
    columns: slice
    later: int
    """Time steps after it is made: 0 or 1."""


@dataclass
class Bound:
    """A stage in its place in the network; its number is that of its buffer, its kernel and its bias."""

    stage: Stage
    number: int
    form: Form
    memory: tuple | None
    """Name of the state in full precision that it updates: M is handed from layer to layer, all others stay."""
    mix: int | None
    """Number of the kernel and the bias of W5."""
    readers: list[Reader] = field(default_factory=list)
    """Of the state that it makes."""

    @property
    def width(self) -> int:
        """Columns of a gate."""
        return padded(self.form.width)


class Plan:
    """What does not change from one roll-out of a network to the next.

    Args:
        network: a `Predictor` for which `why_not_fused` has no reason.
    """

    def __init__(self, network: Any) -> None:
        spec = network.spec
        units = [PLANS[spec.cell](cell) for cell in network.cells]
        layers = list(range(len(units)))  # number of the unit of each layer
        if network.highway is not None:
            units.insert(spec.highway_slot, stages_of_highway(network.highway))
            layers = [unit + (unit >= spec.highway_slot) for unit in layers]
        self.forms: list[Form] = []
        self._parts: list[list[Part]] = []
        self.units = [[self._bind(stage, number) for stage in unit] for number, unit in enumerate(units)]
        self.stages = [bound for unit in self.units for bound in unit]
        self.sigmoid_output = spec.cell in SIGMOID_OUTPUT
        top = self.stages[-1].form.width
        self.head = self._add(form(1, spec.patch_channels, 1, {"h": top}), [Part(network.to_frame, ((0, 0),), ("h",))])
        self.input_readers: list[Reader] = []
        self._wire(layers)
        parameters: list[Tensor] = network.prediction_weights()
        self.device = parameters[0].device
        self.weights = JoinedWeights(self.forms, self._parts, parameters)

    def _add(self, one: Form, parts: list[Part]) -> int:
        self.forms.append(one)
        self._parts.append(parts)
        return len(self.forms) - 1

    def _bind(self, stage: Stage, unit: int) -> Bound:
        """The stage with the forms of its kernels."""
        first = stage.reads[0][0]
        width = first.conv.out_channels // len(first.gates)
        widths = dict.fromkeys(stage.slots, width)
        widths |= {states[0]: conv.conv.in_channels for conv, states in stage.reads if len(states) == 1}
        size = max(conv.conv.kernel_size[0] for conv, _ in stage.reads)
        one = form(len(stage.gates.split()), width, size, widths)
        number = self._add(one, parts_of(stage))
        mix = None
        if stage.mix is not None:
            product = form(1, width, 1, {"c'": width, "m'": width})
            mix = self._add(product, [Part(stage.mix, ((0, 0),), ("c'", "m'"))])
        memory = None if stage.memory is None else ("m",) if stage.memory == "m" else (stage.memory, unit)
        return Bound(stage, number, one, memory, mix)

    def _wire(self, layers: list[int]) -> None:
        """Tell every stage who reads what it makes."""
        makers = {(unit, bound.stage.makes): bound for unit, row in enumerate(self.units) for bound in row}
        below = {unit: (layers[place - 1], int(place == 0)) for place, unit in enumerate(layers)}
        for unit, row in enumerate(self.units):
            for bound in row:
                for state in bound.stage.slots:
                    if state == "x" and unit == 0:
                        self.input_readers.append(Reader(bound.number, bound.form.slot("x"), 1))
                        continue
                    if state == "x":
                        source, later = (unit - 1, self.units[unit - 1][-1].stage.makes), 0
                    elif state == "m":
                        layer, later = below[unit]
                        source = layer, "m'"
                    else:
                        source, later = (unit, state if "'" in state else f"{state}'"), int("'" not in state)
                    makers[source].readers.append(Reader(bound.number, bound.form.slot(state), later))
        self.stages[-1].readers.append(Reader(self.head, self.forms[self.head].slot("h"), 0))

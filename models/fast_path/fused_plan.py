"""The stages of a whole network: their kernels, and who reads what each of them makes."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from models.convolution import GateConv
from models.fast_path.joined_weights import Affine, Form, JoinedWeights, Part, form, padded, parts_of
from models.fast_path.stage_plans import PLANS, SIGMOID_OUTPUT, Stage, stages_of_highway


class Reader(NamedTuple):
    """Where a convolution reads a state."""

    buffer: int
    columns: slice
    later: int
    """Time steps after it is made: 0 or 1."""


@dataclass(frozen=True)
class Product:
    """A convolution of joined states: of all that one stage reads, or, where a norm follows, of one `GateConv`."""

    number: int
    """Of its buffer, its kernel and its bias."""
    form: Form
    gates: tuple[str, ...]
    """In the order of its rows."""
    norm: nn.Module | None = None
    """What follows it; None: nothing."""


@dataclass
class Bound:
    """A stage in its place in the network."""

    stage: Stage
    number: int
    """Among all stages."""
    unit: int
    """Its cell, or the highway."""
    width: int
    """Channels of a gate."""
    products: list[Product]
    """The convolutions that no stage before has needed, one where there is no norm."""
    readings: list[Product]
    """All whose gates it takes."""
    columns: slice
    """Of its gates among those of its cell."""
    memory: tuple | None
    """Name of the state in full precision that it updates: M is handed from layer to layer, all others stay."""
    mix: int | None
    """Number of the kernel and the bias of W5."""
    both: tuple[int, slice] | None = None
    """Buffer and columns in which W5 reads the new c and m."""
    readers: list[Reader] = field(default_factory=list)
    """Of the state that it makes."""

    @property
    def padded_width(self) -> int:
        """Columns of a gate."""
        return padded(self.width)

    @property
    def gate_columns(self) -> int:
        """Columns of its gates."""
        return self.columns.stop - self.columns.start

    def places(self) -> list[int]:
        """For each gate and each reading the first column of that gate in the reading; -1 where it has none."""
        return [
            one.gates.index(gate) * self.padded_width if gate in one.gates else -1
            for gate in self.stage.gates.split()
            for one in self.readings
        ]


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
        self.normed = any(not isinstance(conv.norm, nn.Identity) for conv in gate_convs(units))
        self.forms: list[Form] = []
        self._parts: list[list[Part]] = []
        self.stages: list[Bound] = []
        self.buffers: dict[int, Form] = {}
        self.units = [self._bind_unit(stages, number) for number, stages in enumerate(units)]
        self.products = [product for bound in self.stages for product in bound.products]
        self.unit_of = {product.number: bound.unit for bound in self.stages for product in bound.products}
        self.sigmoid_output = spec.cell in SIGMOID_OUTPUT
        top = self.stages[-1].width
        self.head = self._add(form(1, spec.patch_channels, 1, {"h": top}), [Part(network.to_frame, ((0, 0),), ("h",))])
        self.buffers[self.head] = self.forms[self.head]
        self.input_readers: list[Reader] = []
        self._wire(layers)
        parameters: list[Tensor] = network.prediction_weights()
        self.device = parameters[0].device
        places = {parameter: place for place, parameter in enumerate(parameters)}
        convs = {part.conv for parts in self._parts for part in parts}
        self.of_convs = sorted(places[parameter] for conv in convs for parameter in conv.parameters())
        self.weights = JoinedWeights(self.forms, self._parts, [parameters[place] for place in self.of_convs])
        self.norms = {
            one.number: Affine(one.form, *(places[parameter] for parameter in one.norm.parameters()))
            for one in self.products
            if one.norm is not None
        }

    def _add(self, one: Form, parts: list[Part]) -> int:
        self.forms.append(one)
        self._parts.append(parts)
        return len(self.forms) - 1

    def _bind_unit(self, stages: list[Stage], unit: int) -> list[Bound]:
        """The stages of a cell with the convolutions that each of them needs first."""
        known: dict[GateConv, Product] = {}
        found, column = [], 0
        for stage in stages:
            first = stage.reads[0][0]
            width = first.conv.out_channels // len(first.gates)
            names = stage.gates.split()
            if self.normed:
                readings = [conv for conv, _ in stage.reads if set(conv.gates) & set(names)]
                new = {conv: self._product_of(conv, states, width) for conv, states in stage.reads if conv not in known}
                known |= new
                products, readings = list(new.values()), [known[conv] for conv in readings]
            else:
                products = readings = [self._joined(stage, width)]
            columns = slice(column, column + len(names) * padded(width))
            column = columns.stop
            memory = None if stage.memory is None else ("m",) if stage.memory == "m" else (stage.memory, unit)
            bound = Bound(stage, len(self.stages), unit, width, products, readings, columns, memory, None)
            if stage.mix is not None:
                self._add_mix(bound, stage.mix)
            self.stages.append(bound)
            found.append(bound)
        return found

    def places_back(self, product: Product) -> list[int]:
        """First column of each gate of a convolution among the gates of its cell."""
        columns = {}
        for bound in self.units[self.unit_of[product.number]]:
            for place, gate in enumerate(bound.stage.gates.split()):
                columns[gate] = bound.columns.start + place * bound.padded_width
        return [columns[gate] for gate in product.gates]

    def _joined(self, stage: Stage, width: int) -> Product:
        """One convolution of all states that a stage reads."""
        widths = dict.fromkeys(stage.slots, width)
        widths |= {states[0]: conv.conv.in_channels for conv, states in stage.reads if len(states) == 1}
        size = max(conv.conv.kernel_size[0] for conv, _ in stage.reads)
        gates = tuple(stage.gates.split())
        return self._product(form(len(gates), width, size, widths), parts_of(stage), gates, None)

    def _product_of(self, conv: GateConv, states: tuple[str, ...], width: int) -> Product:
        """A gate convolution by itself, all of whose gates a norm looks at."""
        widths = dict.fromkeys(states, conv.conv.in_channels // len(states))
        rows = tuple((gate, gate) for gate in range(len(conv.gates)))
        norm = None if isinstance(conv.norm, nn.Identity) else conv.norm
        one = form(len(conv.gates), width, conv.conv.kernel_size[0], widths)
        return self._product(one, [Part(conv.conv, rows, states)], conv.gates, norm)

    def _product(self, one: Form, parts: list[Part], gates: tuple[str, ...], norm: nn.Module | None) -> Product:
        number = self._add(one, parts)
        self.buffers[number] = one
        return Product(number, one, gates, norm)

    def _add_mix(self, bound: Bound, mix: nn.Conv2d) -> None:
        """W5, which reads where a convolution reads the new c and m as neighbours, or else in a buffer of its own."""
        one = form(1, bound.width, 1, {"c'": bound.width, "m'": bound.width})
        bound.mix = self._add(one, [Part(mix, ((0, 0),), ("c'", "m'"))])
        for product in bound.products:
            if {"c'", "m'"} <= product.form.columns.keys():
                bound.both = product.number, slice(product.form.slot("c'").start, product.form.slot("m'").stop)
                return
        self.buffers[bound.mix] = one
        bound.both = bound.mix, slice(0, one.shape[-1])

    def _wire(self, layers: list[int]) -> None:
        """Tell every stage who reads what it makes."""
        makers = {(unit, bound.stage.makes): bound for unit, row in enumerate(self.units) for bound in row}
        below = {unit: (layers[place - 1], int(place == 0)) for place, unit in enumerate(layers)}
        for unit, row in enumerate(self.units):
            for bound in row:
                reading = [(one.number, one.form, state) for one in bound.products for state in one.form.columns]
                if bound.mix in self.buffers:
                    reading += [(bound.mix, self.forms[bound.mix], state) for state in self.forms[bound.mix].columns]
                for number, one, state in reading:
                    if state == "x" and unit == 0:
                        self.input_readers.append(Reader(number, one.slot("x"), 1))
                        continue
                    if state == "x":
                        source, later = (unit - 1, self.units[unit - 1][-1].stage.makes), 0
                    elif state == "m":
                        layer, later = below[unit]
                        source = layer, "m'"
                    else:
                        source, later = (unit, state if "'" in state else f"{state}'"), int("'" not in state)
                    makers[source].readers.append(Reader(number, one.slot(state), later))
        self.stages[-1].readers.append(Reader(self.head, self.forms[self.head].slot("h"), 0))


def gate_convs(units: list[list[Stage]]) -> list[GateConv]:
    """All that the stages read through."""
    return [conv for stages in units for stage in stages for conv, _ in stage.reads]

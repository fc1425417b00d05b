"""The gates of a network with norms: from the convolutions of a roll-out, and on the way back to them.

A norm looks at all gates of one convolution, which no other convolution may be joined with. So each keeps what it gave
and the moments of every clip, and a stage takes the sum of what its convolutions give, normalised.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.fast_path.fused_plan import Bound, Plan, Product


class NormedGates:
    """Those of one roll-out.

    Args:
        parameters: of the network.
        biases: of all convolutions, by number.
        clips: B.
        depth: time steps that are kept.
    """

    def __init__(
        self, plan: Plan, parameters: Sequence[Tensor], biases: Sequence[Tensor], clips: int, depth: int
    ) -> None:
        self.plan, self.parameters, self.biases, self.clips, self.depth = plan, parameters, biases, clips, depth
        self.scales = {number: one.laid(parameters[one.scale]) for number, one in plan.norms.items()}
        self.shifts = {number: one.laid(parameters[one.shift]) for number, one in plan.norms.items()}
        self.no_bias = torch.zeros_like(biases[0]).new_zeros(max(bound.gate_columns for bound in plan.stages))
        self.raws: dict[tuple[int, int], Tensor] = {}
        self.moments: dict[tuple[int, int], Tensor] = {}
        self.of_gates: dict[int, Tensor] = {}
        self.found: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(self, product: Product, step: int, raw: Tensor) -> None:
        """What a convolution gave at a step: (rows, columns)."""
        from models.fast_path import norm_stages

        key = product.number, step % self.depth
        self.raws[key] = raw
        if product.norm is not None:
            parts = norm_stages.parts_of(len(raw) // self.clips)
            moments = self.biases[0].new_empty(self.clips, parts, 2)
            norm_stages.moments(raw, self.biases[product.number], moments, len(product.gates), product.form.width)
            self.moments[key] = moments

    def gates(self, bound: Bound, step: int) -> Tensor:
        """The gates of a stage (rows, columns), whose convolutions have all been kept."""
        from models.fast_path import norm_stages

        numbers, step = [one.number for one in bound.readings], step % self.depth
        raws = [self.raws[number, step] for number in numbers]
        gates = raws[0].new_empty(len(raws[0]), bound.gate_columns)
        norm_stages.add(
            raws,
            [self.biases[number] for number in numbers],
            [self.moments.get((number, step), self.no_bias) for number in numbers],
            [self.scales.get(number, self.no_bias[None]) for number in numbers],
            [self.shifts.get(number, self.no_bias[None]) for number in numbers],
            bound.places(),
            [one.norm is not None for one in bound.readings],
            gates,
            len(gates) // self.clips,
            bound.width,
        )
        return gates

    def of_stage(self, bound: Bound, gates: Tensor) -> Tensor:
        """Takes the gradients at the gates of a stage, of which those of its cell stand side by side."""
        row = self.plan.units[bound.unit]
        if bound is row[-1]:  # the first on the way back
            self.of_gates[bound.unit] = gates.new_empty(len(gates), bound.columns.stop)
        return self.of_gates[bound.unit][:, bound.columns]

    def back(self, product: Product, step: int, of_raw: Tensor) -> None:
        """From the gradients at all gates of a cell to that at a convolution, which `of_raw` (rows, columns) takes."""
        from models.fast_path import norm_stages

        of_gates = self.of_gates[self.plan.unit_of[product.number]]
        number, key = product.number, (product.number, step)
        raw, bias, moments = self.raws[key], self.biases[number], self.moments.get(key)
        scale, sums, of_scale, of_shift = self.scales.get(number), None, None, None
        places = self.plan.places_back(product)
        if moments is not None:
            assert scale is not None
            sums = torch.empty_like(moments)
            norm_stages.norm_sums(of_gates, places, raw, bias, moments, scale, sums, product.form.width)
            if number not in self.found:
                size = len(raw) // self.clips, raw.shape[1]
                self.found[number] = bias.new_zeros(size), bias.new_zeros(size)
            of_scale, of_shift = self.found[number]
        given = of_gates, places, raw, bias, moments, sums, scale, of_raw, of_scale, of_shift
        norm_stages.norm_backward(*given, self.clips, product.form.width)

    def gradients(self) -> dict[int, Tensor]:
        """Those at all scales and shifts, by their place among the parameters; what was added up is forgotten."""
        gradients = {}
        for number, found in self.found.items():
            one = self.plan.norms[number]
            for place, added in zip((one.scale, one.shift), found, strict=True):
                gradients[place] = one.back(added, self.parameters[place])
        self.found.clear()
        return gradients

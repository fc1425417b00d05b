"""Which variants of a protocol differ in one thing only: place of the highway, depth, learning rate. No torch here."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import takewhile

from benchmark.config.protocol import Protocol, RunConfig
from benchmark.config.variants import slot_name
from models.forecasters.spec import Spec
from models.spec import ModelSpec

SIZES = {"hidden_channels", "highway_slot", "highway_channels"}
"""Fields of a spec that an ablation may change: widths follow from matched parameters."""


@dataclass(frozen=True)
class Series:
    """A line of an ablation figure: variants that are alike but for one number."""

    label: str
    spec: Spec
    """Of the variant with the smallest number."""
    members: tuple[tuple[int | float, str], ...]
    """Number and id of each variant, by number."""

    @property
    def numbers(self) -> list[int | float]:
        """The numbers that occur, each once, smallest first."""
        return sorted({number for number, _ in self.members})


def slot_series(protocol: Protocol) -> list[Series]:
    """Variants of one cell and depth, by highway slot (0 = none), where there are two different slots or more."""
    found = series(protocol, number=lambda spec: spec.highway_slot, same=lambda spec: spec.layers)
    return [one for one in found if len(set(one.numbers) - {0}) > 1]


def depth_series(protocol: Protocol) -> list[Series]:
    """Variants of one cell and place of the highway, by depth, where there are two different depths or more."""
    found = series(protocol, number=lambda spec: spec.layers, same=place)
    return [one for one in found if len(one.numbers) > 1]


def series(protocol: Protocol, number: Callable[[Spec], int], same: Callable[[Spec], Hashable]) -> list[Series]:
    """The variants of `protocol` in groups that are alike in `same` and in all but sizes and learning rate.

    A group in which two variants have one `number` is split by width and learning rate.
    """
    groups: dict[Hashable, list[RunConfig]] = {}
    for entry in protocol.variants:
        run = protocol.first_run(entry.id)
        groups.setdefault((same(run.model), alike(run)), []).append(run)
    split: dict[Hashable, list[RunConfig]] = {}
    for key, group in groups.items():
        clash = len({number(run.model) for run in group}) < len(group)
        for run in group:
            size = (run.model.hidden_channels[:1], run.training.learning_rate)
            split.setdefault((key, size if clash else None), []).append(run)
    found = []
    for group in split.values():
        group.sort(key=lambda run: number(run.model))
        members = tuple((number(run.model), run.variant) for run in group)
        found.append(Series(common([run.label for run in group]), group[0].model, members))
    labels = [one.label for one in found]
    return [
        replace(one, label=f"{one.label} ({one.members[0][1]})") if labels.count(one.label) > 1 else one
        for one in found
    ]


def rate_groups(protocol: Protocol) -> list[Series]:
    """Variants that differ in nothing but their learning rate, by rate, where there are two different rates or more."""
    groups: dict[Hashable, list[RunConfig]] = {}
    for entry in protocol.variants:
        run = protocol.first_run(entry.id)
        rest = run.training.model_copy(update={"learning_rate": 0.0})
        groups.setdefault((run.model, rest), []).append(run)
    found = []
    for group in groups.values():
        group.sort(key=lambda run: run.training.learning_rate)
        members = tuple((run.training.learning_rate, run.variant) for run in group)
        if len({rate for rate, _ in members}) > 1:
            found.append(Series(common([run.label for run in group]), group[0].model, members))
    return found


def highway_pairs(protocol: Protocol) -> list[tuple[str, str]]:
    """One pair a cell: a variant with a highway and its reference without, alike in all but sizes and learning rate.

    Of several, the first whose learning rates are equal, else the first.
    """
    found: dict[str, tuple[bool, str, str]] = {}
    for variant, reference in protocol.comparisons():
        one, other = protocol.first_run(variant), protocol.first_run(reference)
        added = one.model.highway_slot and not other.model.highway_slot and one.model.layers == other.model.layers
        if one.model.cell == other.model.cell and added and alike(one) == alike(other):
            fair = one.training.learning_rate == other.training.learning_rate
            if one.model.cell not in found or fair > found[one.model.cell][0]:
                found[one.model.cell] = fair, variant, reference
    return [(variant, reference) for _, variant, reference in found.values()]


def alike(run: RunConfig, but: str | None = None) -> Hashable:
    """What the variants of a series have in common; `but` names a field of the spec in which they may differ, too."""
    spec = run.model
    usual = spec.highway_slot and spec.hidden_channels[spec.highway_slot - 1]
    channels = None if spec.highway_channels in (None, usual) else spec.highway_channels
    rest = tuple(getattr(spec, field.name) for field in fields(spec) if field.name not in {*SIZES, but})
    return channels, rest, run.training.model_copy(update={"learning_rate": 0.0})


def place(spec: Spec) -> str:
    """Where the highway of `spec` sits, in words that hold at every depth."""
    return slot_name(spec.highway_slot, spec.layers)


def common(labels: Sequence[str]) -> str:
    """What `labels` have in common, up to a comma; the first of them where that is nothing."""
    parts = zip(*(label.split(", ") for label in labels), strict=False)
    return ", ".join(same[0] for same in takewhile(lambda same: len(set(same)) == 1, parts)) or labels[0]


MOST_VARIANTS = 18
"""More lines or panels than this cannot be told apart in one figure."""

FIRST = "Cell and highway"
QUESTIONS = {
    "layers": "Depth",
    "init": "Initial weights",
    "norm": "Norm",
    "highway_gate_bias": "Gate bias of the highway",
    "forget_bias": "Forget bias",
}
"""Property of a spec -> the question that variants ask which differ from the usual in it alone."""
OTHER = "Several of these at once"


@dataclass(frozen=True)
class Asked:
    """A question and the variants that ask it."""

    title: str
    variants: tuple[str, ...]
    usual: dict[str, str]
    """Variant -> the one that is alike but has the usual value, where there is one."""


def questions(protocol: Protocol) -> list[Asked]:
    """The questions of `protocol`, each variant in one: cell and highway first, those without variants left out."""
    runs = [protocol.first_run(entry.id) for entry in protocol.variants]
    ours = [run.model for run in runs if isinstance(run.model, ModelSpec)]
    counted = {key: Counter(getattr(spec, key) for spec in ours) for key in QUESTIONS}
    usual = {key: counts.most_common(1)[0][0] for key, counts in counted.items() if counts}
    asked: dict[str, list[RunConfig]] = {title: [] for title in (FIRST, *QUESTIONS.values(), OTHER)}
    for run in runs:
        asks = QUESTIONS if isinstance(run.model, ModelSpec) else {}
        odd = [title for key, title in asks.items() if getattr(run.model, key) != usual[key]]
        asked[FIRST if not odd else odd[0] if len(odd) == 1 else OTHER].append(run)
    keys = {title: key for key, title in QUESTIONS.items()}
    found = []
    for title, group in asked.items():
        but = keys.get(title)
        plain = {likeness(run, but): run.variant for run in reversed(asked[FIRST])} if but else {}
        partners = {run.variant: plain.get(likeness(run, but)) for run in group}
        named = {variant: partner for variant, partner in partners.items() if partner}
        if group:
            found.append(Asked(title, tuple(partners), named))
    return found


def likeness(run: RunConfig, but: str | None) -> Hashable:
    """What two variants share that differ in `but` alone, sizes aside."""
    depth = None if but == "layers" else run.model.layers
    return depth, place(run.model), alike(run, but=but), run.training.learning_rate


def readable_variants(protocol: Protocol) -> tuple[str, ...]:
    """The variants for figures with a line or a panel each: all, or those of the first question, or none."""
    everything = tuple(entry.id for entry in protocol.variants)
    if len(everything) <= MOST_VARIANTS:
        return everything
    first = questions(protocol)[0]
    return first.variants if first.title == FIRST and len(first.variants) <= MOST_VARIANTS else ()

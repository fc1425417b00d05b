"""Which question a variant of a protocol asks, and which variants can be read side by side. Imports no torch."""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from benchmark.ablations import alike, place
from benchmark.config import Protocol, RunConfig

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
    usual = {key: Counter(getattr(run.model, key) for run in runs).most_common(1)[0][0] for key in QUESTIONS}
    asked: dict[str, list[RunConfig]] = {title: [] for title in (FIRST, *QUESTIONS.values(), OTHER)}
    for run in runs:
        odd = [title for key, title in QUESTIONS.items() if getattr(run.model, key) != usual[key]]
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

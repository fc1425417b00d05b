"""The learning rate of each network by a rule, from the runs of a protocol that tries rates. Imports no torch."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.config.protocol import Protocol
from benchmark.config.rates import ChosenRate, RateChoice, TriedRate, choice_file, network_hash, next_rate, suffix
from benchmark.config.variant_groups import rate_groups
from benchmark.reporting.finished_runs import FinishedRun, VariantRuns, by_variant, learnt_below
from benchmark.reporting.statistics import Summary, summarise_seeds
from benchmark.system.errors import UserError
from benchmark.system.files import write_atomic
from benchmark.system.installation import PROGRAM

METRIC = "validation/mse"
"""The curve that decides, at its last step."""
HEAD = """\
# Chosen by `{program} choose-rates --protocol {name}` from the runs of that protocol; not to be edited.
# The least mean of validation/mse at the last step: of the rates at which no more than half of the seeds fail (diverge,
# or do not learn where the protocol says when a run has), those at which fewest diverge. Where most seeds fail at every
# rate, of all of them (fails: true).
"""


@dataclass(frozen=True)
class Tried:
    """A network at one rate."""

    rate: float
    group: VariantRuns

    @property
    def error(self) -> Summary:
        """Validation MSE at the last step, over the seeds that did not diverge."""
        return summarise_seeds([run.last_validation for run in self.group.kept])

    @property
    def diverged(self) -> int:
        """How many seeds did."""
        return self.group.n - len(self.group.kept)

    @property
    def not_learnt(self) -> int:
        """How many of the others have not learnt."""
        return len(self.group.kept) - len(self.group.learnt)

    @property
    def fails(self) -> bool:
        """Whether more than half of its seeds diverged or did not learn."""
        return 2 * (self.diverged + self.not_learnt) > self.group.n


def best_of(tried: Sequence[Tried]) -> Tried | None:
    """The best rate of a network; None where all seeds diverged, or have a score that is not finite, at every rate."""
    left = [one for one in tried if math.isfinite(one.error.mean)]
    return min(left, key=lambda one: (one.fails, one.diverged, one.error.mean), default=None)


def choose_rates(protocol: Protocol, runs: Sequence[FinishedRun], limit: float) -> RateChoice:
    """The rate of each network of `protocol`, which tries them.

    Args:
        protocol: with `rate_grid`.
        runs: all of its runs.
        limit: validation MSE below which a run has learnt, infinite without such a rule.

    Raises:
        UserError: it has no grid, or a best rate lies at the edge of the grid; names the rate to be added.
    """
    if not protocol.rate_grid:
        raise UserError(f"protocol {protocol.name}: has no rate_grid, the learning rates to choose from")
    groups, networks, asked = {group.variant: group for group in by_variant([*runs])}, {}, []
    for one in rate_groups(protocol):
        tried = [Tried(float(rate), groups[variant]) for rate, variant in one.members]
        first = tried[0]
        name = first.group.variant.removesuffix(suffix(first.rate))
        best = best_of(tried)
        if best and (missing := beyond_edge(best.rate, protocol.rate_grid, [each.rate for each in tried])):
            further = sorted({each.rate for each in tried} - {*protocol.rate_grid} | {missing})
            asked.append(
                f"{name} is best at {best.rate:g}: further_rates: [{', '.join(f'{rate:g}' for rate in further)}]"
            )
        networks[name] = ChosenRate(
            learning_rate=best.rate if best else None,
            network=network_hash(one.spec),
            fails=best is None or best.fails,
            at_edge=best is not None and best.rate in (tried[0].rate, tried[-1].rate),
            tried=tuple(tried_rate(each, protocol.seeds) for each in tried),
        )
    if asked:
        raise UserError(
            f"protocol {protocol.name}: nothing is chosen: the best rate of {len(asked)} of {len(networks)} networks"
            f" lies at the edge of rate_grid; add one more under variants and run it again ({'; '.join(asked)})"
        )
    seeds, below = protocol.seeds, limit if math.isfinite(limit) else None
    return RateChoice(protocol=protocol.name, metric=METRIC, seeds=seeds, learnt_below=below, networks=networks)


def beyond_edge(best: float, grid: Sequence[float], rates: Sequence[float]) -> float | None:
    """The rate beyond the edge of `grid` at which the `best` lies, where it is not among the `rates`; else None."""
    outwards = {min(grid): next_rate(min(grid), up=False), max(grid): next_rate(max(grid), up=True)}
    missing = outwards.get(best)
    return missing if missing not in rates else None


def tried_rate(tried: Tried, seeds: Sequence[int]) -> TriedRate:
    """What the file says of one rate."""
    kept = {run.seed: run.last_validation for run in tried.group.kept}
    scores = tuple(finite(kept.get(seed, math.nan)) for seed in seeds)
    mean = finite(tried.error.mean)
    return TriedRate(learning_rate=tried.rate, validation_mse=mean, by_seed=scores, not_learnt=tried.not_learnt)


def finite(value: float) -> float | None:
    """`value`, or None if it is none that a file could hold."""
    return value if math.isfinite(value) else None


def as_yaml(choice: RateChoice) -> str:
    """The text of the file: one line a network and a rate, all numbers in full."""
    lines = [HEAD.format(program=PROGRAM, name=choice.protocol).rstrip()]
    about = choice.model_dump(mode="json")
    networks = about.pop("networks")
    lines += [f"{key}: {json.dumps(value)}" for key, value in about.items()]
    lines.append("networks:")
    for name, network in networks.items():
        tried = network.pop("tried")
        lines.append(f"  {name}:")
        lines += [f"    {key}: {json.dumps(value)}" for key, value in network.items()]
        lines += ["    tried:", *(f"      - {json.dumps(one)}" for one in tried)]
    return "\n".join(lines) + "\n"


def write_choice(protocol: Protocol, runs: Sequence[FinishedRun], folder: Path, path: Path | None = None) -> str:
    """Choose, write the choice to `path` or where protocols look for it, and say it in a line a network.

    Raises:
        UserError: see `choose_rates`.
    """
    choice = choose_rates(protocol, runs, learnt_below(protocol, folder))
    path = path or choice_file(protocol.name)
    write_atomic(path, as_yaml(choice))
    return "\n".join([*(said(name, one, len(choice.seeds)) for name, one in choice.networks.items()), f"-> {path}"])


def said(name: str, chosen: ChosenRate, n: int) -> str:
    """The choice for one network in a line, with every mean and what failed."""
    means = []
    for one in chosen.tried:
        gone = sum(score is None for score in one.by_seed)
        failed = [f"{gone} of {n} diverged"] * (gone > 0) + [f"{one.not_learnt} of {n} not learnt"] * (
            one.not_learnt > 0
        )
        mean = "no score" if one.validation_mse is None else f"{one.validation_mse:.2f}"
        means.append(f"{one.learning_rate:g}: {mean}" + (f" ({', '.join(failed)})" if failed else ""))
    rate = "no rate" if chosen.learning_rate is None else f"{chosen.learning_rate:g}"
    edge = ", MOST SEEDS FAIL AT EVERY RATE" * chosen.fails + ", still the outermost" * chosen.at_edge
    return f"{name}: {rate}{edge} (validation MSE at {'; '.join(means)}; n = {n})"

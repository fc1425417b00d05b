"""Learning rates by a rule: the grid that a protocol tries, and the choice that another one reads. Imports no torch."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from benchmark.config.sections import Identifier, Strict, no_repeats
from benchmark.config.variants import VARIANTS
from benchmark.system.console import command_line
from benchmark.system.errors import UserError, explain
from benchmark.system.installation import PROJECT
from benchmark.system.strict_yaml import read_yaml
from models.forecasters.spec import Spec

CHOICES = PROJECT / "workflows" / "rates"
"""Where `choose-rates` writes what it chose, a file for each protocol that tried rates."""
SERIES = tuple(float(f"{first}e{power}") for power in range(-6, 0) for first in (1, 3))
"""The rates that can be tried: each is about three times the one before it."""


def of_the_series(rate: float) -> float:
    """Raise ValueError for a rate that is not 1 or 3 times a power of ten."""
    if rate not in SERIES:
        raise ValueError(f"{rate:g} is not one of 0.000001, 0.000003, 0.00001, ..., 0.1, 0.3")
    return rate


Rate = Annotated[float, AfterValidator(of_the_series)]
RateGrid = Annotated[tuple[Rate, ...], Field(strict=False), AfterValidator(no_repeats)]


def next_rate(rate: float, *, up: bool) -> float | None:
    """The rate of the series after `rate`, one factor up or down; None at its end."""
    place = SERIES.index(rate) + (1 if up else -1)
    return SERIES[place] if 0 <= place < len(SERIES) else None


def suffix(rate: float) -> str:
    """What the id of a variant ends with that tries `rate`: `-lr003` for 0.003, `-lr0003` for 0.0003."""
    return f"-lr{f'{rate:.7f}'.partition('.')[2].rstrip('0').ljust(3, '0')}"


def tried_at_each(values: Any) -> Any:
    """The values of a protocol with each of its variants at each rate of `rate_grid`, and of its own `further_rates`.

    What is not as it should be stays as it is, for the checks of the protocol to name.

    Raises:
        ValueError: a variant names a rate by itself.
    """
    grid = values.get("rate_grid") if isinstance(values, dict) else None
    entries = values.get("variants") if grid else None
    if not isinstance(grid, list | tuple) or not isinstance(entries, list | tuple):
        return values
    expanded = []
    for given in entries:
        entry = {"id": given} if isinstance(given, str) else given
        expanded += at_each_rate(entry, grid) if isinstance(entry, dict) else [given]
    return values | {"variants": expanded}


def at_each_rate(entry: dict[str, Any], grid: Sequence[Any]) -> list[dict[str, Any]]:
    """An entry of `variants` once for each of its rates; itself where something in it is wrong.

    Raises:
        ValueError: it names a rate by itself.
    """
    further, training, name = entry.get("further_rates", []), entry.get("training", {}), entry.get("id")
    if not isinstance(further, list | tuple) or not isinstance(training, dict) or not isinstance(name, str):
        return [entry]
    rates = [*grid, *further]
    if not all(rate in SERIES for rate in rates) or len(set(grid)) < len(grid):
        return [entry]
    if "learning_rate" in training:
        raise ValueError(f"variants: {name}: training.learning_rate: does not go with rate_grid, which sets it")
    if len(set(rates)) < len(rates):
        raise ValueError(f"variants: {name}: further_rates: {[*further]} has a rate of rate_grid, or one twice")
    base = entry.get("base") or name
    label = entry.get("label") or (VARIANTS[base].label if base in VARIANTS else name)
    named = {key: value for key, value in entry.items() if key != "further_rates"}
    named |= {} if {"cell", "model"} & entry.keys() else {"base": base}
    return [
        named
        | {"id": name + suffix(rate), "label": f"{label}, rate {rate:g}"}
        | {"training": training | {"learning_rate": rate}}
        for rate in sorted(rates)
    ]


class TriedRate(Strict):
    """What one rate gave: the error on the validation clips after the last step."""

    learning_rate: Rate
    validation_mse: float | None = Field(description="Mean over the seeds that did not diverge; null = none.")
    by_seed: tuple[float | None, ...] = Field(strict=False, description="In the order of the seeds; null = diverged.")
    not_learnt: int = Field(ge=0, description="Seeds that did not learn, those that diverged aside.")


class ChosenRate(Strict):
    """The rate of one network, and all that it was chosen from."""

    learning_rate: Rate | None = Field(description="null = every seed diverged at every rate.")
    fails: bool = Field(description="Most seeds fail at every rate, which is to be reported.")
    network: str = Field(description="Hash of its spec.")
    at_edge: bool = Field(description="The best is still the smallest or the largest that was tried.")
    tried: tuple[TriedRate, ...] = Field(strict=False, min_length=1)


class RateChoice(Strict):
    """What `choose-rates` wrote of a protocol that tries rates."""

    protocol: Identifier
    metric: str
    seeds: tuple[int, ...] = Field(strict=False, min_length=1)
    learnt_below: float | None = Field(description="Validation MSE below which a run has learnt; null = no such rule.")
    networks: dict[Identifier, ChosenRate] = Field(min_length=1)

    def rate_of(self, network: str, spec: Spec | None) -> float:
        """The learning rate of `network`, which must be `spec` unless that is None.

        Raises:
            ValueError: it was not tried, was another network, or diverged at every rate.
        """
        if network not in self.networks:
            raise ValueError(
                f"rates: {self.protocol} tried no {network!r} but {', '.join(self.networks)}; name one in rate_of"
            )
        chosen = self.networks[network]
        if chosen.learning_rate is None:
            raise ValueError(
                f"rates: every seed of {network} diverged at every rate of {self.protocol}: report that, and take the"
                " variant out"
            )
        if spec is not None and network_hash(spec) != chosen.network:
            raise ValueError(
                f"rates: {self.protocol} tried another network under this name; try this one there, or name in rate_of"
                " whose rate it takes"
            )
        return chosen.learning_rate


def network_hash(spec: Spec) -> str:
    """The first 12 digits of the SHA-256 of a network's fields."""
    return hashlib.sha256(json.dumps(spec.to_dict(), sort_keys=True).encode()).hexdigest()[:12]


def choice_file(name: str) -> Path:
    """Where the choice called `name` lies: a protocol's name, or the path of a YAML file."""
    return Path(name) if name.endswith((".yaml", ".yml")) else CHOICES / f"{name}.yaml"


def read_choice(name: str) -> RateChoice | None:
    """The choice called `name`; None where nothing has been chosen yet.

    Raises:
        UserError: its file is damaged.
    """
    path = choice_file(name)
    if not path.exists():
        return None
    values = read_yaml(path)
    try:
        return RateChoice.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, RateChoice)}; `choose-rates` writes it anew") from None


def check_chosen(protocol: str, rates: str | None) -> None:
    """Refuse to train before the learning rates are chosen; until then those of `training` only hold the place.

    Args:
        protocol: its name.
        rates: what its key `rates` says.

    Raises:
        UserError: says which command chooses them.
    """
    if rates and not choice_file(rates).exists():
        path = choice_file(rates)
        command = command_line("python", "-m", "benchmark", "choose-rates", "--protocol", rates)
        how = f"run that protocol, then `{command}`"
        raise UserError(f"protocol {protocol}: rates: {path} is missing: no rate is chosen yet; {how}")

"""A run made again from its record alone, and where it first came out otherwise."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmark.config.protocol import Protocol, RunConfig
from benchmark.config.sections import ModelConfig
from benchmark.config.variants import VARIANTS
from benchmark.system.devices import resolve_device
from benchmark.system.errors import UserError, explain
from benchmark.system.files import read_json, read_json_lines
from benchmark.system.gpu_lock import reserve_gpu
from benchmark.system.locks import hold
from models.forecasters.outside import is_outside

NEEDED = ("config", "status", "mean", "per_clip", "probe", "provenance")
"""Without these a record tells too little to be compared with another."""
_LATER = ("curve", "weights_sha256", "scores_sha256")
"""Without these, which older records lack, less is compared."""
_NO_OUTCOME = {"command"}
"""Keys of the provenance that say how a run was called, which decides nothing."""


def reproduce(path: Path, results_dir: Path, data_dir: Path, device: str | None) -> tuple[str, bool]:
    """Train, score and probe again the run that the record at `path` tells of, and compare the two.

    The run lies below `results_dir/reproduced` and goes on from its checkpoint; MLflow is told nothing of it.

    Args:
        path: a record, as `publish` writes it.
        results_dir: where to work.
        data_dir: published files.
        device: `auto`, `cpu` or `cuda`; None = the recorded one.

    Returns:
        What is equal and what first differs, a line each; and whether the run came out equal.

    Raises:
        UserError: the record cannot be read or tells too little, or its device or data are not here.
    """
    recorded = read_reproducible(path)
    protocol, run = protocol_of(recorded["config"], path)
    used = resolve_device(device or recorded["provenance"]["device"], f"{path}: provenance.device")
    place = results_dir / "reproduced" / recorded["provenance"]["config_hash"]
    print(f"reproducing {run.variant} seed={run.seed} of {run.protocol} in {place}", flush=True)
    with hold(place), reserve_gpu(used):
        here = run_again(protocol, run, place, data_dir, used)
    lines = environment(recorded, here)
    found = list(outcomes(recorded, here, read_json_lines(run.path(place) / "metrics.jsonl")))
    first = next((what for what, difference in found if difference), None)
    lines += [f"{what}: {difference or 'equal'}" for what, difference in found]
    if missing := [name for name in _LATER if name not in recorded]:
        lines.append(f"not compared: {', '.join(missing)}, which the record lacks, published before they were kept")
    verdict = f"differs, first in: {first}" if first else "equal"
    return "\n".join([*lines, f"{run.variant} seed={run.seed} of {run.protocol}: {verdict}"]), first is None


def read_reproducible(path: Path) -> dict[str, Any]:
    """The record at `path`, with all that a run is made again from.

    Raises:
        UserError: it cannot be read, or lacks what is needed; names the first such key.
    """
    try:
        recorded = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a record ({error}); `publish` writes them") from None
    where: tuple[tuple[str, Any], ...] = (("", recorded),)
    if isinstance(recorded, dict):
        where = tuple((name, recorded.get(name)) for name in NEEDED)
    for name, value in where:
        if not isinstance(value, dict):
            raise UserError(f"{path}: {name or 'it'} is no mapping: no record of a run, as `publish` writes them")
    for name in ("config_hash", "device"):
        if name not in recorded["provenance"]:
            raise UserError(f"{path}: provenance.{name} is missing; publish the run again with this version")
    found = recorded["provenance"]["config_hash"]
    if not re.fullmatch(r"[0-9a-f]{1,64}", str(found)):  # it names a folder
        raise UserError(f"{path}: provenance.config_hash: {found!r} is no hash")
    return recorded


def protocol_of(config: dict[str, Any], path: Path) -> tuple[Protocol, RunConfig]:
    """The protocol of one run that resolves to the recorded `config`, and that run.

    Raises:
        UserError: no protocol of this version does; names the key.
    """
    try:
        model = config["model"]
        if outside := model.get("model") or (is_outside(model["cell"]) and model["cell"]):
            raise UserError(
                f"{path}: is of {outside}, a class outside the benchmark, which no record makes this program import;"
                " train it by the protocol that names it"
            )
        base = next(name for name, known in VARIANTS.items() if known.cell == model["cell"])
        fields = {key: value for key, value in model.items() if key in ModelConfig.model_fields and value is not None}
        entry = fields | {"id": config["variant"], "base": base, "label": config["label"]}
        sections = {name: config[name] for name in ("data", "training", "evaluation", "probe")}
        protocol = Protocol.model_validate(
            sections
            | {"name": config["protocol"], "about": f"Reproduction of {path.name}.", "model": {}, "baselines": ()}
            | {"variants": [entry | {"highway_slot": model["highway_slot"]}], "seeds": [config["seed"]]}
        )
        run = protocol.run(config["variant"], config["seed"])
    except UserError:
        raise
    except ValidationError as error:
        raise UserError(f"{path}: config: {explain(error, Protocol)}; this version knows no such run") from None
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise UserError(f"{path}: config: {error!r} is missing or unknown; this version knows no such run") from None
    except ValueError as error:
        raise UserError(f"{path}: config: {error}; this version knows no such run") from None
    found = next(differences(config, plain_json(run.to_dict()), "config", recorded_only=True), None)
    if found:
        raise UserError(f"{path}: {found}; this version knows no such run")
    return protocol, run


def run_again(protocol: Protocol, run: RunConfig, place: Path, data_dir: Path, device: str) -> dict[str, Any]:
    """Prepare, train, score and probe `run` below `place`, and return its record."""
    from benchmark.data.kinds import kind_of
    from benchmark.evaluation import lpips_backbone as backbone
    from benchmark.evaluation.evaluate import evaluate
    from benchmark.evaluation.gradient_probe import probe
    from benchmark.reporting.record import make_record
    from benchmark.training.train import train

    folder = place / protocol.name
    kind_of(protocol.data).prepare(protocol, data_dir, folder / "data")
    backbone.prepare(protocol.evaluation.lpips_backbone, data_dir, folder / "lpips_backbone.json", False)
    train(run, place, device, skip_trained=True)
    evaluate(protocol, run.variant, run.seed, place, data_dir, device)
    probe(run, place, device)
    return plain_json(make_record(protocol, run.variant, run.seed, place))


def environment(recorded: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """A line for each thing that may explain a difference: code, config, data, versions, device."""
    was, now = (
        {key: value for key, value in one["provenance"].items() if key not in _NO_OUTCOME} for one in (recorded, here)
    )
    lines = [*differences(was, now, "", recorded_only=True), *differences(recorded["config"], here["config"], "config")]
    if "lpips_backbone" in recorded:
        lines += differences(recorded["lpips_backbone"], here["lpips_backbone"], "lpips_backbone")
    return [f"other here: {line}" for line in lines] or ["code, data, versions and device: as recorded"]


def outcomes(
    recorded: dict[str, Any], here: dict[str, Any], lines: list[dict[str, Any]]
) -> Iterator[tuple[str, str | None]]:
    """What is compared, in the order of a run, and where it first differs; None where it is equal."""
    if "curve" in recorded:
        yield "curves", curve_difference(recorded["curve"], lines)
    yield "status", next(differences(recorded["status"], here["status"], ""), None)
    if "weights_sha256" in recorded:
        pair = ({"sha256": one["weights_sha256"]} for one in (recorded, here))
        yield "weights", next(differences(*pair, ""), None)  # pyright: ignore[reportCallIssue]  # two records
    for metric in recorded["mean"]:
        if metric not in here["mean"]:
            print(f"{metric}: not compared, it could not be measured here")
            continue
        yield metric, score_difference(metric, recorded, here)
    for name in ("box_mse", "beyond", "probe", "norms", "memory"):
        if name in recorded:
            yield name, next(differences(recorded[name], here.get(name, {}), ""), None)


def curve_difference(recorded: dict[str, list[Any]], lines: list[dict[str, Any]]) -> str | None:
    """The first recorded point of the curves that came out otherwise, and the last equal one; None if none did."""
    from benchmark.reporting.record import curve

    here = {row.step: row for row in curve(lines).itertuples()}
    equal = "the first point that the record has"
    for step, loss, digest in zip(*(recorded[name] for name in ("step", "loss", "hash")), strict=True):
        if step not in here:
            return f"differ at step {step}, which was not reached or logged here"
        if here[step].hash != digest:
            losses = f"loss {loss} recorded, {here[step].loss} here"
            if here[step].loss == loss:
                losses = f"loss {loss} in both, another value there or since the point before differs"
            return f"differ at step {step}, {equal}: {losses}"
        equal = f"after being equal up to step {step}"
    return None


def score_difference(metric: str, recorded: dict[str, Any], here: dict[str, Any]) -> str | None:
    """Where a metric first differs: its clip if the record has scores by clip, else its frame or mean."""
    hashes = [one.get("scores_sha256", {}).get(metric) for one in (recorded, here)]
    if None not in hashes and hashes[0] == hashes[1]:
        return None
    for name, what in (("per_clip", "clip"), ("per_frame", "frame"), ("mean", "mean")):
        was, now = (one.get(name, {}).get(metric) for one in (recorded, here))
        found = next(differences(was, now, what), None) if was is not None else None
        if found:
            return found
    return None if None in hashes else "differs beyond the eight digits that the record keeps"


def differences(was: Any, now: Any, where: str, *, recorded_only: bool = False) -> Iterator[str]:
    """Each value in which two plain structures differ: its place (entries of lists counted from 1), both values.

    Args: `recorded_only`: leave out what only `now` has.
    """
    if isinstance(was, dict) and isinstance(now, dict):
        keys = [*was, *(key for key in now if key not in was and not recorded_only)]
        for key in keys:
            place = f"{where}.{key}" if where else key
            yield from differences(was.get(key, _ABSENT), now.get(key, _ABSENT), place, recorded_only=recorded_only)
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for number, pair in enumerate(zip(was, now, strict=True), start=1):
            yield from differences(*pair, f"{where} {number}", recorded_only=recorded_only)
    elif was != now and not (_is_nan(was) and _is_nan(now)):
        yield f"{where}: {was} recorded, {now} here"


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


_ABSENT = _Absent()


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def plain_json(value: Any) -> Any:
    """`value` as it comes back from a JSON file."""
    return json.loads(json.dumps(value))

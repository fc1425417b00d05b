"""Measured speeds, as `python -m benchmark speed --json` writes them. Imports no torch."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from benchmark.config.protocol import RunConfig
from benchmark.reporting.published_records import FOLDER
from benchmark.system.errors import UserError, explain, unknown
from benchmark.system.installation import PROGRAM
from models.spec import ModelSpec

SPEEDS = FOLDER / "speed"
"""Where the committed ones lie."""


def to_spec(values: Any) -> ModelSpec:
    """The network of a file; raises ValueError where its fields are those of none."""
    if not isinstance(values, dict):
        raise ValueError("is no mapping of the fields of a network")
    try:
        fields: dict[str, Any] = values | {"hidden_channels": tuple(values.get("hidden_channels", ()))}
        return ModelSpec(**fields)
    except TypeError as error:
        raise ValueError(f"is no network of this benchmark ({error})") from None


class Speed(BaseModel):
    """One measured speed, as a file has it; further keys of the file are for people."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False)

    name: str
    what: Literal["train", "probe"]
    device: Literal["cpu", "cuda"]
    accelerator: str
    threads: int = Field(ge=1)
    precision: str
    recompute: bool
    batch: int = Field(ge=1)
    context: int = Field(ge=1)
    horizon: int = Field(ge=1)
    model: Annotated[ModelSpec, BeforeValidator(to_spec)]
    clips_per_s: float = Field(gt=0)
    peak_memory_mib: float | None = Field(ge=0)
    device_memory_mib: float | None = Field(None, gt=0)

    def mismatches(self, run: RunConfig) -> list[str]:
        """In what, apart from its size, it was measured otherwise than `run` trains, the weightiest first."""
        training = run.training
        theirs = {"precision": self.precision, "norm": self.model.norm, "recompute": self.recompute}
        ours = {"precision": training.precision, "norm": run.model.norm, "recompute": training.recompute}
        if self.what == "probe":  # always in fp64, without recomputation
            theirs, ours = ({"norm": side["norm"]} for side in (theirs, ours))
        if self.device == "cpu":
            theirs["threads"], ours["threads"] = self.threads, training.threads
        return [f"{key} {theirs[key]} for {ours[key]}" for key in theirs if theirs[key] != ours[key]]

    def about(self) -> str:
        """Device and sizes of the measurement, in a line."""
        model = self.model
        widths = " ".join(map(str, model.hidden_channels))
        threads = f", {self.threads} thread(s)" if self.device == "cpu" else ""
        return (
            f"{self.accelerator}{threads}, {self.precision}, channels {widths}, frames {model.frame_size}x"
            f"{model.frame_size}, kernel {model.kernel_size}, batch {self.batch}"
        )


def read_speed(path: Path) -> Speed:
    """What the file at `path` says.

    Raises:
        UserError: it is not readable, no JSON, or no file of `speed --what train` or `probe`.
    """
    again = f"give a file of `{PROGRAM} speed --json FILE`"
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as a measured speed ({error}); {again}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds {type(values).__name__}, not a measured speed; {again}")
    try:
        return Speed.model_validate(values | {"name": path.stem})
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, Speed)}; {again}") from None


def known_speeds() -> dict[str, Path]:
    """Name -> file of the committed speeds of training, by name."""
    return {path.stem: path for path in speed_files("train")}


def named_speed(name_or_file: str) -> Speed:
    """The speed of training called `name_or_file` in `SPEEDS`, or in that file.

    Raises:
        UserError: there is none, or it is damaged or of something else.
    """
    known = known_speeds()
    path = known.get(name_or_file.removesuffix(".json"), Path(name_or_file))
    if not path.is_file():
        raise UserError(f"--speed: {unknown('measured speed', name_or_file, known)}, or the path of a JSON file")
    speed = read_speed(path)
    if speed.what != "train":
        raise UserError(f"--speed: {path}: is of --what {speed.what}, not train (allowed: {', '.join(known)})")
    return speed


def speeds_of(accelerator: str, what: str) -> list[Speed]:
    """The committed speeds of a device, by name.

    Raises:
        UserError: a file there is damaged.
    """
    return [speed for speed in map(read_speed, speed_files(what)) if speed.accelerator == accelerator]


def speed_files(what: str) -> list[Path]:
    """The committed files of this `--what`, by name; one that does not say is left to `read_speed` to refuse."""
    paths = sorted(SPEEDS.glob("*.json"), key=lambda path: path.stem)
    return [path for path in paths if stated_subject(path) in (what, None)]


def stated_subject(path: Path) -> object:
    """The `what` that the file at `path` states, as in `speed --what`; None where it states none."""
    try:
        return json.loads(path.read_bytes())["what"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None

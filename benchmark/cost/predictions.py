"""What a GPU was predicted to show, beside what it has shown: the end of `make gpu-check`. Imports no torch."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmark.system.errors import UserError
from benchmark.system.files import read_json
from benchmark.system.strict_yaml import read_yaml

FILE = Path(__file__).parent / "gpu_predictions.yaml"


@dataclass(frozen=True)
class Prediction:
    """A number that `speed --json` writes, and where it was predicted to lie."""

    about: str
    file: str
    """Name of the file, without its ending."""
    key: str
    """Of its number, or of two: `a / b`."""
    unit: str
    low: float
    high: float
    why: str
    """The arithmetic."""
    scale: float = 1
    """Times the number of the file it is in `unit`."""
    goal_least: float | None = None
    goal_most: float | None = None

    @cached_property
    def goal(self) -> str:
        """In words; empty where there is none."""
        for word, limit in (("at least", self.goal_least), ("at most", self.goal_most)):
            if limit is not None:
                return f"{word} {shown(limit, self.unit)}"
        return ""

    @cached_property
    def predicted(self) -> str:
        """The range in words."""
        high = shown(self.high, self.unit)
        return high if self.low == self.high else f"{shown(self.low)} to {high}"

    def measured(self, folder: Path) -> float | None:
        """The number in `folder`; None where there is no file.

        Raises:
            UserError: the file has no such number.
        """
        path = folder / f"{self.file}.json"
        if not path.exists():
            return None
        found = read_json(path)
        numbers = []
        for key in self.key.split(" / "):
            if not isinstance(found.get(key), int | float):
                raise UserError(f"{path}: has no number {key}, which a prediction is about; measure it again")
            numbers.append(found[key])
        value = numbers[0] if len(numbers) == 1 else numbers[0] / numbers[1]
        return value * self.scale

    def verdict(self, value: float) -> str:
        """Whether a measured value is as predicted, and whether the goal is met."""
        said = "lower" if value < self.low else "higher" if value > self.high else "as predicted"
        if not self.goal:
            return said
        missed = value < self.goal_least if self.goal_least is not None else value > (self.goal_most or 0)
        return f"{said}; goal {'missed' if missed else 'met'}"


def shown(value: float, unit: str = "") -> str:
    """A number with its unit, to three digits, whole numbers in full."""
    text = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
    return f"{text} {unit}".rstrip()


def predictions() -> list[Prediction]:
    """All predictions, in the order in which `make gpu-check` measures."""
    rows: Any = read_yaml(FILE)
    return [Prediction(**row) for row in rows]


def table(folder: Path) -> list[str]:
    """The lines of predicted against measured, from the files in `folder`.

    Raises:
        UserError: a file lacks a number.
    """
    rows = [("", "predicted", "goal", "measured", "")]
    for one in predictions():
        value = one.measured(folder)
        measured, verdict = ("not measured", "") if value is None else (shown(value, one.unit), one.verdict(value))
        rows.append((one.about, one.predicted, one.goal, measured, verdict))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return lines + conditions(folder)


def conditions(folder: Path) -> list[str]:
    """On what it was measured, and what was not computed in fused stages."""
    files = sorted({one.file for one in predictions()})
    found = {name: read_json(path) for name in files if (path := folder / f"{name}.json").exists()}
    devices = sorted({f"{one['accelerator']}, torch {one['torch']}" for one in found.values()})
    said = [f"predicted for one NVIDIA H100; measured on {'; '.join(devices) or 'nothing yet'}"]
    reasons = {name: one.get("stages", "") for name, one in found.items()}
    return said + [f"{name}: {reason}" for name, reason in reasons.items() if reason.startswith("not ")]


def rows_of_page() -> list[str]:
    """The predictions as the rows of a table in Markdown, as docs/speed.md has them."""
    return [f"| {one.about} | {one.predicted} | {one.goal} | {one.why} |" for one in predictions()]

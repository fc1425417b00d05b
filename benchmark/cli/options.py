"""Options that several commands take, and the types of values. Imports no torch.

One flag means the same whatever the command; where its help says more for one, the command says it by `but`. An option
that one command alone takes stands above that command.
"""

import argparse
from pathlib import Path

from benchmark.cli.completion import protocols, seeds, variants
from benchmark.cli.registry import Option
from benchmark.config.lpips_backbones import BACKBONES
from benchmark.config.variants import BASELINES, NO_SEED

CODE_BASES = ("openstl", "predrnn-pytorch")


def whole(text: str) -> int:
    """A whole number above 0, as argparse takes it."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def widths(text: str) -> tuple[int, ...]:
    """Whole numbers separated by commas, as argparse takes them."""
    return tuple(whole(part) for part in text.split(","))


def one_or_several(text: str) -> int | tuple[int, ...]:
    """A whole number, or several separated by commas, as argparse takes them; `train` alone takes several."""
    first, *others = (int(part) for part in text.split(","))
    return (first, *others) if others else first


def number(flag: str, help: str) -> Option:
    """An option that takes a whole number above 0."""
    return Option(flag, help, settings={"metavar": "N", "type": whole})


def file(flag: str, help: str, metavar: str = "FILE") -> Option:
    """An option that takes a path."""
    return Option(flag, help, settings={"metavar": metavar, "type": Path})


def switch(flag: str, help: str) -> Option:
    """An option without a value."""
    return Option(flag, help, settings={"action": "store_true"})


PROTOCOL = Option(
    "--protocol",
    "protocol: a name in workflows/protocols, or a YAML file",
    required=True,
    complete=protocols,
    settings={"metavar": "NAME|FILE"},
)
VARIANT = Option("--variant", "variant of the protocol", required=True, complete=variants, settings={"metavar": "ID"})
VARIANT_OR_BASELINE = VARIANT.but(f"variant or predictions of the protocol, or a baseline: {', '.join(BASELINES)}")
SEED = Option(
    "--seed", "seed of the run", required=True, complete=seeds, settings={"metavar": "N", "type": one_or_several}
)
SEEDS = SEED.but("seed of the run, or several to train as one network: 1,2,3")
SEED_OR_BASELINE = SEED.but(f"seed of the run; {NO_SEED} for predictions and baselines")
RESULTS_DIR = Option(
    "--results-dir", "default: results", settings={"metavar": "DIR", "type": Path, "default": Path("results")}
)
DATA_DIR = Option(
    "--data-dir",
    "published files; default: data",
    settings={"metavar": "DIR", "type": Path, "default": Path("data")},
)
DEVICE = Option("--device", "default: what the protocol says", settings={"choices": ("auto", "cpu", "cuda")})
DOWNLOAD = switch("--download", "fetch published files that data_dir lacks")
REUSE = switch("--reuse", "take runs of this very config from their published records")
WEIGHTS = file(
    "--weights", "weights in place of a run: model.safetensors of a run's folder, or what `import-weights` wrote"
)
INPUT = file("--input", "weights to read")
OUTPUT = file("--output", "weights to write")
CONTEXT = number("--context", "frames given; default: as the weights were trained")
HORIZON = number("--horizon", "frames predicted; default: what the shortest clip leaves")
LAYOUT = Option(
    "--layout", "axes of the array, such as TNHW or NTCHW; default: where only one fits", settings={"metavar": "AXES"}
)
WHITE = Option(
    "--white",
    "value of a white pixel; default: 255 in uint8 and 1 in floats; needed for masks of 0 and 1",
    settings={"choices": (1, 255), "type": int},
)
BATCH_SIZE = number("--batch-size", "clips rolled out together; default: 50")
LPIPS_BACKBONE = Option(
    "--lpips-backbone",
    "network under LPIPS; default: LPIPS is not measured",
    settings={"choices": tuple(BACKBONES)},
)

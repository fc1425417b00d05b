"""The packages depend one way: an import that points up, sideways or round in a circle fails here."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = (
    ("models", "benchmark.system"),
    ("benchmark.config",),
    ("benchmark.data",),
    ("benchmark.training",),
    ("benchmark.evaluation",),
    ("benchmark.reporting",),
    ("benchmark.exchange", "benchmark.cost"),
    ("benchmark.cli", "deep_in_time"),
    ("benchmark.__main__",),
    ("deep_in_time.__main__",),
)
"""The packages from the lowest up; those side by side do not know each other."""
MOST_MODULES = 14
"""Of a package, its subpackages apart: more have more than one subject."""


def modules() -> dict[str, Path]:
    """Dotted name of every module of the project -> its file."""
    found = [path for package in ("benchmark", "deep_in_time", "models") for path in (ROOT / package).rglob("*.py")]
    return {dotted(path): path for path in found}


def dotted(path: Path) -> str:
    """The name by which a module is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = modules()


def imported(path: Path) -> set[str]:
    """The modules of the project that a module imports, at its top or when something is called."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {
                inner if (inner := f"{node.module}.{name.name}") in MODULES else node.module for name in node.names
            }
    return found & MODULES.keys()


def floor_of(module: str) -> int | None:
    """The floor on which a module stands; None for the bare top of a package."""
    places = [place for place, packages in enumerate(FLOORS) if module in packages]
    places += [place for place, packages in enumerate(FLOORS) if module.startswith(tuple(f"{p}." for p in packages))]
    return places[0] if places else None


def package_of(module: str) -> str:
    """The package of `FLOORS` that holds a module."""
    return next(p for packages in FLOORS for p in packages if module == p or module.startswith(f"{p}."))


def wrong(module: str, other: str) -> bool:
    """Whether `module` may not import `other`: it stands higher, or beside it in another package."""
    here, there = floor_of(module), floor_of(other)
    assert None not in (here, there), (module, other)
    return there > here or (there == here and package_of(module) != package_of(other))


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"benchmark"}))
def test_imports_point_down(module):
    assert [other for other in sorted(imported(MODULES[module])) if wrong(module, other)] == []


def test_no_imports_go_round_in_a_circle():
    try:
        TopologicalSorter({module: imported(path) for module, path in MODULES.items()}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize(
    ("module", "other", "expected"),
    [
        ("benchmark.data.clips", "benchmark.training.train", True),
        ("benchmark.cost.plan", "benchmark.exchange.score", True),
        ("benchmark.system.files", "models.spec", True),
        ("benchmark.config.sections", "benchmark.system.errors", False),
        ("benchmark.data.videos.windows", "benchmark.data.tensors", False),
    ],
)
def test_what_points_down(module, other, expected):
    assert wrong(module, other) is expected


def test_a_package_has_one_subject():
    counts = {folder: len([*folder.glob("*.py")]) - 1 for folder in {path.parent for path in MODULES.values()}}
    assert {str(folder.relative_to(ROOT)): n for folder, n in counts.items() if n > MOST_MODULES} == {}


def test_the_map_names_every_package():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    packages = {path.parent for path in MODULES.values()} - {ROOT / "benchmark"}
    names = sorted(f"`{folder.relative_to(ROOT)}/`" for folder in packages)
    assert [name for name in names if name not in text] == []

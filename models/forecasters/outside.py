"""Classes outside the benchmark, `package.module:Class`: where they lie, what they are made of. Imports no torch."""

import ast
import importlib.util
import re
import sys
import sysconfig
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

NAME = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
"""`package.module:Class`."""
INSTALLED = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
"""Folders in which files beside a module are not of the same author."""


class ForecasterError(ValueError):
    """A mistake in a class outside the benchmark: the message says which, what and where."""


def is_outside(name: str) -> bool:
    """Whether `name` is of a class outside the benchmark."""
    return ":" in name


def find_classes_in(folder: Path) -> None:
    """Let classes of a protocol be found in its folder, behind all other places where Python looks."""
    place = str(folder.resolve())
    if place not in sys.path:
        sys.path.append(place)


def module_file(module: str) -> Path:
    """The file of a module, found without importing it, where Python or the current folder has it.

    Raises:
        ForecasterError: there is none.
    """
    found = _found(module)
    if found is None:
        raise ForecasterError(
            f"no module {module} beside the protocol, in this folder or in this Python; name it as Python imports it"
        )
    return found


def _found(module: str) -> Path | None:
    """The file of a dotted module; None where there is none in Python's own language."""
    first, *rest = module.split(".")
    spec = importlib.util.find_spec(first) if first != "__main__" else None
    spec = spec or PathFinder.find_spec(first, [str(Path.cwd())])
    if spec is None:
        return None
    file, folders = spec.origin, [Path(place) for place in spec.submodule_search_locations or ()]
    for part in rest:
        whole = [folder / part / "__init__.py" for folder in folders if (folder / part / "__init__.py").is_file()]
        single = [folder / f"{part}.py" for folder in folders if (folder / f"{part}.py").is_file()]
        file = next(map(str, whole or single), None)
        folders = [path.parent for path in whole[:1]] or [folder / part for folder in folders if not single]
    return Path(file).resolve() if file and file.endswith(".py") and Path(file).is_file() else None


def source_files(name: str) -> list[Path]:
    """The file of a class outside the benchmark, and those files of its own that it imports, at any depth.

    Files are its own in the folder from which it is imported, or in its package where it is installed.

    Raises:
        ForecasterError: there is no such module.
    """
    module = name.partition(":")[0]
    first = module_file(module)
    found, todo = {first}, [(module, first)]
    while todo:
        inside, path = todo.pop()
        for imported in _imported(inside, path):
            file = _found(imported)
            if file and file not in found and _is_own(file, imported, first, module):
                found.add(file)
                todo.append((imported, file))
    return sorted(found)


def _is_own(file: Path, imported: str, first: Path, module: str) -> bool:
    """Whether `imported` is of those who wrote `module`."""
    if imported.partition(".")[0] == module.partition(".")[0]:
        return True
    root = first.parents[module.count(".") + (first.name == "__init__.py")]
    return root not in INSTALLED and root in file.parents and not any(place in file.parents for place in INSTALLED)


def _imported(module: str, path: Path) -> set[str]:
    """Dotted names that the source of `module` imports: modules, and what may be one."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError) as error:
        raise ForecasterError(f"{path}: cannot be read as Python ({error})") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {base} | {f"{base}.{one.name}" for one in node.names}
    return {name for name in found if name}


@cache
def load_class(name: str) -> type:
    """Import the class called `name`: this runs its code.

    Raises:
        ForecasterError: there is no such module, or no such class in it.
    """
    if not re.match(NAME, name):
        raise ForecasterError(f"{name!r} is no class; it is written package.module:Class")
    module, _, class_name = name.partition(":")
    file = module_file(module)
    find_classes_in(Path.cwd())
    try:
        found = getattr(importlib.import_module(module), class_name, None)
    except ImportError as error:
        raise ForecasterError(f"{name}: {file.name} cannot be imported ({error})") from None
    if not isinstance(found, type):
        raise ForecasterError(f"{name}: {file.name} has no class {class_name}")
    return found

"""What pip builds: in a checkout the packages stand side by side, in a wheel all of them stand below `deep_in_time`.

`models` and `benchmark` are names that people have for packages of their own. A wheel therefore holds `deep_in_time`
alone, with `deep_in_time/models/`, `deep_in_time/benchmark/`, and the Snakefile with its rules and protocols, and every
import of ours is written anew: `from models.spec import ModelSpec` as `from deep_in_time.models.spec import ModelSpec`.
An editable installation and a source archive are those of setuptools, which does all the rest, too.
"""

import ast
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (  # noqa: F401  # hooks that pip looks for here
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
)

from benchmark.system.installation import WORKFLOW

HOME = "deep_in_time"
MOVED = ("benchmark", "models")
"""Packages that a wheel has below `HOME`."""
ABOUT = ("pyproject.toml", "LICENSE")
"""What setuptools reads."""
_NAMES = "|".join(MOVED)
_OURS = re.compile(rf"({_NAMES})(\.\w+)*")
_REFERENCE = re.compile(rf"({_NAMES})(\.\w+)+(:\w+)?")
"""A module, a name in one, or `module:name` as registries have it: a string that is nothing else."""


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """PEP 517: put a wheel into `wheel_directory` and return its name."""
    target = os.path.abspath(wheel_directory)
    with staged():
        return build_meta.build_wheel(target, config_settings)


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: dict[str, Any] | None = None) -> str:
    """PEP 517: put what the wheel will say of itself into `metadata_directory` and return the name of the folder."""
    target = os.path.abspath(metadata_directory)
    with staged():
        return build_meta.prepare_metadata_for_build_wheel(target, config_settings)


@contextlib.contextmanager
def staged() -> Iterator[None]:
    """The working directory is a copy of this checkout in the form of a wheel, for the body."""
    checkout = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        stage(checkout, Path(folder))
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(checkout)


def stage(checkout: Path, folder: Path) -> None:
    """Write the checkout into `folder` in the form of a wheel."""
    for name in ABOUT:
        shutil.copy(checkout / name, folder)
    home = folder / HOME
    shutil.copytree(checkout / HOME, home, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*MOVED, *WORKFLOW):
        if (checkout / name).is_dir():
            shutil.copytree(checkout / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(checkout / name, home / name)
    for path in home.rglob("*"):
        if path.suffix == ".py":
            path.write_bytes(moved(path.read_bytes(), path))
        elif path.suffix == ".smk" or path.name == "Snakefile":
            path.write_text(moved_rules(path.read_text(encoding="utf-8")), encoding="utf-8")


def moved(source: bytes, where: object = "source") -> bytes:
    """A module as a wheel has it: what it imports of `MOVED`, and names as strings, begin with `deep_in_time.`.

    Raises:
        ValueError: `import models.spec` binds `models`, which no wheel has; `from models import spec` does not.
    """
    lines = source.splitlines(keepends=True)
    for line, column in sorted(places(ast.parse(source), where), reverse=True):
        text = lines[line - 1]
        lines[line - 1] = text[:column] + f"{HOME}.".encode() + text[column:]
    return b"".join(lines)


def places(tree: ast.AST, where: object) -> Iterator[tuple[int, int]]:
    """Line, and column in bytes, of every name to be changed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and _OURS.fullmatch(node.module or ""):
            yield node.lineno, node.col_offset + len("from ")
        elif isinstance(node, ast.Import):
            for one in node.names:
                if _OURS.fullmatch(one.name) and not one.asname:
                    raise ValueError(f"{where}:{node.lineno}: write `from` in place of `import {one.name}`")
                if _OURS.fullmatch(one.name):
                    yield one.lineno, one.col_offset
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _REFERENCE.fullmatch(node.value):
            yield node.lineno, node.col_offset + 1  # behind its quotation mark


def moved_rules(rules: str) -> str:
    """A file of Snakemake as a wheel has it."""
    rules = re.sub(rf"^from (?=({_NAMES})\b)", f"from {HOME}.", rules, flags=re.MULTILINE)
    return rules.replace("python -m benchmark", f"python -m {HOME}")
